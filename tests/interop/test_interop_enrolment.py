"""From nothing to a message through: real libzmq clients that come for their keys over HTTPS, and then connect to
a real libzmq server under guard."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme
from support.agent_app import App
from support.agent_central import Pair, new_pair
from support.app_scene import plain_file
from support.serving import Zapd

from zapd.agent.keyfile import read_keys
from zapd.zmtp.keys import encode_key

CONFIGURATION = """
[server]
data_dir = "data"
drain = "1s"
[[zap]]
listen = "tcp://127.0.0.1:0"
mechanism = "CURVE"
[admin]
listen = "127.0.0.1:0"
[enroll]
listen = "127.0.0.1:0"
tls_cert = "tls.pem"
tls_key = "tls.key"
[signin.staff]
domains = ["orders"]
[signin.orders]
[audit]
head = ""
[backend.keys]
type = "sql"
[backend.file]
type = "passwd"
path = "staff.passwd"
[domain.orders]
mechanisms = ["CURVE", "PLAIN"]
backends = ["keys"]
[domain.staff]
mechanisms = ["PLAIN"]
backends = ["file"]
"""


class Fleet:
    """zapd, and an application that lets in whom zapd lets in."""

    def __init__(self, zapd: Zapd, app: App, trusting: ssl.SSLContext) -> None:
        self.zapd, self.app, self._trusting = zapd, app, trusting

    def post(self, path: str, pair: Pair, **body: object) -> httpx.Response:
        """What a client says at the listener, having made its pair itself."""
        body["public_key"] = encode_key(pair.public)
        return httpx.post(self.zapd.enroll_url + path, json=body, verify=self._trusting, timeout=20)

    def gets_in(self, pair: Pair, says: bytes) -> bool:
        self.app.visitor(pair=pair, says=says)
        return self.app.next_in() == says


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    zapd = Zapd(tmp_path, configuration=CONFIGURATION)
    (tmp_path / "tls.pem").write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    (tmp_path / "tls.key").touch(mode=0o600)
    issued.private_key_pem.write_to_path(str(tmp_path / "tls.key"))
    plain_file(tmp_path / "staff.passwd", carol="s3cret")
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with zapd:
        keys = read_keys(zapd.enroll("edge-1", domains=["orders"]))
        with App(list(keys.endpoints), keys=keys, deadline=1.5, handshake=2.0) as app:
            yield Fleet(zapd, app, trusting)


def test_a_script_exchanges_its_token_and_connects(fleet: Fleet) -> None:
    """It makes its pair, has it registered by the join token, and is let in; one without a token is not."""
    made = fleet.zapd.run("join", "create", "--user", "robot", "--domain", "orders", "--uses", "2", "--json")
    assert made.returncode == 0, made.stderr
    token = httpx.Response(200, text=made.stdout).json()["token"]
    robots = new_pair()
    answer = fleet.post("/v1/enroll", robots, token=token)
    assert answer.status_code == 201, answer.text
    assert fleet.gets_in(robots, b"robot")
    assert fleet.post("/v1/enroll", robots, token=token).status_code == 200
    stranger = new_pair()
    assert fleet.post("/v1/enroll", stranger, token="zapdj_" + "x" * 43).status_code == 403
    fleet.app.visitor(pair=stranger, says=b"stranger")
    assert fleet.app.next_in(1.0) is None


@pytest.mark.parametrize(
    ("domain", "name", "password"), [("staff", "carol", "s3cret"), ("orders", "dave", "hunter2")]
)
def test_a_person_signs_in_with_a_password_and_connects_with_a_key(
    fleet: Fleet, domain: str, name: str, password: str
) -> None:
    """CURVE and a password, judged by a file or by the registry: the application sees the person's name and never
    the password; whoever is wrong stays outside, and a revoked key does too."""
    fleet.zapd.ask("POST", "/v1/users", {"name": "dave", "password": "hunter2", "domains": ["orders"]})
    pair, wrong = new_pair(), new_pair()
    who = {"user": name, "domain": domain}
    assert fleet.post("/v1/signin", wrong, **who, password="wrong").status_code == 403
    answer = fleet.post("/v1/signin", pair, **who, password=password)
    assert answer.status_code == 201, answer.text
    assert answer.json()["user"] == name
    fleet.app.visitor(pair=pair, says=b"mine")
    frame = fleet.app.socket.recv(copy=False) if fleet.app.socket.poll(8000) else None
    assert frame is not None
    assert (frame.bytes, frame.get("User-Id")) == (b"mine", name)
    fleet.app.visitor(pair=wrong, says=b"wrong")
    assert fleet.app.next_in(1.0) is None
    revoked = fleet.zapd.run("key", "revoke", encode_key(pair.public), "--yes")
    assert revoked.returncode == 0, revoked.stderr
    fleet.app.visitor(pair=pair, says=b"again")
    assert fleet.app.next_in(1.0) is None
