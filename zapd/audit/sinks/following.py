"""Following the SQL copy: every record once, in the order in which the copy took them. Blocks; for a thread.

A place is a row of the copy and the record in it, so that it proves itself: the copy may have been made anew, or
have let old records go, and whoever comes back then is told what that means instead of being led astray. Rows are
numbered in the order in which they are committed (`copying` sees to that), so whoever has seen a row has seen all
before it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from zapd.audit.sinks.search import Wanted, conditions, deadline, unavailable
from zapd.audit.sinks.table import audit_events
from zapd.errors import InvalidInput
from zapd.store.types import to_microseconds

Answer = TypeVar("Answer")

WINDOW = 5000
"""Rows looked at in one step, whatever is sought among them."""

_PLACE = re.compile(r"([0-9]{1,18})-([0-9a-z]{1,32})-([0-9]{1,18})")
_columns = audit_events.c


@dataclass(frozen=True, slots=True)
class Place:
    """A row of the copy and the record that stands there."""

    row: int
    instance: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.row}-{self.instance}-{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> Place:
        """What `str` made. Raises `InvalidInput`."""
        match = _PLACE.fullmatch(text)
        if match is None:
            raise InvalidInput("Last-Event-ID is not one that this stream gave.")
        return cls(int(match[1]), match[2], int(match[3]))


BEGINNING = Place(0, "0", 0)
"""Before everything."""


@dataclass(frozen=True, slots=True)
class Resumed:
    """Where one goes on, and what one should know about it."""

    place: Place
    lost: str = ""
    """Why records may be missing or come twice, in a sentence; empty when nothing is amiss."""


@dataclass(frozen=True, slots=True)
class Step:
    """What was found in a stretch of the copy."""

    records: Sequence[tuple[Place, str]]
    """Each with the journal's line."""
    place: Place
    """How far was looked, whether or not there was anything."""
    more: bool
    """Whether there may be more at once."""


def newest(engine: Engine) -> Place:
    """The copy's last row; `BEGINNING` of an empty one. Raises `Unavailable`."""

    def ask(connection: Connection) -> Place:
        return _place(connection, select(func.max(_columns.id)).scalar_subquery()) or BEGINNING

    return _asking(engine, ask)


def before(engine: Engine, moment: datetime) -> Place:
    """The place before the first record of that time or later; the newest when there is none. Raises
    `Unavailable`."""

    def ask(connection: Connection) -> Place:
        first = connection.execute(
            select(func.min(_columns.id)).where(_columns.time >= to_microseconds(moment))
        ).scalar()
        if first is None:
            return _place(connection, select(func.max(_columns.id)).scalar_subquery()) or BEGINNING
        found = connection.execute(select(func.max(_columns.id)).where(_columns.id < first)).scalar()
        return BEGINNING if found is None else _place(connection, found) or BEGINNING

    return _asking(engine, ask)


def resume(engine: Engine, place: Place) -> Resumed:
    """Where to go on after ``place``, which may be of long ago. Raises `Unavailable`."""

    def ask(connection: Connection) -> Resumed:
        if place.row == 0 or _place(connection, place.row) == place:
            return Resumed(place)
        row = connection.execute(
            select(_columns.id).where(_columns.instance == place.instance, _columns.sequence == place.sequence)
        ).scalar()
        if row is not None:
            return Resumed(
                Place(row, place.instance, place.sequence),
                "the searchable copy was made anew: records of other instances may come twice or be missing",
            )
        oldest = connection.execute(select(func.min(_columns.id))).scalar()
        newest_row = _place(connection, select(func.max(_columns.id)).scalar_subquery())
        if oldest is None or newest_row is None or newest_row.row < place.row:
            return Resumed(
                newest_row or BEGINNING, "the place is not in the searchable copy: it goes on with what is new"
            )
        if place.row < oldest:
            # What stood before the oldest row is gone; when that was the place's own, nothing is missing.
            between = "" if place.row == oldest - 1 else "older records are no longer in the searchable copy"
            return Resumed(Place(oldest - 1, "0", 0), between)
        return Resumed(newest_row, "the place is not in the searchable copy: it goes on with what is new")

    return _asking(engine, ask)


def read_after(engine: Engine, place: Place, *, filters: Wanted, limit: int) -> Step:
    """The next records that fit, at most ``limit``, among the next `WINDOW` rows. Raises `Unavailable`."""

    def ask(connection: Connection) -> Step:
        # First how far, then what: what is committed between the two is for the next step.
        stretch = select(_columns.id).where(_columns.id > place.row).order_by(_columns.id).limit(WINDOW)
        end = _place(connection, select(func.max(stretch.subquery().c.id)).scalar_subquery())
        if end is None:
            return Step((), place, more=False)
        # With its limit the stretch is read as it lies; without, some filter's index would lead all over the past.
        rest = select(audit_events).where(_columns.id.between(place.row + 1, end.row))
        columns = rest.order_by(_columns.id).limit(WINDOW).subquery().c
        fitting = [condition for _, condition in conditions(filters, columns)]
        if filters.since is not None:
            fitting.append(columns.time >= to_microseconds(filters.since))
        if filters.until is not None:
            fitting.append(columns.time < to_microseconds(filters.until))
        rows = connection.execute(
            select(columns.id, columns.instance, columns.sequence, columns.json)
            .where(*fitting)
            .order_by(columns.id)
            .limit(limit)
        ).all()
        records = [(Place(row.id, row.instance, row.sequence), row.json) for row in rows]
        return Step(records, records[-1][0] if len(records) == limit else end, more=True)

    return _asking(engine, ask)


def _place(connection: Connection, row: object) -> Place | None:
    found = connection.execute(
        select(_columns.id, _columns.instance, _columns.sequence).where(_columns.id == row)
    ).one_or_none()
    return None if found is None else Place(found.id, found.instance, found.sequence)


def _asking(engine: Engine, ask: Callable[[Connection], Answer]) -> Answer:
    try:
        with engine.connect() as connection, deadline(connection):
            return ask(connection)
    except SQLAlchemyError as error:
        raise unavailable(error) from None
