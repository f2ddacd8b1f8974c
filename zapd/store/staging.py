"""Rows that wait beside the registry until all of them are there, and then go in at one stroke.

Writing a hundred thousand rows takes seconds, most of them spent on making the rows; while a transaction that
changes the registry is open, nobody can revoke anything. So the rows are made in temporary tables, which hold up
nobody, and the transaction only moves them, inside the database.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from sqlalchemy import Column, Connection, Engine, Integer, MetaData, Table, insert, select

_AT_ONCE: Final = 20_000
"""Rows that one statement moves: on PostgreSQL a statement has a deadline."""


class Stage:
    """Temporary tables beside some of the registry's, on a connection of their own."""

    def __init__(self, connection: Connection, tables: Sequence[Table]) -> None:
        self.connection = connection
        self._metadata = MetaData()
        self._places = {table: self._place(table) for table in tables}
        self._counts = dict.fromkeys(tables, 0)

    def put(self, table: Table, rows: Sequence[Mapping[str, object]]) -> None:
        """Let rows wait for their place in ``table``, behind those that wait already."""
        if rows:
            count = self._counts[table]
            numbered = [{**row, "staged": number} for number, row in enumerate(rows, count + 1)]
            self.connection.execute(insert(self._places[table]), numbered)
            self._counts[table] = count + len(rows)

    def waiting(self, table: Table) -> Table:
        """Where they wait: the columns of ``table``."""
        return self._places[table]

    def move(self) -> None:
        """Put all into the registry, in their order, within the transaction that is open. Raises
        `sqlalchemy.exc.IntegrityError` where one is there meanwhile."""
        for table, place in self._places.items():
            names = [column.name for column in place.columns if column.name != "staged"]
            for start in range(0, self._counts[table], _AT_ONCE):
                some = (
                    select(*(place.c[name] for name in names))
                    .where(place.c.staged > start, place.c.staged <= start + _AT_ONCE)
                    .order_by(place.c.staged)
                )
                self.connection.execute(insert(table).from_select(names, some))

    def _place(self, table: Table) -> Table:
        columns = [
            Column(column.name, column.type, key=column.key)
            for column in table.columns
            if column is not table.autoincrement_column
        ]
        place = Table(
            f"staged_{table.name}",
            self._metadata,
            Column("staged", Integer, primary_key=True, autoincrement=False),
            *columns,
            prefixes=["TEMPORARY"],
        )
        place.create(self.connection)
        return place


@contextmanager
def staging(engine: Engine, tables: Sequence[Table]) -> Iterator[Stage]:
    """A stage, open for rows: outside of any transaction that changes the registry."""
    with engine.connect() as connection:
        connection.detach()  # its tables end with it
        if connection.dialect.name == "sqlite":
            # Rows go to all places of the indexes: with the usual 2 MiB of memory pages go out and in again.
            connection.exec_driver_sql("PRAGMA cache_size = -65536")
            connection.rollback()
        with connection.begin():
            stage = Stage(connection, tables)
        yield stage
