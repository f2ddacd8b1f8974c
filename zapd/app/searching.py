"""The SQL copy of the journal: filled by a process beside the daemon, searched for administration."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from zapd.admin.services.audit import AuditFilter, AuditRecord
from zapd.audit.sinks.sql import SqlSink, copy_url, open_copy, search
from zapd.config import Config
from zapd.errors import Unavailable


class Searching:
    """The copy, and the questions that administration asks it."""

    def __init__(self, config: Config) -> None:
        self._url = copy_url(config.database_url(), config.server.data_dir)
        self._base_dir = config.base_dir
        self._engine: Engine | None = None
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

        def ask() -> tuple[Sequence[AuditRecord], str | None]:
            if self._engine is None:
                self._engine = open_copy(self._url, self._base_dir)
            return search(self._engine, filters=wanted, limit=limit, cursor=cursor)

        try:
            return await asyncio.to_thread(ask)
        except SQLAlchemyError as trouble:
            raise Unavailable(
                f"The searchable copy of the journal does not answer ({type(trouble).__name__}): is the database "
                "there? `zapd audit verify` reads the journal itself."
            ) from trouble
