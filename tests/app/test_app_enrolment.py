"""The listener where keys are had, of a running zapd: TLS, proxies, workers, reloads, what the page promises."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from support.app_scene import CONFIGURATION, Asking, plain_file, wait_for
from support.enrolling import new_key
from support.hostile_canary import Hunt, canary
from support.serving import Zapd, serving

from zapd.config import load
from zapd.config.findings import InvalidConfiguration
from zapd.zmtp.keys import decode_public_key

PROGRAMS = Path(sys.executable).parent
PAGE = (Path(__file__).parents[2] / "docs" / "enrolment.md").read_text()

ENROLL = (
    CONFIGURATION
    + """
[enroll]
listen = "127.0.0.1:0"
[signin.orders]
hints = { server = "tcp://127.0.0.1:5555" }
"""
)
STAFF = (
    CONFIGURATION
    + """
[enroll]
listen = "127.0.0.1:0"
[backend.staff]
type = "passwd"
path = "staff.passwd"
[domain.staff]
mechanisms = ["PLAIN"]
backends = ["staff"]
[signin.staff]
domains = ["orders"]
lifetime = "2h"
"""
)


@pytest.fixture(params=[1, 2], ids=["alone", "workers"])
def zapd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Zapd]:
    """Running with one process and with two workers; alice has a password."""
    text = ENROLL.replace('drain = "5s"', f'drain = "1s"\nworkers = {request.param}')
    with serving(tmp_path, configuration=text) as made:
        made.ask(
            "POST",
            "/v1/users",
            {"name": "alice", "password": "correct horse", "domains": ["orders"], "groups": ["traders"]},
        )
        yield made


def post(zapd: Zapd, path: str, body: dict[str, Any], **more: Any) -> httpx.Response:
    return httpx.post(zapd.enroll_url + path, json=body, timeout=30, **more)


def test_both_ways_lead_to_a_key_that_is_let_in(zapd: Zapd) -> None:
    """At once, wherever decisions are made; and what a revocation then says holds."""
    join = zapd.ask("POST", "/v1/joins", {"user": "robot", "domains": ["orders"], "groups": ["fleet"]})
    robots, alices = new_key(), new_key()
    with Asking(zapd) as asking:
        assert asking.ask(decode_public_key(robots)) == 400
        joined = post(zapd, "/v1/enroll", {"token": join["token"], "public_key": robots})
        assert joined.status_code == 201, joined.text
        assert asking.whole(decode_public_key(robots)) == (200, "robot")
        assert post(zapd, "/v1/enroll", {"token": join["token"], "public_key": new_key()}).status_code == 403
        body = {"user": "alice", "password": "correct horse", "public_key": alices}
        entered = post(zapd, "/v1/signin", body)
        assert entered.status_code == 201, entered.text
        assert (entered.json()["groups"], entered.json()["hints"]) == (
            ["traders"],
            {"server": "tcp://127.0.0.1:5555"},
        )
        assert asking.whole(decode_public_key(alices)) == (200, "alice")
        assert post(zapd, "/v1/signin", body).status_code == 200
        assert post(zapd, "/v1/signin", body | {"password": "wrong"}).status_code == 403
        revoked = zapd.run("key", "revoke", alices, "--yes")
        assert revoked.returncode == 0, revoked.stderr
        assert asking.ask(decode_public_key(alices)) == 400
        assert post(zapd, "/v1/signin", body).status_code == 409
        other = new_key()
        assert post(zapd, "/v1/signin", body | {"public_key": other}).status_code == 201
        assert asking.ask(decode_public_key(other)) == 200
        disabled = zapd.run("user", "disable", "alice")
        assert disabled.returncode == 0, disabled.stderr
        assert asking.ask(decode_public_key(other)) == 400, "the key rested on the password"
    text = zapd.call("GET", "/metrics").text
    assert 'zapd_enrolments_total{name="enrolled"} 1.0' in text
    assert 'zapd_signins_total{name="extended"} 1.0' in text
    journal = zapd.journal()
    for tag in ("join.create", "join.use", "join.refuse", "key.add", "auth.accept", "auth.reject"):
        assert f'"event":"{tag}"' in journal, tag
    for word in (joined, entered):
        assert f'"request":"{word.headers["x-request-id"]}"' in journal
    assert zapd.run("audit", "verify").returncode == 0
    replayed = zapd.run("audit", "replay", "-c", str(zapd.config), "--json")
    assert replayed.returncode == 0, replayed.stderr
    found = json.loads(replayed.stdout)
    assert found["otherwise"] == 0, replayed.stdout
    assert "not there any more" not in replayed.stdout


def test_a_password_of_another_backend_gives_a_key_of_the_registry(tmp_path: Path) -> None:
    """A file judges in one domain, the key is good in another; a reload without the table ends sign-ins."""
    zapd = Zapd(tmp_path, configuration=STAFF)
    plain_file(tmp_path / "staff.passwd", carol="s3cret")
    with zapd, Asking(zapd) as asking:
        key = new_key()
        body = {"user": "carol", "password": "s3cret", "public_key": key}
        answer = post(zapd, "/v1/signin", body)
        assert answer.status_code == 201, answer.text
        assert answer.json()["domains"] == ["orders"]
        assert asking.whole(decode_public_key(key)) == (200, "carol")
        assert asking.ask(decode_public_key(key), domain="staff") == 400
        zapd.configure(STAFF.partition("[signin.staff]")[0])
        zapd.signal(signal.SIGHUP)
        assert wait_for(lambda: post(zapd, "/v1/signin", body).status_code == 403)


def test_penalties_are_those_of_every_password(tmp_path: Path) -> None:
    """Wrong tokens, wrong passwords here and wrong passwords at a socket come from one address, and are counted
    together; whoever has guessed too often is not looked at. An account that ends soon has a key that does."""
    text = ENROLL + '[penalties]\ntries = 3\naddress_tries = 6\nshortest = "1m"\n'
    with serving(tmp_path, configuration=text) as zapd, Asking(zapd) as asking:
        expires = datetime.now(UTC) + timedelta(hours=1)
        user = {
            "name": "alice",
            "password": "correct horse",
            "domains": ["orders"],
            "expires": expires.isoformat(),
        }
        zapd.ask("POST", "/v1/users", user)
        body = {"user": "alice", "password": "correct horse", "public_key": new_key()}
        entered = post(zapd, "/v1/signin", body)
        assert datetime.fromisoformat(entered.json()["expires"]) == expires
        for number in range(2):
            assert post(zapd, "/v1/signin", body | {"user": f"nobody{number}"}).status_code == 403
            token = {"token": f"zapdj_{number}" + "a" * 42, "public_key": new_key()}
            assert post(zapd, "/v1/enroll", token).status_code == 403
            assert asking.plain(f"stranger{number}", "x") == 400
        join = zapd.ask("POST", "/v1/joins", {"domains": ["orders"]})
        assert post(zapd, "/v1/signin", body | {"user": "nobody7"}).status_code == 403, "the last free one"
        held = [
            post(zapd, "/v1/signin", body | {"user": "nobody8"}),
            post(zapd, "/v1/enroll", {"token": join["token"], "public_key": new_key()}),
        ]
        assert [answer.status_code for answer in held] == [429, 429], [answer.text for answer in held]
        assert post(zapd, "/v1/signin", body).status_code == 200, "who is in good standing here passes"
        assert wait_for(lambda: '"reason":"penalty_address"' in zapd.journal())


def test_with_workers_penalties_are_shared_and_slow_strangers_keep_nobody_out(tmp_path: Path) -> None:
    """What workers hear of wrong passwords soon holds up wrong tokens at the parent. Meanwhile three hundred
    connections that say half a head, or half a body, are dropped in time."""
    text = ENROLL.replace('drain = "5s"', 'drain = "1s"\nworkers = 2')
    with serving(tmp_path, configuration=text + '[penalties]\naddress_tries = 6\nshortest = "1m"\n') as zapd:
        url = httpx.URL(zapd.enroll_url)
        head = b"POST /v1/enroll HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n"
        with ExitStack() as stack:
            for number in range(300):
                stranger = stack.enter_context(socket.create_connection((url.host, url.port or 0)))
                stranger.sendall(head if number % 2 else head + b"\r\n{")
            for number in range(8):
                body = {"user": f"nobody{number}", "password": "x", "public_key": new_key()}
                assert post(zapd, "/v1/signin", body).status_code in (403, 429)
            guess = {"token": "zapdj_" + "x" * 43, "public_key": new_key()}
            assert wait_for(lambda: post(zapd, "/v1/enroll", guess).status_code == 429)


def test_who_is_banned_comes_for_nothing(tmp_path: Path) -> None:
    """By address or by name, at both routes; in force at once, and no longer than the ban."""
    with serving(tmp_path, configuration=ENROLL) as zapd:
        zapd.ask("POST", "/v1/users", {"name": "alice", "password": "correct horse", "domains": ["orders"]})
        join = zapd.ask("POST", "/v1/joins", {"user": "robot", "domains": ["orders"], "uses": 9})
        bodies = {
            "/v1/enroll": {"token": join["token"]},
            "/v1/signin": {"user": "alice", "password": "correct horse"},
        }

        def ask(path: str) -> int:
            return post(zapd, path, bodies[path] | {"public_key": new_key()}).status_code

        for words, barred in (
            (["--address", "127.0.0.1"], {"/v1/enroll", "/v1/signin"}),
            (["--user", "robot"], {"/v1/enroll"}),
            (["--user", "alice"], {"/v1/signin"}),
        ):
            added = zapd.run("ban", "add", *words, "--json")
            assert added.returncode == 0, added.stderr
            assert {path: ask(path) for path in bodies} == {
                path: 403 if path in barred else 201 for path in bodies
            }
            removed = zapd.run("ban", "rm", json.loads(added.stdout)["id"], "--yes")
            assert removed.returncode == 0, removed.stderr
            assert {ask(path) for path in bodies} == {201}
        assert '"reason":"banned_address"' in zapd.journal()


def test_keys_that_ended_are_forgotten_by_a_running_zapd(tmp_path: Path) -> None:
    """From the registry and from memory, on record; the key may be had anew, by anybody."""
    key, body = new_key(), {"user": "alice", "password": "correct horse"}
    with serving(tmp_path, configuration=ENROLL) as zapd:
        zapd.ask("POST", "/v1/users", {"name": "alice", "password": "correct horse", "domains": ["orders"]})
        assert post(zapd, "/v1/signin", body | {"public_key": key}).status_code == 201
    with closing(sqlite3.connect(tmp_path / "data" / "zapd.db")) as registry, registry:
        registry.execute("UPDATE keys SET expires = expires - 2 * 86400000000")
    with zapd, Asking(zapd) as asking:
        assert wait_for(lambda: '"event":"key.remove"' in zapd.journal())
        assert zapd.ask("GET", "/v1/keys")["items"] == []
        assert wait_for(lambda: asking.ask(decode_public_key(key)) == 400)
        assert wait_for(lambda: '"reason":"unknown_key"' in zapd.journal())
        join = zapd.ask("POST", "/v1/joins", {"user": "robot", "domains": ["orders"]})
        assert post(zapd, "/v1/enroll", {"token": join["token"], "public_key": key}).status_code == 201
        assert asking.whole(decode_public_key(key)) == (200, "robot")


def test_tls_is_spoken_and_its_files_are_read_again(tmp_path: Path) -> None:
    """A client that trusts the authority gets in; after a reload the new certificate is shown."""
    first, second = trustme.CA(), trustme.CA()
    cert, key = tmp_path / "tls.pem", tmp_path / "tls.key"

    def issue(authority: trustme.CA) -> ssl.SSLContext:
        issued = authority.issue_cert("127.0.0.1")
        cert.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(str(key))
        context = ssl.create_default_context()
        authority.configure_trust(context)
        return context

    trusting = issue(first)
    lines = f'listen = "127.0.0.1:0"\ntls_cert = "{cert}"\ntls_key = "{key}"\n[signin.orders]'
    text = re.sub(r'listen = "127.0.0.1:0"\n\[signin\.orders\]', lines, ENROLL)
    body = {"token": "x", "public_key": new_key()}
    with serving(tmp_path / "z", configuration=text) as zapd:
        assert zapd.enroll_url.startswith("https://")
        assert post(zapd, "/v1/enroll", body, verify=trusting).status_code == 403
        with pytest.raises(httpx.ConnectError):
            post(zapd, "/v1/enroll", body)
        renewed = issue(second)
        zapd.signal(signal.SIGHUP)

        def shown() -> bool:
            try:
                return post(zapd, "/v1/enroll", body, verify=renewed).status_code == 403
            except httpx.ConnectError:
                return False

        assert wait_for(shown)


def test_a_proxy_is_believed_about_addresses_and_nobody_else(tmp_path: Path) -> None:
    """The range of a join token and the record go by who is behind the proxy; what a client claims besides counts
    for nothing."""
    proxied = 'listen = "127.0.0.1:0"\nbehind_proxy = true\ntrusted_proxies = ["127.0.0.1/32"]\n[signin.orders]'
    text = re.sub(r'listen = "127.0.0.1:0"\n\[signin\.orders\]', proxied, ENROLL)
    with serving(tmp_path, configuration=text) as zapd:
        join = zapd.ask("POST", "/v1/joins", {"uses": 5, "domains": ["orders"], "addresses": ["10.0.0.0/8"]})

        def exchange(forwarded: str | None) -> int:
            headers = {} if forwarded is None else {"X-Forwarded-For": forwarded}
            body = {"token": join["token"], "public_key": new_key()}
            return post(zapd, "/v1/enroll", body, headers=headers).status_code

        assert exchange("10.1.2.3") == 201
        assert exchange("192.0.2.1") == 403
        assert exchange("10.1.2.3, 192.0.2.1") == 403
        assert exchange("192.0.2.1, 10.1.2.3") == 201
        assert exchange(None) == 503
        assert exchange("unknown") == 503
        assert '"address":"10.1.2.3"' in zapd.journal()
        assert '"reason":"join_address"' in zapd.journal()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('listen = "0.0.0.0:8028"', "others can reach where keys are had, and there is no TLS"),
        ('listen = "0.0.0.0:8028"\nbehind_proxy = true', "nobody's own address would be known"),
        ('listen = "0.0.0.0:8028"\ntls_cert = "x"', "needs tls_key"),
        ('listen = "nonsense"', "no HOST:PORT"),
        ('listen = "127.0.0.1:9"\ntrusted_proxies = ["10.0.0.0/8"]', "means nothing without behind_proxy"),
    ],
)
def test_a_listener_that_is_not_secured_is_refused(tmp_path: Path, lines: str, said: str) -> None:
    """Beyond loopback it has TLS, or a proxy in front that says whose request it is."""
    path = tmp_path / "zapd.toml"
    path.write_text(CONFIGURATION + f"[enroll]\n{lines}\n")
    with pytest.raises(InvalidConfiguration) as refused:
        load(path)
    assert said in str(refused.value)


def test_no_token_and_no_password_is_written_anywhere(tmp_path: Path) -> None:
    """Used rightly, wrongly, in the wrong field and in broken bodies: log, journal, databases, metrics and answers
    hold neither."""
    with serving(tmp_path, configuration=ENROLL) as zapd:
        password, wrong = canary(), canary()
        zapd.ask("POST", "/v1/users", {"name": "alice", "password": password, "domains": ["orders"]})
        made = zapd.run("join", "create", "--domain", "orders", "--uses", "3", "--json")
        token = re.search(r"zapdj_[\w-]{43}", made.stdout)
        assert token is not None, made.stderr
        secrets = {"the password": password, "a wrong password": wrong, "the join token": token[0]}
        hunt = Hunt({name: text.encode() for name, text in secrets.items()})
        for text in secrets.values():
            for body in (
                {"token": text, "public_key": new_key()},
                {"token": [text], "public_key": new_key()},
                {"token": "x", "public_key": text},
                {"token": "x", "public_key": new_key(), "label": 7, "more": text},
                {"user": "alice", "password": text, "public_key": new_key()},
                {"user": "alice", "password": {"is": text}, "public_key": new_key()},
                {"user": "alice", "password": text + "\0", "public_key": new_key()},
                {"user": "alice", "password": text * 20, "public_key": new_key()},
                {"user": "alice", "password": text, "public_key": new_key(), "domain": "nowhere"},
            ):
                for path in ("/v1/enroll", "/v1/signin"):
                    hunt.through(path, post(zapd, path, body).content)
            for content in (f'{{"token": "{text}"', text, f"token={text}"):
                answer = httpx.post(zapd.enroll_url + "/v1/enroll", content=content, timeout=20)
                hunt.through("a broken body", answer.content)
            hunt.through("a query", httpx.get(zapd.enroll_url + "/v1/enroll", params={"token": text}).content)
        assert '"event":"join.use"' in zapd.journal()
        for path in ("/metrics", "/v1/joins", "/v1/keys", "/v1/audit?limit=1000"):
            hunt.through(path, zapd.call("GET", path).content)
        assert zapd.process is not None
        hunt.through_process(zapd.process.pid)
    hunt.through_files(tmp_path)
    assert hunt.searched > 50_000
    assert not hunt.found, sorted(set(hunt.found))
    assert "Traceback" not in zapd.logged()


@pytest.mark.skipif(
    shutil.which("curl") is None and not os.environ.get("ZAPD_REQUIRE_COMPONENTS"), reason="curl is not installed"
)
def test_the_recipes_of_the_page_work_as_they_stand(tmp_path: Path) -> None:
    """A shell runs what docs/enrolment.md shows, with the address and the token of this zapd."""
    recipes = [block for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL) if "curl" in block]
    assert len(recipes) == 2
    with serving(tmp_path, configuration=ENROLL) as zapd:
        zapd.ask("POST", "/v1/users", {"name": "alice", "password": "correct horse", "domains": ["orders"]})
        (tmp_path / "password.txt").write_text("correct horse\n")
        join = zapd.ask("POST", "/v1/joins", {"user": "robot", "domains": ["orders"]})
        script = "\n".join(recipes).replace("https://zapd.example.org:8028", zapd.enroll_url)
        # The second is for another person with another pair.
        again = "rm client.key\n" + recipes[0].splitlines()[0] + "\npython3"
        script = script.replace("\npython3", "\n" + again, 1)
        done = subprocess.run(
            ["sh", "-ec", script],
            cwd=tmp_path,
            env={**os.environ, "JOIN_TOKEN": join["token"], "PATH": f"{PROGRAMS}:{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        holders = sorted(key["user"] for key in zapd.ask("GET", "/v1/keys")["items"])
        assert holders == ["alice", "robot"]


def test_the_examples_of_the_page_are_good_configuration(tmp_path: Path) -> None:
    """Put together with a directory to ask, they pass."""
    blocks = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    path = tmp_path / "zapd.toml"
    key = tmp_path / "enroll.key"
    key.touch(mode=0o600)
    key.write_text("x")
    rest = '[backend.keys]\ntype = "sql"\n[backend.directory]\ntype = "passwd"\npath = "x.passwd"\n'
    path.write_text("\n".join(blocks).replace("/etc/zapd/enroll.key", str(key)) + rest)
    (tmp_path / "x.passwd").touch(mode=0o600)
    config = load(path)
    assert config.signin["staff"].domains == ("orders", "metrics.*")
