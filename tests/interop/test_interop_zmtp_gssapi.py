"""GSSAPI against Debian's libzmq and a real KDC, in both roles, wrapped and in clear."""

from __future__ import annotations

import contextlib
import socket

import pytest
import zmq
from support.gssapi_peer import gssapi_peer
from support.gssapi_scene import ALICE, Alice, alice  # noqa: F401 - a fixture
from support.kdc import HOST_BASED, KdcMaker, kdc, libzmq_with_gssapi, make_kdc  # noqa: F401 - fixtures
from support.zmtp_pairs import messages_of
from support.zmtp_wire import RAISED, calling, connected, libzmq, listening

from zapd.zmtp.connection import Connection
from zapd.zmtp.credentials import GssapiCredentials
from zapd.zmtp.events import (
    AuthenticationRequired,
    ConnectionClosed,
    ConnectionFailed,
    HandshakeCompleted,
    MessagesReceived,
    PongReceived,
)
from zapd.zmtp.framing import encode_command
from zapd.zmtp.greeting import encode_greeting
from zapd.zmtp.state import State

pytestmark = pytest.mark.interop

PARTS = [b"", b"first", b"x" * 256, b"y" * (1 << 20), b"last"]


def by_principal(question: AuthenticationRequired) -> int:
    """What our owner says."""
    return 200 if question.credentials == GssapiCredentials(ALICE) else 400


# libzmq is the server


@pytest.mark.parametrize("plaintext", [False, True])
def test_a_ticket_opens_libzmqs_door(alice: Alice, plaintext: bool) -> None:  # noqa: F811
    """Its ZAP handler sees the principal, then messages cross, a mebibyte among them, and heartbeats."""
    with gssapi_peer("ROUTER", alice.service, plaintext=plaintext, zap=200) as router:
        client = Connection(alice.client(plaintext=plaintext), "DEALER", identity=b"me", limits=RAISED)
        with calling(router.bind(), client) as wire:
            wire.until_ready()
            assert wire.happened == [HandshakeCompleted("ROUTER", b"", {})]
            wire.connection.send_messages([PARTS])
            wire.flush()
            assert router.receive() == [b"me", *PARTS]
            router.send(b"me", *PARTS)
            assert wire.until_messages(1) == [PARTS]
            wire.connection.send_ping(1.0, b"ctx")
            assert wire.until_event(PongReceived) == PongReceived(b"ctx")
        assert router.asked() == [[b"lab", b"127.0.0.1", b"", b"GSSAPI", ALICE]]


def test_octet_by_octet_from_libzmqs_server(alice: Alice) -> None:  # noqa: F811
    """However slowly its octets come, they mean the same."""
    client = Connection(alice.client(), "REQ")
    with gssapi_peer("REP", alice.service, zap=200) as rep, calling(rep.bind(), client) as wire:
        wire.most = 1
        wire.until_ready().connection.send_messages([[b"", b"question"]])
        wire.flush()
        assert rep.receive() == [b"question"]
        rep.send(b"answer", b"x" * 500)
        assert wire.until_messages(1) == [[b"", b"answer", b"x" * 500]]


@pytest.mark.parametrize("plaintext", [False, True])
def test_our_subscriptions_reach_libzmqs_publisher(alice: Alice, plaintext: bool) -> None:  # noqa: F811
    """As commands, which it understands inside MESSAGE too."""
    client = Connection(alice.client(plaintext=plaintext), "SUB")
    with (
        gssapi_peer("XPUB", alice.service, plaintext=plaintext) as publisher,
        calling(publisher.bind(), client) as wire,
    ):
        wire.until_ready().connection.send_subscription(b"news")
        wire.flush()
        assert publisher.receive() == [b"\1news"]
        publisher.send(b"old", b"hat")
        publisher.send(b"news", b"today")
        assert wire.until_messages(1) == [[b"news", b"today"]]


@pytest.mark.parametrize("plaintext", [False, True])
def test_libzmqs_server_does_not_agree_on_encryption(alice: Alice, plaintext: bool) -> None:  # noqa: F811
    """It is not negotiated: its READY is not the one that we await, and nobody is let in."""
    client = Connection(alice.client(plaintext=plaintext), "DEALER")
    with (
        gssapi_peer("ROUTER", alice.service, plaintext=not plaintext) as router,
        calling(router.bind(), client) as wire,
    ):
        expected = "expected READY, got MESSAGE" if plaintext else "expected MESSAGE"
        assert wire.until_failed() == ConnectionFailed(expected)


def test_a_libzmq_server_with_another_key_refuses_our_ticket(
    alice: Alice,  # noqa: F811
    make_kdc: KdcMaker,  # noqa: F811
) -> None:
    """Its realm has a service of the same name; it is silent until its handshake timer ends."""
    theirs = {**make_kdc("OTHER.TEST").environment, **libzmq_with_gssapi()}
    with gssapi_peer("ROUTER", theirs, zap=200, options={"HANDSHAKE_IVL": 500}) as router:
        with calling(router.bind(), Connection(alice.client(), "DEALER")) as wire:
            assert wire.until_failed() == ConnectionFailed("the peer left during the handshake")
        assert router.asked() == []


def test_clients_that_stop_half_way_hurt_nobody(alice: Alice) -> None:  # noqa: F811
    """Ours hang at every stage of GSSAPI before a libzmq server; one that goes on is served."""
    token = alice.client().initiate().step(b"")
    initiate = b"\x08INITIATE" + len(token).to_bytes(4, "big") + token
    stream = encode_greeting("GSSAPI", as_server=False) + encode_command(initiate)
    with gssapi_peer("REP", alice.service, zap=200) as rep, contextlib.ExitStack() as silent:
        endpoint = rep.bind()
        for size in (0, 11, 64, 70, 90, len(stream) - 1, len(stream)):
            port = int(endpoint.rsplit(":", 1)[1])
            silent.enter_context(socket.create_connection(("127.0.0.1", port))).sendall(stream[:size])
        with calling(endpoint, Connection(alice.client(), "REQ")) as wire:
            wire.until_ready().connection.send_messages([[b"", b"question"]])
            wire.flush()
            assert rep.receive() == [b"question"]


# libzmq is the client


@pytest.mark.parametrize("plaintext", [False, True])
@pytest.mark.parametrize(
    ("ours", "kind", "sent"),
    [
        ("REP", "REQ", [b"", b"question"]),
        ("ROUTER", "DEALER", [b"question"]),
        ("PULL", "PUSH", [b"question"]),
    ],
)
def test_a_libzmq_client_with_a_ticket_is_let_in(
    alice: Alice,  # noqa: F811
    ours: str,
    kind: str,
    sent: list[bytes],
    plaintext: bool,
) -> None:
    """Our owner is asked about its principal, once the server has proved itself too."""
    with (
        gssapi_peer(kind, alice.environment, plaintext=plaintext, service=HOST_BASED) as client,
        listening() as listener,
    ):
        client.connect(listener.endpoint)
        client.send(b"question")
        wire = listener.accept(Connection(alice.server(plaintext=plaintext), ours), by_principal)
        wire.until_ready()
        assert wire.happened[0] == AuthenticationRequired(GssapiCredentials(ALICE))
        assert wire.until_messages(1) == [sent]
        if kind != "PUSH":
            wire.connection.send_messages([[*sent[:-1], b"answer"]])
            wire.flush()
            assert client.receive() == [b"answer"]


@pytest.mark.parametrize("plaintext", [False, True])
def test_a_libzmq_client_sends_large_and_multipart_messages(alice: Alice, plaintext: bool) -> None:  # noqa: F811
    """As they are, with limits raised, and gets them back."""
    with (
        gssapi_peer("DEALER", alice.environment, plaintext=plaintext, service=HOST_BASED) as client,
        listening() as listener,
    ):
        client.connect(listener.endpoint)
        client.send(*PARTS)
        wire = listener.accept(
            Connection(alice.server(plaintext=plaintext), "ROUTER", limits=RAISED), by_principal
        )
        assert wire.until_messages(1) == [PARTS]
        wire.connection.send_messages([PARTS])
        wire.flush()
        assert client.receive() == PARTS


def test_octet_by_octet_from_a_libzmq_client(alice: Alice) -> None:  # noqa: F811
    """However slowly its octets come, they mean the same."""
    with gssapi_peer("DEALER", alice.environment, service=HOST_BASED) as client, listening() as listener:
        client.connect(listener.endpoint)
        client.send(b"a", b"b" * 300)
        wire = listener.accept(Connection(alice.server(), "ROUTER"), by_principal)
        wire.most = 1
        assert wire.until_messages(1) == [[b"a", b"b" * 300]]


def test_a_libzmq_clients_heartbeats_are_answered(alice: Alice) -> None:  # noqa: F811
    """It would leave within a second without our PONGs, and still speaks after two."""
    beats = {"HEARTBEAT_IVL": 100, "HEARTBEAT_TIMEOUT": 1000}
    with (
        gssapi_peer("DEALER", alice.environment, service=HOST_BASED, options=beats) as client,
        listening() as listener,
    ):
        client.connect(listener.endpoint)
        wire = listener.accept(Connection(alice.server(), "ROUTER"), by_principal).until_ready()
        for _ in range(20):
            assert wire.step(5)
        assert not wire.at_end
        client.send(b"still here")
        assert wire.until_messages(1) == [[b"still here"]]


@pytest.mark.parametrize("status", [400, 500])
@pytest.mark.parametrize("plaintext", [False, True])
def test_a_refused_libzmq_client_stays_out(alice: Alice, status: int, plaintext: bool) -> None:  # noqa: F811
    """libzmq's own server would let it in whatever the status. Ours lets no message of it through, and the client
    does not come back."""
    options = {"RECONNECT_IVL": 20}
    with (
        gssapi_peer(
            "DEALER", alice.environment, plaintext=plaintext, service=HOST_BASED, options=options
        ) as client,
        listening() as listener,
    ):
        client.connect(listener.endpoint)
        client.send(b"let me in")
        wire = listener.accept(Connection(alice.server(plaintext=plaintext), "ROUTER"), lambda question: status)
        assert wire.until_failed() == ConnectionFailed("refused", status)
        wire.wait_for_close()
        assert not messages_of(wire.happened)
        with pytest.raises(TimeoutError):
            listener.accept(Connection(alice.server(), "ROUTER"), timeout=0.5)
        assert client.receive(0.1) is None


def test_a_libzmq_client_that_was_put_off_comes_back(alice: Alice) -> None:  # noqa: F811
    """300 says nothing; the next try succeeds, with a new token."""
    options = {"RECONNECT_IVL": 20}
    with (
        gssapi_peer("DEALER", alice.environment, service=HOST_BASED, options=options) as client,
        listening() as listener,
    ):
        client.connect(listener.endpoint)
        client.send(b"question")
        wire = listener.accept(Connection(alice.server(), "ROUTER"), lambda question: 300)
        assert wire.until_failed() == ConnectionFailed("refused for now", 300)
        assert not wire.step(0.2)
        wire.close()
        again = listener.accept(Connection(alice.server(), "ROUTER"), by_principal)
        assert again.until_messages(1) == [[b"question"]]


def test_a_libzmq_client_without_a_ticket_never_gets_as_far_as_a_question(alice: Alice) -> None:  # noqa: F811
    """It has no token to send, and our owner is not asked."""
    with gssapi_peer("DEALER", alice.service, service=HOST_BASED) as client, listening() as listener:
        client.connect(listener.endpoint)
        client.send(b"let me in")
        wire = listener.accept(Connection(alice.server(), "ROUTER"), by_principal)
        for _ in range(5):
            if not wire.at_end:
                wire.step(0.2)
        assert not any(isinstance(event, AuthenticationRequired | MessagesReceived) for event in wire.happened)
        assert not wire.connection.ready


def test_a_libzmq_client_of_another_realm_is_refused(
    alice: Alice,  # noqa: F811
    make_kdc: KdcMaker,  # noqa: F811
) -> None:
    """Its ticket is for a service of the same name, and another key: no question is asked, nobody is let in."""
    other = make_kdc("OTHER.TEST")
    other.add("alice", "alice-Pw1")
    theirs = {**other.ticket("alice", "alice-Pw1"), **libzmq_with_gssapi()}
    with gssapi_peer("DEALER", theirs, service=HOST_BASED) as client, listening() as listener:
        client.connect(listener.endpoint)
        client.send(b"let me in")
        wire = listener.accept(Connection(alice.server(), "ROUTER"), by_principal)
        assert "the token was refused" in wire.until_failed().reason
        assert len(wire.happened) == 1


def test_a_libzmq_client_of_another_mechanism_is_turned_away(alice: Alice) -> None:  # noqa: F811
    """A PLAIN greeting never reaches our owner."""
    with libzmq() as context, listening() as listener:
        connected(context, zmq.DEALER, listener.endpoint, PLAIN_USERNAME=b"alice", PLAIN_PASSWORD=b"pw")
        wire = listener.accept(Connection(alice.server(), "ROUTER"), by_principal)
        reason = wire.until_failed().reason
        # libzmq may leave at our mismatch before the rest of its own greeting went out.
        assert "we speak GSSAPI" in reason or "left during the handshake" in reason
        assert len(wire.happened) == 1


def test_a_libzmq_client_that_leaves_is_noticed(alice: Alice) -> None:  # noqa: F811
    """Before its verdict it is a failure, afterwards an ordinary end."""
    for judge, last in (
        (None, ConnectionFailed("the peer left during the handshake")),
        (by_principal, ConnectionClosed()),
    ):
        with listening() as listener:
            with gssapi_peer("DEALER", alice.environment, service=HOST_BASED) as client:
                client.connect(listener.endpoint)
                wire = listener.accept(Connection(alice.server(), "ROUTER"), judge)
                reached = State.VERDICT if judge is None else State.READY
                wire.until(lambda wire: wire.connection.state is reached)  # noqa: B023
            wire.wait_for_close()
            assert wire.happened[-1] == last
