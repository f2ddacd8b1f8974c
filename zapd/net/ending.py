"""Why a connection came to its end: one word for metrics, logs and owners."""

from __future__ import annotations

from enum import StrEnum


class Ending(StrEnum):
    """Why a connection came to its end."""

    DEADLINE = "deadline"
    """The handshake was not over in time."""
    PROTOCOL = "protocol"
    """The peer broke the protocol, or sent us an ERROR."""
    REFUSED = "refused"
    """We answered 400 or 500."""
    HELD = "held"
    """We answered 300."""
    LEFT = "left"
    """The peer went away."""
    CROWDED = "crowded"
    """We closed it to make room for others."""
    UNREAD = "unread"
    """It did not read what we sent."""
    SILENT = "silent"
    """It missed its heartbeat."""
    CLOSED = "closed"
    """We closed it because we wanted to."""
