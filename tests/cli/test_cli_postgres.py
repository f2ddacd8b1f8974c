"""Commands that touch the database, on a real PostgreSQL."""

import json
import stat
from pathlib import Path

import pytest
from support.cli_server import run
from support.postgres import postgres_server, postgres_url  # noqa: F401

pytestmark = pytest.mark.interop


@pytest.mark.parametrize("from_file", [False, True])
def test_init_on_postgresql(tmp_path: Path, postgres_url: str, from_file: bool) -> None:  # noqa: F811
    """The registry is made there, and the password stands in a file of its own, whichever way the URL came."""
    named = postgres_url
    if from_file:
        (tmp_path / "url").write_text(postgres_url + "\n")
        (tmp_path / "url").chmod(0o600)
        named = "file:url"
    run("init", str(tmp_path), "--database", named)
    config = tmp_path / "zapd.toml"
    assert "pgpw" not in config.read_text()
    kept = tmp_path / ("url" if from_file else "data/database.url")
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    run("check-config", config=config)
    assert json.loads(run("db", "check", "--json", config=config).stdout)["state"] == "current"
    made = json.loads(run("token", "create", "--role", "viewer", "--offline", "--json", config=config).stdout)
    listed = json.loads(run("token", "list", "--offline", "--json", config=config).stdout)
    assert {each["name"] for each in listed} == {"init", made["name"]}


def test_a_database_that_is_away_is_one_sentence(tmp_path: Path) -> None:
    """Nobody listens there: exit code 1, no password in the words, and init leaves nothing."""
    url = "postgresql+psycopg://zapd:hush@127.0.0.1:1/zapd"
    refused = run("init", str(tmp_path / "new"), "--database", url, code=1).stderr
    assert "The database cannot be used" in refused
    assert "hush" not in refused
    assert "Traceback" not in refused
    assert list(tmp_path.iterdir()) == []
