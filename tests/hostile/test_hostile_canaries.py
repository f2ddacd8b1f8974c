"""Unique secrets go in everywhere; nothing of them comes out anywhere."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import httpx
import pytest
from support.hostile_canary import Hunt, canary, guises
from support.hostile_scene import CONFIGURATION, Scene, status_of
from support.hostile_wire import Ended, Stranger, question, wait_for
from support.serving import Zapd

from zapd.agent.keyfile import read_keys
from zapd.config import load, read_curve_pair
from zapd.config.findings import InvalidConfiguration
from zapd.zmtp.keys import encode_key
from zapd.zmtp.mechanisms.plain import PlainClient

PAGES = (
    *("users", "users/carol", "keys", "agents", "agents/canary"),
    *("tokens", "domains", "backends", "audit?limit=1000"),
)


def test_the_hunt_finds_what_is_there() -> None:
    """The search itself: every guise of a secret, at every alignment of base64, is recognised."""
    secret = canary().encode()
    for lead in range(4):
        hidden = b"x" * lead + secret + b"tail"
        for text in (hidden, hidden.hex().encode(), base64.b64encode(hidden), base64.urlsafe_b64encode(hidden)):
            hunt = Hunt({"it": secret})
            hunt.through("here", text)
            assert hunt.found, text
    key = bytes(range(200, 232))
    assert encode_key(key).encode() in set(guises(key))
    hunt = Hunt({"it": secret})
    hunt.through("elsewhere", b"nothing of it")
    assert not hunt.found


def provoke_the_api(scene: Scene, password: str, said: Hunt) -> None:
    """Errors with a password in them: bodies of the wrong shape, size, type and place."""
    bodies: list[object] = [
        {"name": "x", "password": [password]},
        {"name": "x", "password": {"is": password}},
        {"name": "x", "passwrd": password},
        {"name": ["x"], "password": password},
        {"name": "x\0", "password": password, "domains": ["staff"]},
        {"name": "x", "password": password + "\0", "domains": ["staff"]},
        {"name": "x", "password": password * 20, "domains": ["staff"]},
        {"name": "x", "password": password, "domains": ["zapd.agents"]},
        {"name": "x", "password": password, "domains": "staff"},
        {"name": "bob", "password": password, "domains": ["staff"]},
        {"name": "x", "password": password, "domains": ["staff"], "expires": "yesterday"},
        {"name": "x", "password": password, "domains": ["staff"], "attributes": {"Zapd-x": "y"}},
        [password],
        password,
    ]
    for body in bodies:
        for verb, path in (("POST", "/v1/users"), ("PUT", "/v1/users/bob/password"), ("PATCH", "/v1/users/bob")):
            said.through(f"the answer to {verb} {path}", scene.zapd.call(verb, path, body).content)
    head = {"Authorization": f"Bearer {scene.zapd.token}"}
    for content in (f'{{"name": "x", "password": "{password}"', f"password={password}", password * 50_000):
        for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
            answer = httpx.post(
                scene.zapd.admin + "/v1/users", content=content, headers={**head, "Content-Type": kind}, timeout=20
            )
            assert answer.status_code >= 400
            said.through(f"the answer to broken {kind}", answer.content)
    for token in (password, scene.zapd.token + "x", scene.zapd.token[:-1], scene.zapd.token.upper()):
        answer = scene.zapd.call("GET", "/v1/users", token=token)
        assert answer.status_code == 401
        said.through("the answer to a wrong token", answer.content)
    for path in (
        f"/v1/users?token={scene.zapd.token}",
        f"/v1/users?password={password}",
        f"/v1/keys?cursor={password}",
    ):
        said.through("the answer to a query", scene.zapd.call("GET", path, token="x").content)
        said.through("the answer to a query", scene.zapd.call("GET", path).content)
    scene.zapd.call("GET", "/metrics", token=password)


def provoke_the_endpoint(scene: Scene, secret: bytes) -> None:
    """Refusals with a password in them, asked about and at the door."""
    with scene.stranger() as asking:
        for message in (
            question(b"1", b"staff", b"PLAIN", (b"bob", secret)),
            question(b"1", b"staff", b"PLAIN", (b"nobody", secret)),
            question(b"1", b"nowhere", b"PLAIN", (b"bob", secret)),
            question(b"1", b"staff", b"PLAIN", (b"bob", secret + b"\0")),
            question(b"1", b"staff", b"PLAIN", (b"bob", secret, secret)),
            question(b"1", b"staff", b"PLAIN", (b"", secret)),
            question(b"1", b"staff", b"PLAIN", (b"b\xff", secret)),
            question(b"1", b"staff", b"GSSAPI", (b"bob", secret)),
            question(b"1", b"orders", b"CURVE", (secret,)),
            question(b"1", b"orders", b"NULL", (secret,)),
        ):
            assert status_of(asking.ask(message)) != b"200"
        asking.say(b"\x00\x05bad" + secret)
    with pytest.raises(Ended):
        Stranger(scene.plain, PlainClient(b"nobody", secret))


def test_no_secret_leaves_in_any_form(tmp_path: Path) -> None:
    """Passwords, tokens and secret keys, used rightly and wrongly: then log, journal, databases, metrics, answers
    of the API and what /proc shows are searched for them in plain, hex, base64, Z85 and URL form."""
    scene = Scene.prepare(tmp_path)
    try:
        good, changed, typed, wrong = canary(), canary(), canary(), canary()
        scene.zapd.ask("POST", "/v1/users", {"name": "carol", "password": good, "domains": ["staff"]})
        added = scene.zapd.run("user", "add", "dave", "--domain", "staff", stdin=typed + "\n")
        assert added.returncode == 0, added.stderr
        made = scene.zapd.ask("POST", "/v1/tokens", {"name": "canary", "role": "viewer"})
        agent_file = scene.zapd.enroll("canary", domains=["*"])
        agent = read_keys(agent_file)
        _public, server_secret = read_curve_pair(tmp_path / "data" / "server.key")
        journal_key = (tmp_path / "data" / "journal.key").read_bytes()
        hunt = Hunt(
            {
                "a password": good.encode(),
                "a changed password": changed.encode(),
                "a typed password": typed.encode(),
                "a wrong password": wrong.encode(),
                "the admin's token": scene.zapd.token.encode(),
                "a viewer's token": made["token"].encode(),
                "the agent's secret key": agent.secret_key,
                "the server's secret key": server_secret,
                "the journal's key": _longest_word(journal_key),
            }
        )
        with Stranger(scene.plain, PlainClient(b"carol", good.encode())) as asking:
            assert status_of(asking.ask(question(b"1", b"staff", b"PLAIN", (b"dave", typed.encode())))) == b"200"
        with scene.stranger() as asking:
            assert status_of(asking.ask(question(b"1", b"staff", b"PLAIN", (b"carol", good.encode())))) == b"200"
        scene.zapd.ask("PUT", "/v1/users/carol/password", {"password": changed})
        provoke_the_api(scene, wrong, hunt)
        provoke_the_endpoint(scene, wrong.encode())
        provoke_the_endpoint(scene, good.encode())
        for path in [
            "users",
            "users/carol",
            "keys",
            "agents",
            "agents/canary",
            "tokens",
            "domains",
            "backends",
            "audit?limit=1000",
        ]:
            hunt.through(path, scene.zapd.call("GET", f"/v1/{path}").content)
        for path in ("/metrics", "/readyz", "/healthz", "/openapi.json"):
            hunt.through(path, scene.zapd.call("GET", path).content)
        hunt.through("the answer to a token's creation", json.dumps(made | {"token": ""}))
        hunt.through("zapd user add", added.stdout + added.stderr)
        hunt.through_process(scene.pid)
        limits = Path(f"/proc/{scene.pid}/limits").read_text()
        assert [line.split()[4:6] for line in limits.splitlines() if "core file" in line] == [["0", "0"]]
        own = [
            tmp_path / "data" / "server.key",
            tmp_path / "data" / "journal.key",
            tmp_path / "admin.token",
            agent_file,
        ]
        hunt.through_files(tmp_path, but=own)
    finally:
        scene.zapd.stop()
    hunt.through_files(tmp_path, but=own)
    assert hunt.searched > 100_000
    assert not hunt.found, sorted(set(hunt.found))
    assert "Traceback" not in scene.zapd.logged()


def _longest_word(text: bytes) -> bytes:
    return max(text.split(b'"'), key=len) if b'"' in text else max(text.split(), key=len)


def test_a_database_password_is_said_by_nobody(tmp_path: Path) -> None:
    """A registry that cannot be reached is complained of everywhere, and never with its password."""
    password = canary()
    hunt = Hunt({"the database's password": password.encode()})
    secret = tmp_path / "database.url"
    secret.touch(mode=0o600)
    secret.write_text(f"postgresql+psycopg://zapd:{password}@127.0.0.1:1/zapd?connect_timeout=1\n")
    zapd = Zapd(tmp_path / "z", configuration=CONFIGURATION + f'[database]\nurl = "file:{secret}"\n')
    zapd.start()
    try:
        with Stranger(zapd.zap[0]) as asking:
            refused = asking.ask(question(b"1", b"orders", b"CURVE", (bytes(31) + b"\x09",)))
            assert status_of(refused) == b"300"
        for path in ("/readyz", "/metrics", "/v1/keys", "/v1/backends"):
            hunt.through(path, zapd.call("GET", path).content)
        assert zapd.call("GET", "/readyz").status_code == 503
        assert wait_for(lambda: "cannot be read" in zapd.logged())
        for words in (["check-config"], ["db", "current"]):
            told = zapd.run(*words)
            hunt.through(f"zapd {' '.join(words)}", told.stdout + told.stderr)
        assert zapd.process is not None
        hunt.through_process(zapd.process.pid)
    finally:
        zapd.stop()
    hunt.through_files(tmp_path, but=[secret])
    assert not hunt.found, sorted(set(hunt.found))


def test_a_secret_in_the_configuration_itself_is_refused_without_being_repeated(tmp_path: Path) -> None:
    """Settings that want a file, settings that do not exist, broken quotes: the complaint names the line alone."""
    zapd = Zapd(tmp_path)
    password = canary()
    hunt = Hunt({"a password": password.encode()})
    for more in (
        f'[backend.more]\ntype = "sql"\npassword = "{password}"\n',
        f'[backend.more]\ntype = "passwd"\nbind_password = "{password}"\n',
        f'[backend.more]\ntype = "sql"\ntoken = ["{password}"]\n',
        f'[backend.more]\ntype = "sql"\npassword = "{password}\n',
        f'[database]\nurl = "nonsense://zapd:{password}@db"\n',
        f'[database]\nurl = "postgresql+psycopg://zapd:{password}@db"\n[backend.more]\ntype = "nonsense"\n',
        f'[database]\nurl = ["postgresql+psycopg://zapd:{password}@db"]\n',
    ):
        zapd.configure(CONFIGURATION + more)
        with pytest.raises(InvalidConfiguration) as refused:
            load(zapd.config)
        hunt.through(more.partition("\n")[0], str(refused.value) + repr(refused.value.warnings))
    assert not hunt.found, sorted(set(hunt.found))
