"""The jwt backend in a running zapd: libzmq clients log in with tokens, and zapd writes none of them down."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from support.agent_app import App
from support.app_scene import CONFIGURATION, Asking, wait_for
from support.enrolling import new_key
from support.hostile_canary import Hunt
from support.http_service import Authority
from support.jwt_issuer import ISSUER, Issuer, Signer
from support.serving import PATIENCE, Zapd, serving

from zapd.agent.keyfile import read_keys
from zapd.zmtp.keys import decode_public_key

PAGE = (Path(__file__).parents[2] / "docs/backends/jwt.md").read_text()
HEAD = """
[[zap]]
listen = "tcp://127.0.0.1:0"
mechanism = "CURVE"
[admin]
listen = "127.0.0.1:0"
"""
SPLIT = """
[backend.split]
type = "jwt"
issuer = "{issuer}"
audience = "zapd"
keys = "{keys}"
tls_ca = "{ca}"
token_in = "username+password"
[domain.split]
mechanisms = ["PLAIN"]
backends = ["split"]
"""


@pytest.fixture
def issuer(tmp_path: Path) -> Iterator[Issuer]:
    self = Authority(tmp_path / "ca")
    with Issuer(self.server(), Signer("1"), Signer("2", "ES256")) as made:
        made.ca = self.ca  # type: ignore[attr-defined]
        yield made


@pytest.fixture
def zapd_(issuer: Issuer, tmp_path: Path) -> Iterator[Zapd]:
    """A zapd with the page's configuration, the issuer's place in it changed to this one's."""
    (text,) = re.findall(r"^```toml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    ca = issuer.ca  # type: ignore[attr-defined]
    text = text.replace('"https://id.example.org/keys"', f'"{issuer.url()}"\ntls_ca = "{ca}"')
    more = SPLIT.format(issuer=ISSUER, keys=issuer.url(), ca=ca)
    with serving(tmp_path / "z", configuration=HEAD + text + more) as started:
        yield started


def test_libzmq_clients_log_in_with_tokens(zapd_: Zapd, issuer: Issuer) -> None:
    """Whole in the password, or split over user name and password: in, with the token's name and groups; expired
    or somebody else's: refused for good. Nothing that zapd wrote or shows holds a token, or a signature."""
    assert wait_for(lambda: zapd_.call("GET", "/readyz").is_success)
    keys = read_keys(zapd_.enroll("edge-1", domains=["*"]))
    now = int(time.time())
    good, old = issuer.token(groups=["fleet"]), issuer.token(exp=now - 60)
    stolen = issuer.token("eve")
    long = issuer.token("bob", note="x" * 70, exp=now + 900)
    name, _, signature = long.decode().rpartition(".")
    assert len(good) <= 255 < len(long)
    hunt = Hunt(
        {"a token": good, "an old token": old, "another's token": stolen, "a signature": signature.encode()}
    )
    with App(keys.endpoints, keys=keys, mechanism="PLAIN", domain="metrics", deadline=1.5, handshake=2.0) as app:
        app.visitor(user="ada", password=old.decode(), says=b"old")
        app.visitor(user="ada", password=stolen.decode(), says=b"stolen")
        app.visitor(user="ada", password=good.decode(), says=b"in")
        assert app.socket.poll(int(PATIENCE * 1000))
        frame = app.socket.recv(copy=False)
        assert (frame.bytes, frame.get("User-Id"), frame.get("X-Zapd-Groups")) == (b"in", "ada", "fleet")
        assert wait_for(lambda: {"token_expired", "token_other_user"} <= reasons(zapd_))
        assert not app.socket.poll(100)
    with App(keys.endpoints, keys=keys, mechanism="PLAIN", domain="split", deadline=1.5, handshake=2.0) as app:
        app.visitor(user=name, password=signature, says=b"split")
        assert app.socket.poll(int(PATIENCE * 1000))
        assert app.socket.recv(copy=False).get("User-Id") == "bob"
    for path in ("/v1/backends", "/v1/audit?limit=1000", "/metrics", "/readyz"):
        hunt.through(path, zapd_.call("GET", path).content)
    zapd_.stop()
    hunt.through_files(zapd_.folder)
    assert hunt.searched > 10_000
    assert not hunt.found, sorted(set(hunt.found))


def reasons(zapd_: Zapd) -> set[str]:
    return set(re.findall(r'"reason":"(\w+)"', zapd_.journal()))


def test_a_token_that_is_said_once_gives_a_key_that_ends_with_it(issuer: Issuer, tmp_path: Path) -> None:
    """Signed in with, a token registers its owner's key, which is let in and lives no longer than the token."""
    ca = issuer.ca  # type: ignore[attr-defined]
    tokens = f'type = "jwt"\nissuer = "{ISSUER}"\naudience = "zapd"\nkeys = "{issuer.url()}"\n'
    text = f"""{CONFIGURATION}
[enroll]
listen = "127.0.0.1:0"
[signin.metrics]
domains = ["orders"]
lifetime = "12h"
[backend.tokens]
{tokens}tls_ca = "{ca}"
groups = "groups"
[domain.metrics]
mechanisms = ["PLAIN"]
backends = ["tokens"]
"""
    ends = int(time.time()) + 900
    with serving(tmp_path / "z", configuration=text) as zapd_, Asking(zapd_) as asking:
        key = new_key()
        body = {"user": "ada", "password": issuer.token(groups=["fleet"], exp=ends).decode(), "public_key": key}
        made = httpx.post(zapd_.enroll_url + "/v1/signin", json=body, timeout=PATIENCE)
        assert made.status_code == 201, made.text
        assert made.json()["groups"] == ["fleet"]
        assert datetime.fromisoformat(made.json()["expires"]).timestamp() <= ends
        assert asking.whole(decode_public_key(key)) == (200, "ada")
        body |= {"password": issuer.token("eve").decode(), "public_key": new_key()}
        assert httpx.post(zapd_.enroll_url + "/v1/signin", json=body, timeout=PATIENCE).status_code == 403
