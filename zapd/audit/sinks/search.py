"""Searching the SQL copy: newest first, a page at a time. Blocks; for a thread."""

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

from zapd.audit.sinks.table import LONGEST, audit_events
from zapd.errors import InvalidInput, Unavailable
from zapd.store.domains import RESERVED
from zapd.store.types import to_microseconds

DEADLINE = 5.0
"""Seconds that a search may take."""

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


def search(
    engine: Engine, *, filters: Wanted, limit: int = 100, cursor: str | None = None
) -> tuple[list[dict[str, object]], str | None]:
    """(records as the journal's lines have them, newest first; the cursor of the next page, `None` at the end).

    Raises `InvalidInput` for a cursor that is none, `Unavailable` when the copy cannot be asked now or the search
    takes too long.
    """
    limit = max(1, min(limit, MOST))
    columns = audit_events.c
    conditions = list(_conditions(filters))
    if cursor is not None:
        match = _CURSOR.fullmatch(cursor)
        if match is None:
            raise InvalidInput("The cursor is not one that an earlier page gave.")
        at, last = int(match[1]), int(match[2])
        conditions += [columns.time <= at, tuple_(columns.time, columns.id) < tuple_(at, last)]
    # A user may stand in two columns: two searches, each along its own index, instead of one along none.
    alternatives: list[list[ColumnElement[bool]]] = [conditions]
    if filters.user is not None:
        name = filters.user[:LONGEST]
        alternatives = [[*conditions, columns.principal == name], [*conditions, columns.username == name]]
    found: dict[int, tuple[int, str]] = {}
    try:
        with engine.connect() as connection, _deadline(connection):
            for each in alternatives:
                statement = (
                    select(columns.id, columns.time, columns.json)
                    .where(*each)
                    .order_by(columns.time.desc(), columns.id.desc())
                    .limit(limit + 1)
                )
                for row in connection.execute(statement):
                    found[row.id] = (row.time, row.json)
    except SQLAlchemyError as error:
        cause = type(getattr(error, "orig", None) or error).__name__
        raise Unavailable(f"The searchable copy of the journal cannot be asked now ({cause}).") from None
    page = sorted(((moment, number, line) for number, (moment, line) in found.items()), reverse=True)
    following = f"{page[limit - 1][0]}-{page[limit - 1][1]}" if len(page) > limit else None
    return [msgspec.json.decode(line, type=dict[str, object]) for _, _, line in page[:limit]], following


def _conditions(filters: Wanted) -> Iterator[ColumnElement[bool]]:
    columns = audit_events.c
    for name in ("key", "address", "domain"):
        value = getattr(filters, name)
        if value is not None:
            yield columns[name] == value[:LONGEST]
    if filters.status is not None:
        yield columns.status == filters.status
    if filters.event is not None:
        yield (
            _begins(columns.event, filters.event)
            if filters.event.endswith("*")
            else columns.event == filters.event
        )
    if filters.since is not None:
        yield columns.time >= to_microseconds(filters.since)
    if filters.until is not None:
        yield columns.time < to_microseconds(filters.until)
    if filters.domains is not None:
        yield or_(false(), *(_covered(pattern) for pattern in filters.domains))


def _covered(pattern: str) -> ColumnElement[bool]:
    """As `zapd.store.domains.Grant.covers` has it."""
    column = audit_events.c.domain
    if not pattern.endswith("*"):
        return and_(column == pattern, column != RESERVED)
    return and_(_begins(column, pattern), column != "", column != RESERVED)


def _begins(column: Any, pattern: str) -> ColumnElement[bool]:
    start = pattern[:-1]
    condition: ColumnElement[bool] = func.substr(column, 1, len(start)) == start
    return condition


@contextmanager
def _deadline(connection: Connection) -> Iterator[None]:
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
