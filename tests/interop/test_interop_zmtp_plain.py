"""PLAIN against a real libzmq, in both roles, with a real ZAP handler behind libzmq's server."""

from __future__ import annotations

import socket

import pytest
import zmq
from support.zmtp_wire import RAISED, Libzmq, bound, calling, connected, libzmq, listening, zap_handler

from zapd.zmtp.connection import Connection
from zapd.zmtp.credentials import PlainCredentials
from zapd.zmtp.events import AuthenticationRequired, ConnectionFailed, HandshakeCompleted, PongReceived
from zapd.zmtp.framing import encode_command
from zapd.zmtp.greeting import encode_greeting
from zapd.zmtp.mechanisms.plain import PlainClient, PlainServer, encode_hello
from zapd.zmtp.state import State

pytestmark = pytest.mark.interop

RIGHT = {"PLAIN_USERNAME": b"admin", "PLAIN_PASSWORD": b"secret"}
WRONG = {"PLAIN_USERNAME": b"admin", "PLAIN_PASSWORD": b"Secret"}
PARTS = [b"", b"first", b"x" * 256, b"y" * (1 << 20), b"last"]


def by_password(request: list[bytes]) -> bytes:
    """What a libzmq application's ZAP handler says."""
    return b"200" if request[6:] == [b"admin", b"secret"] else b"400"


def by_credentials(question: AuthenticationRequired) -> int:
    """The same, asked by our engine."""
    return 200 if question.credentials == PlainCredentials(b"admin", b"secret") else 400


def plain_server(context: Libzmq, kind: int = zmq.ROUTER) -> tuple[zmq.Socket[bytes], str]:
    return bound(context, kind, PLAIN_SERVER=1, ZAP_DOMAIN=b"lab")


# libzmq is the server


def test_the_right_password_opens_libzmqs_door() -> None:
    """Its ZAP handler sees name and password, then messages cross, a mebibyte among them."""
    with libzmq() as context, zap_handler(context, by_password) as seen:
        router, endpoint = plain_server(context)
        client = Connection(PlainClient(b"admin", b"secret"), "DEALER", identity=b"me", limits=RAISED)
        with calling(endpoint, client) as wire:
            wire.until_ready()
            assert wire.happened == [HandshakeCompleted("ROUTER", b"", {})]
            wire.connection.send_messages([PARTS])
            wire.flush()
            assert router.recv_multipart() == [b"me", *PARTS]
            router.send_multipart([b"me", *PARTS])
            assert wire.until_messages(1) == [PARTS]
            wire.connection.send_ping(1.0, b"ctx")
            assert wire.until_event(PongReceived) == PongReceived(b"ctx")
        assert [request[2:] for request in seen] == [[b"lab", b"127.0.0.1", b"", b"PLAIN", b"admin", b"secret"]]


@pytest.mark.parametrize(
    ("username", "password"), [(b"admin", b"wrong"), (b"", b""), (b"\xff" * 255, b"\0" * 255)]
)
def test_a_wrong_password_is_told_by_libzmq(username: bytes, password: bytes) -> None:
    """Misspelt as it is, its ERROR is understood with the status in it."""
    with libzmq() as context, zap_handler(context, by_password) as seen:
        _, endpoint = plain_server(context)
        with calling(endpoint, Connection(PlainClient(username, password), "DEALER")) as wire:
            assert wire.until_failed() == ConnectionFailed("the peer refused: 400", 400)
        assert [request[6:] for request in seen] == [[username, password]]


def test_a_libzmq_server_without_a_handler_lets_nobody_in() -> None:
    """It closes without a word, and that is a failure."""
    with libzmq() as context:
        _, endpoint = plain_server(context)
        with calling(endpoint, Connection(PlainClient(b"admin", b"secret"), "DEALER")) as wire:
            assert wire.until_failed() == ConnectionFailed("the peer left during the handshake")


def test_clients_that_stop_half_way_hurt_nobody() -> None:
    """Ours hang at every stage of PLAIN before a libzmq server; one that goes on is served."""
    greeting = encode_greeting("PLAIN", as_server=False)
    stream = greeting + encode_command(encode_hello(b"admin", b"secret")) + b"\x04\x40\x08INITIATE"
    with libzmq() as context, zap_handler(context, by_password):
        rep, endpoint = plain_server(context, zmq.REP)
        silent = []
        try:
            for size in (0, 11, 64, 66, 70, len(stream) - 11, len(stream)):
                sock = socket.create_connection(("127.0.0.1", int(endpoint.rsplit(":", 1)[1])))
                sock.sendall(stream[:size])
                silent.append(sock)
            with calling(endpoint, Connection(PlainClient(b"admin", b"secret"), "REQ")) as wire:
                wire.until_ready().connection.send_messages([[b"", b"question"]])
                wire.flush()
                assert rep.recv() == b"question"
                rep.send(b"answer")
                assert wire.until_messages(1) == [[b"", b"answer"]]
        finally:
            for sock in silent:
                sock.close()


# libzmq is the client


@pytest.mark.parametrize(
    ("ours", "kind", "sent"),
    [
        ("REP", zmq.REQ, [b"", b"question"]),
        ("ROUTER", zmq.DEALER, [b"question"]),
        ("PULL", zmq.PUSH, [b"question"]),
    ],
)
def test_a_libzmq_client_with_the_right_password_is_let_in(ours: str, kind: int, sent: list[bytes]) -> None:
    """Its name and password come to our owner as they were set."""
    with libzmq() as context, listening() as listener:
        client = connected(context, kind, listener.endpoint, **RIGHT)
        client.send(b"question")
        wire = listener.accept(Connection(PlainServer(), ours), by_credentials)
        wire.until_ready()
        assert wire.happened[0] == AuthenticationRequired(PlainCredentials(b"admin", b"secret"))
        assert wire.until_messages(1) == [sent]
        if kind != zmq.PUSH:
            wire.connection.send_messages([[*sent[:-1], b"answer"]])
            wire.flush()
            assert client.recv() == b"answer"


def test_a_libzmq_client_sends_large_and_multipart_messages() -> None:
    """As they are, with limits raised, and gets them back."""
    with libzmq() as context, listening() as listener:
        client = connected(context, zmq.DEALER, listener.endpoint, **RIGHT)
        client.send_multipart(PARTS)
        wire = listener.accept(Connection(PlainServer(), "ROUTER", limits=RAISED), by_credentials)
        assert wire.until_messages(1) == [PARTS]
        wire.connection.send_messages([PARTS])
        wire.flush()
        assert client.recv_multipart() == PARTS


def test_a_libzmq_client_with_a_wrong_password_gives_up() -> None:
    """The RFC's spelling of ERROR ends it for good, as libzmq's own would."""
    with libzmq() as context, listening() as listener:
        connected(context, zmq.DEALER, listener.endpoint, RECONNECT_IVL=20, **WRONG)
        wire = listener.accept(Connection(PlainServer(), "ROUTER"), by_credentials)
        assert wire.until_failed() == ConnectionFailed("refused", 400)
        wire.wait_for_close()
        with pytest.raises(TimeoutError):
            listener.accept(Connection(PlainServer(), "ROUTER"), timeout=0.5)


def test_a_libzmq_client_that_was_put_off_comes_back() -> None:
    """300 says nothing; the next try succeeds."""
    with libzmq() as context, listening() as listener:
        client = connected(context, zmq.DEALER, listener.endpoint, RECONNECT_IVL=20, **RIGHT)
        client.send(b"question")
        wire = listener.accept(Connection(PlainServer(), "ROUTER"), lambda question: 300)
        assert wire.until_failed() == ConnectionFailed("refused for now", 300)
        assert not wire.step(0.2)
        wire.close()
        again = listener.accept(Connection(PlainServer(), "ROUTER"), by_credentials)
        assert again.until_messages(1) == [[b"question"]]


@pytest.mark.parametrize(
    "options", [{}, {"CURVE_SERVER": 1, "CURVE_SECRETKEY": b"VW*0Ng{Qu#Xf8Xu(MQ6n<)CbV<YW+XGW4sPufFx!"}]
)
def test_a_libzmq_client_of_another_mechanism_is_turned_away(options: dict[str, object]) -> None:
    """A NULL or CURVE greeting never reaches our owner."""
    with libzmq() as context, listening() as listener:
        connected(context, zmq.DEALER, listener.endpoint, **options)
        wire = listener.accept(Connection(PlainServer(), "ROUTER"), by_credentials)
        reason = wire.until_failed().reason
        # libzmq may leave at our mismatch before the rest of its own greeting went out.
        assert "we speak PLAIN" in reason or "left during the handshake" in reason
        assert len(wire.happened) == 1


def test_a_libzmq_client_that_leaves_before_its_verdict_is_a_failure() -> None:
    """Its context ends after HELLO."""
    with listening() as listener:
        with libzmq() as context:
            connected(context, zmq.DEALER, listener.endpoint, **RIGHT)
            wire = listener.accept(Connection(PlainServer(), "ROUTER"), judge=None)
            wire.until(lambda wire: wire.connection.state is State.VERDICT)
        wire.wait_for_close()
        assert wire.happened[-1] == ConnectionFailed("the peer left during the handshake")


def test_two_clients_find_out() -> None:
    """libzmq never says which side it is, so HELLO meets HELLO: an unexpected command, and the end."""
    with libzmq() as context, listening() as listener:
        connected(context, zmq.DEALER, listener.endpoint, **RIGHT)
        wire = listener.accept(Connection(PlainClient(b"admin", b"secret"), "ROUTER"))
        reason = wire.until_failed().reason
        assert reason in ("expected WELCOME, got HELLO", "the peer left during the handshake")
