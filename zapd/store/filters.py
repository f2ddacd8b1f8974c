"""SQL conditions over columns of domain patterns, so that a page of a long list is found by the database.

Patterns stand in a column as canonical JSON text. The conditions look for a pattern with its quotation marks;
they may find too much (letter case on SQLite, an escaped quotation mark) and never too little, so whoever uses
them asks `Grant` about each row found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from sqlalchemy import Column, ColumnElement, Text, and_, literal_column, or_, true, type_coerce

from zapd.store.domains import is_everywhere
from zapd.store.types import canonical

Row = TypeVar("Row")


def granted_in(column: Column[tuple[str, ...]], domain: str) -> ColumnElement[bool]:
    """Rows some pattern of which covers this domain."""
    covering = [domain, *(f"{domain[:end]}*" for end in range(len(domain) + 1))]
    return or_(*(_holds(column, canonical(pattern)) for pattern in covering))


def granted_within(column: Column[tuple[str, ...]], patterns: Iterable[str]) -> ColumnElement[bool]:
    """Rows some pattern of which lies within these patterns."""
    wanted = tuple(patterns)
    if is_everywhere(wanted):
        return true()
    return or_(*(_holds(column, canonical(p[:-1])[:-1] if p.endswith("*") else canonical(p)) for p in wanted))


def in_state(column: Column[str], state: str) -> ColumnElement[bool]:
    """Rows in this state. SQLite uses the index of those that are not active only where its condition is said."""
    found = column == state
    return found if state == "active" else and_(found, column != literal_column("'active'"))


def collect(
    fetch: Callable[[str, int], Sequence[Row]],
    keep: Callable[[Row], bool],
    name: Callable[[Row], str],
    *,
    after: str,
    limit: int,
) -> tuple[list[Row], str | None]:
    """One page of what ``keep`` keeps, in the order of ``name``; and where the next page begins, if there is one.

    ``fetch(after, limit)`` reads rows. The cursor names a row of the page itself, never one that was left out.
    """
    kept: list[Row] = []
    while True:
        rows = fetch(after, limit + 1)
        for row in rows:
            if not keep(row):
                continue
            if len(kept) == limit:
                return kept, name(kept[-1])
            kept.append(row)
        if len(rows) <= limit:
            return kept, None
        after = name(rows[-1])


def _holds(column: Column[tuple[str, ...]], text: str) -> ColumnElement[bool]:
    return type_coerce(column, Text).contains(text, autoescape=True)
