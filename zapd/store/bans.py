"""The registry of bans: `BanRegistry`, and `BanRecord` for one row.

As `zapd.store.users`. What a ban does to a question is `zapd.auth.bans`' affair; that every process has them in
memory, `zapd.store.bans_index`'s.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, Connection, Row, delete, insert, select

from zapd.errors import NotFound
from zapd.store.tables import bans

KEPT: Final = timedelta(days=7)
"""So long one that is over stays in the list."""

_CHUNK: Final = 500


class BanKind(StrEnum):
    """What is banned."""

    ADDRESS = "address"
    KEY = "key"
    USER = "user"


@dataclass(frozen=True, slots=True)
class BanRecord:
    """One ban, by hand."""

    id: str
    kind: BanKind
    subject: str
    """An address rule, a fingerprint (43 characters of URL-safe base64), or a user's name."""
    domains: tuple[str, ...]
    """Where it holds; ``*`` among them is everywhere, the empty domain included."""
    reason: str
    expires: datetime | None
    created: datetime
    created_by: str
    """Whose token it was."""
    version: int = 1


_NAMES: Final = [field.name for field in fields(BanRecord)]
_COLUMNS: Final = [bans.c[name] for name in _NAMES]


def new_id(moment: datetime) -> str:
    """Sixteen hexadecimal digits; a later ban sorts behind an earlier one."""
    return f"{int(moment.timestamp()):08x}{secrets.token_hex(4)}"


class BanRegistry:
    """Rows of ``bans``."""

    def add(self, connection: Connection, record: BanRecord) -> None:
        connection.execute(insert(bans).values({name: getattr(record, name) for name in _NAMES}))

    def get(self, connection: Connection, ban_id: str) -> BanRecord:
        """One of them. Raises `NotFound`."""
        row = connection.execute(select(*_COLUMNS).where(bans.c.id == ban_id)).first()
        if row is None:
            raise NotFound(f"There is no ban {ban_id!r}.")
        return _record(row)

    def same(self, connection: Connection, record: BanRecord) -> BanRecord | None:
        """One that bans the same, there alone."""
        query = select(*_COLUMNS).where(
            bans.c.kind == record.kind, bans.c.subject == record.subject, bans.c.domains == record.domains
        )
        row = connection.execute(query).first()
        return None if row is None else _record(row)

    def remove(self, connection: Connection, ban_id: str) -> None:
        connection.execute(delete(bans).where(bans.c.id == ban_id))

    def remove_over(self, connection: Connection, moment: datetime) -> None:
        """Forget those that have long been over."""
        connection.execute(delete(bans).where(bans.c.expires < moment - KEPT))

    def page(
        self, connection: Connection, *, after: str = "", limit: int, where: Sequence[ColumnElement[bool]] = ()
    ) -> Sequence[BanRecord]:
        """At most ``limit`` bans in the order of their ids, beginning behind ``after``."""
        query = select(*_COLUMNS).where(bans.c.id > after, *where)
        return [_record(row) for row in connection.execute(query.order_by(bans.c.id).limit(limit))]

    def load(self, connection: Connection, ids: Iterable[str] | None = None) -> dict[str, BanRecord]:
        """Bans by id: all, or those of ``ids`` that are there."""
        if ids is None:
            rows = connection.execute(select(*_COLUMNS)).all()
            return {row.id: _record(row) for row in rows}
        found: dict[str, BanRecord] = {}
        wanted = list(ids)
        for start in range(0, len(wanted), _CHUNK):
            query = select(*_COLUMNS).where(bans.c.id.in_(wanted[start : start + _CHUNK]))
            found.update((row.id, _record(row)) for row in connection.execute(query))
        return found


def _record(row: Row[tuple[object, ...]]) -> BanRecord:
    values = row._asdict()
    values["kind"] = BanKind(values["kind"])
    return BanRecord(**values)
