"""Unknown keys that wait for approval: `SightingRegistry`, and `Sighting` for one row.

One row for each key and domain that it knocked at. Strangers fill this table, so it is bounded three ways: so many
rows for a rule of the configuration, for a source (an IPv4 address, an IPv6 /48, a local user), for an agent. A
bucket that is full makes room among its own rows, where the fullest source gives first: one row of a source that
sends few is pushed out only when there are as many sources as rows.

Knows nothing of who may see what, and decides nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal, NamedTuple

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Row,
    and_,
    bindparam,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)

from zapd.store.agents import AgentRegistry
from zapd.store.tables import keys, sightings
from zapd.zmtp.keys import fingerprint_id

Bucket = Literal["domain", "source", "agent"]


class Bounds(NamedTuple):
    """How many keys may wait."""

    domain: int = 1000
    """For one ``[domain.…]`` of the configuration."""
    source: int = 20
    """From one source."""
    agent: int = 200
    """That one agent asked about."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A key at a domain's door."""

    public_key: bytes
    domain: str
    rule: str
    """The pattern of the configuration that speaks for the domain."""
    source: str
    """Who is behind the address: see `zapd.auth.address.source_of`."""
    address: str
    """The last one."""
    agent: str
    """The last that asked."""
    first_seen: datetime
    last_seen: datetime
    tries: int


_COLUMNS: Final = [sightings.c[name] for name in Sighting.__slots__]
_BUCKETS: Final[dict[Bucket, Column[str]]] = {
    "source": sightings.c.source,
    "agent": sightings.c.agent,
    "domain": sightings.c.rule,
}
_CHANGING: Final = ("rule", "source", "address", "agent", "last_seen", "tries")
"""What another sighting changes of a row."""
_MOST_TRIES: Final = 2**31 - 1
_SOMEBODYS: Final = or_(
    # Not IN: PostgreSQL would look through all keys for each row, where a million are too many for a hash.
    exists().where(keys.c.fingerprint == sightings.c.fingerprint).correlate(sightings),
    AgentRegistry().holds(sightings.c.public_key),
)
"""Registered, or an agent's, since it was seen."""


class SightingRegistry:
    """Rows of ``sightings``."""

    def note(
        self,
        connection: Connection,
        seen: Sequence[Sighting],
        bounds: Bounds,
        *,
        apart: Collection[bytes] = (),
    ) -> Counter[Bucket]:
        """Write some hundreds down; how many rows had to make room, by what was full.

        Keys that are registered, an agent's, or among ``apart`` do not wait for anything and are left out.
        """
        unknown = self._unknown(connection, seen, apart)
        found = sightings.c.fingerprint.in_({mark for mark, _ in unknown})
        query = select(sightings.c.fingerprint, sightings.c.domain, sightings.c.tries).where(found)
        tries = {(row.fingerprint, row.domain): row.tries for row in connection.execute(query)}
        old, new = [], []
        for (mark, domain), each in unknown.items():
            row = {name: getattr(each, name) for name in Sighting.__slots__} | {"fingerprint": mark}
            if (mark, domain) in tries:
                row["tries"] = min(tries[mark, domain] + each.tries, _MOST_TRIES)
                old.append({f"new_{name}": row[name] for name in _CHANGING} | {"mark": mark, "at": domain})
            else:
                new.append(row)
        if old:
            changes = {name: bindparam(f"new_{name}", type_=sightings.c[name].type) for name in _CHANGING}
            here = and_(sightings.c.fingerprint == bindparam("mark"), sightings.c.domain == bindparam("at"))
            connection.execute(update(sightings).where(here).values(changes), old)
        if new:
            connection.execute(insert(sightings), new)
        return self._make_room(connection, unknown.values(), bounds)

    def find(self, connection: Connection, fingerprint: str) -> Sequence[Sighting]:
        """Where a key (43 characters) knocked, in the order of the domains."""
        query = select(*_COLUMNS).where(sightings.c.fingerprint == fingerprint).order_by(sightings.c.domain)
        return [_sighting(row) for row in connection.execute(query)]

    def forget(self, connection: Connection, fingerprint: str) -> None:
        """It waits no longer."""
        connection.execute(delete(sightings).where(sightings.c.fingerprint == fingerprint))

    def page(
        self, connection: Connection, *, after: str = "", limit: int, where: Sequence[ColumnElement[bool]] = ()
    ) -> dict[str, list[Sighting]]:
        """At most ``limit`` keys that are nobody's, in the order of their fingerprints, beginning behind
        ``after``; of each the rows that ``where`` names."""
        wanted = and_(sightings.c.fingerprint > after, ~_SOMEBODYS, *where)
        some = select(sightings.c.fingerprint).distinct().where(wanted)
        marks = connection.scalars(some.order_by(sightings.c.fingerprint).limit(limit)).all()
        query = select(sightings.c.fingerprint, *_COLUMNS).where(sightings.c.fingerprint.in_(marks), *where)
        found: dict[str, list[Sighting]] = defaultdict(list)
        for row in connection.execute(query.order_by(sightings.c.fingerprint, sightings.c.domain)):
            found[row.fingerprint].append(_sighting(row))
        return found

    def counts(self, connection: Connection, before: datetime) -> tuple[dict[str, int], bool]:
        """How many wait by rule, and whether `sweep` finds anything."""
        query = select(sightings.c.rule, func.count()).group_by(sightings.c.rule)
        numbers = {rule: int(number) for rule, number in connection.execute(query)}
        stale = select(sightings.c.domain).where(_is_stale(before)).limit(1)
        return numbers, connection.execute(stale).first() is not None

    def sweep(self, connection: Connection, before: datetime) -> None:
        """Forget those that were not seen since then, and those that became somebody's meanwhile."""
        connection.execute(delete(sightings).where(_is_stale(before)))

    def _unknown(
        self, connection: Connection, seen: Sequence[Sighting], apart: Collection[bytes]
    ) -> dict[tuple[str, str], Sighting]:
        """Those that may wait, by fingerprint and domain."""
        agents = AgentRegistry().find_keys(connection, [each.public_key for each in seen])
        marks = {each.public_key: fingerprint_id(each.public_key) for each in seen}
        query = select(keys.c.fingerprint).where(keys.c.fingerprint.in_(set(marks.values())))
        known = set(connection.scalars(query))
        return {
            (marks[each.public_key], each.domain): each
            for each in seen
            if each.public_key not in agents
            and each.public_key not in apart
            and marks[each.public_key] not in known
        }

    def _make_room(self, connection: Connection, touched: Collection[Sighting], bounds: Bounds) -> Counter[Bucket]:
        gone: Counter[Bucket] = Counter()
        for bucket, column in _BUCKETS.items():
            names = {each.rule if bucket == "domain" else getattr(each, bucket) for each in touched}
            bound = getattr(bounds, bucket)
            full = select(column).where(column.in_(names)).group_by(column).having(func.count() > bound)
            for name in connection.scalars(full).all():
                table = sightings.c
                query = select(table.fingerprint, table.domain, table.source, table.last_seen)
                rows = connection.execute(query.where(column == name)).all()
                victims = surplus([((row[0], row[1]), row[2], row[3]) for row in rows], bound)
                for number in range(0, len(victims), 200):
                    some = victims[number : number + 200]
                    these = [and_(table.fingerprint == mark, table.domain == domain) for mark, domain in some]
                    connection.execute(delete(sightings).where(or_(*these)))
                gone[bucket] += len(victims)
        return gone


Name = tuple[str, str]


def surplus(rows: Iterable[tuple[Name, str, datetime]], bound: int) -> list[Name]:
    """Which of a bucket's rows, each (name, source, last seen), make room so that ``bound`` are left.

    The fullest sources give first, and of theirs the rows that were seen longest ago.
    """
    by_source: dict[str, list[tuple[datetime, Name]]] = defaultdict(list)
    for name, source, seen in rows:
        by_source[source].append((seen, name))
    ranked: list[tuple[int, datetime, Name]] = []
    for found in by_source.values():
        found.sort(reverse=True)
        ranked += [(-rank, seen, name) for rank, (seen, name) in enumerate(found)]
    ranked.sort(reverse=True)  # the newest of each source, then the second of each, …
    return [name for _, _, name in ranked[bound:]]


def _is_stale(before: datetime) -> ColumnElement[bool]:
    return or_(sightings.c.last_seen < before, _SOMEBODYS)


def _sighting(row: Row[tuple[object, ...]]) -> Sighting:
    values = {name: getattr(row, name) for name in Sighting.__slots__}
    values["public_key"] = bytes(values["public_key"])
    return Sighting(**values)
