"""The SQL copy of the journal: filled by a process beside the daemon, searched and followed for administration."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import datetime
from threading import Lock
from typing import Final, TypeVar

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from zapd.admin.services.audit import AuditFilter, AuditRecord
from zapd.audit.sinks import following
from zapd.audit.sinks.following import Place, Resumed, Step
from zapd.audit.sinks.sql import SqlSink, copy_url, open_copy, search
from zapd.config import Config
from zapd.errors import Unavailable

Answer = TypeVar("Answer")

LOOK: Final = 0.25
"""Seconds between two looks for what is new, while anybody follows."""


class Searching:
    """The copy, and the questions that administration asks it."""

    def __init__(self, config: Config) -> None:
        self._url = copy_url(config.database_url(), config.server.data_dir)
        self._base_dir = config.base_dir
        self._engine: Engine | None = None
        self._opening = Lock()
        self._looked = -1.0
        self._newest = following.BEGINNING
        self._looking: asyncio.Task[Place] | None = None
        self.sink = SqlSink(
            url=self._url,
            base_dir=config.base_dir,
            directory=config.journal_dir,
            search_retention=config.audit.search_retention,
        )

    async def start(self) -> None:
        """Begin to copy; a database that is away is tried again for ever."""
        await self.sink.start()

    async def stop(self) -> None:
        """Stop copying; what is missing is caught up with next time."""
        await self.sink.stop()
        if self._engine is not None:
            await asyncio.to_thread(self._engine.dispose)

    async def search(
        self, wanted: AuditFilter, limit: int, cursor: str | None
    ) -> tuple[Sequence[AuditRecord], str | None]:
        """Newest first. Raises `Unavailable` while there is no copy."""
        return await self._ask(lambda engine: search(engine, filters=wanted, limit=limit, cursor=cursor))

    # -- forwards (`zapd.admin.services.audit.Copy`) ---------------------------------------------------------

    async def newest(self) -> Place:
        """Where the copy ends now."""
        return await self._ask(following.newest)

    async def before(self, moment: datetime) -> Place:
        """Where what is of that time or later begins."""
        return await self._ask(lambda engine: following.before(engine, moment))

    async def resume(self, place: Place) -> Resumed:
        """Where to go on for whoever has seen ``place``."""
        return await self._ask(lambda engine: following.resume(engine, place))

    async def read_after(self, place: Place, wanted: AuditFilter, limit: int) -> Step:
        """The next records."""
        return await self._ask(lambda engine: following.read_after(engine, place, filters=wanted, limit=limit))

    async def changed(self, place: Place, seconds: float) -> None:
        """Return when there is more than ``place``, or after so many seconds. All who wait share one look."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(min(LOOK, max(0.0, end - time.monotonic())))
            with suppress(Unavailable):  # whoever reads next is told
                if (await self._look()).row > place.row:
                    return

    async def _look(self) -> Place:
        if self._looking is None and time.monotonic() - self._looked >= LOOK / 2:
            self._looking = asyncio.create_task(self.newest(), name="zapd-newest")
            self._looking.add_done_callback(self._has_looked)
        if self._looking is not None:
            await asyncio.wait((self._looking,))
        return self._newest

    def _has_looked(self, done: asyncio.Task[Place]) -> None:
        self._looking, self._looked = None, time.monotonic()
        if not done.cancelled() and done.exception() is None:
            self._newest = done.result()

    async def _ask(self, question: Callable[[Engine], Answer]) -> Answer:
        def ask() -> Answer:
            with self._opening:
                if self._engine is None:
                    self._engine = open_copy(self._url, self._base_dir)
            return question(self._engine)

        try:
            return await asyncio.to_thread(ask)
        except SQLAlchemyError as trouble:
            raise Unavailable(
                f"The searchable copy of the journal does not answer ({type(trouble).__name__}): is the database "
                "there? `zapd audit verify` reads the journal itself."
            ) from trouble
