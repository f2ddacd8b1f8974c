"""How a security mechanism is written: one generator for each side of each mechanism.

A handshake is a generator that reads as the RFC's dialogue. It yields steps and is resumed with their
results; it returns a `Session`. It owns no connection, no clock and no buffer, so each mechanism runs over
any transport that can carry command bodies (RFC 26 asks for that).

    ======================  ==============================================================
    it yields               and is resumed with
    ======================  ==============================================================
    ``Send(body)``          None, once the command body has been queued
    ``RECEIVE``             the body of the peer's next command (never ERROR: the driver takes that)
    ``Ask(credentials)``    None, once the owner accepted; a rejection closes the generator
    ======================  ==============================================================

A *command body* is ``name-length name data`` without the frame header (RFC 23, "command"). What the peer does
wrong is raised as `PeerError`; the driver (`zapd.zmtp.connection.Connection`) turns it into an event and
closes. No other exception may leave a handshake, whatever the peer sends.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast


class PeerError(Exception):
    """The peer broke the protocol. Stays inside the engine; its text is loggable and holds no secret."""


class CredentialsLike(Protocol):
    """What `Ask` carries: see `zapd.zmtp.credentials`."""

    @property
    def frames(self) -> tuple[bytes, ...]: ...


@dataclass(frozen=True, slots=True)
class Send:
    """Send one command to the peer."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Receive:
    """Wait for the peer's next command."""


RECEIVE: Final = Receive()


@dataclass(frozen=True, slots=True)
class Ask:
    """Wait for the owner's verdict on these credentials."""

    credentials: CredentialsLike


class Cipher(Protocol):
    """Seals and opens what follows the handshake, one frame at a time (CURVE's MESSAGE, RFC 26)."""

    def seal(self, flags: int, payload: bytes) -> bytes:
        """The body of the frame to send. ``flags``: 1 = MORE, 2 = COMMAND."""
        ...

    def open(self, body: bytes) -> tuple[int, bytes]:
        """(flags, payload) of a frame received; raises `PeerError`."""
        ...


class BatchCipher(Cipher, Protocol):
    """A cipher that is quicker with many frames at once may have this beside `Cipher`. A frame's *content* is an
    octet of flags and the payload behind it."""

    def seal_all(self, contents: Sequence[bytes]) -> list[bytes]:
        """The bodies of the frames to send, in order."""
        ...

    def open_all(self, bodies: Sequence[bytes], contents: list[bytes]) -> None:
        """Append the contents of frames received, in order. Raises `PeerError` at the first that does not open;
        those before it have been appended."""
        ...


class OneByOne:
    """Any `Cipher` as a `BatchCipher`."""

    __slots__ = ("open", "seal")

    def __init__(self, cipher: Cipher) -> None:
        self.seal, self.open = cipher.seal, cipher.open

    def seal_all(self, contents: Sequence[bytes]) -> list[bytes]:
        return [self.seal(content[0], content[1:]) for content in contents]

    def open_all(self, bodies: Sequence[bytes], contents: list[bytes]) -> None:
        for body in bodies:
            flags, payload = self.open(body)
            contents.append(bytes((flags,)) + payload)


def in_batches(cipher: Cipher) -> BatchCipher:
    """The cipher itself where it can, else one frame after another."""
    # Asked by name: a protocol's own check costs a tenth of a handshake.
    return cast(BatchCipher, cipher) if hasattr(cipher, "open_all") else OneByOne(cipher)


@dataclass(frozen=True, slots=True)
class Session:
    """What a completed handshake leaves behind."""

    metadata: bytes
    """The peer's properties as they came, still encoded."""
    cipher: Cipher | None = None
    """None: traffic is in clear frames."""


Handshake = Generator[Send | Receive | Ask, "bytes | None", Session]


class Mechanism(Protocol):
    """One side of one mechanism, configured, ready for one connection or many.

    ``name`` is what the greeting says. ``handshake`` starts a dialogue for one connection with our own
    encoded metadata.
    """

    @property
    def name(self) -> str: ...

    @property
    def as_server(self) -> bool: ...

    def handshake(self, metadata: bytes) -> Handshake: ...


Clock = Callable[[], float]
"""Monotonic seconds, passed in: the engine knows no time of its own."""

Random = Callable[[int], bytes]
"""``n`` octets fit for keys and nonces, passed in."""
