"""Commands that need no server: keygen, check-config, db, token --offline, and the program itself."""

import json
import os
import pty
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import zmq
from support.cli_server import run

from zapd import __version__
from zapd.audit.signing import load_signing_key, public_text
from zapd.config import read_curve_pair
from zapd.zmtp.keys import decode_public_key, decode_secret_key, public_of


def test_keygen_prints_a_pair_that_libzmq_takes() -> None:
    """The halves belong together, by our reading and by libzmq's."""
    pair = json.loads(run("keygen", "--json").stdout)
    assert public_of(decode_secret_key(pair["secret_key"])) == decode_public_key(pair["public_key"])
    assert zmq.curve_public(pair["secret_key"].encode()).decode() == pair["public_key"]
    assert not pair["public_key"].startswith("-")


def test_keygen_writes_a_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    """-o prints the public half alone, and never overwrites."""
    path = tmp_path / "server.key"
    printed = run("keygen", "-o", str(path)).stdout
    public_key, secret_key = read_curve_pair(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert public_of(secret_key) == public_key
    before = path.read_text()
    assert before.split('"')[3] not in printed
    assert "exists already" in run("keygen", "-o", str(path), code=1).stderr
    assert path.read_text() == before
    assert os.listdir(tmp_path) == ["server.key"]


def test_keygen_makes_the_journals_key(tmp_path: Path) -> None:
    """--format journal is the Ed25519 key that `zapd init` makes: into a file, and its public half is shown."""
    path = tmp_path / "journal.key"
    made = json.loads(run("keygen", "--format", "journal", "-o", str(path), "--json").stdout)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert made == {"public_key": public_text(load_signing_key(path)), "files": [str(path)]}
    assert "exists already" in run("keygen", "--format", "journal", "-o", str(path), code=1).stderr
    assert "with -o" in run("keygen", "--format", "journal", code=2).stderr


def test_keygen_writes_what_czmq_reads(tmp_path: Path) -> None:
    """--format czmq makes a public and a secret certificate, as pyzmq's reader for zcert files sees them."""
    from zmq.auth import load_certificate

    run("keygen", "-o", str(tmp_path / "cert"), "--format", "czmq")
    public, secret = load_certificate(tmp_path / "cert_secret")
    assert load_certificate(tmp_path / "cert") == (public, None)
    assert secret is not None
    assert zmq.curve_public(secret) == public
    assert stat.S_IMODE((tmp_path / "cert_secret").stat().st_mode) == 0o600


def test_check_config_tells_everything_and_ends_with_2(tmp_path: Path) -> None:
    """Each mistake and warning has a line of its own; a good file ends with 0."""
    path = tmp_path / "zapd.toml"
    path.write_text('[audit]\ndurability = "off"\n[[zap]]\nlisten = "tcp://*:9027"\nmechanism = "NULL"\nx = 1\n')
    printed = run("check-config", config=path, code=2).stdout
    assert f"{path}: mistake: line 5: zap[1].mechanism: NULL on tcp://*:9027, which others can reach" in printed
    assert "line 6: zap[1].x: unknown setting" in printed
    assert "warning: line 2: audit.durability" in printed
    told = json.loads(run("check-config", "--json", config=path, code=2).stdout)
    assert [each["line"] for each in told["mistakes"]] == [3, 5, 6]
    path.write_text("[server]\n")
    assert "can be used" in run("check-config", config=path).stdout


def test_every_command_refuses_a_broken_configuration(tmp_path: Path) -> None:
    """serve and whatever else reads the configuration end with 2 and each mistake's line."""
    path = tmp_path / "zapd.toml"
    path.write_text("[server]\nworkers = 0\nnonsense = 1\n")
    for words in (["serve"], ["db", "check"], ["key", "list"], ["token", "list", "--offline"]):
        told = run(*words, config=path, code=2).stderr
        assert "line 2: server.workers" in told
        assert "line 3: server.nonsense" in told
        assert "Traceback" not in told
    assert os.listdir(tmp_path) == ["zapd.toml"]


def test_no_configuration_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing anywhere: the mend is named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("zapd.cli.options._LAST_RESORT", tmp_path / "none.toml")
    assert "run `zapd init`, or name one with -c or ZAPD_CONFIG" in run("key", "list", code=2).stderr


def test_the_configuration_of_the_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """./zapd.toml is used without a word, -c goes before it, in front of the command and behind."""
    monkeypatch.chdir(tmp_path)
    Path("zapd.toml").write_text("[server]\n")
    Path("other.toml").write_text("[servr]\n")
    run("check-config")
    run("check-config", "-c", "other.toml", code=2)
    run("-c", "other.toml", "check-config", code=2)


def test_db_tells_and_mends_the_schema(tmp_path: Path) -> None:
    """An empty database is neither current nor touched until `db upgrade`, which may run again."""
    path = tmp_path / "zapd.toml"
    path.write_text('[database]\nurl = "sqlite:///zapd.db"\n')
    assert "cannot be used" in run("db", "check", config=path, code=1).stderr
    (tmp_path / "zapd.db").touch(0o600)
    assert json.loads(run("db", "check", "--json", config=path, code=1).stdout)["state"] == "empty"
    assert "run `zapd db upgrade`" in run("token", "list", "--offline", config=path, code=2).stderr
    assert "went from nothing to" in run("db", "upgrade", config=path).stdout
    assert "already" in run("db", "upgrade", config=path).stdout
    found = json.loads(run("db", "current", "--json", config=path).stdout)
    assert found["state"] == "current"
    assert found["revision"] == found["newest"]
    assert "CREATE TABLE" in run("db", "upgrade", "--sql", "postgresql").stdout


def test_a_newer_database_is_left_alone(tmp_path: Path) -> None:
    """A schema of a later zapd is refused with exit code 2 and the mend."""
    import sqlite3

    path = tmp_path / "zapd.toml"
    path.write_text('[database]\nurl = "sqlite:///zapd.db"\n')
    run("db", "upgrade", config=path)
    with sqlite3.connect(tmp_path / "zapd.db") as database:
        database.execute("UPDATE alembic_version SET version_num = '9999'")
    database.close()
    assert "newer than this zapd: upgrade zapd" in run("db", "upgrade", config=path, code=2).stderr
    assert "newer" in run("token", "create", "--role", "admin", "--offline", config=path, code=2).stderr


def test_a_lost_token_is_made_anew_beside_the_server(tmp_path: Path) -> None:
    """token create --offline needs the database alone; list shows it without the token; revoke ends it."""
    run("init", str(tmp_path))
    config = tmp_path / "zapd.toml"
    (tmp_path / "admin.token").unlink()
    made = json.loads(run("token", "create", "--role", "admin", "--offline", "--json", config=config).stdout)
    assert made["token"].startswith("zapd_")
    assert made["role"] == "admin"
    listed = run("token", "list", "--offline", "--json", config=config).stdout
    assert made["id"] in listed
    assert made["token"] not in listed
    run("token", "revoke", made["id"], "--offline", config=config)
    (mine,) = [
        each
        for each in json.loads(run("token", "list", "--offline", "--json", config=config).stdout)
        if each["id"] == made["id"]
    ]
    assert mine["revoked"]


@pytest.mark.parametrize("words", [["--help"], ["key", "--help"], ["key", "add", "--help"], ["-h"]])
def test_help_is_there(words: list[str]) -> None:
    """Every group explains itself."""
    assert "Usage: zapd" in run(*words).stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["kye"], "Did you mean 'key'?"),
        (["key", "add"], "Missing argument 'PUBLIC_KEY'"),
        (["token", "create", "--role", "king"], "'king' is not one of"),
        (["--nonsense"], "No such option"),
    ],
)
def test_bad_usage_ends_with_2(words: list[str], told: str) -> None:
    """What was typed wrong is told, with what was meant."""
    assert told in run(*words, code=2).stderr


def test_the_version_needs_next_to_nothing() -> None:
    """zapd --version imports neither click nor the rest."""
    script = "import sys; sys.argv = ['zapd', '--version']\nimport zapd.cli\n"
    script += (
        "try: zapd.cli.main()\nfinally: print(sorted(set(sys.modules) & {'click', 'rich', 'pydantic', 'zmq'}))"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed.splitlines() == [f"zapd {__version__}", "[]"]


def test_a_base_install_says_which_extra_is_missing() -> None:
    """Without click, or another library of the daemon, one sentence names the extra."""
    for library in ("click", "pydantic"):
        script = f"import sys; sys.modules['{library}'] = None; sys.argv = ['zapd', 'check-config']\n"
        script += "import zapd.cli; zapd.cli.main()"
        ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert ended.stderr == f"zapd: this command needs {library}: pip install 'zapd[server]'\n"


def test_colours_are_for_terminals(tmp_path: Path) -> None:
    """On a terminal mistakes are red; in a pipe there is no escape sequence."""
    path = tmp_path / "zapd.toml"
    path.write_text("[servr]\n")
    command = [sys.executable, "-m", "zapd", "check-config", "-c", str(path)]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"} | {"TERM": "xterm"}
    piped = subprocess.run(command, capture_output=True, check=False, env=environment)
    assert b"\x1b" not in piped.stdout + piped.stderr
    ours, theirs = pty.openpty()
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, stdin=theirs, env=environment) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:  # Linux's way to say that the other end is closed
            pass
        process.wait(20)
    os.close(ours)
    assert b"\x1b[31mmistake" in shown
