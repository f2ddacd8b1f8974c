"""What zapd reads from SQL, kept current, and what is done when the database is not there.

At start the schema must fit; a database that is away is no reason to stop: it is asked again until it answers,
and meanwhile the registry is not current, so decisions are 300.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog
from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from zapd.app.watermark import Watermark
from zapd.errors import ConfigurationError, Unavailable
from zapd.store import schema
from zapd.store.agents_index import AgentsIndex
from zapd.store.changes import ChangeLog
from zapd.store.engine import open_engine, reading
from zapd.store.feed import ChangeFeed
from zapd.store.schema import SchemaState

log = structlog.get_logger(__name__)

RETRY = 1.0
"""Seconds between two looks for a database that is away."""


class Registry:
    """The database, its feed of changes, and the agents in memory."""

    def __init__(self, url: str, base_dir: Path, max_staleness: float, watermark: Watermark) -> None:
        self._watermark = watermark
        self.engine: Engine = open_engine(url, base_dir)
        self.feed = ChangeFeed(self.engine)
        self.agents = AgentsIndex(self.engine, self.feed)
        self.problem = "the registry is being read"
        """Why it cannot be used; empty when it can."""
        self.alone = self.engine.dialect.name == "sqlite"
        """No other zapd uses this database."""
        # A lone process on SQLite is the only one to make changes that matter to it; a replica is not.
        self._max_staleness = None if self.alone else max_staleness
        self._tasks: list[asyncio.Task[None]] = []

    def is_current(self) -> bool:
        """Whether what is in memory may decide: it was read, and not too long ago."""
        if self.problem:
            return False
        return self._max_staleness is None or self.feed.staleness <= self._max_staleness

    async def start(self) -> None:
        """Read the registry if it is there, else go on trying in the background.

        Raises `ConfigurationError` when the database's schema is not this program's.
        """
        try:
            await self._open()
        except Unavailable as trouble:
            self.problem = str(trouble)
            log.warning("the registry cannot be read; decisions are 300 until it can", reason=self.problem)
            self._tasks.append(asyncio.create_task(self._keep_trying(), name="zapd-registry"))
        self._tasks.append(asyncio.create_task(self.feed.run(), name="zapd-feed"))

    async def aclose(self) -> None:
        """Stop following, and close the database."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.to_thread(self.engine.dispose)

    async def _open(self) -> None:
        await asyncio.to_thread(self._check_schema)
        await asyncio.to_thread(self._check_age)
        await self.agents.start()
        self.problem = ""

    async def _keep_trying(self) -> None:
        while self.problem:
            await asyncio.sleep(RETRY)
            try:
                await self._open()
            except (Unavailable, ConfigurationError) as trouble:
                self.problem = str(trouble)
            else:
                log.warning("the registry can be read again")

    def _check_age(self) -> None:
        try:
            with reading(self.engine) as connection:
                last = ChangeLog().last(connection)
        except SQLAlchemyError as trouble:
            raise Unavailable(
                f"The database does not answer ({type(trouble).__name__}): is it there?"
            ) from trouble
        self._watermark.check(last)

    def _check_schema(self) -> None:
        try:
            with reading(self.engine) as connection:
                state = schema.check(connection)
            if state in (SchemaState.EMPTY, SchemaState.OLDER) and self.engine.dialect.name == "sqlite":
                schema.upgrade(self.engine)  # the file is ours alone (contract, `zapd serve`)
                return
        except SQLAlchemyError as trouble:
            raise Unavailable(
                f"The database does not answer ({type(trouble).__name__}): is it there?"
            ) from trouble
        if state is SchemaState.NEWER:
            raise ConfigurationError(
                "The database was made by a later zapd: install that one, or restore the backup of before. "
                "`zapd db check` shows both ages."
            )
        if state is not SchemaState.CURRENT:
            raise ConfigurationError("The database has an older schema: run `zapd db upgrade`, then start again.")
