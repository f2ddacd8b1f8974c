"""NULL against a real libzmq, in both roles."""

from __future__ import annotations

import socket

import pytest
import zmq
from support.zmtp_wire import RAISED, bound, calling, connected, libzmq, listening, zap_handler

from zapd.zmtp.connection import Connection
from zapd.zmtp.credentials import NullCredentials
from zapd.zmtp.events import (
    AuthenticationRequired,
    ConnectionFailed,
    HandshakeCompleted,
    PongReceived,
    SubscriptionReceived,
)
from zapd.zmtp.mechanisms.null import NullClient, NullServer
from zapd.zmtp.mechanisms.plain import PlainClient, PlainServer
from zapd.zmtp.state import State

pytestmark = pytest.mark.interop

PARTS = [b"first", b"", b"x" * 255, b"y" * 256, b"last"]


# libzmq is the server


def test_a_dealer_of_ours_talks_to_a_libzmq_router() -> None:
    """Our identity is what it knows us by; multipart messages cross whole."""
    with libzmq() as context:
        router, endpoint = bound(context, zmq.ROUTER)
        with calling(endpoint, Connection(NullClient(), "DEALER", identity=b"me")) as wire:
            wire.until_ready()
            assert wire.happened == [HandshakeCompleted("ROUTER", b"", {})]
            wire.connection.send_messages([PARTS])
            wire.flush()
            assert router.recv_multipart() == [b"me", *PARTS]
            router.send_multipart([b"me", *PARTS])
            assert PARTS in wire.until_messages(1)


def test_a_req_of_ours_talks_to_a_libzmq_rep() -> None:
    """The empty delimiter goes in front and comes back (RFC 28)."""
    with libzmq() as context:
        rep, endpoint = bound(context, zmq.REP)
        with calling(endpoint, Connection(NullClient(), "REQ")) as wire:
            wire.until_ready().connection.send_messages([[b"", b"question"]])
            wire.flush()
            assert rep.recv() == b"question"
            rep.send(b"answer")
            assert wire.until_messages(1) == [[b"", b"answer"]]


def test_a_sub_of_ours_hears_what_it_subscribed_to() -> None:
    """libzmq filters by what our SUBSCRIBE and CANCEL said."""
    with libzmq() as context:
        publisher, endpoint = bound(context, zmq.XPUB)
        with calling(endpoint, Connection(NullClient(), "SUB")) as wire:
            wire.until_ready().connection.send_subscription(b"news")
            wire.flush()
            assert publisher.recv() == b"\x01news"
            publisher.send(b"weather: rain")
            publisher.send(b"news: none")
            assert wire.until_messages(1) == [[b"news: none"]]
            wire.connection.send_subscription(b"news", subscribe=False)
            wire.flush()
            assert publisher.recv() == b"\x00news"


def test_a_push_of_ours_feeds_a_libzmq_pull() -> None:
    """Many messages in one write arrive one by one."""
    with libzmq() as context:
        pull, endpoint = bound(context, zmq.PULL)
        with calling(endpoint, Connection(NullClient(), "PUSH")) as wire:
            wire.until_ready().connection.send_messages([[b"%d" % number] for number in range(500)])
            wire.flush()
            assert [pull.recv() for _ in range(500)] == [b"%d" % number for number in range(500)]


@pytest.mark.parametrize("size", [1 << 20, (1 << 22) + 7])
def test_large_messages_cross_both_ways(size: int) -> None:
    """A mebibyte and more, with limits raised."""
    with libzmq() as context:
        pair, endpoint = bound(context, zmq.PAIR)
        with calling(endpoint, Connection(NullClient(), "PAIR", limits=RAISED)) as wire:
            wire.until_ready().connection.send_messages([[b"a" * size, b"b" * size]])
            wire.flush()
            assert pair.recv_multipart() == [b"a" * size, b"b" * size]
            pair.send_multipart([b"c" * size, b"d" * size])
            assert wire.until_messages(1) == [[b"c" * size, b"d" * size]]


def test_our_ping_is_answered_by_libzmq() -> None:
    """With its context."""
    with libzmq() as context:
        _, endpoint = bound(context, zmq.ROUTER)
        with calling(endpoint, Connection(NullClient(), "DEALER")) as wire:
            wire.until_ready().connection.send_ping(60, b"0123456789abcdef")
            assert wire.until_event(PongReceived) == PongReceived(b"0123456789abcdef")


@pytest.mark.parametrize(("status", "ready"), [(b"200", True), (b"400", False), (b"500", False)])
def test_libzmqs_verdict_reaches_our_client(status: bytes, ready: bool) -> None:
    """A real ZAP handler behind the libzmq server decides; its refusal comes as ERROR with the status."""
    with (
        libzmq() as context,
        zap_handler(context, lambda request: status) as seen,
    ):
        _, endpoint = bound(context, zmq.ROUTER, ZAP_DOMAIN=b"lab")
        with calling(endpoint, Connection(NullClient(), "DEALER")) as wire:
            if ready:
                wire.until_ready()
            else:
                assert wire.until_failed() == ConnectionFailed(f"the peer refused: {status.decode()}", int(status))
        assert [request[5:] for request in seen] == [[b"NULL"]]


def test_libzmqs_300_is_silence() -> None:
    """Nothing comes until the other side's handshake timer ends the connection."""
    with libzmq() as context, zap_handler(context, lambda request: b"300"):
        _, endpoint = bound(context, zmq.ROUTER, ZAP_DOMAIN=b"lab", HANDSHAKE_IVL=300)
        with calling(endpoint, Connection(NullClient(), "DEALER")) as wire:
            assert wire.until_failed() == ConnectionFailed("the peer left during the handshake")


def test_a_libzmq_server_of_another_mechanism_leaves() -> None:
    """Wanting NULL of a PLAIN server, and PLAIN of a NULL server, fails at once in both."""
    with libzmq() as context:
        _, plain = bound(context, zmq.ROUTER, PLAIN_SERVER=1)
        _, null = bound(context, zmq.ROUTER)
        for endpoint, mechanism in ((plain, NullClient()), (null, PlainClient(b"u", b"p"))):
            with calling(endpoint, Connection(mechanism, "DEALER")) as wire:
                reason = wire.until_failed().reason
                assert "mismatch" in reason or "left during the handshake" in reason
                wire.wait_for_close()


def test_an_illegal_pair_ends_both_ways() -> None:
    """libzmq just closes, and we know why."""
    with libzmq() as context:
        _, endpoint = bound(context, zmq.PULL)
        with calling(endpoint, Connection(NullClient(), "DEALER")) as wire:
            reason = wire.until_failed().reason
            assert reason in ("a PULL socket cannot talk to a DEALER", "the peer left during the handshake")


def test_clients_that_stop_half_way_hurt_nobody() -> None:
    """Ours hang at every stage before a libzmq server; one that goes on is served."""
    with libzmq() as context:
        rep, endpoint = bound(context, zmq.REP)
        port = int(endpoint.rsplit(":", 1)[1])
        stream = Connection(NullClient(), "REQ").data_to_send() + b"\x04\x26\x05READY"
        silent = []
        try:
            for size in (0, 1, 10, 11, 63, 64, 66, len(stream)):
                sock = socket.create_connection(("127.0.0.1", port))
                sock.sendall(stream[:size])
                silent.append(sock)
            with calling(endpoint, Connection(NullClient(), "REQ")) as wire:
                wire.until_ready().connection.send_messages([[b"", b"question"]])
                wire.flush()
                assert rep.recv() == b"question"
        finally:
            for sock in silent:
                sock.close()


# libzmq is the client


@pytest.mark.parametrize(
    ("ours", "kind", "sent"),
    [
        ("ROUTER", zmq.REQ, [b"", b"question"]),
        ("REP", zmq.REQ, [b"", b"question"]),
        ("ROUTER", zmq.DEALER, [b"question"]),
        ("PULL", zmq.PUSH, [b"question"]),
        ("PAIR", zmq.PAIR, [b"question"]),
        ("SUB", zmq.PUB, [b"question"]),
    ],
)
def test_every_pattern_of_libzmq_reaches_our_server(ours: str, kind: int, sent: list[bytes]) -> None:
    """The owner is asked first; then the message comes in the pattern's own shape."""
    with libzmq() as context, listening() as listener:
        client = connected(context, kind, listener.endpoint)
        wire = listener.accept(Connection(NullServer(), ours))
        wire.until_ready()
        assert wire.happened[0] == AuthenticationRequired(NullCredentials())
        if ours == "SUB":
            wire.connection.send_subscription(b"")
            wire.connection.send_ping()
            wire.until_event(PongReceived)
            for _ in range(100):  # libzmq answers the PING before the publisher has heard of the subscription
                client.send(b"question")
                if wire.step(0.1):
                    break
        else:
            client.send(b"question")
        assert wire.until_messages(1)[0] == sent
        if kind in (zmq.REQ, zmq.DEALER, zmq.PAIR):
            wire.connection.send_messages([[*sent[:-1], b"answer"]])
            wire.flush()
            assert client.recv() == b"answer"


def test_a_libzmq_router_connects_to_our_dealer_with_its_identity() -> None:
    """Its Identity and its own properties are in the event."""
    with libzmq() as context, listening() as listener:
        connected(context, zmq.ROUTER, listener.endpoint, ROUTING_ID=b"it", METADATA=b"X-Site:lab")
        wire = listener.accept(Connection(NullServer(), "DEALER")).until_ready()
        assert wire.happened[-1] == HandshakeCompleted("ROUTER", b"it", {"x-site": b"lab"})


def test_a_libzmq_sub_hears_our_pub() -> None:
    """Its subscriptions come as events, and what we send it hears."""
    with libzmq() as context, listening() as listener:
        client = connected(context, zmq.SUB, listener.endpoint, SUBSCRIBE=b"news")
        wire = listener.accept(Connection(NullServer(), "PUB"))
        assert wire.until_event(SubscriptionReceived) == SubscriptionReceived(b"news", True)
        wire.connection.send_messages([[b"weather: rain"], [b"news: none"]])
        wire.flush()
        assert client.recv() == b"news: none"
        client.setsockopt(zmq.UNSUBSCRIBE, b"news")
        assert wire.until_event(SubscriptionReceived) == SubscriptionReceived(b"news", False)


def test_libzmqs_large_messages_are_read() -> None:
    """Four mebibytes and many parts, with limits raised; with our own limits they end the connection."""
    with libzmq() as context, listening() as listener:
        client = connected(context, zmq.DEALER, listener.endpoint)
        message = [b"x" * (1 << 22), *[b"part"] * 900]
        client.send_multipart(message)
        wire = listener.accept(Connection(NullServer(), "ROUTER", limits=RAISED))
        assert wire.until_messages(1) == [message]
        wire.close()
        again = listener.accept(Connection(NullServer(), "ROUTER"))
        again.until_ready()
        client.send_multipart(message)
        assert again.until_failed().reason == "a frame longer than 1048576 octets"


def test_libzmqs_heartbeats_are_answered() -> None:
    """It closes a connection whose PINGs stay unanswered; ours outlives many of them."""
    with libzmq() as context, listening() as listener:
        client = connected(
            context, zmq.DEALER, listener.endpoint, HEARTBEAT_IVL=50, HEARTBEAT_TIMEOUT=2000, HEARTBEAT_TTL=3000
        )
        wire = listener.accept(Connection(NullServer(), "ROUTER")).until_ready()
        wire.happened.clear()
        wire.until(lambda wire: len(wire.happened) >= 8)
        assert {event.ttl for event in wire.happened} == {3.0}  # type: ignore[union-attr]
        client.send(b"still here")
        assert [b"still here"] in wire.until_messages(1)


@pytest.mark.parametrize("status", [400, 500])
def test_a_refused_libzmq_client_gives_up(status: int) -> None:
    """It understands our ERROR, closes, and never comes back."""
    with libzmq() as context, listening() as listener:
        client = connected(context, zmq.DEALER, listener.endpoint, RECONNECT_IVL=20)
        wire = listener.accept(Connection(NullServer(), "ROUTER"), lambda question: status)
        assert wire.until_failed() == ConnectionFailed("refused", status)
        wire.wait_for_close()
        with pytest.raises(TimeoutError):
            listener.accept(Connection(NullServer(), "ROUTER"), timeout=0.5)
        client.close()


def test_a_libzmq_client_that_was_put_off_comes_back() -> None:
    """After a 300 nothing is said; when its owner closes, the client tries again and may be let in."""
    with libzmq() as context, listening() as listener:
        client = connected(context, zmq.DEALER, listener.endpoint, RECONNECT_IVL=20)
        client.send(b"question")
        wire = listener.accept(Connection(NullServer(), "ROUTER"), lambda question: 300)
        assert wire.until_failed() == ConnectionFailed("refused for now", 300)
        wire.step(0.2)  # its own READY, which waits for nobody
        assert not wire.step(0.2)
        wire.close()
        again = listener.accept(Connection(NullServer(), "ROUTER"))
        assert again.until_messages(1) == [[b"question"]]


@pytest.mark.parametrize("options", [{"PLAIN_USERNAME": b"u", "PLAIN_PASSWORD": b"p"}, {"PLAIN_SERVER": 1}])
def test_a_libzmq_client_of_another_mechanism_is_turned_away(options: dict[str, object]) -> None:
    """It has our whole greeting before we close."""
    with libzmq() as context, listening() as listener:
        connected(context, zmq.DEALER, listener.endpoint, **options)
        wire = listener.accept(Connection(NullServer(), "ROUTER"))
        # libzmq may leave at our mismatch before the rest of its own greeting went out.
        reason = wire.until_failed().reason
        assert "the peer wants PLAIN, we speak NULL" in reason or "left during the handshake" in reason
    with libzmq() as context, listening() as listener:
        connected(context, zmq.DEALER, listener.endpoint)
        reason = listener.accept(Connection(PlainServer(), "ROUTER")).until_failed().reason
        assert "the peer wants NULL, we speak PLAIN" in reason or "left during the handshake" in reason


def test_a_libzmq_client_that_leaves_half_way_is_a_failure() -> None:
    """Its context ends while our owner has not decided."""
    with listening() as listener:
        with libzmq() as context:
            connected(context, zmq.DEALER, listener.endpoint)
            wire = listener.accept(Connection(NullServer(), "ROUTER"), judge=None)
            wire.until(lambda wire: wire.connection.state is State.VERDICT)
        wire.wait_for_close()
        assert wire.happened == [
            AuthenticationRequired(NullCredentials()),
            ConnectionFailed("the peer left during the handshake"),
        ]
