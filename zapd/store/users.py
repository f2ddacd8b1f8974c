"""The registry of PLAIN users: `UserRegistry`, and `UserRecord` for one row.

As `zapd.store.keys`: the caller's transaction, no rules, no rights. Passwords come as finished hashes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select, update

from zapd.errors import NotFound
from zapd.store.staging import Stage
from zapd.store.tables import users


class UserState(StrEnum):
    ENABLED = "enabled"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True)
class UserRecord:
    """One user."""

    name: str
    hash: str = field(repr=False)
    """Never leaves the store but to be verified against."""
    state: UserState
    domains: tuple[str, ...]
    groups: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]
    expires: datetime | None
    created: datetime
    updated: datetime
    version: int = 1


_NAMES: Final = [field.name for field in fields(UserRecord)]
_COLUMNS: Final = [users.c[name] for name in _NAMES]


class UserRegistry:
    """Rows of ``users``."""

    def add(self, connection: Connection, record: UserRecord) -> None:
        connection.execute(insert(users).values(_values(record)))

    def find(self, connection: Connection, name: str) -> UserRecord | None:
        row = connection.execute(select(*_COLUMNS).where(users.c.name == name)).first()
        return None if row is None else _record(row)

    def find_many(self, connection: Connection, names: Sequence[str]) -> dict[str, UserRecord]:
        """Those of some hundreds of names that are there."""
        query = select(*_COLUMNS).where(users.c.name.in_(names))
        return {row.name: _record(row) for row in connection.execute(query)}

    def stage_many(self, stage: Stage, records: Sequence[UserRecord]) -> None:
        """`add` for some hundreds, when the stage moves in."""
        stage.put(users, [_values(record) for record in records])

    def get(self, connection: Connection, name: str) -> UserRecord:
        """As `find`, but raises `NotFound`."""
        record = self.find(connection, name)
        if record is None:
            raise NotFound(f"There is no user {name!r}.")
        return record

    def save(self, connection: Connection, record: UserRecord, moment: datetime) -> UserRecord:
        """Write a changed record over its row; returns it with its new version and time."""
        saved = replace(record, version=record.version + 1, updated=moment)
        values = _values(saved)
        del values["name"], values["created"]
        connection.execute(update(users).where(users.c.name == record.name).values(values))
        return saved

    def remove(self, connection: Connection, name: str) -> None:
        connection.execute(delete(users).where(users.c.name == name))

    def page(
        self, connection: Connection, *, after: str = "", limit: int, where: Sequence[ColumnElement[bool]] = ()
    ) -> Sequence[UserRecord]:
        """At most ``limit`` users in the order of their names, beginning behind ``after``."""
        query = select(*_COLUMNS).where(users.c.name > after, *where)
        return [_record(row) for row in connection.execute(query.order_by(users.c.name).limit(limit))]


def _record(row: Row[tuple[object, ...]]) -> UserRecord:
    values = row._asdict()
    values["state"] = UserState(values["state"])
    return UserRecord(**values)


def _values(record: UserRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in _NAMES}
