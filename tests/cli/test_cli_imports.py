"""Imports and exports from the command line: files of our own kinds, and what other programs keep."""

import base64
import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import zmq.auth
from support.cli_server import Served
from test_cli_rest import new_key, new_name

from zapd.cli.foreign import certificates, htpasswd, volttron
from zapd.cli.importing import progress
from zapd.errors import InvalidInput
from zapd.zmtp.keys import decode_public_key, encode_key, generate_keypair

BCRYPT = "$2y$05$BGOpAmPG5g5Cvka2GQ33zeA8ODVqVUWVHPrLwbmAAeIw8b.0AdHlC"


def _users(served: Served, prefix: str) -> dict[str, dict[str, Any]]:
    return {key["user"]: key for key in served.json("key", "list") if key["user"].startswith(prefix)}


@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_an_export_goes_in_again_as_it_was(served: Served, tmp_path: Path, form: str) -> None:
    """Every member comes back, also keys that begin like formulas; a second import finds nothing to do."""
    mark = new_name("round")
    for number, first in enumerate("=+-@"):
        key, _ = new_key(first)
        user, label = f"{mark}-{number}", f"{first}cmd|' /C calc'!A0"
        more = ("--group", "a", "--attr", "Desk=7,8", "--expires", "90d", "--not-before", "1d")
        served.run("key", "add", "--user", user, "--label", label, *more, "--", key)
    file = tmp_path / f"keys.{form}"
    said = served.run("key", "export", "-o", str(file), "--user", f"{mark}-0").stdout
    assert said.startswith("1 keys are in")
    everything = tmp_path / f"all.{form}"
    assert served.json("key", "export", "-o", str(everything))["keys"] >= 4
    served.run("key", "export", "-o", str(everything), code=1)
    text = everything.read_text()
    if form == "csv":
        with everything.open(newline="") as opened:
            assert not [
                cell for row in csv.reader(opened) for cell in row if cell.startswith(("=", "+", "-", "@"))
            ]
    done = served.json("key", "import", str(everything))
    assert (done["added"], done["refused"], done["unchanged"]) == (0, 0, done["rows"])
    assert served.run("key", "export", "--format", form).stdout.splitlines() == text.splitlines()
    if form == "json":
        assert json.loads(served.run("key", "export", "--json").stdout) == json.loads(text)


def test_certificates_of_pyzmq_and_czmq_come_in(served: Served, tmp_path: Path) -> None:
    """A folder of either; secret halves are passed over, metadata become attributes; a file that is none, or that
    holds a secret under a public name, is told, and keeps the others out unless it may be left out."""
    folder, mark = tmp_path / "certs", new_name("cert")
    folder.mkdir()
    zmq.auth.create_certificates(folder, f"{mark}-py")
    served.run("keygen", "--format", "czmq", "-o", str(folder / f"{mark}-c"))
    public = folder / f"{mark}-c"
    metadata = 'metadata\n    name = "Carol C."\n    desk = 7\n    motto = "a "b" # c"\n'
    public.write_text(public.read_text().replace("metadata\n", metadata))
    (folder / f"{mark}-both.key").write_text((folder / f"{mark}-py.key_secret").read_text())
    (folder / "notes.txt").write_text("nothing\n")
    (folder / "binary").write_bytes(b"\xff\xfe" * 100)
    (folder / "long").write_text("x" * 70_000)
    dry = served.run("key", "import", str(folder), "--dry-run")
    assert dry.stderr.count("zapd: ") == 4
    assert f"{mark}-both.key: holds a secret key" in dry.stderr
    assert "Would add 2 of 6" in dry.stdout
    refused = served.run("key", "import", str(folder), code=1)
    assert "notes.txt: holds no public-key" in refused.stderr
    assert _users(served, mark) == {}
    done = served.json("key", "import", str(folder), "--format", "czmq", "--partial")
    assert (done["added"], done["refused"]) == (2, 4)
    found = _users(served, mark)
    assert found[f"{mark}-py"]["public_key"] in (folder / f"{mark}-py.key").read_text()
    assert found[f"{mark}-c"]["attributes"] == {"name": "Carol C.", "desk": "7", "motto": 'a "b" # c'}
    for each in folder.glob("*_secret"):
        secret = each.read_text().partition("secret-key")[2].split('"')[1]
        assert secret not in json.dumps(done) + dry.stdout + dry.stderr


def test_volttrons_auth_json_comes_in(served: Served, tmp_path: Path) -> None:
    """Keys with user, groups and roles; disabled ones wait, denied ones are revoked, patterns are told."""
    mark = new_name("volttron")
    pairs = [generate_keypair()[0] for _ in range(4)]
    texts = [base64.urlsafe_b64encode(key).rstrip(b"=").decode() for key in pairs]
    entries = [
        {"credentials": texts[0], "user_id": f"{mark}-a", "groups": ["g"], "roles": ["r"], "mechanism": "CURVE"},
        {"credentials": texts[1], "user_id": f"{mark}-b", "enabled": False, "domain": None, "address": None},
        {"credentials": "/.*/", "user_id": f"{mark}-c"},
        {"credentials": "CURVE:" + texts[2], "user_id": f"{mark}-d", "address": "10.0.0.1"},
        {"credentials": "secret", "user_id": f"{mark}-e", "mechanism": "PLAIN"},
        {"credentials": None, "user_id": f"{mark}-f"},
        {"credentials": texts[2], "user_id": f"{mark}-g", "domain": "/x/"},
        {"credentials": "!!", "user_id": f"{mark}-h"},
        {"credentials": texts[2]},
        {"credentials": texts[2], "user_id": "x", "groups": "g"},
        7,
    ]
    document = {"allow": entries, "deny": [{"credentials": texts[3], "user_id": f"{mark}-z"}]}
    file = tmp_path / "auth.json"
    file.write_text("# VOLTTRON\n" + json.dumps(document).replace('"deny"', '# who\n"deny"'))
    done = served.json("key", "import", str(file), "--format", "volttron", "--partial")
    assert (done["added"], done["refused"]) == (3, 9)
    assert "secret" not in [item["what"] for item in done["items"]]
    found = _users(served, mark)
    assert decode_public_key(found[f"{mark}-a"]["public_key"]) == pairs[0]
    assert found[f"{mark}-a"]["groups"] == ["g", "r"]
    assert [found[f"{mark}-{name}"]["state"] for name in "abz"] == ["active", "pending", "revoked"]
    for wrong in ("[]", "{", "{}"):
        file.write_text(wrong)
        with pytest.raises(InvalidInput):
            list(volttron(file))


def test_htpasswd_comes_in(served: Served, tmp_path: Path) -> None:
    """Users with the hashes they have; a barred one is disabled; no hash is printed."""
    mark = new_name("user")
    file = tmp_path / ".htpasswd"
    file.write_text(f"# ours\n{mark}-a:{BCRYPT}\n\n{mark}-b:!{BCRYPT}:more\nnothing\n{mark}-c:$1$old$hash\n")
    dry = served.run("user", "import", str(file), "--dry-run")
    assert "line 5: no name:hash" in dry.stderr
    assert "line 6: unknown kind of hash" in dry.stderr
    served.run("user", "import", str(file), code=1)
    done = served.run("user", "import", str(file), "--partial", "--domain", "default")
    assert "Added 2 of 4" in done.stdout
    shown = served.json("user", "list")
    states = {user["name"]: user["state"] for user in shown if user["name"].startswith(mark)}
    assert states == {f"{mark}-a": "enabled", f"{mark}-b": "disabled"}
    assert "$2y$" not in dry.stdout + dry.stderr + done.stdout + done.stderr


def test_sources_that_cannot_be_read(served: Served, tmp_path: Path) -> None:
    """A name that says nothing needs --format, a missing file is bad usage, a folder or file of the wrong kind is
    told."""
    unnamed = tmp_path / "keys"
    unnamed.write_text("public_key,user\n")
    assert "--format" in served.run("key", "import", str(unnamed), code=1).stderr
    served.run("key", "import", str(unnamed), "--format", "csv")
    served.run("key", "import", str(tmp_path / "missing.csv"), code=2)
    (tmp_path / "other.csv").write_text("a,b\n")
    assert "heading lacks" in served.run("key", "import", str(tmp_path / "other.csv"), code=1).stderr
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps({"public_key": encode_key(bytes(32)), "user": "x"}) + "\n")
    told = served.run("key", "import", str(broken), code=1).stderr
    assert "nothing was imported" in told
    assert "line 1" in told
    with pytest.raises(InvalidInput):
        list(certificates(unnamed))
    with pytest.raises(InvalidInput):
        list(htpasswd(tmp_path))


def test_progress_is_for_terminals_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a terminal a bar shows how far it is, on standard error; elsewhere nothing is drawn."""
    with progress("Sending", 10) as moved:
        moved(5)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    with progress("Sending", 10) as moved:
        moved(5)
        moved(5, "The server imports")
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "Sending" in shown.err or "The server imports" in shown.err
