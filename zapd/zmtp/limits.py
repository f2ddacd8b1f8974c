"""Every bound of the engine in one place (limits.md of the design; RFC 23 names none)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may make us hold. Sizes are octets. Exceeding any of them ends the connection."""

    handshake_command: int = 4096
    """The largest command body before the handshake is over; an INITIATE with 300 octets of metadata fits."""
    command: int = 4096
    """The largest command body afterwards (PING, SUBSCRIBE and its topic)."""
    frame: int = 1 << 20
    """The largest frame of a message."""
    parts: int = 64
    """Frames in one message."""
    message: int = 1 << 20
    """Octets in one message, all parts together."""
    properties: int = 64
    """Metadata properties in one READY or INITIATE."""


DEFAULT_LIMITS = Limits()
