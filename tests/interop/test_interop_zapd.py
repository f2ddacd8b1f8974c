"""The whole of zapd from outside: the real program, real libzmq servers under the agent, real libzmq clients."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import zmq
from support.agent_app import App
from support.agent_central import Pair, new_pair
from support.serving import Zapd, serving
from zmq.utils.monitor import parse_monitor_message

from zapd.agent.keyfile import read_keys
from zapd.zmtp.keys import encode_key

CONFIGURATION = """
[server]
data_dir = "data"
drain = "1s"
[[zap]]
listen = "tcp://127.0.0.1:0"
mechanism = "CURVE"
[[zap]]
listen = "ipc://data/zap.sock"
mechanism = "NULL"
domains = ["orders", "lab"]
[[zap]]
listen = "tcp://127.0.0.1:0"
mechanism = "PLAIN"
domains = ["staff"]
[admin]
listen = "127.0.0.1:0"
[backend.keys]
type = "sql"
[domain.orders]
mechanisms = ["CURVE"]
backends = ["keys"]
[domain.staff]
mechanisms = ["PLAIN"]
backends = ["keys"]
[domain.lab]
mechanisms = ["NULL"]
allow = ["127.0.0.0/8"]
null_user = "lab"
"""


def fleet(zapd_: Zapd, *, mechanism: str = "CURVE", domain: str = "orders", agent: str = "edge-1") -> App:
    """An application under guard whose agent zapd knows."""
    keys = read_keys(zapd_.enroll(agent, domains=[domain]))
    curve = [endpoint for endpoint in keys.endpoints if endpoint.secured]
    return App(curve, keys=keys, mechanism=mechanism, domain=domain, deadline=1.5, handshake=2.0)


def refusal(app: App, pair: Pair) -> int | None:
    """The status that libzmq reports to a client with this key pair; None when it was let in."""
    with zmq.Context() as context, context.socket(zmq.PUSH) as client:
        client.linger = 0
        client.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
        client.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        client.setsockopt(zmq.CURVE_SERVERKEY, app.server.public)
        monitor = client.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_SUCCEEDED)
        client.connect(app.address)
        assert monitor.poll(8000), "libzmq reported neither"
        event = parse_monitor_message(monitor.recv_multipart())
        client.disable_monitor()
        monitor.close()
    return event["value"] if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH else None


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def z85(pair: Pair) -> bytes:
    return encode_key(pair.public).encode()


def test_the_known_get_in_the_others_do_not_and_every_decision_can_be_read_and_verified(tmp_path: Path) -> None:
    """The purpose of it all, with the agent's own admission on record too."""
    with serving(tmp_path, configuration=CONFIGURATION) as zapd_:
        alice, mallory = new_pair(), new_pair()
        zapd_.add_key(z85(alice), "alice", domains=["orders"], groups=["traders"], attributes={"Desk": "7"})
        with fleet(zapd_) as app:
            app.visitor(pair=alice, says=b"alice")
            frame = app.socket.recv(copy=False) if app.socket.poll(8000) else None
            assert frame is not None
            assert frame.bytes == b"alice"
            assert (frame.get("User-Id"), frame.get("X-Zapd-Groups"), frame.get("X-Desk")) == (
                "alice",
                "traders",
                "7",
            )
            assert refusal(app, mallory) == 400
        records = [json.loads(line) for line in zapd_.journal().splitlines()]
        granted = [
            (r["domain"], r["principal"], r["agent"])
            for r in records
            if r["event"] == "auth.accept" and "agent" in r
        ]
        assert ("orders", "alice", "edge-1") in granted
        assert any(r["event"] == "auth.accept" and r["domain"] == "zapd.agents" for r in records)
        refused = [r for r in records if r["event"] == "auth.reject"]
        assert [r["reason"] for r in refused] == ["unknown_key"]
    verified = zapd_.run("audit", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_revoked_keys_next_connection_is_refused_at_once(tmp_path: Path) -> None:
    """In force when the API has answered, without a restart of anything."""
    with serving(tmp_path, configuration=CONFIGURATION) as zapd_:
        alice = new_pair()
        name = zapd_.add_key(z85(alice), "alice", domains=["orders"])
        with fleet(zapd_) as app:
            assert refusal(app, alice) is None
            zapd_.ask("POST", f"/v1/keys/{name}/revoke", {"reason": "left"})
            assert refusal(app, alice) == 400
        assert '"reason":"revoked"' in zapd_.journal()


def test_a_banned_client_stays_out_and_comes_in_by_itself_when_the_ban_is_over(tmp_path: Path) -> None:
    """libzmq clients under bans: without an end the refusal is final; with one they keep trying, and the one that
    waited is in as soon as the ban is taken back, without a restart of anything."""
    with serving(tmp_path, configuration=CONFIGURATION) as zapd_:
        alice = new_pair()
        zapd_.add_key(z85(alice), "alice", domains=["orders"])
        with fleet(zapd_) as app:
            assert refusal(app, alice) is None
            ban = zapd_.ask("POST", "/v1/bans", {"user": "alice", "reason": "test"})
            assert refusal(app, alice) == 400
            assert zapd_.call("DELETE", f"/v1/bans/{ban['id']}").status_code == 204
            ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
            ban = zapd_.ask("POST", "/v1/bans", {"address": "127.0.0.1", "expires": ends})
            app.visitor(pair=alice, says=b"patient")
            assert not app.socket.poll(1000), "nobody gets in while the ban holds"
            assert zapd_.call("DELETE", f"/v1/bans/{ban['id']}").status_code == 204
            assert app.next_in() == b"patient"
        assert '"banned_address"' in zapd_.journal()


def test_plain_users_of_the_registry_get_in_with_their_password_alone(tmp_path: Path) -> None:
    """PLAIN through the agent: the right password in, the wrong one and an unknown name out."""
    with serving(tmp_path, configuration=CONFIGURATION) as zapd_:
        zapd_.ask("POST", "/v1/users", {"name": "bob", "password": "correct horse", "domains": ["staff"]})
        with fleet(zapd_, mechanism="PLAIN", domain="staff") as app:
            app.visitor(user="bob", password="correct horse", says=b"bob")
            assert app.next_in() == b"bob"
            app.visitor(user="bob", password="wrong", says=b"wrong")
            app.visitor(user="eve", password="correct horse", says=b"eve")
            assert app.next_in(1.5) is None
            assert wait_for(lambda: zapd_.journal().count('"auth.reject"') == 2)
        assert "correct horse" not in zapd_.journal() + zapd_.logged()


def test_null_is_granted_by_address_alone(tmp_path: Path) -> None:
    """A NULL domain lets in whom its allow list names, under the user it gives."""
    with (
        serving(tmp_path, configuration=CONFIGURATION) as zapd_,
        fleet(zapd_, mechanism="NULL", domain="lab") as app,
    ):
        app.visitor(says=b"anybody")
        assert app.next_in() == b"anybody"


def test_the_rfcs_own_proxy_reaches_zapd_with_no_code_of_ours_in_the_application(tmp_path: Path) -> None:
    """ROUTER on inproc, DEALER to zapd's ipc endpoint, zmq_proxy between (RFC 27)."""
    with serving(tmp_path, configuration=CONFIGURATION) as zapd_:
        alice, server = new_pair(), new_pair()
        zapd_.add_key(z85(alice), "alice", domains=["orders"])
        context = zmq.Context()
        front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
        front.bind("inproc://zeromq.zap.01")
        back.connect(f"ipc://{tmp_path}/data/zap.sock")

        def proxy() -> None:
            try:
                zmq.proxy(front, back)
            except zmq.ContextTerminated:
                pass
            finally:
                front.close(0)
                back.close(0)

        thread = threading.Thread(target=proxy)
        thread.start()
        try:
            with context.socket(zmq.PULL) as app, zmq.Context() as outside, outside.socket(zmq.PUSH) as client:
                app.linger = client.linger = 0
                app.curve_server = True
                app.setsockopt(zmq.CURVE_SECRETKEY, server.secret)
                app.zap_domain = b"orders"
                app.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
                app.bind("tcp://127.0.0.1:*")
                client.setsockopt(zmq.CURVE_PUBLICKEY, alice.public)
                client.setsockopt(zmq.CURVE_SECRETKEY, alice.secret)
                client.setsockopt(zmq.CURVE_SERVERKEY, server.public)
                client.connect(app.getsockopt_string(zmq.LAST_ENDPOINT))
                client.send(b"through the proxy")
                assert app.poll(8000)
                assert app.recv() == b"through the proxy"
        finally:
            context.term()
            thread.join()
        assert '"agent":"local:ipc://data/zap.sock"' in zapd_.journal()


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.DEALER])
def test_any_libzmq_requester_may_ask_over_ipc(tmp_path: Path, kind: int) -> None:
    """REQ brings its own delimiter, a DEALER writes one, and both get their reply."""
    with serving(tmp_path, configuration=CONFIGURATION), zmq.Context() as context, context.socket(kind) as asking:
        asking.linger = 0
        asking.connect(f"ipc://{tmp_path}/data/zap.sock")
        lead = [b""] if kind == zmq.DEALER else []
        asking.send_multipart([*lead, b"1.0", b"77", b"orders", b"127.0.0.1", b"", b"CURVE", b"k" * 32])
        assert asking.poll(8000)
        assert asking.recv_multipart()[len(lead) :][:3] == [b"1.0", b"77", b"400"]


def test_a_plain_endpoint_takes_questions_from_users_of_its_first_domain(tmp_path: Path) -> None:
    """On loopback a local program may ask with a name and a password; a wrong one is turned away for good."""
    with serving(tmp_path, configuration=CONFIGURATION) as zapd_, zmq.Context() as context:
        zapd_.ask("POST", "/v1/users", {"name": "bob", "password": "correct horse", "domains": ["staff"]})
        with context.socket(zmq.REQ) as asking:
            asking.linger = 0
            asking.plain_username, asking.plain_password = b"bob", b"correct horse"
            asking.connect(zapd_.zap[2])
            asking.send_multipart([b"1.0", b"1", b"staff", b"::1", b"", b"PLAIN", b"bob", b"correct horse"])
            assert asking.poll(8000)
            assert asking.recv_multipart()[2] == b"200"


def test_a_killed_zapd_strands_nobody_and_loses_no_record(tmp_path: Path) -> None:
    """kill -9: clients hear 300 from the agent, and get in by themselves when it is back; the record verifies."""
    ports = CONFIGURATION.replace(
        'listen = "tcp://127.0.0.1:0"\nmechanism = "CURVE"', 'listen = "tcp://127.0.0.1:@"\nmechanism = "CURVE"'
    )
    with zmq.Context() as context, context.socket(zmq.PAIR) as probe:
        port = probe.bind_to_random_port("tcp://127.0.0.1")
    zapd_ = Zapd(tmp_path, configuration=ports.replace("@", str(port)))
    zapd_.start()
    try:
        alice = new_pair()
        zapd_.add_key(z85(alice), "alice", domains=["orders"])
        with fleet(zapd_) as app:
            assert refusal(app, alice) is None
            zapd_.stop(signal.SIGKILL)
            app.visitor(pair=alice, says=b"patient")
            assert app.next_in(3.0) is None
            zapd_.start()
            assert app.next_in(15.0) == b"patient"
        assert zapd_.run("audit", "verify").returncode == 0
    finally:
        zapd_.stop()


def test_a_revoked_agent_is_cut_off_and_asks_no_more(tmp_path: Path) -> None:
    """Its connection ends, and the application behind it lets nobody in any more."""
    with serving(tmp_path, configuration=CONFIGURATION) as zapd_:
        alice = new_pair()
        zapd_.add_key(z85(alice), "alice", domains=["orders"])
        with fleet(zapd_) as app:
            assert refusal(app, alice) is None
            zapd_.ask("DELETE", "/v1/agents/edge-1")
            app.visitor(pair=alice, says=b"late")
            assert app.next_in(3.0) is None
        assert "a revoked agent was cut off" in zapd_.logged()
        assert '"reason":"agent_revoked"' in zapd_.journal()


def test_sighup_brings_new_domains_in_force_and_a_broken_edit_keeps_the_old(tmp_path: Path) -> None:
    """All of a configuration or nothing of it, said in the log."""
    with serving(tmp_path, configuration=CONFIGURATION) as zapd_:
        zapd_.configure(CONFIGURATION + '[domain.new]\nmechanisms = ["CURVE"]\nbackends = ["keys"]\n')
        zapd_.signal(signal.SIGHUP)
        assert wait_for(
            lambda: "new" in [domain["pattern"] for domain in zapd_.ask("GET", "/v1/domains")["items"]]
        )
        zapd_.configure("[domain.")
        zapd_.signal(signal.SIGHUP)
        assert wait_for(lambda: "was not reloaded" in zapd_.logged())
        assert len(zapd_.ask("GET", "/v1/domains")["items"]) == 4
        assert zapd_.ask("GET", "/readyz")["status"] == "ready"


def test_sigterm_drains_and_ends_with_0(tmp_path: Path) -> None:
    """An orderly end: exit code 0, the last line of the journal is the stop, nothing is left locked."""
    zapd_ = Zapd(tmp_path, configuration=CONFIGURATION)
    zapd_.start()
    assert zapd_.stop() == 0
    assert '"event":"service.stop"' in zapd_.journal().splitlines()[-1]
    assert not (tmp_path / "data" / "zap.sock").exists()
    zapd_.start()
    assert zapd_.stop() == 0
