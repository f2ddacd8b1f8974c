"""A database of another age than the program's."""

# ruff: noqa: F811 - fixtures come in by import
from __future__ import annotations

from pathlib import Path

from sqlalchemy import Engine, text
from support.app_scene import CONFIGURATION, Asking, parts, ready, wait_for
from support.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures
from support.serving import Zapd

from zapd.store import schema
from zapd.store.engine import open_engine

POSTGRES = '[database]\nurl = "file:data/database.url"\n' + CONFIGURATION


def run(engine: Engine, *statements: str) -> None:
    with engine.begin() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def test_a_database_of_a_later_zapd_ends_the_start_with_2(tmp_path: Path) -> None:
    """Nothing is touched, and the sentence names the command that shows both ages."""
    zapd = Zapd(tmp_path, configuration=CONFIGURATION)
    run(open_engine("sqlite:///data/zapd.db", tmp_path), "UPDATE alembic_version SET version_num = '9999'")
    ended = zapd.run("serve")
    assert ended.returncode == 2
    assert "later zapd" in ended.stderr
    assert "zapd db check" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_postgresql_without_our_schema_ends_the_start_with_2_and_db_upgrade_mends_it(
    tmp_path: Path,
    postgres_url: str,
) -> None:
    """Only an administrator upgrades a database that others may use as well."""
    zapd = Zapd(tmp_path, configuration=POSTGRES, database=postgres_url)
    run(open_engine(postgres_url, tmp_path), "DROP SCHEMA public CASCADE", "CREATE SCHEMA public")
    ended = zapd.run("serve")
    assert ended.returncode == 2
    assert "zapd db upgrade" in ended.stderr
    assert zapd.run("db", "upgrade").returncode == 0
    with zapd:
        assert ready(zapd)


def test_an_sqlite_without_our_schema_is_upgraded_by_itself(tmp_path: Path) -> None:
    """The file is ours alone, so that a new release starts without a command."""
    zapd = Zapd(tmp_path, configuration=CONFIGURATION)
    for path in tmp_path.glob("data/zapd.db*"):
        path.unlink()
    (tmp_path / "data" / "zapd.db").touch(mode=0o600)
    with zapd:
        assert ready(zapd)
    engine = open_engine("sqlite:///data/zapd.db", tmp_path)
    with engine.connect() as connection:
        assert schema.check(connection) is schema.SchemaState.CURRENT
    engine.dispose()


def test_an_sqlite_file_that_is_away_is_an_outage_and_never_an_empty_registry(tmp_path: Path) -> None:
    """300 and not ready while the file is gone; ready by itself when it is back."""
    zapd = Zapd(tmp_path, configuration=CONFIGURATION)
    file, elsewhere = tmp_path / "data" / "zapd.db", tmp_path / "elsewhere"
    file.rename(elsewhere)
    with zapd:
        with Asking(zapd) as asking:
            assert asking.ask(b"k" * 32) == 300
        assert not ready(zapd)
        assert parts(zapd)["registry"] != "ok"
        assert not file.exists()
        elsewhere.rename(file)
        assert wait_for(lambda: ready(zapd))
        with Asking(zapd) as asking:
            assert asking.ask(b"k" * 32) == 400
