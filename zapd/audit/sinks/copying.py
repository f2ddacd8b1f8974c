"""The process that copies the journal into SQL: ``python -m zapd.audit.sinks.copying``.

A process of its own, so that a slow database costs the deciding process nothing. It reads its settings as one
line of JSON from standard input (the database URL may hold a password, and so is never an argument) and ends
when standard input ends: it cannot outlive whoever started it. Once a second it writes a line of JSON about
itself to standard output. It follows the files alone; nobody has to tell it about records.

Each batch and the position after it are one transaction, so that a crash repeats a batch and doubles nothing. A
record that is there already is left alone; when its hash is another one, that is counted and alerts: somebody
changed the past, in one place or the other.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import threading
import time
from calendar import timegm
from pathlib import Path

import msgspec
from sqlalchemy import Connection, Engine, delete, func, insert, select, text, update
from sqlalchemy.exc import SQLAlchemyError

from zapd.audit.instance import list_instances
from zapd.audit.sinks.follow import Batch, Position, Record, last_sequence, read_batch
from zapd.audit.sinks.table import LONGEST, audit_events, audit_positions, open_copy
from zapd.errors import ZapdError

BATCH = 4000
PURGE = 5000
PURGE_SECONDS = 60.0
STATUS_SECONDS = 1.0

COPY_LOCK = 0x7A617564
"""PostgreSQL's advisory lock that all copiers of one database take ("zaud")."""


class Settings(msgspec.Struct):
    """What the parent says."""

    url: str
    base_dir: str
    directory: str
    retention: float = 0.0
    """Seconds that records stay searchable; 0 for ever."""
    poll: float = 0.25
    """Seconds between two looks at the files."""


class Status(msgspec.Struct):
    """What the process says of itself."""

    copied: int = 0
    """Records written by this process."""
    lag: int = 0
    """Records in the journal that SQL does not hold."""
    lag_seconds: float = 0.0
    """Since when it has not held all; 0 when it does."""
    conflicts: int = 0
    """Records that SQL holds with another hash."""
    missed: int = 0
    """Records that were gone from the journal before they were copied."""
    unreadable: int = 0
    """Lines that are no records."""
    error: str = ""
    """What is in the way now."""
    sequences: dict[str, int] = msgspec.field(default_factory=dict)
    """For each instance, the last record copied."""


class Copier:
    """Copies every instance under a folder. Blocking; for one thread."""

    def __init__(self, engine: Engine, directory: Path, retention: float) -> None:
        self._engine = engine
        self._directory = directory
        self._retention = retention
        self._positions: dict[str, Position] = {}
        self.status = Status()

    def load(self) -> None:
        """Read where the last run stopped. Raises `SQLAlchemyError`."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(audit_positions)).all()
        self._positions = {row.instance: Position(row.sequence, row.segment, row.octet) for row in rows}
        self.status.sequences = {row.instance: row.sequence for row in rows}

    def step(self) -> bool:
        """Copy a batch of each instance; whether there may be more. Raises `SQLAlchemyError`, `OSError`."""
        more = False
        for folder in list_instances(self._directory):
            start = self._positions.get(folder.name, Position())
            batch = read_batch(folder, start, BATCH)
            if batch.position != start:
                self._store(folder.name, start, batch)
                self._positions[folder.name] = batch.position
                self.status.sequences[folder.name] = batch.position.sequence
            more = more or len(batch.records) >= BATCH
        return more

    def measure(self) -> int:
        """How many records are not copied yet."""
        lag = 0
        for folder in list_instances(self._directory):
            lag += max(0, last_sequence(folder) - self._positions.get(folder.name, Position()).sequence)
        self.status.lag = lag
        return lag

    def purge(self) -> bool:
        """Remove some of what is too old to be searched; whether there may be more."""
        if not self._retention:
            return False
        # The newest row stays, however old: its number must not be given to another record.
        newest = select(func.max(audit_events.c.id)).scalar_subquery()
        old = (
            select(audit_events.c.id)
            .where(audit_events.c.time < self._cutoff(), audit_events.c.id < newest)
            .limit(PURGE)
        )
        with self._engine.connect().execution_options(zapd_write=True) as connection, connection.begin():
            gone = connection.execute(delete(audit_events).where(audit_events.c.id.in_(old)))
        return gone.rowcount >= PURGE

    def _cutoff(self) -> int:
        return int((time.time() - self._retention) * 1e6) if self._retention else -(2**63)

    def _store(self, instance: str, start: Position, batch: Batch) -> None:
        cutoff = self._cutoff()
        rows = [
            _row(instance, record, moment, line)
            for record, line in batch.records
            if (moment := _microseconds(record.time)) >= cutoff
        ]
        with self._engine.connect().execution_options(zapd_write=True) as connection, connection.begin():
            if connection.dialect.name == "postgresql":  # as for SQLite in `table`: what is lost is copied again
                connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
                # Rows are numbered when they are made and seen when they are committed: one copier at a time, or
                # whoever follows the copy would step over a row that was numbered before and committed after.
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": COPY_LOCK})
            rows, conflicts = _without_known(connection, instance, rows)
            if rows:
                connection.execute(insert(audit_events), rows)
            _save_position(connection, instance, start, batch.position)
        self.status.copied += len(rows)
        self.status.conflicts += conflicts
        self.status.missed += batch.missed
        self.status.unreadable += batch.unreadable


def _without_known(
    connection: Connection, instance: str, rows: list[dict[str, object]]
) -> tuple[list[dict[str, object]], int]:
    """The rows that are not there yet, and how many are there with another hash."""
    if not rows:
        return rows, 0
    numbers = [int(str(row["sequence"])) for row in rows]
    place = audit_events.c
    known: dict[int, str] = {
        row.sequence: row.hash
        for row in connection.execute(
            select(place.sequence, place.hash).where(
                place.instance == instance, place.sequence.between(min(numbers), max(numbers))
            )
        )
    }
    fresh, conflicts = [], 0
    for number, row in zip(numbers, rows, strict=True):
        there = known.get(number)
        if there is None:
            known[number] = str(row["hash"])
            fresh.append(row)
        elif there != row["hash"]:
            conflicts += 1
    return fresh, conflicts


def _save_position(connection: Connection, instance: str, start: Position, position: Position) -> None:
    values = {"sequence": position.sequence, "segment": position.segment, "octet": position.octet}
    changed = connection.execute(
        update(audit_positions).where(audit_positions.c.instance == instance).values(**values)
    ).rowcount
    if not changed:
        connection.execute(insert(audit_positions).values(instance=instance, **values))


def _row(instance: str, record: Record, moment: int, line: str) -> dict[str, object]:
    return {
        "instance": instance,
        "sequence": record.sequence,
        "time": moment,
        "event": _text(record.event) or "",
        "domain": None if record.domain is None else record.domain.replace("\x00", "�")[:LONGEST],
        "mechanism": _text(record.mechanism),
        "address": _text(record.address),
        "agent": _text(record.agent),
        "principal": _text(record.principal),
        "key": _text(record.key),
        "username": _text(record.username),
        "status": record.status if 0 < record.status < 1000 else None,
        "reason": _text(record.reason),
        "question_id": _text(record.question_id),
        "hash": _text(record.hash) or "",
        "json": line,
    }


def _text(value: str) -> str | None:
    """A column's text: PostgreSQL takes no NUL, and an index no endless text."""
    return value.replace("\x00", "�")[:LONGEST] or None


_second: tuple[str, int] = ("", 0)


def _microseconds(text: str) -> int:
    """Microseconds since 1970 of a record's time; 0 when it is none."""
    global _second
    if text[:19] != _second[0]:
        try:
            _second = (text[:19], timegm(time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")) * 1_000_000)
        except ValueError:
            return 0
    fraction = text[20:26]
    return _second[1] + (int(fraction) if fraction.isascii() and fraction.isdigit() else 0)


def main() -> None:
    """Run until standard input ends."""
    for each in (signal.SIGINT, signal.SIGTERM):  # a terminal and systemd tell the whole group; the parent decides
        signal.signal(each, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # the URL may hold a password
    with contextlib.suppress(OSError):
        os.nice(19)
        # A nice process may still keep one that wakes up waiting for a time slice; an idle one never does.
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    settings = msgspec.json.decode(sys.stdin.buffer.readline(), type=Settings)
    ending = threading.Event()

    def watch() -> None:
        while sys.stdin.buffer.read(4096):
            pass
        ending.set()

    threading.Thread(target=watch, name="parent", daemon=True).start()
    _run(settings, ending)


def _run(settings: Settings, ending: threading.Event) -> None:
    delay = 0.5
    status = Status()
    while not ending.is_set():
        engine: Engine | None = None
        try:
            engine = open_copy(settings.url, Path(settings.base_dir), create=True)
            copier = Copier(engine, Path(settings.directory), settings.retention)
            copier.load()
            copier.status = msgspec.structs.replace(status, error="", sequences=copier.status.sequences)
            status = copier.status
            delay = 0.5
            _follow(copier, settings, ending)
        except (SQLAlchemyError, OSError, ZapdError) as error:
            # SQLAlchemy's text may quote what the driver says about the connection: the kind is enough.
            cause = getattr(error, "orig", None) or error
            status.error = type(cause).__name__ if isinstance(error, SQLAlchemyError) else str(error)
            _say(status)
            ending.wait(delay)
            delay = min(delay * 2, 15.0)
        finally:
            if engine is not None:
                engine.dispose()


def _follow(copier: Copier, settings: Settings, ending: threading.Event) -> None:
    status = copier.status
    complete = time.monotonic()
    say_at = purge_at = 0.0
    while not ending.is_set():
        more = copier.step()
        now = time.monotonic()
        if not more:
            complete = now
        if now >= say_at:
            copier.measure()
            status.lag_seconds = round(now - complete, 3)
            _say(status)
            say_at = now + STATUS_SECONDS
        if now >= purge_at and not more:
            purge_at = now if copier.purge() else now + PURGE_SECONDS
        if not more:
            ending.wait(settings.poll)


def _say(status: Status) -> None:
    line = msgspec.json.encode(status) + b"\n"
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        main()
    os._exit(0)  # at once: who is idle takes long to tidy up, and the parent waits
