"""The change log: each change of the registry with its whole audit event, written in the change's transaction.

It does two jobs. Whoever keeps a copy in memory reads from it what changed (`zapd.store.feed`); and what a
crash kept out of the journal is found here (`unjournalled`) and journalled later, once. Events are JSON text
to this room: it cannot know their type, which lies above it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypedDict

from sqlalchemy import Connection, func, insert, select, update

from zapd.store.staging import Stage
from zapd.store.tables import change_log


class LogRow(TypedDict):
    """What `ChangeLog.append` writes."""

    kind: str
    subject: str
    time: datetime
    event: str
    instance: str


@dataclass(frozen=True, slots=True)
class LoggedChange:
    """One row with its event."""

    sequence: int
    kind: str
    subject: str
    time: datetime
    event: str
    """`zapd.audit.event.AuditEvent` as JSON, without its ``change``, which is ``sequence``."""
    instance: str
    journalled: bool


class ChangeLog:
    """Rows of ``change_log``."""

    def append(
        self, connection: Connection, *, kind: str, subject: str, time: datetime, event: str, instance: str = ""
    ) -> int:
        """Write one change into the caller's transaction (`zapd.store.engine.writing`); its sequence number.

        ``instance`` names the journal that must take it; empty where there is none, as for a command that
        works beside a stopped server.
        """
        row = {"kind": kind, "subject": subject, "time": time, "event": event, "instance": instance}
        result = connection.execute(
            insert(change_log).values(row | {"journalled": False}).returning(change_log.c.sequence)
        )
        return int(result.scalar_one())

    def stage_many(self, stage: Stage, rows: Sequence[LogRow]) -> None:
        """As `append`, when the stage moves in, without their sequences: they lie between `last` before and after,
        since nobody else writes meanwhile."""
        stage.put(change_log, [{**row, "journalled": False} for row in rows])

    def between(
        self, connection: Connection, after: int, last: int, *, limit: int = 1000
    ) -> Sequence[LoggedChange]:
        """The changes behind ``after``, up to ``last`` itself, oldest first."""
        query = (
            select(change_log)
            .where(change_log.c.sequence > after, change_log.c.sequence <= last)
            .order_by(change_log.c.sequence)
            .limit(limit)
        )
        return [LoggedChange(**row._asdict()) for row in connection.execute(query)]

    def last(self, connection: Connection) -> int:
        """The newest sequence; 0 in an empty log."""
        return int(connection.execute(select(func.max(change_log.c.sequence))).scalar() or 0)

    def claim(self, connection: Connection, instance: str, inherited: Iterable[str] = ()) -> int:
        """Take what no journal has been named for, and what waits for the journals ``inherited``, which nobody
        continues; how many rows. Two instances never take the same row."""
        result = connection.execute(
            update(change_log)
            .where(~change_log.c.journalled, change_log.c.instance.in_(["", *inherited]))
            .values(instance=instance)
        )
        return result.rowcount

    def unjournalled(
        self, connection: Connection, instance: str | None = None, *, limit: int = 1000
    ) -> Sequence[LoggedChange]:
        """What is not known to be in a journal, oldest first: of one instance, or of all.

        After a crash a change may be in the journal although this says it is not: compare ``sequence`` with
        the ``change`` of the journal's last records before appending.
        """
        query = select(change_log).where(~change_log.c.journalled).order_by(change_log.c.sequence).limit(limit)
        if instance is not None:
            query = query.where(change_log.c.instance == instance)
        return [LoggedChange(**row._asdict()) for row in connection.execute(query)]

    def mark_journalled(self, connection: Connection, sequences: Iterable[int]) -> None:
        """These are in the journal now, durably."""
        wanted = list(sequences)
        for start in range(0, len(wanted), 500):
            connection.execute(
                update(change_log)
                .where(change_log.c.sequence.in_(wanted[start : start + 500]))
                .values(journalled=True)
            )
