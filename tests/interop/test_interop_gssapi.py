"""GSSAPI with Debian's libzmq and a real KDC: who is granted gets in, and nobody else, however it is refused."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from support.gssapi_app import App
from support.gssapi_peer import gssapi_peer
from support.kdc import HOST_BASED, Kdc, kdc, libzmq_with_gssapi
from support.net_wire import until
from support.serving import Zapd, serving

from zapd.net import Admission, NetLimits, Peer, PeerLimits, RemoteHandler, Router
from zapd.zmtp import GSSAPI_LIMITS, GssapiServer, NullClient

__all__ = ["kdc"]
pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("gssapi")]

CONFIGURATION = """
[server]
data_dir = "data"
[[zap]]
listen = "tcp://127.0.0.1:0"
mechanism = "CURVE"
[[zap]]
listen = "ipc://data/zap.sock"
mechanism = "NULL"
domains = ["lab"]
mechanisms = ["GSSAPI"]
[[zap]]
listen = "ipc://data/other.sock"
mechanism = "NULL"
domains = ["lab"]
[admin]
listen = "127.0.0.1:0"
[audit]
head = ""
[backend.realm]
type = "kerberos"
realm = "ZAPD.TEST"
deny = ["mallory"]
groups = {{ staff = ["alice", "carol"] }}
require_group = "staff"
unix_groups = true
[backend.hangs]
type = "http"
url = "http://127.0.0.1:{port}/"
public_key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
max_in_flight = 1
[domain.lab]
mechanisms = ["GSSAPI"]
backends = ["realm"]
[domain.slow]
mechanisms = ["GSSAPI"]
backends = ["hangs"]
"""


@pytest.fixture(scope="module")
def people(kdc: Kdc) -> Kdc:
    """The realm, with those who knock in it."""
    for name in ("mallory", "carol", "dora", "erin"):
        kdc.ensure(name, f"{name}-Pw1")
    return kdc


@pytest.fixture(scope="module")
def zapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zapd]:
    """A zapd for all, with an agent that may ask about GSSAPI and one that may not."""
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and never answers
        text = CONFIGURATION.format(port=silent.getsockname()[1])
        with serving(tmp_path_factory.mktemp("zapd") / "zapd", configuration=text) as running:
            running.enroll("edge-1", domains=["*"], mechanisms=["GSSAPI"])
            running.enroll("edge-2", domains=["*"], mechanisms=["NULL", "PLAIN", "CURVE"])
            yield running


def key_of(zapd: Zapd, agent: str) -> str:
    return str(zapd.folder / f"{agent}.key")


def ipc_of(zapd: Zapd, name: str) -> str:
    return f"ipc://{zapd.folder}/data/{name}.sock"


def ticket(kdc: Kdc, name: str) -> dict[str, str]:
    return kdc.ticket(name, f"{name}-Pw1")


def heard(zapd: Zapd, name: str, domain: str = "lab") -> set[tuple[int, str, str]]:
    """What the journal says of somebody: (status, reason, principal)."""
    lines = [json.loads(line) for line in zapd.journal().splitlines()]
    mine = [line for line in lines if line.get("username") == f"{name}@ZAPD.TEST" and line["domain"] == domain]
    return {(line["status"], line["reason"], line.get("principal", "")) for line in mine}


def wait_until(condition: Callable[[], Any], seconds: float = 30.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it does not come true"
        time.sleep(0.05)


@pytest.mark.parametrize("status", ["200", "300", "400", "401", "500"])
def test_what_libzmq_makes_of_a_status(people: Kdc, status: str) -> None:
    """Why zapd refuses with a status that nobody can read: 4.3.4 lets GSSAPI peers in on each that it can."""
    with App(people, "handler", status) as app:
        app.visitor(ticket(people, "alice"), "alice")
        got_in = app.next_in(3.0 if status == "401" else 30.0)
    assert (got_in is None) is (status == "401")


def test_who_is_granted_gets_in_and_nobody_else(people: Kdc, zapd: Zapd) -> None:
    """Under the agent: refused (400) and deferred (300) stay out, although they come again and again; the journal
    has the true status and reason of each; who is granted gets in, under the name that the backend chose."""
    with App(people, "agent", key_of(zapd, "edge-1")) as app:
        app.visitor(ticket(people, "mallory"), "mallory")
        app.visitor(ticket(people, "dora"), "dora")
        wait_until(lambda: app.counters()["refused"] > 1 and app.counters()["deferred"] > 1)
        app.visitor(ticket(people, "alice"), "alice")
        assert app.next_in() == ("alice", "alice")
        assert app.next_in(1.0) is None
        counters = app.counters()
    assert heard(zapd, "mallory") == {(400, "principal_denied", "mallory")}
    assert (300, "no_account", "dora") in heard(zapd, "dora")
    assert {status for status, _, _ in heard(zapd, "dora")} == {300}
    assert (200, "granted", "alice") in heard(zapd, "alice")
    assert counters["malformed_replies"] == counters["double"] == counters["failed"] == 0


def test_a_backend_that_hangs_or_is_full_lets_nobody_in(people: Kdc, zapd: Zapd) -> None:
    """Late, and busy: 300 in the journal, and out."""
    with App(people, "agent", key_of(zapd, "edge-1"), "slow") as app:
        for name in ("alice", "carol", "erin"):
            app.visitor(ticket(people, name), name)
        wait_until(lambda: app.counters()["deferred"] > 3)
        assert app.next_in(0.5) is None
    said = set().union(*(heard(zapd, name, "slow") for name in ("alice", "carol", "erin")))
    assert {reason for _, reason, _ in said} & {"http_late", "deadline"}
    assert {status for status, _, _ in said} == {300}


@pytest.mark.parametrize("way", ["agent", "endpoint"])
def test_who_was_not_granted_gssapi_vouches_for_nobody(people: Kdc, zapd: Zapd, way: str) -> None:
    """The principal is the asker's word: an agent enrolled without GSSAPI, and an endpoint without it, hear 300
    for whoever they name."""
    with App(people, "agent", key_of(zapd, "edge-2") if way == "agent" else ipc_of(zapd, "other")) as app:
        app.visitor(ticket(people, "erin"), "erin")
        wait_until(lambda: app.counters()["deferred"] > 1)
        assert app.next_in(0.5) is None
    assert {status for status, _, _ in heard(zapd, "erin")} <= {300}


async def test_our_own_engine_is_a_door_that_libzmqs_clients_cannot_push_open(
    people: Kdc,
    zapd: Zapd,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A service without libzmq asks zapd about each principal: granted, refused for good, and put off."""
    from zapd.net.kerberos import KerberosAcceptor

    for name, value in people.environment.items():
        monkeypatch.setenv(name, value)
    got: list[tuple[bytes, bytes]] = []

    def take(peer: Peer, messages: list[list[bytes]]) -> None:
        got.extend((peer.user_id, parts[0]) for parts in messages)

    handler = RemoteHandler(ipc_of(zapd, "zap"), NullClient())
    handler.start()
    assert await handler.dealer.wait_up(10)
    router = Router(take, limits=NetLimits(peer=PeerLimits(held_shortest=0.05, held_longest=0.1)))
    server = GssapiServer(KerberosAcceptor(people.keytab, HOST_BASED))
    door = Admission(handler, "lab")
    address = await router.listen("tcp://127.0.0.1:0", server, door, socket_type="PULL", limits=GSSAPI_LIMITS)
    for name, came_to in (("mallory", "refused"), ("dora", "held"), ("carol", "ok")):
        visitor = {**ticket(people, name), **libzmq_with_gssapi()}
        with gssapi_peer("PUSH", visitor, service=HOST_BASED, options={"RECONNECT_IVL": 20}) as client:
            client.connect(str(address))
            client.send(name.encode())
            await until(lambda: getattr(router.counters, f"handshakes_{came_to}"), 30)  # noqa: B023
            await until(lambda: got == [(b"carol", b"carol")] if name == "carol" else True)  # noqa: B023
    assert got == [(b"carol", b"carol")]
    assert (router.counters.handshakes_refused, handler.counters.malformed) == (1, 0)
    await router.close(0.2)
    await handler.close()


def test_the_proxy_of_the_rfc_keeps_out_whom_zapd_refuses(people: Kdc, zapd: Zapd) -> None:
    """No code of ours in the application: zapd's own answers are such that libzmq obeys them."""
    with App(people, "proxy", ipc_of(zapd, "zap")) as app:
        asked = zapd.journal().count("mallory@")
        app.visitor(ticket(people, "mallory"), "mallory")
        wait_until(lambda: zapd.journal().count("mallory@") > asked)
        app.visitor(ticket(people, "carol"), "carol")
        assert app.next_in() == ("carol", "carol")
        assert app.next_in(1.0) is None
    assert heard(zapd, "mallory") == {(400, "principal_denied", "mallory")}


def test_without_zapd_nobody_gets_in_and_with_it_everybody_who_may(people: Kdc, zapd: Zapd) -> None:
    """The agent's own 300, while zapd is away; when it is back who is granted is in, without help."""
    with App(people, "agent", ipc_of(zapd, "zap")) as app:
        zapd.stop()
        try:
            app.visitor(ticket(people, "alice"), "alice")
            app.visitor(ticket(people, "mallory"), "mallory")
            wait_until(lambda: app.counters()["unanswered"] > 2)
            assert app.next_in(0.2) is None
        finally:
            zapd.start()
        assert app.next_in() == ("alice", "alice")
        wait_until(lambda: app.counters()["refused"])
        assert app.next_in(0.2) is None
