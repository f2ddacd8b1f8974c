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
from zapd.store.bans_index import BansIndex
from zapd.store.changes import ChangeLog
from zapd.store.engine import open_engine, reading
from zapd.store.feed import ChangeFeed
from zapd.store.schema import SchemaState

log = structlog.get_logger(__name__)

RETRY = 1.0
"""Seconds between two looks for a database that is away."""

REACH = 0.5
"""Seconds that a change which another process tells of may take while decisions go on."""

PATIENCE = 2.5
"""Seconds after which it is told that such a change is not in force."""

_GLANCE = 0.05


class Registry:
    """The database, its feed of changes, and agents and bans in memory."""

    def __init__(self, url: str, base_dir: Path, max_staleness: float, watermark: Watermark) -> None:
        self._watermark = watermark
        self.engine: Engine = open_engine(url, base_dir)
        self.problem = "the registry is being read"
        """Why it cannot be used; empty when it can."""
        self.alone = self.engine.dialect.name == "sqlite"
        """No other zapd uses this database."""
        self.feed = ChangeFeed(self.engine, shared=not self.alone)
        self.agents = AgentsIndex(self.engine, self.feed)
        self.bans = BansIndex(self.engine, self.feed)
        # A lone process on SQLite is the only one to make changes that matter to it; a replica is not.
        self._max_staleness = None if self.alone else max_staleness
        self._wanted = 0
        """The last change that another process told of and that could not be read in time."""
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

    async def reach(self, sequence: int) -> None:
        """Bring the changes up to this one into force, for a process that another one tells of its changes.

        Raises `Unavailable` when that is not done within `PATIENCE` seconds. From `REACH` seconds on nothing is
        decided until it is.
        """
        trouble = "the database does not hold it yet"
        late = asyncio.get_running_loop().call_later(REACH, self._fall_behind, sequence)
        try:
            async with asyncio.timeout(PATIENCE):
                await self.feed.catch_up()
        except TimeoutError:
            trouble = f"it could not be read within {PATIENCE:g} s"
        except Exception as error:  # noqa: BLE001 - whatever it is, the change is not in force here
            trouble = str(error)
        finally:
            late.cancel()
        if self.feed.position < sequence:
            self._fall_behind(sequence)
            raise Unavailable(f"change {sequence} is not in force yet: {trouble}")

    async def aclose(self) -> None:
        """Stop following, and close the database."""
        for task in self._tasks:
            task.cancel()
        self.bans.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.feed.aclose()
        await asyncio.to_thread(self.engine.dispose)

    async def _open(self) -> None:
        await asyncio.to_thread(self._check_schema)
        await asyncio.to_thread(self._check_age)
        await self.agents.start()
        await self.bans.start()
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

    def _fall_behind(self, sequence: int) -> None:
        """Decide nothing until this change is in force."""
        self._wanted = max(self._wanted, sequence)
        if not self.problem:
            self.problem = f"change {sequence} is not in force yet"
            log.warning("decisions are 300 until a change is in force", change=sequence)
            self._tasks.append(asyncio.create_task(self._catch_up_later(), name="zapd-reach"))

    async def _catch_up_later(self) -> None:
        # The feed's own polling goes on trying, and has no event for it.
        while self.feed.position < self._wanted:  # noqa: ASYNC110
            await asyncio.sleep(_GLANCE)
        self.problem = ""
        self._tasks = [task for task in self._tasks if task is not asyncio.current_task()]
        log.warning("every change is in force again")

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
