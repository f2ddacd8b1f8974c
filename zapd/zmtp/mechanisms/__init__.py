"""Security mechanisms: one handshake each, found by name, usable with or without a connection.

The registry knows names and factories. A third party adds its own mechanism with `register` and hands the
object that its factory makes to `zapd.zmtp.connection.Connection`, exactly as the built-in ones are used;
nothing in the engine changes. `run` is the same dialogue without ZMTP, over anything that carries bodies
(RFC 26 asks that CurveZMQ be usable so).
"""

from __future__ import annotations

import string
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from zapd.errors import Conflict, InvalidInput, NotFound
from zapd.zmtp.commands import decode_error, encode_error
from zapd.zmtp.handshake import Ask, CredentialsLike, Handshake, Mechanism, PeerError, Send, Session
from zapd.zmtp.mechanisms.curve import CurveClient, CurveServer
from zapd.zmtp.mechanisms.gssapi import GssapiClient, GssapiServer
from zapd.zmtp.mechanisms.null import NullClient, NullServer
from zapd.zmtp.mechanisms.plain import PlainClient, PlainServer

MAX_NAME = 20
_NAME_CHARACTERS: Final = frozenset(string.ascii_uppercase + string.digits + "-_.+")
_GRANTED = 200
_TRY_AGAIN = 300

Factory = Callable[..., Mechanism]
"""Makes one side of a mechanism from arguments of that mechanism's own: keys, a password, nothing."""


@dataclass(frozen=True, slots=True)
class Registration:
    """A mechanism by name: what makes each of its sides."""

    name: str
    server: Factory
    client: Factory


_REGISTRY: dict[str, Registration] = {}


def register(name: str, *, server: Factory, client: Factory) -> None:
    """Add a mechanism under the name that its greeting says.

    Raises `InvalidInput` unless the name has 1 to 20 of ``A-Z 0-9 - _ . +`` (RFC 23, "mechanism"), `Conflict`
    when it is taken: nothing may stand in for a mechanism that is there.
    """
    if not 1 <= len(name) <= MAX_NAME or not _NAME_CHARACTERS.issuperset(name):
        raise InvalidInput(f"a mechanism's name has 1 to {MAX_NAME} of A-Z 0-9 - _ . +")
    if name in _REGISTRY:
        raise Conflict(f"mechanism {name} is registered already")
    _REGISTRY[name] = Registration(name, server, client)


def lookup(name: str) -> Registration:
    """The mechanism of that name; `NotFound` when there is none."""
    try:
        return _REGISTRY[name]
    except KeyError:
        raise NotFound(f"no mechanism {name!r}; there are {', '.join(names())}") from None


def names() -> list[str]:
    """Every registered name, sorted."""
    return sorted(_REGISTRY)


def run(
    handshake: Handshake,
    *,
    send: Callable[[bytes], None],
    receive: Callable[[], bytes],
    verdict: Callable[[CredentialsLike], int] | None = None,
) -> Session:
    """Hold a dialogue over a transport of the caller's own, blocking, to its end.

    ``send`` and ``receive`` carry one command body each; ``verdict`` answers credentials with 200, 300, 400
    or 500 (RFC 27) and is needed where somebody asks. Raises `PeerError` when the peer breaks the protocol,
    refuses us by ERROR, or is refused; 400 and 500 go out as ERROR first.
    """
    came: bytes | None = None
    while True:
        try:
            step = handshake.send(came)
        except StopIteration as end:
            session: Session = end.value
            return session
        came = None
        if isinstance(step, Send):
            send(step.body)
        elif isinstance(step, Ask):
            status = verdict(step.credentials) if verdict is not None else _TRY_AGAIN
            if status != _GRANTED:
                handshake.close()
                if status != _TRY_AGAIN:
                    send(encode_error(b"%d" % status))
                raise PeerError(f"refused with {status}")
        else:
            came = receive()
            error = decode_error(came, misspelt=True)
            if error is not None:
                handshake.close()
                raise PeerError(f"the peer refused: {error.text}")


register("CURVE", server=CurveServer, client=CurveClient)
register("GSSAPI", server=GssapiServer, client=GssapiClient)
register("NULL", server=NullServer, client=NullClient)
register("PLAIN", server=PlainServer, client=PlainClient)
