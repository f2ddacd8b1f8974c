"""libzmq on the other side of CURVE, in both roles, through a whole connection at a blocking socket."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest
import zmq
from support.curve_dialogue import ManualClock
from support.curve_wire import Wire, only

from zapd.zmtp import keys
from zapd.zmtp.connection import Connection
from zapd.zmtp.credentials import CurveCredentials
from zapd.zmtp.events import (
    AuthenticationRequired,
    ConnectionClosed,
    HandshakeCompleted,
    PingReceived,
    PongReceived,
    SubscriptionReceived,
)
from zapd.zmtp.handshake import Mechanism
from zapd.zmtp.limits import Limits
from zapd.zmtp.mechanisms.curve import CurveClient, CurveServer
from zapd.zmtp.mechanisms.null import NullClient, NullServer
from zapd.zmtp.mechanisms.plain import PlainClient, PlainServer

pytestmark = pytest.mark.interop

LARGE = Limits(frame=2 << 20, message=8 << 20, parts=1000)


class Pair:
    """A key pair, in octets and in Z85."""

    def __init__(self) -> None:
        self.public, self.secret = keys.generate_keypair()
        self.public_z85 = keys.encode_key(self.public).encode()
        self.secret_z85 = keys.encode_key(self.secret).encode()


@pytest.fixture
def server_pair() -> Pair:
    return Pair()


@pytest.fixture
def client_pair() -> Pair:
    return Pair()


class Context:
    """A libzmq context that closes all its sockets when the test is over."""

    def __init__(self) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        peer = self._context.socket(kind)
        peer.linger = 0
        self._sockets.append(peer)
        return peer

    def watch(self, peer: zmq.Socket[bytes], event: int) -> zmq.Socket[bytes]:
        """Where a peer's monitor tells of one kind of event."""
        monitor = peer.get_monitor_socket(event)
        self._sockets.append(monitor)
        return monitor

    def close(self) -> None:
        for peer in self._sockets:
            peer.close()
        self._context.term()


@pytest.fixture
def context() -> Iterator[Context]:
    with closing(Context()) as context:
        yield context


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def libzmq_client(context: Context, kind: int, mine: Pair, server_key: bytes, **options: int) -> zmq.Socket[bytes]:
    """A libzmq CURVE client, not connected yet."""
    peer = context.socket(kind)
    peer.rcvtimeo = peer.sndtimeo = 10_000
    peer.curve_publickey, peer.curve_secretkey = mine.public_z85, mine.secret_z85
    peer.curve_serverkey = server_key
    for name, value in options.items():
        peer.setsockopt(getattr(zmq, name), value)
    return peer


def libzmq_server(
    context: Context, kind: int, mine: Pair, **options: int | bytes
) -> tuple[zmq.Socket[bytes], int]:
    """A libzmq CURVE server and its port."""
    peer = context.socket(kind)
    peer.rcvtimeo = peer.sndtimeo = 10_000
    peer.curve_server = True
    peer.curve_secretkey = mine.secret_z85
    for name, value in options.items():
        peer.setsockopt(getattr(zmq, name), value)
    return peer, peer.bind_to_random_port("tcp://127.0.0.1")


class Door:
    """A listening socket of ours; each peer that comes gets a connection of ours."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self._listener = stack.enter_context(closing(socket.create_server(("127.0.0.1", 0))))
        self._listener.settimeout(10)
        self.endpoint = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"

    def next(self, mechanism: Mechanism, socket_type: str, seconds: float = 10) -> Wire:
        self._listener.settimeout(seconds)
        stream, _ = self._listener.accept()
        wire = Wire(Connection(mechanism, socket_type, limits=LARGE), stream)
        self._stack.callback(wire.close)
        return wire


def connect(stack: ExitStack, port: int, mechanism: Mechanism, socket_type: str, limits: Limits = LARGE) -> Wire:
    """A connection of ours to a libzmq server."""
    stream = socket.create_connection(("127.0.0.1", port), 10)
    wire = Wire(Connection(mechanism, socket_type, limits=limits), stream)
    stack.callback(wire.close)
    return wire


class Zap:
    """A ZAP handler as an application would write it: a REP socket of pyzmq's in a thread."""

    def __init__(self, context: Context, allowed: bytes | None) -> None:
        self.asked: list[bytes] = []
        self._allowed = allowed
        self._socket = context.socket(zmq.REP)
        self._socket.bind("inproc://zeromq.zap.01")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        with self._socket:
            while not self._stop.is_set():
                if not self._socket.poll(20):
                    continue
                version, number, _, _, _, mechanism, key = self._socket.recv_multipart()
                assert (version, mechanism) == (b"1.0", b"CURVE")
                self.asked.append(key)
                status = b"200" if key == self._allowed else b"400"
                self._socket.send_multipart([b"1.0", number, status, b"", b"user", b""])

    def __enter__(self) -> Zap:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(10)


def monitor_value(monitor: zmq.Socket[bytes], wanted: int) -> int:
    """The value of the first monitor event of that kind."""
    while monitor.poll(10_000):
        event = monitor.recv_multipart()[0]
        if int.from_bytes(event[:2], "little") == wanted:
            return int.from_bytes(event[2:6], "little")
    raise AssertionError(f"no event {wanted}")


# libzmq is the client


def test_a_libzmq_client_with_the_right_keys(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair
) -> None:
    """A libzmq DEALER speaks to our ROUTER, multipart and 1 MiB included, and we are asked about its key."""
    door = Door(stack)
    peer = libzmq_client(context, zmq.DEALER, client_pair, server_pair.public_z85)
    peer.routing_id = b"me"
    peer.connect(door.endpoint)
    wire = door.next(CurveServer(server_pair.secret, clock=ManualClock()), "ROUTER")
    done = wire.until_ready()
    assert wire.happened(AuthenticationRequired) == [AuthenticationRequired(CurveCredentials(client_pair.public))]
    assert (done.socket_type, done.identity) == ("DEALER", b"me")
    big, parts = bytes(range(256)) * 4096, [b"%d" % at for at in range(200)]
    peer.send_multipart([b"", b"hello"])
    peer.send(big)
    peer.send_multipart(parts)
    assert wire.until_messages(3) == [[b"", b"hello"], [big], parts]
    wire.connection.send_messages([[b"", b"world"], [big], parts, [b""]])
    wire.flush()
    for expected in ([b"", b"world"], [big], parts, [b""]):
        assert peer.recv_multipart() == expected
    peer.close()
    wire.until(lambda: bool(wire.happened(ConnectionClosed)))


def test_a_libzmq_client_that_believes_in_another_key(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair
) -> None:
    """Its HELLO does not open; we close without a word, and nobody is asked."""
    door = Door(stack)
    peer = libzmq_client(context, zmq.DEALER, client_pair, Pair().public_z85)
    peer.connect(door.endpoint)
    wire = door.next(CurveServer(server_pair.secret, clock=ManualClock()), "ROUTER")
    assert "HELLO does not open" in wire.until_failed().reason
    assert not wire.happened(AuthenticationRequired)


@pytest.mark.parametrize("status", [400, 500])
def test_a_libzmq_client_that_is_refused(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair, status: int
) -> None:
    """Its monitor tells HANDSHAKE_FAILED_AUTH with our status, and it does not come again."""
    door = Door(stack)
    peer = libzmq_client(context, zmq.DEALER, client_pair, server_pair.public_z85, RECONNECT_IVL=20)
    monitor = context.watch(peer, zmq.EVENT_HANDSHAKE_FAILED_AUTH)
    peer.connect(door.endpoint)
    wire = door.next(CurveServer(server_pair.secret, clock=ManualClock()), "ROUTER")
    wire.verdict = lambda _: status
    assert wire.until_failed().status == status
    assert monitor_value(monitor, zmq.EVENT_HANDSHAKE_FAILED_AUTH) == status
    wire.close()
    with pytest.raises(TimeoutError):
        door.next(CurveServer(server_pair.secret, clock=ManualClock()), "ROUTER", seconds=0.3)


def test_a_libzmq_client_that_is_told_nothing_comes_again(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair
) -> None:
    """After a 300 and a close without ERROR libzmq reconnects by itself, and gets in."""
    door = Door(stack)
    peer = libzmq_client(context, zmq.DEALER, client_pair, server_pair.public_z85, RECONNECT_IVL=20)
    peer.connect(door.endpoint)
    server = CurveServer(server_pair.secret, clock=ManualClock())
    wire = door.next(server, "ROUTER")
    wire.verdict = lambda _: 300
    wire.until_failed()
    wire.close()
    again = door.next(server, "ROUTER")
    again.until_ready()


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.DEALER, zmq.ROUTER])
def test_libzmqs_types_against_a_router(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair, kind: int
) -> None:
    """Each type that may speak to a ROUTER gets through, with what metadata it sends."""
    door = Door(stack)
    peer = libzmq_client(context, kind, client_pair, server_pair.public_z85)
    peer.connect(door.endpoint)
    wire = door.next(CurveServer(server_pair.secret, clock=ManualClock()), "ROUTER")
    assert wire.until_ready().socket_type in {"REQ", "DEALER", "ROUTER"}


def test_a_libzmq_client_with_much_metadata(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair
) -> None:
    """An INITIATE with 300 octets of application properties passes."""
    door = Door(stack)
    peer = libzmq_client(context, zmq.DEALER, client_pair, server_pair.public_z85)
    peer.setsockopt(zmq.METADATA, b"X-long:" + b"v" * 300)
    peer.connect(door.endpoint)
    wire = door.next(CurveServer(server_pair.secret, clock=ManualClock()), "ROUTER")
    assert wire.until_ready().metadata == {"x-long": b"v" * 300}


def test_a_publisher_of_ours_with_a_libzmq_subscriber(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair
) -> None:
    """libzmq's SUBSCRIBE and CANCEL arrive inside MESSAGE, and it hears what matches."""
    door = Door(stack)
    peer = libzmq_client(context, zmq.SUB, client_pair, server_pair.public_z85)
    peer.subscribe(b"A")
    peer.connect(door.endpoint)
    wire = door.next(CurveServer(server_pair.secret, clock=ManualClock()), "PUB")
    wire.until(lambda: SubscriptionReceived(b"A", True) in wire.log)
    wire.connection.send_messages([[b"B", b"not this"], [b"A", b"this"]])
    wire.flush()
    assert peer.recv_multipart() == [b"A", b"this"]
    peer.unsubscribe(b"A")
    wire.until(lambda: SubscriptionReceived(b"A", False) in wire.log)


def test_heartbeats_of_a_libzmq_client(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair
) -> None:
    """libzmq's PINGs come inside MESSAGE; our PONGs keep it connected well beyond its time-out."""
    door = Door(stack)
    options = {"HEARTBEAT_IVL": 50, "HEARTBEAT_TIMEOUT": 2000, "HEARTBEAT_TTL": 1000}
    peer = libzmq_client(context, zmq.DEALER, client_pair, server_pair.public_z85, **options)
    peer.connect(door.endpoint)
    wire = door.next(CurveServer(server_pair.secret, clock=ManualClock()), "ROUTER")
    wire.until(lambda: len(wire.happened(PingReceived)) >= 5)
    assert {event.ttl for event in wire.happened(PingReceived)} == {1.0}
    wire.connection.send_ping(5.0, b"context")
    wire.until(lambda: wire.happened(PongReceived) == [PongReceived(b"context")])
    peer.send(b"still here")
    assert wire.until_messages(1) == [[b"still here"]]


# libzmq is the server


def test_a_libzmq_server_with_the_right_keys(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair
) -> None:
    """Our DEALER and libzmq's ROUTER exchange small, multipart and 1 MiB messages."""
    peer, port = libzmq_server(context, zmq.ROUTER, server_pair)
    wire = connect(stack, port, CurveClient(server_pair.public, client_pair.secret), "DEALER")
    done = wire.until_ready()
    assert (done.socket_type, done.identity) == ("ROUTER", b"")
    big, parts = bytes(range(256)) * 4096, [b"%d" % at for at in range(200)]
    wire.connection.send_messages([[b"", b"hello"], [big], parts])
    wire.flush()
    routing_id, *first = peer.recv_multipart()
    assert [first, peer.recv_multipart()[1:], peer.recv_multipart()[1:]] == [[b"", b"hello"], [big], parts]
    for reply in ([b"", b"world"], [big], parts):
        peer.send_multipart([routing_id, *reply])
    assert wire.until_messages(3) == [[b"", b"world"], [big], parts]
    peer.close()
    wire.until(lambda: bool(wire.happened(ConnectionClosed)))


def test_a_libzmq_server_with_another_key(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair
) -> None:
    """Our HELLO is for another server: libzmq closes, and we say that the peer left during the handshake."""
    _peer, port = libzmq_server(context, zmq.ROUTER, server_pair)
    wire = connect(stack, port, CurveClient(Pair().public, client_pair.secret), "DEALER")
    assert "during the handshake" in wire.until_failed().reason
    assert not wire.happened(HandshakeCompleted)


@pytest.mark.parametrize("allowed", [True, False])
def test_a_libzmq_server_with_a_zap_handler(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair, allowed: bool
) -> None:
    """The handler is asked about our key: 200 lets us in, 400 reaches us as ERROR with the status."""
    with Zap(context, client_pair.public if allowed else None) as zap:
        _peer, port = libzmq_server(context, zmq.ROUTER, server_pair, ZAP_DOMAIN=b"test")
        wire = connect(stack, port, CurveClient(server_pair.public, client_pair.secret), "DEALER")
        if allowed:
            wire.until_ready()
        else:
            assert wire.until_failed().status == 400
        assert zap.asked == [client_pair.public]


def test_a_libzmq_publisher(context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair) -> None:
    """Our SUB's SUBSCRIBE inside MESSAGE is understood, and CANCEL after it."""
    peer, port = libzmq_server(context, zmq.XPUB, server_pair)
    wire = connect(stack, port, CurveClient(server_pair.public, client_pair.secret), "SUB")
    wire.until_ready()
    wire.connection.send_subscription(b"A")
    wire.flush()
    assert peer.recv() == b"\x01A"
    peer.send_multipart([b"B", b"not this"])
    peer.send_multipart([b"A", b"this"])
    assert wire.until_messages(1) == [[b"A", b"this"]]
    wire.connection.send_subscription(b"A", subscribe=False)
    wire.flush()
    assert peer.recv() == b"\x00A"


def test_heartbeats_of_a_libzmq_server(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair
) -> None:
    """Both sides ping inside MESSAGE and both are answered."""
    peer, port = libzmq_server(context, zmq.ROUTER, server_pair, HEARTBEAT_IVL=50, HEARTBEAT_TIMEOUT=2000)
    wire = connect(stack, port, CurveClient(server_pair.public, client_pair.secret), "DEALER")
    wire.until_ready()
    wire.connection.send_ping(2.0, b"0123456789abcdef")
    wire.until(lambda: len(wire.happened(PingReceived)) >= 4 and bool(wire.happened(PongReceived)))
    assert wire.happened(PongReceived) == [PongReceived(b"0123456789abcdef")]
    assert not peer.closed


# Mechanisms that do not match


@pytest.mark.parametrize("mechanism", [NullServer(), PlainServer()], ids=["NULL", "PLAIN"])
def test_a_libzmq_curve_client_at_another_mechanism(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair, mechanism: Mechanism
) -> None:
    """A listener's mechanism is its own: a CURVE client is turned away and nobody is asked."""
    door = Door(stack)
    peer = libzmq_client(context, zmq.DEALER, client_pair, server_pair.public_z85)
    peer.connect(door.endpoint)
    wire = door.next(mechanism, "ROUTER")
    wire.until_failed()
    assert not wire.happened(AuthenticationRequired)


@pytest.mark.parametrize("plain", [True, False], ids=["PLAIN", "NULL"])
def test_other_libzmq_clients_at_curve(context: Context, stack: ExitStack, server_pair: Pair, plain: bool) -> None:
    """A CURVE listener is never talked down to NULL or PLAIN (CVE-2014-7202)."""
    door = Door(stack)
    peer = context.socket(zmq.DEALER)
    if plain:
        peer.plain_username, peer.plain_password = b"admin", b"secret"
    peer.connect(door.endpoint)
    wire = door.next(CurveServer(server_pair.secret, clock=ManualClock()), "ROUTER")
    wire.until_failed()
    assert not wire.happened(AuthenticationRequired)
    assert wire.received <= 64


@pytest.mark.parametrize("mechanism", [NullClient(), PlainClient(b"u", b"p")], ids=["NULL", "PLAIN"])
def test_our_other_clients_at_a_libzmq_curve_server(
    context: Context, stack: ExitStack, server_pair: Pair, mechanism: Mechanism
) -> None:
    """And the other way round: libzmq turns our NULL and PLAIN away from its CURVE socket."""
    _peer, port = libzmq_server(context, zmq.ROUTER, server_pair)
    wire = connect(stack, port, mechanism, "DEALER")
    wire.until_failed()
    assert not wire.happened(HandshakeCompleted)


def test_our_curve_client_at_a_libzmq_null_server(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair
) -> None:
    """Our client never falls back to clear traffic."""
    peer = context.socket(zmq.ROUTER)
    port = peer.bind_to_random_port("tcp://127.0.0.1")
    wire = connect(stack, port, CurveClient(server_pair.public, client_pair.secret), "DEALER")
    wire.until_failed()
    assert not wire.happened(HandshakeCompleted)


@pytest.mark.parametrize("kind", [zmq.PUB, zmq.PUSH, zmq.SUB], ids=["PUB", "PUSH", "SUB"])
def test_a_libzmq_socket_of_a_type_that_does_not_fit(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair, kind: int
) -> None:
    """The right key does not help a socket whose type cannot talk to ours."""
    door = Door(stack)
    peer = libzmq_client(context, kind, client_pair, server_pair.public_z85)
    peer.connect(door.endpoint)
    wire = door.next(CurveServer(server_pair.secret, clock=ManualClock()), "ROUTER")
    assert "cannot talk" in wire.until_failed().reason
    assert not wire.happened(HandshakeCompleted)


# Half-way


def test_a_libzmq_client_that_vanishes_during_the_verdict(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair
) -> None:
    """The client goes while its key is judged: the connection fails, and a late verdict is a caller's error."""
    door = Door(stack)
    peer = libzmq_client(context, zmq.DEALER, client_pair, server_pair.public_z85)
    peer.connect(door.endpoint)
    wire = door.next(CurveServer(server_pair.secret, clock=ManualClock()), "ROUTER")

    def leave(_: CurveCredentials) -> int:
        peer.close()
        wire.socket.settimeout(10)
        while data := wire.socket.recv(4096):
            wire.connection.receive_data(data)
        wire.connection.receive_eof()
        return 300

    with pytest.raises(Exception, match="nobody waits for a verdict"):
        wire.verdict = leave
        wire.until(lambda: False)
    assert wire.connection.closed
    assert only(HandshakeCompleted, wire.log) == []


@pytest.mark.parametrize("octets", [10, 64, 66, 200, 264])
def test_our_client_stops_half_way_at_a_libzmq_server(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair, octets: int
) -> None:
    """A client that sends some octets of its handshake and stops: libzmq lives on and serves the next of ours."""
    peer, port = libzmq_server(context, zmq.ROUTER, server_pair, HANDSHAKE_IVL=200)
    client = CurveClient(server_pair.public, client_pair.secret)
    with socket.create_connection(("127.0.0.1", port), 10) as stream:
        half = Connection(client, "DEALER")
        out = half.data_to_send()
        stream.sendall(out[:octets])
        while octets > 64 and len(out) == 64:
            half.receive_data(stream.recv(4096))
            out += half.data_to_send()
        stream.sendall(out[64:octets])
        wire = connect(stack, port, client, "DEALER")
        wire.until_ready()
        wire.connection.send_messages([[b"next"]])
        wire.flush()
        assert peer.recv_multipart()[1:] == [b"next"]
        stream.settimeout(10)
        while stream.recv(4096):
            pass  # libzmq ends the half-open one at its own deadline


def test_a_libzmq_client_stopped_half_way_by_us(
    context: Context, stack: ExitStack, server_pair: Pair, client_pair: Pair
) -> None:
    """We stop after WELCOME and close; libzmq comes again, and the cookie of the first try opens nothing here."""
    door = Door(stack)
    peer = libzmq_client(context, zmq.DEALER, client_pair, server_pair.public_z85, RECONNECT_IVL=20)
    peer.connect(door.endpoint)
    server = CurveServer(server_pair.secret, clock=ManualClock())
    first = door.next(server, "ROUTER")
    recorded = b""
    while len(recorded) < 64 + 202:
        first.socket.settimeout(10)
        if out := first.connection.data_to_send():
            first.socket.sendall(out)
        data = first.socket.recv(4096)
        recorded += data
        first.connection.receive_data(data)
    first.socket.sendall(first.connection.data_to_send())
    initiate = first.socket.recv(4096)
    first.close()
    again = door.next(server, "ROUTER")
    again.until_ready()
    replay = Connection(server, "ROUTER")
    replay.receive_data(recorded)
    replay.receive_data(initiate)
    assert replay.closed
    assert only(AuthenticationRequired, replay.events()) == []
