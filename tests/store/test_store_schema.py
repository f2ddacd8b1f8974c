"""The schema: from nothing to newest, told apart from older and newer, the same as the tables say."""

import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text
from support.store_fixtures import *  # noqa: F403

from zapd.store import schema, tables
from zapd.store.agents import AgentRegistry
from zapd.store.engine import open_engine, reading
from zapd.store.keys import KeyRegistry
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


def test_a_new_file_that_another_is_writing_to_is_waited_for(tmp_path: Path):
    """SQLite gives up at once there: two programs that meet on a fresh registry would not both start."""
    engine = open_engine("sqlite:///zapd.db", tmp_path, create=True)
    other = sqlite3.connect(tmp_path / "zapd.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    ending = threading.Timer(0.2, other.execute, ("COMMIT",))
    ending.start()
    try:
        schema.upgrade(engine)
        with reading(engine) as connection:
            assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
    finally:
        ending.join()
        other.close()
        engine.dispose()


def test_an_upgrade_that_fails_leaves_nothing(empty_engine: Engine):
    """A table in the way makes the upgrade fail, and nothing of it stays behind."""
    with empty_engine.begin() as connection:
        connection.execute(text("CREATE TABLE tokens (id TEXT)"))
    with pytest.raises(Exception, match="tokens"):
        schema.upgrade(empty_engine)
    assert set(inspect(empty_engine).get_table_names()) <= {"tokens"}


def test_a_migrations_file_begins_with_its_revision():
    """Which revisions there are is read off the files; Alembic, which is slow to come, must see the same."""
    config = Config()
    config.set_main_option("script_location", "zapd_migrations:.")
    scripts = ScriptDirectory.from_config(config)
    assert scripts.get_heads() == [schema.head()]
    assert sorted(each.path.rpartition("/")[2][:4] for each in scripts.walk_revisions()) == sorted(
        each.revision for each in scripts.walk_revisions()
    )


def test_a_start_on_a_current_database_does_without_alembic(database_url: str, tmp_path: Path):
    """It takes longer to import than everything else that is done with the registry then."""
    engine = open_engine(database_url, tmp_path, create=True)
    schema.upgrade(engine)
    engine.dispose()
    program = """
import sys
from pathlib import Path
from zapd.store import schema
from zapd.store.engine import open_engine

with open_engine(sys.stdin.read(), Path(".")).connect() as connection:
    assert schema.check(connection) is schema.SchemaState.CURRENT
assert not any(name.startswith("alembic") for name in sys.modules)
"""
    subprocess.run(
        [sys.executable, "-c", program], input=database_url, text=True, cwd=tmp_path, check=True, timeout=60
    )


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_the_script_can_be_read(dialect: str):
    """The upgrade can be printed as SQL for either database, with every table in it."""
    printed = schema.script(dialect)
    for name in tables.metadata.tables:
        assert f"CREATE TABLE {name}" in printed
    assert "alembic_version" in printed


def test_a_registry_of_the_first_release_comes_along(empty_engine: Engine):
    """What it held is read as before, and the first release, still running beside, writes and reads on."""
    with empty_engine.connect().execution_options(zapd_write=True) as connection, connection.begin():
        with schema._config() as config:
            config.attributes["connection"] = connection
            command.upgrade(config, "0001")
        assert schema.check(connection) is SchemaState.OLDER
        _as_the_first_release(connection, b"\1" * 32, "before")
    schema.upgrade(empty_engine)
    with empty_engine.connect().execution_options(zapd_write=True) as connection, connection.begin():
        assert schema.check(connection) is SchemaState.CURRENT
        _as_the_first_release(connection, b"\2" * 32, "beside")
        for name in ("before", "beside"):
            key = KeyRegistry().get(connection, name)
            assert (key.user, key.replaces, key.replaced_by) == ("alice", None, None)
            assert AgentRegistry().get(connection, name).previous_key is None


def _as_the_first_release(connection: Connection, public_key: bytes, name: str) -> None:
    """The rows that the schema's first release wrote."""
    common = {"key": public_key, "name": name, "list": '["*"]', "map": "{}", "empty": "[]"}
    connection.execute(
        text(
            'INSERT INTO keys (fingerprint, public_key, "user", state, domains, groups, attributes, label, reason,'
            " created, updated, version)"
            " VALUES (:name, :key, 'alice', 'active', :list, :empty, :map, '', '', 1, 1, 1)"
        ),
        common,
    )
    connection.execute(
        text(
            "INSERT INTO agents (name, fingerprint, public_key, state, domains, mechanisms, addresses, reason,"
            " created, updated, version) VALUES (:name, :name, :key, 'active', :list, :empty, :empty, '', 1, 1, 1)"
        ),
        common,
    )
