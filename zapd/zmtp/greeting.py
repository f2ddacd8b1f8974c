"""The 64 octets that open a connection (RFC 23 and 37, "greeting").

Knows the layout and which octets are impossible; does not know what mechanism its owner wants, nor that
anything follows. Older protocols are recognised only to be turned away: there is no ZMTP 1.0 or 2.0 parser
in this house, and so none to downgrade to.

    ======  ====  ===========================================================
    offset  size  field
    ======  ====  ===========================================================
    0       1     signature, FF
    1       8     padding; libzmq puts its routing id's length here
    9       1     signature, 7F; libzmq tests bit 0 alone, and so do we
    10      2     version, major and minor
    12      20    mechanism, zero padded
    32      1     as-server; libzmq always says 0 and never looks
    33      31    filler
    ======  ====  ===========================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from zapd.zmtp.handshake import PeerError

GREETING_SIZE = 64
VERSION = (3, 1)
"""What we announce and speak."""

_SIGNATURE = b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f"
_MECHANISM_SIZE = 20
_OLDEST_MAJOR = 3


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a peer says of itself before anything is agreed."""

    major: int
    minor: int
    mechanism: bytes
    """All 20 octets as they came: they are compared whole, trailing junk included, as libzmq does."""
    as_server: bool

    @property
    def mechanism_name(self) -> str:
        """The mechanism for people, harmless to print."""
        return printable(self.mechanism.rstrip(b"\0"))

    @property
    def speaks_commands(self) -> bool:
        """SUBSCRIBE and CANCEL as commands: since 3.1. A later version counts as ours (RFC 37)."""
        return (self.major, self.minor) >= (3, 1)


@lru_cache(64)
def mechanism_field(name: str) -> bytes:
    """A mechanism's name as the greeting carries it: 20 octets, zero padded."""
    return name.encode("ascii").ljust(_MECHANISM_SIZE, b"\0")


@lru_cache(64)
def encode_greeting(mechanism: str, *, as_server: bool) -> bytes:
    """All 64 octets. libzmq holds most of its own back until it has read 11 of ours, so send them at once."""
    head = _SIGNATURE + bytes(VERSION) + mechanism_field(mechanism) + bytes((as_server,))
    return head.ljust(GREETING_SIZE, b"\0")


def parse_greeting(data: bytes | bytearray) -> Greeting | None:
    """Read the first octets of a connection; None while they are too few to tell.

    Raises `PeerError` at the first octet that no ZMTP 3 greeting can have. A major version of 3 or more is
    accepted (RFC 23: "at or above ours"). ``data`` may hold less or more than a greeting.
    """
    size = len(data)
    if size > 0 and data[0] != 0xFF:
        raise PeerError("not ZMTP 3: a peer of ZMTP 1.0, or of another protocol")
    if size > 9 and not data[9] & 1:
        raise PeerError("not ZMTP 3: a peer of ZMTP 1.0")
    if size > 10 and data[10] < _OLDEST_MAJOR:
        raise PeerError("not ZMTP 3: a peer of ZMTP 2.0")
    if size < GREETING_SIZE:
        return None
    return _whole_greeting(bytes(data[:GREETING_SIZE]))


@lru_cache(256)
def _whole_greeting(data: bytes) -> Greeting:
    """There are few kinds of peers, and each greets with the same octets every time."""
    return Greeting(data[10], data[11], data[12:32], data[32] != 0)


def printable(octets: bytes) -> str:
    """A peer's octets for a log line: ASCII that prints, other octets as ``?``, 64 at most."""
    return "".join(chr(octet) if 0x20 <= octet < 0x7F else "?" for octet in octets[:64])
