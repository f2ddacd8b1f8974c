"""Commands: READY, ERROR, SUBSCRIBE, CANCEL, PING and PONG (RFC 23 and 37, "command").

    command = name-length(1) name data

Knows their bodies, and nothing of frames, states or mechanisms.
"""

from __future__ import annotations

from dataclasses import dataclass

from zapd.errors import LocalProtocolError
from zapd.zmtp.greeting import printable
from zapd.zmtp.handshake import PeerError

MAX_CONTEXT = 16
"""Octets of context in a PING (RFC 37, "ping-context")."""
MAX_TTL = 65.5
"""Seconds. libzmq multiplies the tenths by 100 in 16 bits: 656 of them would wrap to 64 milliseconds."""

_MISSPELT_ERROR = b"\x5eRROR"
"""What libzmq 4.3 sends as PLAIN's ERROR: the name-length octet became ``^``."""


@dataclass(frozen=True, slots=True)
class ErrorCommand:
    """A peer's refusal. It is fatal whatever it says."""

    text: str
    """Harmless to print."""
    status: int | None
    """The ZAP status, when the reason is three digits."""


def command(name: bytes, data: bytes = b"") -> bytes:
    """A command body."""
    return bytes((len(name),)) + name + data


def split_command(body: bytes) -> tuple[bytes, bytes]:
    """(name, data) of a command body; `PeerError` unless it has a name of 1 to 255 letters."""
    data_at = 1 + body[0] if body else 0
    name = body[1:data_at]
    if data_at > len(body) or not name.isalpha():
        raise PeerError("malformed command")
    return name, body[data_at:]


def expect(body: bytes, name: bytes) -> bytes:
    """The data of the command that must come now; `PeerError` when it is another."""
    came, data = split_command(body)
    if came != name:
        raise PeerError(f"expected {name.decode()}, got {printable(came)}")
    return data


def encode_ready(metadata: bytes) -> bytes:
    return command(b"READY", metadata)


def encode_error(reason: bytes) -> bytes:
    """ERROR, spelt as RFC 23, 24 and 26 say. A libzmq PLAIN client knows only its own misspelling; it gives up
    for good either way and merely reports the right one as a protocol error, so the RFC wins."""
    return command(b"ERROR", bytes((len(reason),)) + reason)


def decode_error(body: bytes, *, misspelt: bool = False) -> ErrorCommand | None:
    """The ERROR that ``body`` is, or None. ``misspelt`` also knows libzmq's PLAIN spelling.

    Lenient about the reason, since it changes nothing: libzmq 4.1 sends a wrong length octet, go-zmq4 none.
    """
    if body[:6] == b"\x05ERROR":
        rest = body[6:]
    elif misspelt and body[:5] == _MISSPELT_ERROR:
        rest = body[5:]
    else:
        return None
    reason = rest[1:] if rest and (rest[0] == len(rest) - 1 or rest[0] < 0x20) else rest
    status = int(reason) if len(reason) == 3 and reason.isdigit() else None
    return ErrorCommand(printable(reason), status)


def encode_ping(ttl: float, context: bytes) -> bytes:
    """PING; ``ttl`` in seconds from 0 (never) to 65.5, sent in tenths. `LocalProtocolError` beyond."""
    if not 0 <= ttl <= MAX_TTL:
        raise LocalProtocolError(f"a heartbeat's ttl lies between 0 and {MAX_TTL} seconds")
    if len(context) > MAX_CONTEXT:
        raise LocalProtocolError(f"a heartbeat's context has at most {MAX_CONTEXT} octets")
    return command(b"PING", round(ttl * 10).to_bytes(2, "big") + context)


def decode_ping(data: bytes) -> tuple[float, bytes]:
    """(ttl in seconds, context) of a PING's data."""
    if not 2 <= len(data) <= 2 + MAX_CONTEXT:
        raise PeerError("malformed PING")
    return int.from_bytes(data[:2], "big") / 10, data[2:]


def encode_pong(context: bytes) -> bytes:
    return command(b"PONG", context)


def decode_pong(data: bytes) -> bytes:
    """The context that comes back."""
    if len(data) > MAX_CONTEXT:
        raise PeerError("malformed PONG")
    return data


def encode_subscription(topic: bytes, *, subscribe: bool) -> bytes:
    """SUBSCRIBE or CANCEL, since 3.1. The older form is a message: ``01`` or ``00`` and the topic."""
    return command(b"SUBSCRIBE" if subscribe else b"CANCEL", topic)
