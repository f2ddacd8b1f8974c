"""What was done under an ``Idempotency-Key``, and how it was answered: rows of ``idempotency``.

As `zapd.store.keys`: the caller's transaction. Bounded: a row lives a day, and only so many live at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, delete, insert, select, update

from zapd.store.tables import idempotency

LIFE: Final = timedelta(hours=24)
MOST: Final = 10_000
"""Rows; the oldest go first."""


@dataclass(frozen=True, slots=True)
class Kept:
    """One request that was carried out."""

    request: bytes
    """A keyed hash of it."""
    status: int | None
    """None: its answer is not kept, or was lost."""
    headers: tuple[tuple[str, str], ...]
    body: bytes


class Idempotency:
    """Rows of ``idempotency``: each belongs to one token."""

    def find(self, connection: Connection, token: str, key: str, moment: datetime) -> Kept | None:
        """What was done under this key in the last day."""
        columns = idempotency.c
        row = connection.execute(
            select(columns.request, columns.status, columns.headers, columns.body).where(
                columns.token == token, columns.key == key, columns.time > moment - LIFE
            )
        ).first()
        return None if row is None else Kept(bytes(row.request), row.status, row.headers, bytes(row.body))

    def begin(self, connection: Connection, token: str, key: str, request: bytes, moment: datetime) -> None:
        """Note, in the transaction that carries the request out, that it was; and forget what is too old."""
        columns = idempotency.c
        connection.execute(delete(idempotency).where(columns.time <= moment - LIFE))
        values = {"token": token, "key": key, "request": request, "time": moment, "headers": (), "body": b""}
        added = connection.execute(insert(idempotency).values(values).returning(columns.sequence)).scalar_one()
        connection.execute(delete(idempotency).where(columns.sequence <= added - MOST))

    def finish(
        self,
        connection: Connection,
        token: str,
        key: str,
        *,
        status: int,
        headers: tuple[tuple[str, str], ...],
        body: bytes,
    ) -> None:
        """Keep the answer; nothing happens when there is no such row."""
        connection.execute(
            update(idempotency)
            .where(idempotency.c.token == token, idempotency.c.key == key)
            .values(status=status, headers=headers, body=body)
        )
