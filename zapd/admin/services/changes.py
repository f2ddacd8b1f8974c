"""The road every change takes, and the one place that knows its order.

One transaction with the row and its change-log row, which holds the whole audit event; commit; the journal
takes the event; the change feed brings it into force; only then the answer. A change that closes access takes
force before it is journalled, and goes through while the journal cannot be written: the change log holds its
event until then. A change that opens access does not (contract, "A change"). Where the journal or the registry
breaks behind the commit nothing can be undone: as after a crash there, the record follows from the change log and
the change takes force by the feed's own polling, and the caller is told which of the two is still to come.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Generic, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Engine, Table

from zapd.admin.requests import stamped
from zapd.admin.services.journalling import ChangeJournal, Recorder
from zapd.admin.services.off_the_loop import off_the_loop
from zapd.admin.services.once import Once, current
from zapd.audit.event import AuditEvent
from zapd.errors import Unavailable
from zapd.store.changes import ChangeLog, LogRow
from zapd.store.engine import reading, writing, writing_on
from zapd.store.staging import Stage, staging
from zapd.store.tables import change_log
from zapd.store.types import now

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

_PATIENCE: Final = 15.0
"""Seconds that a caller waits for its turn or for an answer: the database's own deadlines, and one reconnect."""

_READERS: Final = 4
_MAX_READING: Final = 64

_PAGE: Final = 500
"""Events of an import that are in memory together."""

_NO_JOURNAL: Final = "The journal cannot be written, so nothing that opens access is done now. Try again later."
_IN_FORCE: Final = "The change is made and in force."
_RECORD_FOLLOWS: Final = "Its record follows: it could not be journalled at once."
_NOT_IN_FORCE: Final = "The change is made, but not yet in force everywhere."
_FORCE_FOLLOWS: Final = "It takes force by itself once the registry can be read: "


class Feed(Protocol):
    """How a committed change comes into force (`zapd.store.feed.ChangeFeed`, in a lone process)."""

    async def catch_up(self) -> int:
        """Return once all that is committed is in force; the last sequence. Raises `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class Change(Generic[Result]):
    """What a use case did inside its transaction. ``event`` None: there was nothing to change."""

    result: Result
    event: AuditEvent | None = None
    also: Sequence[AuditEvent] = ()
    """What else changed with it, each with an event of its own: a rotation touches two keys."""


Note = Callable[[AuditEvent], None]
"""Writes one event into the change log, with the rows that are being made."""


@dataclass(frozen=True, slots=True)
class Many(Generic[Result]):
    """What an import does."""

    tables: Sequence[Table]
    """Those that it adds rows to."""
    prepare: Callable[[Stage, Note], Result]
    """Makes rows and an event for each. Others change the registry meanwhile."""
    check: Callable[[Stage], None]
    """Called in the transaction, before the rows are moved into it: raises where they no longer may be. That one
    of them is there already need not be looked for."""


class ChangeRoad:
    """Reads and changes the registry for the services.

    ``recorder`` None: beside a stopped server; the next one to start takes the events from the change log.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        recorder: Recorder | None = None,
        feed: Feed | None = None,
        clock: Callable[[], datetime] = now,
    ) -> None:
        self._engine = engine
        self._feed = feed
        self._log = ChangeLog()
        self._order = asyncio.Lock()
        # Threads of our own: a database that hangs must not hold those that others need, nor readers a writer.
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="zapd-admin-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="zapd-admin-write")
        self._journal = None if recorder is None else ChangeJournal(engine, recorder, self._writer)
        self._reading = 0
        self._under_way: set[asyncio.Task[object]] = set()
        self.clock = clock
        """The wall clock of all services, UTC."""

    async def read(self, question: Callable[[Connection], Result], *, patience: float = _PATIENCE) -> Result:
        """Ask in a transaction of its own, off the event loop. Raises `Unavailable`."""

        def ask() -> Result:
            with reading(self._engine) as connection:
                return question(connection)

        if self._reading >= _MAX_READING:
            raise Unavailable("Too many questions wait for the database. Try again later.")
        self._reading += 1
        try:
            async with asyncio.timeout(patience):
                return await off_the_loop(ask, self._readers)
        except TimeoutError:
            raise Unavailable("The database takes too long. Try again later.") from None
        finally:
            self._reading -= 1

    async def note(self, work: Callable[[Connection], None]) -> bool:
        """Write down something that changes nobody's rights, such as when a token was used. Best effort: whether
        it was done, as far as can be told."""

        def write() -> None:
            with writing(self._engine) as connection:
                work(connection)

        try:
            async with asyncio.timeout(_PATIENCE):
                await off_the_loop(write, self._readers)
        except (Unavailable, TimeoutError) as trouble:
            _log.debug("a note was not written: %s", trouble)
            return False
        return True

    async def change(self, work: Callable[[Connection], Change[Result]], *, opens: bool) -> Result:
        """Do ``work`` and all that follows from it; returns when it is committed, on record and in force.

        ``opens``: it may widen what anybody may do. Raises `Unavailable`, `Conflict`, and what ``work``
        raises, which undoes everything. Goes on to its end although the caller is cancelled.
        """
        once = current()
        if once is not None:
            work = self._once(work, once)
        await self._take_turn()
        task = asyncio.ensure_future(self._change(work, opens))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def change_many(self, many: Many[Result]) -> Result:
        """As `change`, for an import: all of it happens in one transaction or not at all. It may open access.

        Rows and events are made beside the registry, which takes long and holds up nobody, and then moved in; a
        revocation waits for the moving alone. However many there are, no more than a page of events is in memory:
        the journal gets them from the change log, in its order. Between two pages other changes have their turn;
        an event's ``change`` tells the order in which things took force.
        """
        task = asyncio.ensure_future(self._change_many(many))
        self._under_way.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    async def journal_missing(
        self, in_journal: Callable[[int], bool] = lambda _sequence: False, *, inherited: Iterable[str] = ()
    ) -> int:
        """Append to the journal what a crash or a full disk kept out of it; how many events.

        For the start of a process and for whenever its journal has healed. ``in_journal`` tells whether a
        change is there already: of the last ones before a crash only the journal itself knows. ``inherited``
        are journals' instances that nobody continues: what waits for them comes to ours. Raises
        `JournalUnavailable` and `Unavailable`; what was done by then stays done.
        """
        journal = self._journal
        if journal is None:
            return 0
        done = 0
        await self._take_turn()
        try:
            await journal.claim(inherited)
            while rows := await self.read(journal.missing):
                done += await journal.append(rows, in_journal)
        finally:
            self._order.release()
        return done

    async def aclose(self) -> None:
        """Let what is under way come to its end, within the database's own deadlines."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=2 * _PATIENCE)
        self._readers.shutdown(wait=False, cancel_futures=True)
        self._writer.shutdown(wait=False)

    async def _take_turn(self) -> None:
        """Wait for the changes before; whoever takes the turn releases it."""
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._order.acquire()
        except TimeoutError:
            raise Unavailable("Changes before this one take too long. Try again later.") from None

    def _ended(self, task: asyncio.Task[object]) -> None:
        self._under_way.discard(task)
        # Whoever asked may have gone away; the outcome is in the change log either way.
        if not task.cancelled() and task.exception() is not None:
            _log.debug("a change was not made: %s", type(task.exception()).__name__)

    async def _change(self, work: Callable[[Connection], Change[Result]], opens: bool) -> Result:
        try:  # in turn, so that the journal has changes in the order of the change log
            if opens:
                self._insist_on_journal()
            result, changes = await off_the_loop(lambda: self._commit(work), self._writer)
            if changes:
                if opens:
                    recorded = await self._record(changes)
                    late = await self._bring_into_force()
                else:
                    late = await self._bring_into_force()
                    # One that is in force succeeded, though its record must wait.
                    recorded = await self._record(changes) or not late
                _insist_on_the_end(recorded, late)
            return result
        finally:
            self._order.release()

    def _once(
        self, work: Callable[[Connection], Change[Result]], once: Once
    ) -> Callable[[Connection], Change[Result]]:
        """``work``, and in its transaction the note that its request was carried out."""

        def noted(connection: Connection) -> Change[Result]:
            change = work(connection)
            if change.event is not None:
                once.begin(connection, self.clock())
            return change

        return noted

    def _commit(
        self, work: Callable[[Connection], Change[Result]]
    ) -> tuple[Result, Sequence[tuple[int, AuditEvent]]]:
        with writing(self._engine) as connection:
            change = work(connection)
            if change.event is None:
                return change.result, ()
            changes = []
            for event in map(stamped, (change.event, *change.also)):
                sequence = self._log.append(connection, **self._row(event))
                changes.append((sequence, msgspec.structs.replace(event, change=sequence)))
        return change.result, changes

    async def _change_many(self, many: Many[Result]) -> Result:
        self._insist_on_journal()
        stack = ExitStack()
        try:
            stage = await off_the_loop(
                lambda: stack.enter_context(staging(self._engine, [*many.tables, change_log])), self._readers
            )
            result = await off_the_loop(lambda: self._stage(stage, many), self._readers)
            await self._take_turn()
            await self._move_in(stage, many)
            return result
        finally:
            await off_the_loop(stack.close, self._readers)

    async def _move_in(self, stage: Stage, many: Many[Result]) -> None:
        """Called with the turn, which it gives back."""
        held = recorded = True
        try:
            journal = self._journal
            self._insist_on_journal()
            first, last = await off_the_loop(lambda: self._commit_many(stage, many), self._writer)
            while journal is not None and recorded and first < last:
                try:
                    page = await self.read(
                        lambda found, after=first: self._log.between(  # type: ignore[misc]  # bound at once
                            found, after, last, limit=_PAGE
                        )
                    )
                except Unavailable:
                    recorded = False
                    break
                if not page:
                    break
                # Who looks for what a crash kept out of the journal may have had a turn before us.
                recorded = await journal.record_rows(page)
                first = page[-1].sequence
                self._order.release()
                held = False
                await self._order.acquire()
                held = True
            _insist_on_the_end(recorded, await self._bring_into_force())
        finally:
            if held:
                self._order.release()

    def _stage(self, stage: Stage, many: Many[Result]) -> Result:
        with stage.connection.begin():
            waiting: list[LogRow] = []

            def flush() -> None:
                self._log.stage_many(stage, waiting)
                waiting.clear()

            def note(event: AuditEvent) -> None:
                waiting.append(self._row(stamped(event)))
                if len(waiting) >= _PAGE:
                    flush()

            result = many.prepare(stage, note)
            flush()
            return result

    def _commit_many(self, stage: Stage, many: Many[Result]) -> tuple[int, int]:
        """The change log's ends before and after: what lies between is ours, since one at a time writes."""
        with writing_on(stage.connection):
            before = self._log.last(stage.connection)
            many.check(stage)
            stage.move()
            return before, self._log.last(stage.connection)

    def _insist_on_journal(self) -> None:
        if self._journal is not None and not self._journal.writable:
            raise Unavailable(_NO_JOURNAL)

    def _row(self, event: AuditEvent) -> LogRow:
        return {
            "kind": event.event.partition(".")[0],
            "subject": event.subject,
            "time": self.clock(),
            "event": msgspec.json.encode(event).decode(),
            "instance": "" if self._journal is None else self._journal.instance,
        }

    async def _record(self, changes: Sequence[tuple[int, AuditEvent]]) -> bool:
        """Whether the journal took them; if not, `journal_missing` will bring them there."""
        return self._journal is None or await self._journal.record(changes)

    async def _bring_into_force(self) -> str:
        """Why it is not in force yet; empty when it is."""
        if self._feed is None:
            return ""
        try:
            await self._feed.catch_up()
        except Unavailable as trouble:
            _log.warning("a change is made, and not in force yet: %s", trouble)
            return str(trouble)
        except Exception as trouble:  # noqa: BLE001 - whatever it is, the change is committed
            _log.exception("a change is made, and not in force yet")
            return f"{type(trouble).__name__}."
        return ""


def _insist_on_the_end(recorded: bool, late: str) -> None:
    """Raise `Unavailable` where a change is committed and something is still to come: ``late`` says why it is not
    in force. Nobody may take such a change for undone, nor for one that holds already."""
    if late:
        said = [_NOT_IN_FORCE, *([] if recorded else [_RECORD_FOLLOWS]), _FORCE_FOLLOWS + late]
        raise Unavailable(" ".join(said))
    if not recorded:
        raise Unavailable(f"{_IN_FORCE} {_RECORD_FOLLOWS}")
