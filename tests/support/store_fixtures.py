"""A registry on each database that zapd keeps one in, at the newest schema."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine
from support.postgres import PostgresServer, postgres_server, postgres_url

from zapd.store import schema, tables
from zapd.store.engine import open_engine
from zapd.store.keys import KeyRecord, KeyState
from zapd.zmtp.keys import fingerprint_id

__all__ = [
    "MOMENT",
    "database_url",
    "empty_engine",
    "engine",
    "key_record",
    "own_engine",
    "postgres_server",
    "postgres_url",
    "shared_postgres",
]

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database of each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/zapd.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def empty_engine(database_url: str, tmp_path: Path) -> Iterator[Engine]:
    """An engine over a database without a schema."""
    made = open_engine(database_url, tmp_path, create=True)
    yield made
    made.dispose()


@pytest.fixture
def own_engine(empty_engine: Engine) -> Engine:
    """An engine over an empty registry that the test may spoil."""
    schema.upgrade(empty_engine)
    return empty_engine


@pytest.fixture(scope="session")
def shared_postgres(postgres_server: PostgresServer) -> str:
    """A PostgreSQL database at the newest schema, which tests leave empty."""
    with postgres_server.connect() as connection:
        connection.execute("CREATE DATABASE shared")
    url = postgres_server.url("shared")
    engine = open_engine(url, Path("/"))
    schema.upgrade(engine)
    engine.dispose()
    return url


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An engine over an empty registry. On PostgreSQL it is emptied afterwards: making a database takes longer."""
    if request.param == "sqlite":
        made = open_engine(f"sqlite:///{tmp_path}/zapd.db", tmp_path, create=True)
        schema.upgrade(made)
        yield made
    else:
        made = open_engine(request.getfixturevalue("shared_postgres"), tmp_path)
        yield made
        with made.begin() as connection:
            for table in tables.metadata.sorted_tables:
                connection.execute(table.delete())
    made.dispose()


def key_record(public_key: bytes | None = None, **changes: object) -> KeyRecord:
    """A key as the registry holds it, active everywhere unless ``changes`` say otherwise."""
    octets = public_key or os.urandom(32)
    record = KeyRecord(
        fingerprint=fingerprint_id(octets),
        public_key=octets,
        user="alice",
        state=KeyState.ACTIVE,
        domains=("*",),
        groups=(),
        attributes=(),
        label="",
        not_before=None,
        expires=None,
        reason="",
        created=MOMENT,
        updated=MOMENT,
    )
    return replace(record, **changes)  # type: ignore[arg-type]
