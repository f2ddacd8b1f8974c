"""The registry of enrolled agents: `AgentRegistry`, and `AgentRecord` for one row.

As `zapd.store.keys`. For the quick look-up at zapd's own door see `zapd.store.agents_index`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, Connection, Row, Table, insert, or_, select, update

from zapd.errors import NotFound
from zapd.store.tables import agents


class AgentState(StrEnum):
    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class AgentRecord:
    """One bridge that may ask, and what about."""

    name: str
    fingerprint: str
    public_key: bytes
    state: AgentState
    domains: tuple[str, ...]
    mechanisms: tuple[str, ...]
    addresses: tuple[str, ...]
    """Networks it may connect from; empty is anywhere."""
    reason: str
    created: datetime
    updated: datetime
    version: int = 1
    previous_key: bytes | None = None
    """What its key was before it was rotated: good as well until ``previous_until``, and nobody else's ever."""
    previous_until: datetime | None = None


_COLUMNS: Final = [agents.c[field.name] for field in fields(AgentRecord)]


class AgentRegistry:
    """Rows of ``agents``."""

    def add(self, connection: Connection, record: AgentRecord) -> None:
        connection.execute(insert(agents).values(_values(record)))

    def find(self, connection: Connection, name: str) -> AgentRecord | None:
        row = connection.execute(select(*_COLUMNS).where(agents.c.name == name)).first()
        return None if row is None else _record(row)

    def find_key(self, connection: Connection, public_key: bytes) -> AgentRecord | None:
        """The agent that holds this key or held it before its last rotation, revoked or not."""
        return self.find_keys(connection, [public_key]).get(public_key)

    def find_keys(self, connection: Connection, public_keys: Sequence[bytes]) -> dict[bytes, AgentRecord]:
        """As `find_key`, for some hundreds: those that are agents'."""
        ours = or_(agents.c.public_key.in_(public_keys), agents.c.previous_key.in_(public_keys))
        found: dict[bytes, AgentRecord] = {}
        for row in connection.execute(select(*_COLUMNS).where(ours)):
            record = _record(row)
            found[record.public_key] = record
            if record.previous_key is not None:
                found[record.previous_key] = record
        return found

    def holds(self, public_key: ColumnElement[bytes]) -> ColumnElement[bool]:
        """Whether a column's key is an agent's, or was before its last rotation."""
        former = select(agents.c.previous_key).where(agents.c.previous_key.is_not(None))
        return or_(public_key.in_(select(agents.c.public_key)), public_key.in_(former))

    def hold_any(self, connection: Connection, place: Table) -> bool:
        """Whether any key of a table's column ``public_key`` is an agent's, or was before its last rotation."""
        keys = place.c.public_key
        return any(
            connection.execute(select(keys).join(agents, mine == keys).limit(1)).first()
            for mine in (agents.c.public_key, agents.c.previous_key)
        )

    def get(self, connection: Connection, name: str) -> AgentRecord:
        """As `find`, but raises `NotFound`."""
        record = self.find(connection, name)
        if record is None:
            raise NotFound(f"There is no agent {name!r}.")
        return record

    def save(self, connection: Connection, record: AgentRecord, moment: datetime) -> AgentRecord:
        """Write a changed record over its row; returns it with its new version and time."""
        saved = replace(record, version=record.version + 1, updated=moment)
        values = _values(saved)
        del values["name"], values["created"]
        connection.execute(update(agents).where(agents.c.name == record.name).values(values))
        return saved

    def page(
        self, connection: Connection, *, after: str = "", limit: int, where: Sequence[ColumnElement[bool]] = ()
    ) -> Sequence[AgentRecord]:
        """At most ``limit`` agents in the order of their names, beginning behind ``after``."""
        query = select(*_COLUMNS).where(agents.c.name > after, *where)
        return [_record(row) for row in connection.execute(query.order_by(agents.c.name).limit(limit))]


def _record(row: Row[tuple[object, ...]]) -> AgentRecord:
    values = row._asdict()
    values["state"] = AgentState(values["state"])
    values["public_key"] = bytes(values["public_key"])
    if values["previous_key"] is not None:
        values["previous_key"] = bytes(values["previous_key"])
    return AgentRecord(**values)


def _values(record: AgentRecord) -> dict[str, object]:
    return {field.name: getattr(record, field.name) for field in fields(record)}
