"""The bans in memory, kept current by the change feed, told to whoever decides.

Few bans, many questions: whoever listens is given all that hold, whenever that changes: when one was made or taken
back, here or by another process, and when one is over, which no change says. It reads SQL and knows nothing of
what a ban does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from zapd.errors import Unavailable
from zapd.store.bans import BanRecord, BanRegistry
from zapd.store.engine import reading
from zapd.store.feed import Change, ChangeFeed

_LOOK: Final = 30.0
"""Seconds between two looks whether one is over: in pieces, since the wall clock may be set."""

Listener = Callable[[Sequence[BanRecord]], None]


class BansIndex:
    """All methods are for the event loop's thread."""

    def __init__(self, engine: Engine, feed: ChangeFeed, *, clock: Callable[[], float] = time.time) -> None:
        self._engine = engine
        self._feed = feed
        self._clock = clock
        self._latest = 0.0
        """The wall clock at its furthest: what is over does not begin again when it is set back."""
        self._bans: dict[str, BanRecord] | None = None
        self._listeners: list[Listener] = []
        self._lock = asyncio.Lock()
        self._subscribed = False
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Read them all. Raises `Unavailable` when that cannot be done; call it again later."""
        if not self._subscribed:
            self._feed.subscribe(self._follow)
            self._subscribed = True
        await self._feed.catch_up()
        async with self._lock:
            self._bans = await self._ask(None)
            self._tell()

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def on_change(self, listener: Listener) -> None:
        """Tell it now, and again whenever it changes, which bans hold. What it raises holds the feed."""
        self._listeners.append(listener)
        listener(self.holding)

    @property
    def holding(self) -> Sequence[BanRecord]:
        """Those that are not over."""
        self._latest = now = max(self._latest, self._clock())
        bans = self._bans or {}
        return [ban for ban in bans.values() if ban.expires is None or ban.expires.timestamp() > now]

    async def _follow(self, changes: Sequence[Change]) -> None:
        ids = {change.subject for change in changes if change.kind == "ban"}
        if not ids:
            return
        async with self._lock:
            if self._bans is None:
                return  # start() reads them all
            found = await self._ask(ids)
            for ban_id in ids:
                self._bans.pop(ban_id, None)
            self._bans.update(found)
            self._tell()

    def _tell(self) -> None:
        holding = self.holding
        for listener in self._listeners:
            listener(holding)
        self._await_end(holding)

    def _await_end(self, holding: Sequence[BanRecord]) -> None:
        """Tell again when the next one is over."""
        self.stop()
        ends = [ban.expires.timestamp() for ban in holding if ban.expires is not None]
        if ends:
            left = max(0.0, min(ends) - self._clock())
            self._timer = asyncio.get_running_loop().call_later(min(left, _LOOK) + 0.001, self._look, len(holding))

    def _look(self, told: int) -> None:
        holding = self.holding
        if len(holding) != told:
            self._tell()
        else:
            self._await_end(holding)

    async def _ask(self, ids: set[str] | None) -> dict[str, BanRecord]:
        def read() -> dict[str, BanRecord]:
            with reading(self._engine) as connection:
                return BanRegistry().load(connection, ids)

        try:
            return await asyncio.to_thread(read)
        except SQLAlchemyError as trouble:
            raise Unavailable(
                f"The bans cannot be read ({type(trouble).__name__}): is the database there, and upgraded?"
            ) from trouble
