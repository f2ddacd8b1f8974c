"""Connections that came to nothing, and peers that were cut: each counted, and now and then one told.

A flood of strangers must not become a flood of lines: at most one failure in a while is told, with how many were
not.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

from zapd.net.ending import Ending
from zapd.net.limits import NetCounters
from zapd.net.listener import Entrance
from zapd.net.peer import Peer


@dataclass(frozen=True, slots=True)
class Failure:
    """A handshake that came to nothing, or an established peer that was cut; for one line of a log."""

    listener: str
    remote_address: str
    ending: Ending
    reason: str
    status: int | None
    suppressed: int
    """Failures since the last report that got none of their own."""


class Failures:
    """Those of one router."""

    def __init__(self, counters: NetCounters, on_failure: Callable[[Failure], None] | None) -> None:
        self._counters = counters
        self._on_failure = on_failure
        self._suppressed = 0
        self._report_after = 0.0

    def count(self, peer: Peer, interval: float) -> None:
        """Count how it ended, if that was no ordinary end, and tell of it unless one was told of within the last
        ``interval`` seconds."""
        counters = self._counters
        match peer.ending, peer.was_ready:
            case Ending.DEADLINE, _:
                counters.handshakes_deadline += 1
            case Ending.PROTOCOL, False:
                counters.handshakes_protocol += 1
            case Ending.REFUSED, _:
                counters.handshakes_refused += 1
            case Ending.HELD, _:
                counters.handshakes_held += 1
            case Ending.LEFT, False:
                counters.handshakes_left += 1
            case Ending.PROTOCOL, True:
                counters.closed_protocol += 1
            case Ending.UNREAD, _:
                counters.closed_unread += 1
            case Ending.SILENT, _:
                counters.closed_silent += 1
            case _:
                return  # an ordinary end, or counted where it was decided
        self._report(peer, interval)

    def _report(self, peer: Peer, interval: float) -> None:
        if self._on_failure is None or peer.ending is None:
            return
        now = asyncio.get_running_loop().time()
        if now < self._report_after:
            self._suppressed += 1
            return
        self._report_after = now + interval
        suppressed, self._suppressed = self._suppressed, 0
        name = cast(Entrance, peer.listener).name
        self._on_failure(Failure(name, peer.remote_address, peer.ending, peer.reason, peer.status, suppressed))
