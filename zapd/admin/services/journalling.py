"""What the change log owes the journal, and how it is paid.

Each change-log row holds the whole audit event and names the journal that must take it. A row is paid once that
journal has the event; marking it so comes behind and may fail, so that what is in the journal and not yet marked
is remembered here. After a crash only the journal itself knows.

This knows nothing of the order of a change, which is `zapd.admin.services.changes`: all of it is called in turn.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import Protocol

import msgspec
from sqlalchemy import Connection, Engine

from zapd.admin.services.off_the_loop import off_the_loop
from zapd.audit.event import AuditEvent
from zapd.audit.journal import JournalUnavailable
from zapd.errors import Unavailable
from zapd.store.changes import ChangeLog, LoggedChange
from zapd.store.engine import writing

_log = logging.getLogger(__name__)


class Recorder(Protocol):
    """This process's journal, as changes need it."""

    @property
    def writable(self) -> bool:
        """Whether the journal takes events now."""
        ...

    @property
    def instance(self) -> str:
        """The journal's instance: whose change-log rows these are."""
        ...

    async def record_change(self, sequence: int, event: AuditEvent) -> None:
        """Append the event and wait until it is durable. Raises `JournalUnavailable`.

        ``sequence`` is ``event.change``; the same one may come again after a failure that was none.
        """
        ...

    async def record_changes(self, changes: Sequence[tuple[int, AuditEvent]]) -> None:
        """As `record_change`, for some hundreds in their order that become durable together."""
        ...


class ChangeJournal:
    """Brings changes from the change log into the journal, each once."""

    def __init__(self, engine: Engine, recorder: Recorder, writer: Executor) -> None:
        """``writer``: the thread that writes into the registry."""
        self._engine = engine
        self._recorder = recorder
        self._writer = writer
        self._log = ChangeLog()
        self._unmarked: set[int] = set()
        """What is in the journal, and not yet marked so in the change log."""

    @property
    def writable(self) -> bool:
        """Whether it takes events now."""
        return self._recorder.writable

    @property
    def instance(self) -> str:
        """Whose change-log rows it takes."""
        return self._recorder.instance

    async def record(self, changes: Sequence[tuple[int, AuditEvent]]) -> bool:
        """Whether it took them; if not, `append` will bring them there."""
        try:
            await self._recorder.record_changes(changes)
        except JournalUnavailable:
            _log.warning("change %d waits for the journal: it cannot be written", changes[0][0])
            return False
        self._unmarked.update(sequence for sequence, _event in changes)
        try:
            await off_the_loop(self._mark, self._writer)
        except Unavailable:
            # It is in the journal, which is what counts; the next mark takes this one along.
            _log.warning("change %d is journalled, but could not be marked so", changes[0][0])
        return True

    async def record_rows(self, rows: Sequence[LoggedChange]) -> bool:
        """As `record`, for rows of the change log, where some may be in the journal already."""
        owed = [row for row in rows if not row.journalled and row.sequence not in self._unmarked]
        return await self.record([_numbered(row) for row in owed]) if owed else True

    async def claim(self, inherited: Iterable[str]) -> None:
        """Take what waits for nobody's journal, and for those that nobody continues."""

        def claim() -> None:
            with writing(self._engine) as connection:
                self._log.claim(connection, self._recorder.instance, inherited)

        await off_the_loop(claim, self._writer)

    def missing(self, connection: Connection) -> Sequence[LoggedChange]:
        """What is not known to be in it, oldest first: a page."""
        return self._log.unjournalled(connection, self._recorder.instance)

    async def append(self, rows: Sequence[LoggedChange], in_journal: Callable[[int], bool]) -> int:
        """Bring those there that are `missing`; how many. Raises `JournalUnavailable` and `Unavailable`."""
        owed = [row for row in rows if row.sequence not in self._unmarked and not in_journal(row.sequence)]
        if owed:
            await self._recorder.record_changes([_numbered(row) for row in owed])
        self._unmarked.update(row.sequence for row in rows)
        await off_the_loop(self._mark, self._writer)
        return len(owed)

    def _mark(self) -> None:
        marked = set(self._unmarked)
        with writing(self._engine) as connection:
            self._log.mark_journalled(connection, marked)
        self._unmarked -= marked


def _numbered(row: LoggedChange) -> tuple[int, AuditEvent]:
    """A change's number, and its event as the journal takes it."""
    event = msgspec.json.decode(row.event, type=AuditEvent)
    return row.sequence, msgspec.structs.replace(event, change=row.sequence)
