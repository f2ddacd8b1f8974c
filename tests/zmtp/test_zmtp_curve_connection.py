"""CURVE through whole connections: the frames around it, the verdict in the middle, traffic, and the end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.curve_dialogue import COMMANDS, KEYS, HonestClient, ManualClock, make_client, make_server, message
from support.curve_wire import Joined, messages, only

from zapd.errors import LocalProtocolError
from zapd.zmtp.connection import Connection
from zapd.zmtp.credentials import CurveCredentials
from zapd.zmtp.events import (
    AuthenticationRequired,
    ConnectionFailed,
    HandshakeCompleted,
    PingReceived,
    PongReceived,
    SubscriptionReceived,
)
from zapd.zmtp.greeting import encode_greeting
from zapd.zmtp.limits import Limits
from zapd.zmtp.mechanisms import lookup
from zapd.zmtp.mechanisms.curve import CurveClient, CurveServer

GREETING = encode_greeting("CURVE", as_server=False)


def command(body: bytes) -> bytes:
    if len(body) < 256:
        return b"\x04" + bytes([len(body)]) + body
    return b"\x06" + len(body).to_bytes(8, "big") + body


def server_after_welcome(client: HonestClient, clock: ManualClock | None = None) -> tuple[Connection, bytes]:
    """A server connection that waits for INITIATE, and its WELCOME's body."""
    connection = Connection(make_server(clock), "ROUTER")
    connection.receive_data(GREETING + command(client.hello()))
    out = connection.data_to_send()
    assert out[64:66] == b"\x04\xa8"
    return connection, out[66:]


def failure(connection: Connection) -> ConnectionFailed:
    assert connection.closed
    (event,) = connection.events()
    assert isinstance(event, ConnectionFailed)
    return event


def test_curve_is_registered() -> None:
    """Both sides are found by the greeting's name."""
    assert lookup("CURVE").server is CurveServer
    assert lookup("CURVE").client is CurveClient


@pytest.mark.parametrize("cut", [0, 1, 7, 64])
def test_two_connections_however_the_octets_are_cut(cut: int) -> None:
    """Handshake, messages both ways and heartbeats, delivered whole or octet by octet."""
    pair = Joined.new(cut=cut).pump()
    assert pair.ready
    assert only(AuthenticationRequired, pair.server_events) == [
        AuthenticationRequired(CurveCredentials(KEYS["C"]))
    ]
    (there,) = only(HandshakeCompleted, pair.server_events)
    assert (there.socket_type, there.identity) == ("DEALER", b"")
    pair.client.send_messages([[b"", b"one"], [b"two"]])
    pair.server.send_messages([[b"x" * 300]])
    pair.client.send_ping(1.5, b"abc")
    pair.pump()
    assert messages(pair.server_events) == [[b"", b"one"], [b"two"]]
    assert messages(pair.client_events) == [[b"x" * 300]]
    assert only(PingReceived, pair.server_events) == [PingReceived(1.5)]
    assert only(PongReceived, pair.client_events) == [PongReceived(b"abc")]


def test_subscriptions_inside_message() -> None:
    """SUBSCRIBE and CANCEL travel inside MESSAGE, with the inner flag that everybody uses."""
    pair = Joined.new(types=("SUB", "PUB")).pump()
    pair.client.send_subscription(b"A")
    pair.client.send_subscription(b"A", subscribe=False)
    pair.pump()
    assert only(SubscriptionReceived, pair.server_events) == [
        SubscriptionReceived(b"A", True),
        SubscriptionReceived(b"A", False),
    ]


@pytest.mark.parametrize("status", [400, 500])
def test_a_refusal_is_said_in_clear(status: int) -> None:
    """400 and 500 go out as ERROR instead of READY, and the client learns which."""
    pair = Joined.new(verdict=lambda _: status).pump()
    assert only(ConnectionFailed, pair.server_events) == [ConnectionFailed("refused", status)]
    (heard,) = only(ConnectionFailed, pair.client_events)
    assert heard.status == status
    assert not only(HandshakeCompleted, pair.client_events + pair.server_events)


def test_300_says_nothing() -> None:
    """The client hears nothing at all of a 300."""
    pair = Joined.new(verdict=lambda _: 300).pump()
    assert only(ConnectionFailed, pair.server_events) == [ConnectionFailed("refused for now", 300)]
    assert not pair.client.closed and not pair.client.ready


def test_nothing_is_admitted_without_a_verdict() -> None:
    """While the owner thinks, no READY goes out and no message can be sent or received."""
    client = HonestClient()
    connection, welcome = server_after_welcome(client)
    server_short, _ = client.read_welcome(welcome)
    connection.receive_data(command(client.initiate(welcome)))
    (asked,) = connection.events()
    assert asked == AuthenticationRequired(CurveCredentials(KEYS["C"]))
    eager = message(b"CurveZMQMESSAGEC", 3, b"\0eager", server_short, client.short_secret)
    connection.receive_data(b"\x00" + bytes([len(eager)]) + eager)
    assert connection.events() == [] and connection.data_to_send() == b"" and not connection.ready
    with pytest.raises(LocalProtocolError):
        connection.send_messages([[b"x"]])
    connection.accept()
    done, *rest = connection.events()
    assert isinstance(done, HandshakeCompleted)
    assert messages(rest) == [[b"eager"]]


def test_a_client_with_another_server_key() -> None:
    """The server closes at HELLO, having said its greeting and nothing else."""
    other = make_client(server_key=KEYS["C"])
    pair = Joined.new(other).pump()
    (failed,) = only(ConnectionFailed, pair.server_events)
    assert "does not open" in failed.reason
    assert not only(AuthenticationRequired, pair.server_events)


def test_every_single_octet_altered_on_the_wire_to_the_server() -> None:
    """A client's handshake with one octet changed anywhere behind the greeting never gets a question asked."""
    client = HonestClient()
    hello = command(client.hello())
    for at in range(len(hello)):
        connection = Connection(make_server(), "ROUTER")
        connection.receive_data(GREETING)
        connection.receive_data(hello[:at] + bytes([hello[at] ^ 0x11]) + hello[at + 1 :])
        assert only(AuthenticationRequired, connection.events()) == []
        assert len(connection.data_to_send()) == 64, f"octet {at} was not looked at"
    _, welcome = server_after_welcome(client)
    for at in range(len(command(client.initiate(welcome)))):
        connection, welcome = server_after_welcome(client)
        initiate = command(client.initiate(welcome))
        connection.receive_data(initiate[:at] + bytes([initiate[at] ^ 0x11]) + initiate[at + 1 :])
        assert not only(AuthenticationRequired, connection.events()), at
        assert connection.data_to_send() == b"" and not connection.ready


def test_never_more_out_than_in_before_initiate() -> None:
    """After every single octet of a client's, what was sent is at most what was received and 64 (R3)."""
    connection = Connection(make_server(), "ROUTER")
    sent = len(connection.data_to_send())
    for received, octet in enumerate(GREETING + command(HonestClient().hello()), start=1):
        connection.receive_data(bytes([octet]))
        sent += len(connection.data_to_send())
        assert sent <= received + 64


def test_late_initiate_through_a_connection() -> None:
    """The clock is the owner's; a minute later the connection fails and says nothing."""
    clock = ManualClock()
    client = HonestClient()
    connection, welcome = server_after_welcome(client, clock)
    clock.now += 61
    connection.receive_data(command(client.initiate(welcome)))
    assert "too late" in failure(connection).reason
    assert connection.data_to_send() == b""


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param(lambda body: b"\x04" + bytes([len(body)]) + body, id="MESSAGE as a command frame"),
        pytest.param(lambda body: b"\x01" + bytes([len(body)]) + body, id="outer MORE"),
        pytest.param(lambda body: b"\x08" + bytes([len(body)]) + body, id="reserved bit"),
        pytest.param(lambda body: b"\x00\x05hello", id="clear message"),
        pytest.param(lambda body: b"\x04\x07\x04PING\0\0", id="clear PING"),
        pytest.param(lambda body: b"\x00\x00", id="empty frame"),
        pytest.param(lambda body: b"\x00" + bytes([len(body) - 1]) + body[:-1], id="cut"),
        pytest.param(lambda body: b"\x02" + b"\xff" * 8 + body, id="2^64-1 octets announced"),
        pytest.param(lambda body: b"\x02" + b"\x7f" + b"\xff" * 7 + body, id="2^63-1 octets announced"),
    ],
)
def test_only_message_frames_after_the_handshake(frame: object) -> None:
    """Anything but an untouched MESSAGE in a plain message frame ends the connection."""
    assert callable(frame)
    client = HonestClient()
    connection, welcome = server_after_welcome(client)
    server_short, _ = client.read_welcome(welcome)
    connection.receive_data(command(client.initiate(welcome)))
    connection.accept()
    connection.events()
    body = message(b"CurveZMQMESSAGEC", 3, b"\0hello", server_short, client.short_secret)
    connection.receive_data(frame(body))
    failure(connection)


def test_messages_in_long_frames_for_short_bodies() -> None:
    """The long form is taken for a short MESSAGE, as libzmq takes it."""
    client = HonestClient()
    connection, welcome = server_after_welcome(client)
    server_short, _ = client.read_welcome(welcome)
    connection.receive_data(command(client.initiate(welcome)))
    connection.accept()
    connection.events()
    body = message(b"CurveZMQMESSAGEC", 3, b"\0hello", server_short, client.short_secret)
    connection.receive_data(b"\x02" + len(body).to_bytes(8, "big") + body)
    assert messages(connection.events()) == [[b"hello"]]


def test_initiate_with_300_octets_of_metadata_and_with_too_much() -> None:
    """INITIATE may be 4096 octets long; one more is refused before anything is decrypted (CVE-2019-13132)."""
    socket_type = b"\x0bSocket-Type\0\0\0\x06DEALER"
    for size, good in ((300, True), (4096 - 257 - len(socket_type) - 8, True), (4096, False)):
        client = HonestClient(metadata=socket_type + b"\x03X-a" + size.to_bytes(4, "big") + bytes(size))
        connection, welcome = server_after_welcome(client)
        connection.receive_data(command(client.initiate(welcome)))
        if good:
            connection.accept()
            assert connection.ready
        else:
            assert "longer than 4096" in failure(connection).reason


def test_large_and_many_parts_with_raised_limits() -> None:
    """A message of 1 MiB and one of many parts pass where the limits allow them, and end it where not."""
    limits = Limits(frame=2 << 20, message=4 << 20, parts=1000)
    pair = Joined.new(limits=limits).pump()
    big, many = [bytes(1 << 20)], [b"%d" % at for at in range(900)]
    pair.client.send_messages([big, many])
    pair.pump()
    assert messages(pair.server_events) == [big, many]
    small = Joined.new(limits=Limits(frame=1000)).pump()
    small.client.send_messages([[bytes(1001)]])
    small.pump()
    assert "longer than 1000" in only(ConnectionFailed, small.server_events)[0].reason


def test_the_vectors_as_frames() -> None:
    """The frame headers that the vectors are told to have: 04c8, 04a8, 06 and eight octets, 0441."""
    connection = Connection(make_client(), "DEALER")
    connection.receive_data(GREETING)
    assert connection.data_to_send()[64:66] == b"\x04\xc8"
    client = HonestClient()
    server, welcome = server_after_welcome(client)
    assert command(client.initiate(welcome))[:9] == b"\x06" + (0x124).to_bytes(8, "big")
    server.receive_data(command(client.initiate(welcome)))
    server.accept()
    assert server.data_to_send()[:2] == b"\x04\x41"
    assert len(COMMANDS["READY"]) == 0x41


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 999), st.binary(min_size=1, max_size=3)), max_size=4), st.integers(1, 300)
)
def test_recorded_handshakes_mutated(changes: list[tuple[int, bytes]], cut: int) -> None:
    """A whole client side with octets replaced anywhere: no exception, no session unless it is what was sent."""
    client = HonestClient()
    connection = Connection(make_server(), "ROUTER")
    whole = GREETING + command(client.hello())
    first = bytearray(whole)
    for at, octets in changes:
        first[at : at + len(octets)] = octets
    # The padding of the greeting's signature and what follows its mechanism are nobody's business.
    honest = all(first[part] == whole[part] for part in (slice(1), slice(9, 32), slice(64, None)))
    for at in range(0, len(first), cut):
        connection.receive_data(bytes(first[at : at + cut]))
    out = connection.data_to_send()
    if len(out) == 64 + 170:
        connection.receive_data(command(client.initiate(out[66:])))
    if connection.closed:
        assert only(ConnectionFailed, connection.events())
    elif honest:
        assert only(AuthenticationRequired, connection.events())
