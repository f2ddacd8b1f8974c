"""GSSAPI: a peer is who its ticket says, and libzmq with Kerberos is understood (RFC 38; tokens RFC 2743, 4121).

    C: INITIATE = 08 "INITIATE" size(4) token     the client's context begins
    S: INITIATE = 08 "INITIATE" size(4) token     the server's answers; Kerberos needs one of each
    C: an empty command                           the client's context is complete and has nothing to add
    S: READY    = 05 "READY" metadata             the owner has been asked about the client's name
    C: READY    = 05 "READY" metadata
       MESSAGE  = 07 "MESSAGE" size(4) token      token = wrapped, with confidentiality: flags(1) payload

RFC 38 wants a HELLO and names padded with spaces. Nobody ever spoke so: the dialogue here is that of libzmq, the
only other speaker. Each READY travels in a MESSAGE (its flags are zero) unless the mechanism is ``plaintext``, as
libzmq's ``ZMQ_GSSAPI_PLAINTEXT`` has it: then READY and all traffic are in clear, as in NULL. There the ticket
proves who came, and nothing binds to it what follows: only for loopback and ipc.

The tokens are another's affair: a `SecurityContext`, made by the owner for each connection, reads and writes them.
Nothing is known here of Kerberos, files, key distribution centres, or of who is allowed what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Final, Protocol

from zapd.zmtp.commands import encode_ready, expect
from zapd.zmtp.credentials import GssapiCredentials
from zapd.zmtp.handshake import RECEIVE, Ask, Handshake, PeerError, Send, Session
from zapd.zmtp.limits import Limits

GSSAPI_LIMITS: Final = Limits(handshake_command=65536)
"""The engine's bounds with room for tokens: a ticket of Active Directory carries its owner's groups and may have
48,000 octets. What all strangers of a listener may send together is the network's to bound."""
MAX_TOKENS: Final = 4
"""Tokens that one side may send before the contexts are complete. Kerberos sends one."""

_INITIATE: Final = b"\x08INITIATE"
_MESSAGE: Final = b"\x07MESSAGE"
_LENGTH: Final = 4
_COMMAND: Final = 2
_LAST_FLAGS: Final = 2
"""Inner flags: nothing, MORE, COMMAND, as in CURVE."""
_SUBSCRIPTIONS: Final = {4: b"\x09SUBSCRIBE", 8: b"\x06CANCEL"}
"""More inner flags, of libzmq after 4.3.5: the payload is a topic. Earlier ones lose what it was."""


class SecurityContext(Protocol):
    """One side of one GSS-API security context (RFC 2743, section 1.1.3), for one connection.

    Nothing here may wait for others, an initiator's first `step` perhaps excepted: whoever cannot afford that does
    it beforehand. What is wrong with a peer's token is `PeerError`, whose text is fit for logs.
    """

    def step(self, token: bytes) -> bytes:
        """Take the peer's token (empty: begin, as the initiator); what to answer, empty for nothing."""
        ...

    @property
    def complete(self) -> bool:
        """Both sides have proved themselves, with all that the owner wants of a context."""
        ...

    @property
    def peer_name(self) -> bytes:
        """The peer's name as the mechanism displays it, ``alice@EXAMPLE.ORG``; once complete."""
        ...

    def wrap(self, content: bytes) -> bytes:
        """A token that shows nothing of ``content`` and that only the peer can read."""
        ...

    def unwrap(self, token: bytes) -> bytes:
        """The content of the peer's token. `PeerError` unless it is confidential, whole, and came never before."""
        ...


Contexts = Callable[[], SecurityContext]
"""Makes the context of one connection."""


@dataclass(frozen=True, slots=True)
class GssapiServer:
    """The side that accepts tokens; ``accept`` makes a context for each connection."""

    name: ClassVar[str] = "GSSAPI"
    as_server: ClassVar[bool] = True

    accept: Contexts
    plaintext: bool = False

    def handshake(self, metadata: bytes) -> Handshake:
        """The dialogue with one client."""
        context = self.accept()
        for _ in range(MAX_TOKENS):
            token = context.step(_token((yield RECEIVE), _INITIATE))
            if not token:
                # libzmq would send an empty command and wait; its clients always ask for our side's proof.
                raise PeerError("the client's token asks for no answer: it does not want to know who we are")
            yield Send(_with_token(_INITIATE, token))
            if context.complete:
                break
        else:
            raise PeerError(f"no context after {MAX_TOKENS} tokens")
        if (yield RECEIVE) != b"":
            raise PeerError("expected an empty command")
        yield Ask(GssapiCredentials(context.peer_name))
        cipher = None if self.plaintext else GssapiCipher(context)
        yield Send(_ready(metadata, cipher))
        return Session(_metadata((yield RECEIVE), cipher), cipher)


@dataclass(frozen=True, slots=True)
class GssapiClient:
    """The side that initiates; ``initiate`` makes a context for each connection, begun or not."""

    name: ClassVar[str] = "GSSAPI"
    as_server: ClassVar[bool] = False

    initiate: Contexts
    plaintext: bool = False

    def handshake(self, metadata: bytes) -> Handshake:
        """The dialogue with the server."""
        context = self.initiate()
        token = context.step(b"")
        for _ in range(MAX_TOKENS):
            yield Send(_with_token(_INITIATE, token))
            token = context.step(_token((yield RECEIVE), _INITIATE))
            if not token:
                break
        else:
            raise PeerError(f"no context after {MAX_TOKENS} tokens")
        if not context.complete:
            raise PeerError("the server's token does not complete the context, and asks for no answer")
        yield Send(b"")
        cipher = None if self.plaintext else GssapiCipher(context)
        theirs = _metadata((yield RECEIVE), cipher)
        yield Send(_ready(metadata, cipher))
        return Session(theirs, cipher)


class GssapiCipher:
    """Wraps and unwraps MESSAGE on one connection. The context counts tokens; nothing is counted here."""

    __slots__ = ("_context",)

    def __init__(self, context: SecurityContext) -> None:
        self._context = context

    def seal(self, flags: int, payload: bytes) -> bytes:
        """The body of a MESSAGE. ``flags``: 0, 1 = MORE, 2 = COMMAND."""
        return _with_token(_MESSAGE, self._context.wrap(bytes((flags,)) + payload))

    def open(self, body: bytes) -> tuple[int, bytes]:
        """(flags, payload) of a MESSAGE; `PeerError` unless it is whole and its token the peer's next."""
        content = self._context.unwrap(_token(body, _MESSAGE))
        if not content:
            raise PeerError("MESSAGE holds not even flags")
        flags, payload = content[0], content[1:]
        if flags in _SUBSCRIPTIONS:
            return _COMMAND, _SUBSCRIPTIONS[flags] + payload
        if flags > _LAST_FLAGS:
            raise PeerError("MESSAGE has unknown flags")
        return flags, payload


def _with_token(name: bytes, token: bytes) -> bytes:
    return name + len(token).to_bytes(_LENGTH, "big") + token


def _token(body: bytes | None, name: bytes) -> bytes:
    """The token in the command that must come now, which holds it and nothing else."""
    what = name[1:].decode()
    if body is None or not body.startswith(name):
        raise PeerError(f"expected {what}")
    start = len(name) + _LENGTH
    token = body[start:]
    # An empty one is no mechanism's token, and would make an initiator begin again.
    if not token or int.from_bytes(body[len(name) : start], "big") != len(token):
        raise PeerError(f"malformed {what}")
    return token


def _ready(metadata: bytes, cipher: GssapiCipher | None) -> bytes:
    ready = encode_ready(metadata)
    return ready if cipher is None else cipher.seal(0, ready)


def _metadata(body: bytes | None, cipher: GssapiCipher | None) -> bytes:
    """What a READY says, wrapped or not as was agreed beforehand."""
    ready = body or b""
    if cipher is not None:
        flags, ready = cipher.open(ready)
        if flags not in (0, _COMMAND):  # libzmq says 0 and looks at neither
            raise PeerError("READY has unknown flags")
    return expect(ready, b"READY")
