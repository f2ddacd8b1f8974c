"""The registry of join tokens: `JoinRegistry`, and `JoinRecord` for one row.

As `zapd.store.tokens`: stored as its SHA-256 and found by it. A use is counted by the database itself, which
refuses to count beyond the last one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, update

from zapd.errors import NotFound
from zapd.store.tables import joins


@dataclass(frozen=True, slots=True)
class JoinRecord:
    """One join token, without the token, and what a key that is had for it is given."""

    id: str
    hash: bytes = field(repr=False)
    """SHA-256 of the token, 32 octets."""
    user: str
    domains: tuple[str, ...]
    groups: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]
    label: str
    addresses: tuple[str, ...]
    """Networks from which it may be exchanged; empty is anywhere."""
    hints: tuple[tuple[str, str], ...]
    """What whoever exchanges it is told besides."""
    uses: int
    used: int
    key_lifetime: int | None
    """Seconds; None is for ever."""
    expires: datetime
    created: datetime
    created_by: str
    revoked: datetime | None = None
    last_used: datetime | None = None


_COLUMNS: Final = [joins.c[field.name] for field in fields(JoinRecord)]


class JoinRegistry:
    """Rows of ``joins``."""

    def add(self, connection: Connection, record: JoinRecord) -> None:
        values = {field.name: getattr(record, field.name) for field in fields(record)}
        connection.execute(insert(joins).values(values))

    def find(self, connection: Connection, digest: bytes) -> JoinRecord | None:
        """The token with this SHA-256, spent, revoked and expired ones too."""
        row = connection.execute(select(*_COLUMNS).where(joins.c.hash == digest)).first()
        return None if row is None else _record(row)

    def get(self, connection: Connection, join_id: str) -> JoinRecord:
        """The token with this id; raises `NotFound`."""
        row = connection.execute(select(*_COLUMNS).where(joins.c.id == join_id)).first()
        if row is None:
            raise NotFound(f"There is no join token {join_id!r}.")
        return _record(row)

    def spend(self, connection: Connection, join_id: str, moment: datetime) -> bool:
        """Count one use; False, and nothing counted, where none is left."""
        left = (joins.c.id == join_id, joins.c.used < joins.c.uses, joins.c.revoked.is_(None))
        done = connection.execute(
            update(joins).where(*left).values(used=joins.c.used + 1, last_used=moment).returning(joins.c.id)
        )
        return done.first() is not None

    def revoke(self, connection: Connection, join_id: str, moment: datetime) -> None:
        connection.execute(update(joins).where(joins.c.id == join_id).values(revoked=moment))

    def good(self, connection: Connection, moment: datetime) -> int:
        """How many may still be exchanged."""
        query = select(func.count()).select_from(joins)
        alive = (joins.c.revoked.is_(None), joins.c.used < joins.c.uses, joins.c.expires > moment)
        return int(connection.execute(query.where(*alive)).scalar_one())

    def forget(self, connection: Connection, expired_before: datetime) -> None:
        """Delete those that expired before then."""
        connection.execute(delete(joins).where(joins.c.expires < expired_before))

    def page(
        self, connection: Connection, *, after: str = "", limit: int, where: Sequence[ColumnElement[bool]] = ()
    ) -> Sequence[JoinRecord]:
        """At most ``limit`` tokens in the order of their ids, beginning behind ``after``."""
        query = select(*_COLUMNS).where(joins.c.id > after, *where)
        return [_record(row) for row in connection.execute(query.order_by(joins.c.id).limit(limit))]


def _record(row: Row[tuple[object, ...]]) -> JoinRecord:
    values = row._asdict()
    values["hash"] = bytes(values["hash"])
    return JoinRecord(**values)
