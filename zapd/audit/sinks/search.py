"""Searching the SQL copy: newest first, a page at a time. Blocks; for a thread.

A search goes back in time along the index of its rarest condition and looks at what it meets there, in steps of
bounded size. A page leaves when it is full, when there is no more, or when its time is up: what was seen until
then is kept, and the cursor says where the next page goes on. So a search that finds next to nothing among ten
million records is many short questions to the database, never one that is given up.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

import msgspec
from sqlalchemy import ColumnElement, Connection, Engine, and_, false, func, or_, select, tuple_
from sqlalchemy.exc import SQLAlchemyError

from zapd.audit.sinks.roads import Road, choose
from zapd.audit.sinks.table import LONGEST, audit_events
from zapd.errors import InvalidInput, Unavailable
from zapd.store.domains import RESERVED
from zapd.store.types import to_microseconds

DEADLINE = 5.0
"""Seconds that a search may take, whatever it does."""

BUDGET = 1.0
"""Seconds after which a page leaves with what it has."""

FIRST_STEP = 500
LARGEST_STEP = 20_000
"""Records looked at between two looks at the clock, at first and at most."""

MOST = 1000
"""Records in one page, at most."""

_CURSOR = re.compile(r"([0-9]{1,18})-([0-9]{1,18})")


class Wanted(Protocol):
    """What is sought: `Filters` here, and whatever else has these. `None` is no condition."""

    @property
    def user(self) -> str | None:
        """A principal or a PLAIN user name."""

    @property
    def key(self) -> str | None:
        """``SHA256:…``."""

    @property
    def address(self) -> str | None: ...
    @property
    def domain(self) -> str | None: ...
    @property
    def status(self) -> int | None: ...
    @property
    def event(self) -> str | None:
        """A tag, or the beginning of some with a ``*``: ``key.*``."""

    @property
    def since(self) -> datetime | None: ...
    @property
    def until(self) -> datetime | None:
        """Exclusive."""

    @property
    def domains(self) -> Sequence[str] | None:
        """Domain patterns beyond which nothing is shown; `None` shows all, also what has no domain."""


@dataclass(frozen=True, slots=True)
class Filters:
    """A `Wanted` for whoever has none of its own."""

    user: str | None = None
    key: str | None = None
    address: str | None = None
    domain: str | None = None
    status: int | None = None
    event: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    domains: Sequence[str] | None = None


Position = tuple[int, int]
"""(microseconds, id): where in the past a search stands. What comes next is older."""


def search(
    engine: Engine,
    *,
    filters: Wanted,
    limit: int = 100,
    cursor: str | None = None,
    budget: float = BUDGET,
    step: int = FIRST_STEP,
) -> tuple[list[dict[str, object]], str | None]:
    """(records as the journal's lines have them, newest first; the cursor of the next page, `None` at the end).

    A page may hold fewer than ``limit``, or none, although there are more. Raises `InvalidInput` for a cursor that
    is none, `Unavailable` when the copy cannot be asked now.
    """
    limit = max(1, min(limit, MOST))
    position = _position(cursor)
    enough = time.monotonic() + budget
    found: list[tuple[int, int, str]] = []
    try:
        with engine.connect() as connection, deadline(connection):
            road = choose(connection, filters, _bounds(filters, position))
            while True:
                seen, position = _walk(connection, filters, road, position, limit + 1, step)
                found += seen
                if len(found) > limit:
                    position = found[limit - 1][:2]
                if position is None or len(found) > limit or time.monotonic() >= enough:
                    break
                step = min(4 * step, LARGEST_STEP)
    except SQLAlchemyError as error:
        raise unavailable(error) from None
    following = None if position is None else f"{position[0]}-{position[1]}"
    return [msgspec.json.decode(line, type=dict[str, object]) for _, _, line in found[:limit]], following


def unavailable(error: SQLAlchemyError) -> Unavailable:
    """The same for whoever asked: the kind of trouble alone, since its words may quote what was asked."""
    cause = type(getattr(error, "orig", None) or error).__name__
    return Unavailable(f"The searchable copy of the journal cannot be asked now ({cause}).")


def _position(cursor: str | None) -> Position | None:
    if cursor is None:
        return None
    match = _CURSOR.fullmatch(cursor)
    if match is None:
        raise InvalidInput("The cursor is not one that an earlier page gave.")
    return int(match[1]), int(match[2])


def _walk(
    connection: Connection, filters: Wanted, road: Road, position: Position | None, count: int, step: int
) -> tuple[list[tuple[int, int, str]], Position | None]:
    """(What was met, newest first; how far all of the road was looked at, `None` when to its end).

    A road of several lanes (a user is a principal or a user name) is complete only as far as each of them is.
    """
    columns = audit_events.c
    met: dict[int, tuple[int, int, str]] = {}
    reached: list[Position] = []
    for lane in road.lanes:
        along = (
            select(audit_events)
            .where(*lane, *_bounds(filters, position))
            .order_by(columns.time.desc(), columns.id.desc())
        )
        if road.leaves_open:
            page = along.limit(step).subquery("along")
            rest = [condition for name, condition in conditions(filters, page.c) if name != road.settles]
            statement = (
                select(page.c.time, page.c.id, page.c.json)
                .where(*rest)
                .order_by(page.c.time.desc(), page.c.id.desc())
                .limit(count)
            )
        else:
            statement = along.with_only_columns(columns.time, columns.id, columns.json).limit(count)
        rows = [(row.time, row.id, row.json) for row in connection.execute(statement)]
        met.update((number, (moment, number, line)) for moment, number, line in rows)
        if len(rows) == count:
            reached.append(rows[-1][:2])
        elif road.leaves_open:
            end = along.with_only_columns(columns.time, columns.id).offset(step - 1).limit(1)
            last = connection.execute(end).one_or_none()
            if last is not None:
                reached.append((last.time, last.id))
    if not reached:
        return sorted(met.values(), reverse=True), None
    known = max(reached)
    return sorted((each for each in met.values() if each[:2] >= known), reverse=True), known


def _bounds(filters: Wanted, position: Position | None) -> list[ColumnElement[bool]]:
    """Between which times; the part of the search that every index has."""
    columns = audit_events.c
    found: list[ColumnElement[bool]] = []
    if filters.since is not None:
        found.append(columns.time >= to_microseconds(filters.since))
    if filters.until is not None:
        found.append(columns.time < to_microseconds(filters.until))
    if position is not None:  # the first half is what an index understands
        found += [columns.time <= position[0], tuple_(columns.time, columns.id) < tuple_(*position)]
    return found


def conditions(filters: Wanted, columns: Any) -> Iterator[tuple[str, ColumnElement[bool]]]:
    """What is asked of a record but its time, each by the name that a road settles; ``columns`` are the table's
    or a subquery's."""
    for name in ("key", "address", "domain"):
        value = getattr(filters, name)
        if value is not None:
            yield name, columns[name] == value[:LONGEST]
    if filters.user is not None:
        name = filters.user[:LONGEST]
        yield "user", or_(columns.principal == name, columns.username == name)
    if filters.status is not None:
        yield "status", columns.status == filters.status
    if filters.event is not None:
        whole = not filters.event.endswith("*")
        yield "event", columns.event == filters.event if whole else _begins(columns.event, filters.event)
    if filters.domains is not None:
        yield "domains", or_(false(), *(_covered(columns.domain, pattern) for pattern in filters.domains))


def _covered(column: Any, pattern: str) -> ColumnElement[bool]:
    """As `zapd.store.domains.Grant.covers` has it."""
    if not pattern.endswith("*"):
        return and_(column == pattern, column != RESERVED)
    return and_(_begins(column, pattern), column != "", column != RESERVED)


def _begins(column: Any, pattern: str) -> ColumnElement[bool]:
    start = pattern[:-1]
    condition: ColumnElement[bool] = func.substr(column, 1, len(start)) == start
    return condition


@contextmanager
def deadline(connection: Connection) -> Iterator[None]:
    """PostgreSQL ends long statements by itself; SQLite is asked to."""
    if connection.dialect.name != "sqlite":
        yield
        return
    driver: Any = connection.connection.driver_connection
    end = time.monotonic() + DEADLINE
    driver.set_progress_handler(lambda: time.monotonic() > end, 10_000)
    try:
        yield
    finally:
        driver.set_progress_handler(None, 0)
