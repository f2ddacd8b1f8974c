"""PLAIN: a user name and a password in clear (RFC 24).

    C: HELLO    = 05 "HELLO" user-length(1) user password-length(1) password
    S: WELCOME  = 07 "WELCOME"
    C: INITIATE = 08 "INITIATE" metadata
    S: READY    = 05 "READY" metadata

Knows nothing of who is right: the server's owner is asked after HELLO, before anything is answered. Only for
loopback and ipc; whoever reads the wire has the password.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from zapd.errors import InvalidInput
from zapd.zmtp.commands import command, encode_ready, expect
from zapd.zmtp.credentials import PlainCredentials
from zapd.zmtp.handshake import RECEIVE, Ask, Handshake, PeerError, Send, Session

MAX_CREDENTIAL = 255


@dataclass(frozen=True, slots=True)
class PlainServer:
    """The side that is shown a password."""

    name: ClassVar[str] = "PLAIN"
    as_server: ClassVar[bool] = True

    def handshake(self, metadata: bytes) -> Handshake:
        yield Ask(parse_hello((yield RECEIVE) or b""))
        yield Send(command(b"WELCOME"))
        initiate = yield RECEIVE
        theirs = expect(initiate or b"", b"INITIATE")
        yield Send(encode_ready(metadata))
        return Session(theirs)


@dataclass(frozen=True, slots=True)
class PlainClient:
    """The side that shows one: raw octets, 0 to 255 each; `InvalidInput` beyond."""

    name: ClassVar[str] = "PLAIN"
    as_server: ClassVar[bool] = False

    username: bytes
    password: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if max(len(self.username), len(self.password)) > MAX_CREDENTIAL:
            raise InvalidInput(f"a user name and a password have at most {MAX_CREDENTIAL} octets each")

    def handshake(self, metadata: bytes) -> Handshake:
        yield Send(encode_hello(self.username, self.password))
        welcome = yield RECEIVE
        if expect(welcome or b"", b"WELCOME"):
            raise PeerError("malformed WELCOME")
        yield Send(command(b"INITIATE", metadata))
        ready = yield RECEIVE
        return Session(expect(ready or b"", b"READY"))


def encode_hello(username: bytes, password: bytes) -> bytes:
    """HELLO's body."""
    return command(b"HELLO", _counted(username) + _counted(password))


def parse_hello(body: bytes) -> PlainCredentials:
    """What a HELLO shows; `PeerError` unless both fields are there and nothing follows."""
    data = expect(body, b"HELLO")
    username, rest = _uncounted(data)
    password, rest = _uncounted(rest)
    if rest:
        raise PeerError("malformed HELLO")
    return PlainCredentials(username, password)


def _counted(octets: bytes) -> bytes:
    return bytes((len(octets),)) + octets


def _uncounted(data: bytes) -> tuple[bytes, bytes]:
    end = 1 + data[0] if data else 1
    if end > len(data):
        raise PeerError("malformed HELLO")
    return data[1:end], data[end:]
