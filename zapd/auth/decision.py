"""What zapd decided, and why: the value between deciding, recording and replying."""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec

from zapd.zap import Status, ZapReply


class TrailStep(NamedTuple):
    """One backend's part in a decision."""

    backend: str
    outcome: str
    milliseconds: float


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The reply, and the private reason that only the journal sees."""

    reply: ZapReply
    reason: str
    """A stable code: ``granted``, ``unknown_key``, ``revoked``, ``backend_unavailable``, …"""
    principal: str = ""
    key: str = ""
    """CURVE: the fingerprint of the key that was asked about."""
    trail: tuple[tuple[str, str, float], ...] = ()
    """See `TrailStep`."""
    asked: bool = True
    """Whether policy or a backend truly decided. False for 300s given without asking (overload, draining,
    penalty): those may be counted instead of recorded one by one."""
    cached: bool = False
    until: float = math.inf
    """Of a 200: when what the backend knows of this one ends, seconds since 1970 (`Verdict.until`)."""

    @property
    def status(self) -> Status:
        return self.reply.status
