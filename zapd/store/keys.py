"""The registry of CURVE public keys: `KeyRegistry`, and `KeyRecord` for one row.

Every method takes the caller's open transaction, so that a use case can put the row and its change-log row
into one. Knows nothing of who may do what, and checks no rules: see `zapd.store.rules`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from sqlalchemy import ColumnElement, Connection, Row, delete, func, insert, select, type_coerce, union_all, update

from zapd.errors import NotFound
from zapd.store.staging import Stage
from zapd.store.tables import keys
from zapd.store.types import Strings


class KeyState(StrEnum):
    PENDING = "pending"
    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One key and who holds it. Its identity, fingerprint and octets, never changes."""

    fingerprint: str
    """43 characters of URL-safe base64."""
    public_key: bytes
    user: str
    state: KeyState
    domains: tuple[str, ...]
    groups: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]
    label: str
    not_before: datetime | None
    expires: datetime | None
    reason: str
    created: datetime
    updated: datetime
    version: int = 1
    """Rises by one with each change."""
    replaces: str | None = None
    """The fingerprint of the key that this one was rotated in for."""
    replaced_by: str | None = None
    """The fingerprint of the key that was rotated in for this one, which ends at its expiry."""
    origin: str | None = None
    """``join:ID`` or ``signin:DOMAIN``, where no operator registered it."""


SIGNED_IN: Final = "signin:"
"""How the origin of a key begins that somebody has signed in for; the domain follows."""

_SIGNED_IN: Final = (
    keys.c.origin.is_not(None),
    keys.c.origin.startswith(SIGNED_IN),
    keys.c.state == KeyState.ACTIVE,
)
_NAMES: Final = [field.name for field in fields(KeyRecord)]
MOST_SETS: Final = 64
"""Values of ``domains`` that are looked at one by one."""
_COLUMNS: Final = [keys.c[name] for name in _NAMES]


class KeyRegistry:
    """Rows of ``keys``."""

    def add(self, connection: Connection, record: KeyRecord) -> None:
        """Insert. A key that is there already is the database's `IntegrityError`: look first."""
        connection.execute(insert(keys).values(_values(record)))

    def find(self, connection: Connection, fingerprint: str) -> KeyRecord | None:
        """The key with this fingerprint (43 characters)."""
        row = connection.execute(select(*_COLUMNS).where(keys.c.fingerprint == fingerprint)).first()
        return None if row is None else _record(row)

    def find_many(self, connection: Connection, fingerprints: Sequence[str]) -> dict[str, KeyRecord]:
        """Those of some hundreds of fingerprints that are there."""
        query = select(*_COLUMNS).where(keys.c.fingerprint.in_(fingerprints))
        return {row.fingerprint: _record(row) for row in connection.execute(query)}

    def stage_many(self, stage: Stage, records: Sequence[KeyRecord]) -> None:
        """`add` for some hundreds, when the stage moves in."""
        stage.put(keys, [_values(record) for record in records])

    def get(self, connection: Connection, fingerprint: str) -> KeyRecord:
        """As `find`, but raises `NotFound`."""
        record = self.find(connection, fingerprint)
        if record is None:
            raise NotFound(f"There is no key {fingerprint}.")
        return record

    def save(self, connection: Connection, record: KeyRecord, moment: datetime) -> KeyRecord:
        """Write a changed record over its row; returns it with its new version and time."""
        saved = replace(record, version=record.version + 1, updated=moment)
        values = _values(saved)
        del values["fingerprint"], values["public_key"], values["created"]
        connection.execute(update(keys).where(keys.c.fingerprint == record.fingerprint).values(values))
        return saved

    def remove(self, connection: Connection, fingerprint: str) -> None:
        """Forget a key altogether."""
        connection.execute(delete(keys).where(keys.c.fingerprint == fingerprint))

    def signed_in(self, connection: Connection, user: str, moment: datetime) -> Sequence[KeyRecord]:
        """The active keys that somebody has signed in for and that end after ``moment``."""
        ours = (*_SIGNED_IN, keys.c.user == user, keys.c.expires > moment)
        return [_record(row) for row in connection.execute(select(*_COLUMNS).where(*ours))]

    def expired(self, connection: Connection, before: datetime, *, limit: int) -> Sequence[KeyRecord]:
        """Active keys that somebody had signed in for and that ended before then, the longest gone first."""
        query = select(*_COLUMNS).where(*_SIGNED_IN, keys.c.expires < before)
        query = query.order_by(keys.c.expires, keys.c.fingerprint).limit(limit)
        return [_record(row) for row in connection.execute(query)]

    def granted_sets(self, connection: Connection) -> Sequence[tuple[str, ...]] | None:
        """Each value of ``domains`` that any key has; None where there are more than `MOST_SETS`. The index is
        stepped through from one value to the next, so that a million keys cost no more than a thousand."""
        least = select(func.min(keys.c.domains).label("domains")).cte("steps", recursive=True)
        behind = select(func.min(keys.c.domains)).where(keys.c.domains > least.c.domains).scalar_subquery()
        steps = least.union_all(select(behind).where(least.c.domains.is_not(None)))
        query = select(type_coerce(steps.c.domains, Strings)).limit(MOST_SETS + 2)
        values: Sequence[tuple[str, ...] | None] = connection.execute(query).scalars().all()
        found = [value for value in values if value is not None]  # one step leads behind the last
        return found if len(found) <= MOST_SETS else None

    def page(
        self,
        connection: Connection,
        *,
        after: str = "",
        limit: int,
        where: Sequence[ColumnElement[bool]] = (),
        among: Sequence[tuple[str, ...]] | None = None,
    ) -> Sequence[KeyRecord]:
        """At most ``limit`` keys in the order of their fingerprints, beginning behind ``after``. ``among``: only
        those whose ``domains`` are one of these, each of which is looked for by itself."""
        query = select(*_COLUMNS).where(keys.c.fingerprint > after, *where)
        if among is not None:
            if not among:
                return []
            parts = [
                query.where(keys.c.domains == each).order_by(keys.c.fingerprint).limit(limit).subquery()
                for each in among
            ]
            every = union_all(*(select(part) for part in parts)).subquery()
            ordered = select(every).order_by(every.c.fingerprint).limit(limit)
        else:
            ordered = query.order_by(keys.c.fingerprint).limit(limit)
        return [_record(row) for row in connection.execute(ordered)]


def _record(row: Row[tuple[object, ...]]) -> KeyRecord:
    values = row._asdict()
    values["state"] = KeyState(values["state"])
    values["public_key"] = bytes(values["public_key"])
    return KeyRecord(**values)


def _values(record: KeyRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in _NAMES}
