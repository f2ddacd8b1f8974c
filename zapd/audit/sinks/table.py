"""The tables of the searchable copy. They hold nothing that the journal does not say better: they may be dropped
at any time and are filled again, as far back as the search reaches.

On SQLite they are a file of their own, never the registry's, so that a burst of records keeps no revocation
waiting; on PostgreSQL they stand in the main database.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import (
    BigInteger,
    Column,
    Engine,
    Index,
    Integer,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    event,
    make_url,
)
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.pool import ConnectionPoolEntry

from zapd.store.engine import open_engine
from zapd.store.types import name_text

FILE = "audit.db"

LONGEST = 255
"""Characters of a text in a column of its own; the whole stands in ``json``. An index takes no more everywhere."""

metadata = MetaData()

_identity = BigInteger().with_variant(Integer(), "sqlite")

audit_events = Table(
    "audit_events",
    metadata,
    Column("id", _identity, primary_key=True, autoincrement=True),
    Column("instance", name_text(), nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False, doc="microseconds since 1970"),
    Column("event", name_text(), nullable=False),
    Column("domain", name_text()),
    Column("mechanism", name_text()),
    Column("address", name_text()),
    Column("agent", name_text()),
    Column("principal", name_text()),
    Column("key", name_text()),
    Column("username", name_text()),
    Column("status", SmallInteger),
    Column("reason", name_text()),
    Column("question_id", name_text()),
    Column("hash", name_text(), nullable=False),
    Column("json", Text, nullable=False),
    UniqueConstraint("instance", "sequence", name="uq_audit_events_place"),
)

_columns = audit_events.c
Index("ix_audit_events_time", _columns.time)
Index("ix_audit_events_event", _columns.event, _columns.time)
# An empty value is NULL and in no index: most records are about a key or about a user name, not about both.
for _name in ("domain", "address", "principal", "key", "username", "status"):
    _column = _columns[_name]
    Index(
        f"ix_audit_events_{_name}",
        _column,
        _columns.time,
        sqlite_where=_column.is_not(None),
        postgresql_where=_column.is_not(None),
    )

audit_positions = Table(
    "audit_positions",
    metadata,
    Column("instance", name_text(), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
    Column("segment", BigInteger, nullable=False),
    Column("octet", BigInteger, nullable=False),
)


def copy_url(database_url: str, data_dir: Path) -> str:
    """Where the copy of a zapd with this registry lives."""
    if make_url(database_url).get_backend_name() == "sqlite":
        return f"sqlite:///{(data_dir / FILE).absolute()}"
    return database_url


def open_copy(url: str, base_dir: Path, *, create: bool = False) -> Engine:
    """An engine for the copy; with ``create`` its tables are made if they are not there (then this blocks)."""
    engine = open_engine(url, base_dir, create=create)
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _less_careful)
    if create:
        with engine.connect().execution_options(zapd_write=True) as connection, connection.begin():
            metadata.create_all(connection, checkfirst=True)
    return engine


def _less_careful(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    # A power cut may take the last batches, and the position with them: they are copied again. So a commit need
    # not be synced, which is half of the work.
    cursor = connection.cursor()
    try:
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.execute("PRAGMA wal_autocheckpoint = 8192")
        cursor.execute("PRAGMA cache_size = -32768")
    finally:
        cursor.close()
