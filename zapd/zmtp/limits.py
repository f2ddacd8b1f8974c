"""Every bound of the engine in one place (RFC 23 names none).

Sizes are octets. What a peer exceeds ends its connection; nothing is cut to fit.
"""

from __future__ import annotations

from dataclasses import dataclass

from zapd.errors import InvalidInput

SHORT_FRAME = 255
"""The largest body that fits a one-octet size (RFC 23, "short-size")."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one peer may make us hold. Exceeding any of them ends the connection."""

    handshake_command: int = 4096
    """The largest command body before the handshake is over; an INITIATE with 300 octets of metadata fits.
    Also what a peer may send ahead while its verdict is awaited."""
    command: int = 4096
    """The largest command body afterwards (PING, SUBSCRIBE and its topic)."""
    frame: int = 1 << 20
    """The largest frame of a message. At least 255, so that short frames need no check of their own."""
    parts: int = 64
    """Frames in one message."""
    message: int = 1 << 20
    """Octets in one message, all parts together."""
    properties: int = 64
    """Metadata properties in one READY or INITIATE."""

    def __post_init__(self) -> None:
        """Refuse bounds with which no connection could work."""
        if self.frame < SHORT_FRAME:
            raise InvalidInput(f"limit frame: {self.frame} is below {SHORT_FRAME}")
        for name in ("handshake_command", "command", "parts", "message", "properties"):
            if getattr(self, name) < 1:
                raise InvalidInput(f"limit {name} must be at least 1")


DEFAULT_LIMITS = Limits()
