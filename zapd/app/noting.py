"""Unknown keys that wait for approval, from the notebook into the list that administration shows.

A group at a time: what deciding noted meanwhile, in one transaction and not more often than `PAUSE` says, so that
a flood at the door makes neither the loop nor the database work harder than an honest crowd would. What cannot be
written is kept for the next time, within the notebook's own bounds.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection
from datetime import timedelta
from typing import Final

import structlog
from sqlalchemy import Connection

from zapd.admin.services.changes import ChangeRoad
from zapd.auth.waiting import Waiting
from zapd.errors import Unavailable
from zapd.store.sightings import Bucket, SightingRegistry

log = structlog.get_logger(__name__)

PAUSE: Final = 0.5
"""Seconds between two groups."""
GROUP: Final = 500
"""Sightings in one."""
LOOK: Final = 15.0
"""Seconds between two looks at the whole list: how long it is, and what need not stand in it any more."""


class Noting:
    """Writes what ``waiting`` has. One for each zapd, beside its administration."""

    def __init__(
        self,
        road: ChangeRoad,
        waiting: Waiting,
        *,
        lifetime: float,
        server_keys: Callable[[], Collection[bytes]],
    ) -> None:
        """``lifetime``: seconds after which a key that does not come again is forgotten."""
        self._road = road
        self._waiting = waiting
        self._lifetime = lifetime
        self._server_keys = server_keys
        self._registry = SightingRegistry()
        self._task: asyncio.Task[None] | None = None
        self.counts: dict[str, int] = {}
        """How many wait by rule, as of the last look."""

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="zapd-pending")

    async def aclose(self) -> None:
        """Write no more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        look_at = loop.time()
        while True:
            try:
                if self._waiting:
                    await self._write()
                if loop.time() >= look_at:
                    look_at = loop.time() + LOOK
                    await self._look()
            except Exception:
                log.exception("keys that wait for approval could not be written down")
            await asyncio.sleep(PAUSE)

    async def _write(self) -> None:
        seen = self._waiting.take(GROUP)
        gone: Counter[Bucket] = Counter()

        def write(connection: Connection) -> None:
            nonlocal gone
            apart = frozenset(self._server_keys())
            gone = self._registry.note(connection, seen, self._waiting.bounds, apart=apart)

        if await self._road.note(write):
            for bucket, number in gone.items():
                self._waiting.evicted[bucket] += number
        else:
            self._waiting.put(seen)

    async def _look(self) -> None:
        before = self._road.clock() - timedelta(seconds=self._lifetime)
        try:
            self.counts, stale = await self._road.read(lambda found: self._registry.counts(found, before))
        except Unavailable:
            return
        if stale:
            await self._road.note(lambda connection: self._registry.sweep(connection, before))
