"""Whether an established peer is still alive (RFC 37, "heartbeating").

After a silence a PING goes out; a peer that is known to answer and does not is dead. One that never answered any
may not know PING (libzmq before 4.2 passes it over) and is left to TCP's keep-alive. A peer's own TTL is honoured:
when nothing at all came for so long, it wants to be thought dead. Knows no octets: its owner notes when some came.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from zapd.net.limits import PeerLimits
from zapd.net.waits import Waits

_SHORTEST_WAIT = 0.01


class Beating(Protocol):
    """What a heartbeat needs of the connection it watches."""

    heard_at: float
    """When the last octets came, in the loop's time."""

    @property
    def reading(self) -> bool:
        """Whether what the peer says would be heard."""
        ...

    def send_ping(self) -> None: ...

    def missed_heartbeat(self) -> None: ...


class Heartbeat:
    """One peer's. `start` when the handshake is over, `stop` at the end."""

    __slots__ = ("_answers", "_first", "_limits", "_loop", "_peer", "_pinged_at", "_running", "_timer", "_ttl")

    def __init__(
        self,
        peer: Beating,
        limits: PeerLimits,
        loop: asyncio.AbstractEventLoop,
        first: Waits[Heartbeat] | None = None,
    ) -> None:
        """``first``: where the first beat is waited for, with those of many others; see `beat`."""
        self._first = first
        self._peer = peer
        self._limits = limits
        self._loop = loop
        self._answers = False
        self._pinged_at = 0.0
        self._ttl = 0.0
        self._running = False
        self._timer: asyncio.TimerHandle | None = None

    @property
    def answers(self) -> bool:
        """The peer is known to know heartbeats."""
        return self._answers

    def start(self) -> None:
        """Watch, from now on."""
        self._running = True
        if self._first is None:
            self.beat()
        else:
            self._first.add(self)

    def stop(self) -> None:
        """Watch no more."""
        self._running = False
        if self._first is not None:
            self._first.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def pinged(self, ttl: float) -> None:
        """The peer sent PING, with the TTL in seconds that it wants for itself; 0 is none."""
        self._answers = True
        if ttl != self._ttl and self._running:
            self._ttl = ttl
            self.beat()

    def answered(self) -> None:
        """The peer sent PONG."""
        self._answers = True
        self._pinged_at = 0.0  # not by comparing times: a near peer answers within the clock's grain

    def beat(self) -> None:
        """Ask a silent peer for a sign of life, end one that gave none, come back when the next is due."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        limits, now = self._limits, self._loop.time()
        peer = self._peer
        if not peer.reading:  # it may have spoken: we do not listen
            peer.heard_at = now
        heard = peer.heard_at
        due: list[float] = []
        if self._ttl:
            due.append(heard + self._ttl)
        if limits.ping_after:
            waiting = self._pinged_at >= heard
            if not waiting and now >= heard + limits.ping_after:
                self._pinged_at, waiting = now, True
                peer.send_ping()
            if not waiting:
                due.append(heard + limits.ping_after)
            elif self._answers:
                due.append(self._pinged_at + limits.ping_timeout)
            else:
                due.append(now + limits.ping_after)
        if not due or not self._running:  # the PING may have been one octet too many for it
            return
        wait = min(due) - now
        if wait <= 0:
            peer.missed_heartbeat()
        else:
            self._timer = self._loop.call_later(max(wait, _SHORTEST_WAIT), self.beat)
