"""Opens the registry's database: SQLite in WAL, or PostgreSQL through psycopg.

Every wait has an end (connecting, a lock, a statement, a place in the pool), and no statement's parameters
ever appear in an error: they may be hashes. `writing` is the one way to change the registry, and makes all
changes one after another, so that the change log's order is the order in which they took force.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

from sqlalchemy import URL, Connection, Dialect, Engine, create_engine, event, make_url, text
from sqlalchemy.engine.interfaces import DBAPIConnection, DBAPICursor
from sqlalchemy.exc import ArgumentError
from sqlalchemy.pool import ConnectionPoolEntry

from zapd.errors import ConfigurationError

WAIT: Final = 5.0
"""Seconds that a statement, a lock, a connection or a place in the pool is waited for."""

_LOOK: Final = 0.01
"""Seconds between two tries where SQLite itself does not wait."""

PATIENCE: Final = 7.0
"""Seconds after which a PostgreSQL that says nothing at all is given up: a little after its own timeouts."""

WRITE_LOCK: Final = 0x7A617064
"""PostgreSQL's advisory lock that all writers of the registry take ("zapd")."""

_EXAMPLE = "Say for example sqlite:///data/zapd.db or postgresql+psycopg://zapd@db.example.org/zapd."


def open_engine(url: str, base_dir: Path, *, create: bool = False) -> Engine:
    """An engine for ``url``; nothing is connected yet.

    A relative SQLite path starts at ``base_dir``. Only with ``create`` is an SQLite file made that is not
    there (mode 0600); otherwise a missing file is an outage, never an empty registry. Raises
    `ConfigurationError` for a URL that cannot be used.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(f"The database URL cannot be read. {_EXAMPLE}") from None
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        return _open_sqlite(parsed, base_dir, create)
    if backend == "postgresql":
        return _open_postgresql(parsed)
    raise ConfigurationError(f"zapd keeps its registry in SQLite or PostgreSQL, not in {backend}. {_EXAMPLE}")


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads."""
    with engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that changes the registry; one at a time across all processes.

    Without that, a reader of the change log on PostgreSQL could see sequence 11 while 10 is not yet
    committed, and never see 10. Commits when the block ends, rolls back when it raises.
    """
    with engine.connect() as connection, writing_on(connection):
        yield connection


@contextmanager
def writing_on(connection: Connection) -> Iterator[None]:
    """As `writing`, on a connection that is there."""
    connection.execution_options(zapd_write=True)
    with connection.begin():
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": WRITE_LOCK})
        yield


@contextmanager
def without_haste(connection: Connection) -> Iterator[None]:
    """No deadlines in this transaction: an upgrade takes as long as it takes, and waits for another one."""
    if connection.dialect.name != "postgresql":
        yield
        return
    driver: Any = connection.connection.driver_connection
    patience, driver.patience = driver.patience, None
    try:
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        yield
    finally:
        driver.patience = patience


def sqlite_path(url: str, base_dir: Path) -> Path | None:
    """The file of an SQLite URL; None for any other database."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        return None
    return base_dir / parsed.database


def _open_sqlite(parsed: URL, base_dir: Path, create: bool) -> Engine:
    if not parsed.database or parsed.database == ":memory:" or parsed.database.startswith("file:"):
        raise ConfigurationError(f"The SQLite URL must name a file. {_EXAMPLE}")
    if parsed.query:
        raise ConfigurationError("The SQLite URL takes no options behind a '?': zapd sets what it needs.")
    path = base_dir / parsed.database
    if create:
        with suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    # mode=rw: a file that went away is an error, not a new empty registry that knows nobody.
    url = URL.create("sqlite", database=f"file:{quote(str(path.absolute()))}", query={"mode": "rw", "uri": "true"})
    engine = create_engine(
        url, hide_parameters=True, pool_size=5, max_overflow=5, pool_timeout=WAIT, connect_args={"timeout": WAIT}
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: DBAPIConnection, _record: ConnectionPoolEntry) -> None:
    # The driver's own transaction control begins late and cannot say IMMEDIATE: ours says BEGIN itself.
    connection.isolation_level = None
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout = {int(WAIT * 1000)}")
        _to_wal(cursor)
        # NORMAL may lose the last commits at a power cut: an acknowledged revocation would be gone.
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
    finally:
        cursor.close()


def _to_wal(cursor: DBAPICursor) -> None:
    """Of a new file. SQLite does not wait for another that is just making its tables, whatever ``busy_timeout``
    says, so it is done here."""
    end = time.monotonic() + WAIT
    while True:
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= end:
                raise
            time.sleep(_LOOK)
        else:
            return


def _begin_sqlite(connection: Connection) -> None:
    # A reader that becomes a writer half-way may fail at once in WAL (SQLITE_BUSY_SNAPSHOT).
    write = connection.get_execution_options().get("zapd_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _open_postgresql(parsed: URL) -> Engine:
    if parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        raise ConfigurationError(f"zapd reaches PostgreSQL through psycopg: postgresql+psycopg://… {_EXAMPLE}")
    milliseconds = int(WAIT * 1000)
    arguments: dict[str, str | int] = {
        "application_name": "zapd",
        "connect_timeout": int(WAIT),
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 2 * milliseconds,  # a black hole ends a wait that no server can end
        "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}"
        f" -c idle_in_transaction_session_timeout={6 * milliseconds}",
    }
    try:
        from zapd.store.postgresql import PatientConnection
    except ModuleNotFoundError:
        raise ConfigurationError("PostgreSQL needs psycopg: install zapd[postgres].") from None

    patience = PATIENCE

    def connect(
        _dialect: Dialect, _record: ConnectionPoolEntry, args: list[Any], options: dict[str, Any]
    ) -> DBAPIConnection:
        made = PatientConnection.connect(*args, **options)
        made.patience = patience
        return cast(DBAPIConnection, made)

    engine = create_engine(
        parsed.set(drivername="postgresql+psycopg"),
        hide_parameters=True,
        pool_size=5,
        max_overflow=5,
        pool_timeout=WAIT,
        pool_pre_ping=True,
        connect_args={name: value for name, value in arguments.items() if name not in parsed.query},
    )
    event.listen(engine, "do_connect", connect)
    return engine
