"""The schema: from nothing to newest, told apart from older and newer, the same as the tables say."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, inspect, text
from support.store_fixtures import *  # noqa: F403

from zapd.store import schema, tables
from zapd.store.engine import open_engine, reading
from zapd.store.schema import SchemaState


def test_an_empty_database_becomes_current(empty_engine: Engine):
    """An upgrade turns an empty database into a current one, and a second upgrade changes nothing."""
    with reading(empty_engine) as connection:
        assert schema.check(connection) is SchemaState.EMPTY
        assert schema.current(connection) is None
    for _ in range(2):
        schema.upgrade(empty_engine)
        with reading(empty_engine) as connection:
            assert schema.check(connection) is SchemaState.CURRENT
            assert schema.current(connection) == schema.head()


def test_the_migrations_make_what_the_tables_say(own_engine: Engine):
    """What the migrations build is what `zapd.store.tables` describes, to the last index."""
    with own_engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []


def test_a_newer_schema_is_told_apart(own_engine: Engine):
    """A revision that this program does not know means a newer zapd made it."""
    with own_engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    with reading(own_engine) as connection:
        assert schema.check(connection) is SchemaState.NEWER


def test_upgrades_started_together_all_succeed(database_url: str, tmp_path: Path):
    """Three upgrades at once of one empty database end well, whoever comes first."""
    engines = [open_engine(database_url, tmp_path, create=True) for _ in range(3)]
    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(schema.upgrade, engines))
        with reading(engines[0]) as connection:
            assert schema.check(connection) is SchemaState.CURRENT
    finally:
        for engine in engines:
            engine.dispose()


def test_an_upgrade_that_fails_leaves_nothing(empty_engine: Engine):
    """A table in the way makes the upgrade fail, and nothing of it stays behind."""
    with empty_engine.begin() as connection:
        connection.execute(text("CREATE TABLE tokens (id TEXT)"))
    with pytest.raises(Exception, match="tokens"):
        schema.upgrade(empty_engine)
    assert set(inspect(empty_engine).get_table_names()) <= {"tokens"}


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_the_script_can_be_read(dialect: str):
    """The upgrade can be printed as SQL for either database, with every table in it."""
    printed = schema.script(dialect)
    for name in tables.metadata.tables:
        assert f"CREATE TABLE {name}" in printed
    assert "alembic_version" in printed
