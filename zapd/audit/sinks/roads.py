"""Along which index a search goes back in time: that of its rarest condition.

How rare a condition is the index itself says: where its so-and-so-many-th newest record lies furthest in the past.
That costs a look at a few thousand entries of each index, and needs no statistics that somebody has to keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, func, select

from zapd.audit.event import Tag
from zapd.audit.sinks.table import LONGEST, audit_events
from zapd.store.domains import RESERVED

if TYPE_CHECKING:
    from zapd.audit.sinks.search import Wanted

PROBE = 2000
"""Entries of an index that are looked at to judge it."""

MOST_DOMAINS = 32
"""Domains that a token's patterns may stand for to be walked each by itself."""

Lane = tuple[ColumnElement[bool], ...]


@dataclass(frozen=True, slots=True)
class Road:
    """Walk each lane by its own index; together they meet every record sought."""

    lanes: tuple[Lane, ...]
    settles: str
    """The filter that need not be looked at again; empty for none."""
    leaves_open: bool
    """Whether other filters are left to look at."""


def choose(connection: Connection, filters: Wanted, bounds: Sequence[ColumnElement[bool]]) -> Road:
    """The best road for a search between those times."""
    ways = dict(_ways(connection, filters))
    asked = [name for name in _FILTERS if getattr(filters, name) is not None]
    if not asked:
        return Road(((),), "", leaves_open=False)
    if len(asked) == 1 and len(ways) == 1:
        return Road(tuple(ways[asked[0]]), asked[0], leaves_open=False)
    ways[""] = [()]
    best = min(ways, key=lambda name: _density(connection, ways[name], bounds))
    return Road(tuple(ways[best]), best, leaves_open=asked != [best])


_FILTERS = ("key", "address", "user", "domain", "status", "event", "domains")


def _ways(connection: Connection, filters: Wanted) -> list[tuple[str, list[Lane]]]:
    """For each filter that an index serves, its lanes."""
    columns = audit_events.c
    found: list[tuple[str, list[Lane]]] = []
    for name in ("key", "address", "domain"):
        value = getattr(filters, name)
        if value is not None:
            found.append((name, [(columns[name] == value[:LONGEST],)]))
    if filters.user is not None:
        name = filters.user[:LONGEST]
        found.append(("user", [(columns.principal == name,), (columns.username == name,)]))
    if filters.status is not None:
        found.append(("status", [(columns.status == filters.status,)]))
    if filters.event is not None:
        tags = _tags(filters.event)
        found.append(("event", [(columns.event == tag,) for tag in tags]))
    if filters.domains is not None:
        names = _domains(connection, filters.domains)
        if names is not None:
            found.append(("domains", [(columns.domain == name,) for name in names]))
    return found


def _tags(event: str) -> list[str]:
    if not event.endswith("*"):
        return [event]
    return [tag.value for tag in Tag if tag.startswith(event[:-1])]


def _domains(connection: Connection, patterns: Sequence[str]) -> list[str] | None:
    """The domains in the copy that patterns stand for, by leaps through their index; None when there are too
    many."""
    column = audit_events.c.domain
    found = {pattern for pattern in patterns if not pattern.endswith("*")}
    for start in {pattern[:-1] for pattern in patterns if pattern.endswith("*")}:
        after = select(func.min(column)).where(column >= start, column != "")
        while len(found) <= MOST_DOMAINS:
            name = connection.execute(after).scalar()
            if name is None or not name.startswith(start):
                break
            found.add(name)
            after = select(func.min(column)).where(column > name)
    return sorted(found - {RESERVED}) if len(found) <= MOST_DOMAINS else None


def _density(
    connection: Connection, lanes: Sequence[Lane], bounds: Sequence[ColumnElement[bool]]
) -> tuple[int, float]:
    """Less is rarer: (0, how many there are), or (1, how closely they stand) where there are many."""
    columns = audit_events.c
    total, closeness, many = 0, 0.0, False
    for lane in lanes:
        newest = (
            select(columns.time)
            .where(*lane, *bounds)
            .order_by(columns.time.desc())
            .limit(PROBE)
            .subquery("newest")
        )
        count, first, last = connection.execute(
            select(func.count(), func.min(newest.c.time), func.max(newest.c.time))
        ).one()
        total += count
        if count == PROBE:
            many = True
            closeness += PROBE / (last - first + 1)
    return (1, closeness) if many else (0, total)
