"""uvicorn's HTTP/1.1, with a bound on connections and a deadline for what comes before a request is whole.

uvicorn itself waits for a request's head as long as it takes, and takes every connection: a few hundred strangers
that say half a head would keep operators from revoking anything, and in the end take all descriptors. Here a head
has one total deadline, and a newcomer too many takes the place of whoever has kept us waiting longest. It knows
nothing of requests; their bodies and answers are bounded elsewhere (`zapd.admin.api.guards`). A caller that does
not take its answer is dropped: nothing of ours waits in memory for it to come to itself.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

CONNECTIONS = 256
"""Open at one time."""

HEAD_DEADLINE = 5.0
"""Seconds from a connection's first moment, or from a request's first octet, to the end of its head; no octet that
arrives makes it longer."""


STALLED = 30.0
"""Seconds for which a caller may leave us with a full buffer (64 KiB) of an answer that it does not take."""


class BoundedHttp(H11Protocol):
    """One connection of the admin API."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._waiting_since = self.loop.time()
        self._head_timer: asyncio.TimerHandle | None = None
        self._stalled_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """asyncio: the connection is open."""
        super().connection_made(transport)
        self._watch_head()
        if len(self.connections) > CONNECTIONS:
            self._make_room()

    def data_received(self, data: bytes) -> None:
        """asyncio: octets."""
        super().data_received(data)
        self._watch_head()

    def pause_writing(self) -> None:
        """asyncio: our own buffer is full; nothing more is made until the caller has taken from it."""
        super().pause_writing()
        self._stalled_timer = self.loop.call_later(STALLED, self.transport.abort)

    def resume_writing(self) -> None:
        """asyncio: it has."""
        super().resume_writing()
        self._forget_stalled()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the connection is gone."""
        self._forget_head()
        self._forget_stalled()
        super().connection_lost(exc)

    @property
    def _at_work(self) -> bool:
        """A request's head has come and its answer is not complete."""
        cycle: Any = self.cycle  # None before the first request, whatever its type says
        return cycle is not None and not cycle.response_complete

    def _watch_head(self) -> None:
        """While a request is at work its head is here; while none is, the next one's is due."""
        if self._at_work:
            self._waiting_since = self.loop.time()
            self._forget_head()
        elif self._head_timer is None and not self.transport.is_closing():
            self._head_timer = self.loop.call_later(HEAD_DEADLINE, self._head_is_late)

    def _forget_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _forget_stalled(self) -> None:
        if self._stalled_timer is not None:
            self._stalled_timer.cancel()
            self._stalled_timer = None

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._at_work:
            self.transport.abort()

    def _make_room(self) -> None:
        """Close who has waited longest without a whole request; the newcomer itself where all are at work."""
        waiting = [
            other
            for other in self.connections
            if isinstance(other, BoundedHttp) and (not other._at_work or other.cycle.more_body)
        ]
        min(waiting, key=lambda other: other._waiting_since, default=self).transport.abort()
