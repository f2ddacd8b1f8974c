"""The registry of admin tokens: `TokenRegistry`, and `TokenRecord` for one row.

A token is stored as its SHA-256 and found by it; the token itself has 256 random bits, so that a plain hash is
enough and a look-up compares nothing secret octet by octet. As `zapd.store.keys` otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Final

from sqlalchemy import ColumnElement, Connection, Row, insert, select, update

from zapd.errors import NotFound
from zapd.store.tables import tokens


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """One token, without the token."""

    id: str
    name: str
    hash: bytes = field(repr=False)
    """SHA-256 of the token, 32 octets."""
    role: str
    domains: tuple[str, ...]
    expires: datetime | None
    created: datetime
    revoked: datetime | None = None
    last_used: datetime | None = None


_COLUMNS: Final = [tokens.c[field.name] for field in fields(TokenRecord)]


class TokenRegistry:
    """Rows of ``tokens``."""

    def add(self, connection: Connection, record: TokenRecord) -> None:
        values = {field.name: getattr(record, field.name) for field in fields(record)}
        connection.execute(insert(tokens).values(values))

    def find(self, connection: Connection, digest: bytes) -> TokenRecord | None:
        """The token with this SHA-256, revoked and expired ones too."""
        row = connection.execute(select(*_COLUMNS).where(tokens.c.hash == digest)).first()
        return None if row is None else _record(row)

    def get(self, connection: Connection, token_id: str) -> TokenRecord:
        """The token with this id; raises `NotFound`."""
        row = connection.execute(select(*_COLUMNS).where(tokens.c.id == token_id)).first()
        if row is None:
            raise NotFound(f"There is no token {token_id!r}.")
        return _record(row)

    def revoke(self, connection: Connection, token_id: str, moment: datetime) -> None:
        connection.execute(update(tokens).where(tokens.c.id == token_id).values(revoked=moment))

    def used(self, connection: Connection, token_id: str, moment: datetime) -> None:
        """Note when it was last used."""
        connection.execute(update(tokens).where(tokens.c.id == token_id).values(last_used=moment))

    def page(
        self, connection: Connection, *, after: str = "", limit: int, where: Sequence[ColumnElement[bool]] = ()
    ) -> Sequence[TokenRecord]:
        """At most ``limit`` tokens in the order of their ids, beginning behind ``after``."""
        query = select(*_COLUMNS).where(tokens.c.id > after, *where)
        return [_record(row) for row in connection.execute(query.order_by(tokens.c.id).limit(limit))]


def _record(row: Row[tuple[object, ...]]) -> TokenRecord:
    values = row._asdict()
    values["hash"] = bytes(values["hash"])
    return TokenRecord(**values)
