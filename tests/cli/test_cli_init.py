"""zapd init: everything, or nothing."""

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.cli_server import run

from zapd.audit.signing import load_signing_key, public_text
from zapd.config import load, read_curve_pair
from zapd.store import schema
from zapd.store.engine import open_engine
from zapd.zmtp.keys import encode_key


def everything(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its content."""
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_what_init_writes_can_be_served(tmp_path: Path) -> None:
    """Configuration, keys, database at the newest schema and token are there, secrets for their owner alone."""
    folder = tmp_path / "new"
    printed = run("init", str(folder)).stdout
    config = load(folder / "zapd.toml")
    assert config.warnings == ()
    assert [(each.listen, each.mechanism) for each in config.zap] == [("tcp://127.0.0.1:9027", "CURVE")]
    assert set(config.domain) == {"default"}
    assert set(config.domain["default"].mechanisms) == {"CURVE", "PLAIN"}
    public_key, secret_key = read_curve_pair(config.curve_key_file)
    seed = load_signing_key(config.journal_key_file)
    engine = open_engine(config.database_url(), config.base_dir)
    with engine.connect() as connection:
        assert schema.check(connection) is schema.SchemaState.CURRENT
    engine.dispose()
    token = (folder / "admin.token").read_text().strip()
    for path in (
        config.curve_key_file,
        config.journal_key_file,
        folder / "admin.token",
        folder / "data" / "zapd.db",
    ):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert encode_key(public_key) in printed
    assert public_text(seed) in printed
    for secret in (encode_key(secret_key), token):
        assert secret not in printed
    assert not list(folder.glob(".zapd-init-*"))


def test_a_second_init_changes_nothing(tmp_path: Path) -> None:
    """init over an init says what exists, ends with 1, and every file is as it was."""
    run("init", str(tmp_path))
    before = everything(tmp_path)
    refused = run("init", str(tmp_path), code=1).stderr
    assert "zapd.toml and data and admin.token already" in refused
    assert everything(tmp_path) == before


@pytest.mark.parametrize("name", ["zapd.toml", "admin.token", "data"])
def test_init_refuses_each_thing_that_is_there(tmp_path: Path, name: str) -> None:
    """One of them is enough, a dangling link too, and nothing is made."""
    (tmp_path / name).symlink_to(tmp_path / "nowhere")
    assert name in run("init", str(tmp_path), code=1).stderr
    assert sorted(os.listdir(tmp_path)) == [name]


def test_init_leaves_what_is_beside_it_alone(tmp_path: Path) -> None:
    """A folder with other things in it is fine."""
    (tmp_path / "notes").write_text("mine")
    run("init", str(tmp_path))
    assert (tmp_path / "notes").read_text() == "mine"


def test_init_makes_the_folders_above(tmp_path: Path) -> None:
    """And takes them away again where it fails; a folder with blanks in its name is quoted for the shell."""
    folder = tmp_path / "here and" / "there"
    assert f"-c '{folder}/zapd.toml'" in run("init", str(folder)).stdout
    run("init", str(tmp_path / "else" / "where"), "--database", "nonsense", code=2)
    assert sorted(os.listdir(tmp_path)) == ["here and"]


def test_a_failing_init_leaves_nothing(tmp_path: Path) -> None:
    """A database that cannot be used undoes the rest, the new folder itself included."""
    for url in ("sqlite:///no/such/folder/zapd.db", "mysql://localhost/zapd", "nonsense"):
        run("init", str(tmp_path / "new"), "--database", url, code=1 if "sqlite" in url else 2)
        assert list(tmp_path.iterdir()) == []


def test_init_never_takes_over_a_database(tmp_path: Path) -> None:
    """A file at the named place is refused and kept."""
    (tmp_path / "old.db").write_text("precious")
    refused = run("init", str(tmp_path), "--database", "sqlite:///old.db", code=1).stderr
    assert "old.db exists already" in refused
    assert os.listdir(tmp_path) == ["old.db"]


def test_init_with_another_database(tmp_path: Path) -> None:
    """--database goes into the configuration, its relative path from the configuration's folder."""
    run("init", str(tmp_path), "--database", "sqlite:///registry.db")
    assert load(tmp_path / "zapd.toml").database_url() == f"sqlite:///{tmp_path}/registry.db"
    assert (tmp_path / "registry.db").exists()


def test_the_usual_database_may_be_named(tmp_path: Path) -> None:
    """A database in the data folder that init itself makes needs no folder made before."""
    for name in ("zapd.db", "other.db"):
        folder = tmp_path / name
        run("init", str(folder), "--database", f"sqlite:///data/{name}")
        assert json.loads(run("db", "check", "--json", config=folder / "zapd.toml").stdout)["state"] == "current"


@pytest.mark.parametrize("database", [[], ["--database", "sqlite:///registry.db"]])
def test_two_inits_at_once_make_one(tmp_path: Path, database: list[str]) -> None:
    """Of several started together one wins whole, its database too, and the others say so."""
    command = [sys.executable, "-m", "zapd", "init", str(tmp_path), *database]
    attempts = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)]
    told = [attempt.communicate(timeout=60)[1] for attempt in attempts]
    assert sorted(attempt.returncode for attempt in attempts) == [0, 1, 1]
    assert sorted(b"nothing is overwritten" in each for each in told) == [False, True, True]
    run("token", "list", "--offline", config=tmp_path / "zapd.toml")
    assert sorted({*os.listdir(tmp_path)} - {"registry.db"}) == ["admin.token", "data", "zapd.toml"]


def test_init_speaks_json(tmp_path: Path) -> None:
    """--json gives the public halves to programs."""
    made = json.loads(run("init", str(tmp_path), "--json").stdout)
    assert made["server_fingerprint"].startswith("SHA256:")
    assert len(made["server_public_key"]) == 40
