"""People who sign in with OpenID Connect: a real zapd and a real issuer over HTTPS."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import trustme
from support.app_scene import ALICE, CONFIGURATION, parts, wait_for, z85
from support.jwt_issuer import Issuer, Signer
from support.serving import Zapd

pytestmark = pytest.mark.xdist_group("app-people")
"""One worker, one zapd."""

OIDC = """
[admin.oidc]
issuer = "{issuer}"
audience = ["zapd"]
roles = {{ zapd-admins = "admin", zapd-ops = "operator", zapd-eyes = "viewer" }}
role_claim = "realm_access.roles"
domains_claim = "{domains}"
name_claim = "email"
algorithms = ["EdDSA", "ES256"]
tls_ca = "{ca}"
refresh = "1s"
max_age = "8s"
leeway = "1s"
"""


class Scene:
    """A zapd and its issuer."""

    def __init__(self, zapd: Zapd, issuer: Issuer) -> None:
        self.zapd = zapd
        self.issuer = issuer

    def token(self, subject: str = "u-1", *roles: str, signer: Signer | None = None, **claims: Any) -> str:
        """A good token, but for what is said."""
        told = {"iss": self.issuer.name, "realm_access": {"roles": list(roles)}, "email": "ada@example.org"}
        return (signer or self.issuer.signer).token(subject, **(told | claims)).decode()

    def ask(self, token: str, verb: str = "GET", path: str = "/v1/keys", body: object = None) -> httpx.Response:
        return self.zapd.call(verb, path, body, token=token)


@pytest.fixture(scope="module")
def running_scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with running(tmp_path_factory.mktemp("people")) as made:
        yield made


@pytest.fixture
def scene(running_scene: Scene) -> Scene:
    """The one zapd of this module, once it has the issuer's keys: on a busy machine they grow too old."""
    assert wait_for(lambda: parts(running_scene.zapd)["sign-in of people"] == "ok")
    return running_scene


class running:
    """A scene for the length of a block."""

    def __init__(self, folder: Path, domains: str = "") -> None:
        authority = trustme.CA()
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(tls)
        folder.mkdir(exist_ok=True)
        authority.cert_pem.write_to_path(folder / "ca.pem")
        self.issuer = Issuer(tls)
        text = OIDC.format(issuer=self.issuer.name, ca=folder / "ca.pem", domains=domains)
        self.zapd = Zapd(folder / "zapd", configuration=CONFIGURATION + text)

    def __enter__(self) -> Scene:
        self.issuer.__enter__()
        self.zapd.start()
        assert wait_for(lambda: parts(self.zapd)["sign-in of people"] == "ok")
        return Scene(self.zapd, self.issuer)

    def __exit__(self, *_: object) -> None:
        self.zapd.stop()
        self.issuer.__exit__(None, None, None)


def test_a_persons_role_is_what_the_issuer_says(scene: Scene) -> None:
    """Viewers read, operators change, admins make tokens; of several roles the strongest counts; none is 403."""
    eye, op, boss = (scene.token("u", f"zapd-{role}") for role in ("eyes", "ops", "admins"))
    body = {"public_key": z85(ALICE).decode(), "user": "alice", "domains": ["orders"]}
    assert scene.ask(eye).status_code == 200
    assert scene.ask(eye, "POST", body=body).status_code == 403
    assert scene.ask(op, "POST", body=body).status_code == 201
    assert scene.ask(op, path="/v1/tokens").status_code == 403
    assert scene.ask(boss, path="/v1/tokens").status_code == 200
    assert scene.ask(scene.token("u", "zapd-eyes", "zapd-admins"), path="/v1/tokens").status_code == 200
    for nobody in (scene.token("u"), scene.token("u", "wheel"), scene.token("u", realm_access="zapd-admins")):
        refused = scene.ask(nobody)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")


def test_the_record_names_issuer_subject_and_person(scene: Scene) -> None:
    """No subject passes for another, whatever stands in it or in the name."""
    for subject, email, shown in (
        ("u-1", "ada@example.org", "u-1 (ada@example.org)"),
        ("u-1 (root)", "eve", "u-1%20%28root%29 (eve)"),
        ("u-2", "e\nve", "u-2"),
    ):
        token = scene.token(subject, "zapd-ops", email=email)
        name = f"{subject[:3]}{time.monotonic_ns()}"
        made = scene.ask(
            token, "POST", "/v1/users", {"name": name, "password": "long enough", "domains": ["orders"]}
        )
        assert made.status_code == 201, made.text
        record = json.loads(
            next(line for line in reversed(scene.zapd.journal().splitlines()) if f'"subject":"{name}"' in line)
        )
        assert record["actor"] == f"{scene.issuer.name}#{shown}"
        assert token not in scene.zapd.journal() + scene.zapd.logged()


def test_a_token_that_proves_nothing_is_refused(scene: Scene) -> None:
    """Wrong audience, issuer, time, signature or algorithm: 401 in the one shape, with the same words."""
    now, good = int(time.time()), {"iss": scene.issuer.name, "aud": "zapd", "sub": "u", "exp": time.time() + 60}
    good["realm_access"] = {"roles": ["zapd-admins"]}
    stranger = Signer()
    public = scene.issuer.signer.pem
    wrong = {
        "audience": scene.token("u", "zapd-admins", aud="grafana"),
        "no audience": scene.token("u", "zapd-admins", aud=None),
        "issuer": scene.token("u", "zapd-admins", iss="https://evil.example.org"),
        "expired": scene.token("u", "zapd-admins", exp=now - 60),
        "without end": scene.token("u", "zapd-admins", exp=None),
        "no subject": scene.token(None, "zapd-admins"),  # type: ignore[arg-type]
        "signature": scene.token("u", "zapd-admins", signer=stranger),
        "none": jwt.encode(good, None, "none"),
        "HMAC with the public key": jwt.api_jws.encode(json.dumps(good).encode(), public[:31] + b"x", "HS256"),
        "no token": "a.b.c",
        "long": scene.token("u", *["x" * 100] * 300),
    }
    for what, token in wrong.items():
        refused = scene.ask(token)
        assert (refused.status_code, refused.json()["code"]) == (401, "unauthenticated"), what
    early = scene.ask(scene.token("u", "zapd-admins", nbf=now + 60))
    assert early.status_code == 401
    assert "clocks" in early.json()["detail"]


def test_cursors_and_retries_outlive_a_token(scene: Scene) -> None:
    """A person's next token goes on where the last one stopped; another person's does not."""
    for number in range(3):
        body = {"name": f"page-{number}", "password": "long enough", "domains": ["orders"]}
        assert scene.zapd.call("POST", "/v1/users", body).status_code in (201, 409)
    first = scene.ask(scene.token("u", "zapd-eyes"), path="/v1/users?limit=1").json()
    again = scene.token("u", "zapd-eyes", jti="another")
    path = f"/v1/users?limit=1&cursor={first['next_cursor']}"
    assert scene.ask(again, path=path).status_code == 200
    assert scene.ask(scene.token("v", "zapd-eyes"), path=path).json()["code"] == "invalid_cursor"


def test_keys_are_rotated_and_the_issuer_may_be_away(scene: Scene) -> None:
    """A new key is taken without a restart and an old one is worth nothing; while the keys cannot be had these
    tokens get 503 and static ones go on."""
    old, new = scene.issuer.signer, Signer("2", "ES256")
    scene.issuer.publish(new)
    assert wait_for(lambda: scene.ask(scene.token("u", "zapd-eyes", signer=new)).status_code == 200)
    assert scene.ask(scene.token("u", "zapd-eyes", signer=old)).status_code in (401, 503)
    scene.issuer.signer = new
    good = scene.token("u", "zapd-eyes")
    scene.issuer.status = 500
    assert wait_for(lambda: scene.ask(good).status_code == 503)
    refused = scene.ask(good)
    assert refused.json()["code"] == "unavailable"
    assert "retry-after" in refused.headers
    assert scene.zapd.call("GET", "/v1/keys").status_code == 200
    assert scene.zapd.call("GET", "/readyz").status_code == 200
    assert "500" in parts(scene.zapd)["sign-in of people"]
    scene.issuer.status = 200
    assert wait_for(lambda: scene.ask(good).status_code == 200)
    scene.issuer.discovery["issuer"] = "https://evil.example.org"
    assert wait_for(lambda: scene.ask(good).status_code == 503)
    scene.issuer.discovery["issuer"] = scene.issuer.name
    assert wait_for(lambda: scene.ask(good).status_code == 200)


def test_domains_may_come_from_a_claim(tmp_path: Path) -> None:
    """What lies outside does not exist for the person; without the claim there is nothing for them. An issuer that
    is away at the start is found later."""
    made = running(tmp_path, domains="zapd_domains")
    made.issuer.status = 503
    made.zapd.start()
    scene = Scene(made.zapd, made.issuer)
    made.issuer.__enter__()
    try:
        token = scene.token("u", "zapd-ops", zapd_domains=["lab"])
        assert scene.ask(token).status_code == 503
        made.issuer.status = 200
        assert wait_for(lambda: scene.ask(token).status_code == 200)
        scene.zapd.add_key(z85(ALICE), "alice", domains=["orders"])
        assert scene.ask(token).json()["items"] == []
        assert len(scene.ask(scene.token("u", "zapd-ops", zapd_domains="lab orders")).json()["items"]) == 1
        for none in ({}, {"zapd_domains": []}, {"zapd_domains": ["\n"]}):
            assert scene.ask(scene.token("u", "zapd-ops", **none)).status_code == 403
    finally:
        made.__exit__()
