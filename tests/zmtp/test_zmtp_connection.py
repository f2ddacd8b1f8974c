"""Whole connections: pairs of our own engines, and single ones facing a peer made of octets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.zmtp_pairs import (
    Pair,
    ToyCipher,
    ToyClient,
    ToyServer,
    feed,
    merged,
    messages_of,
    null_pair,
    toy_pair,
)

from zapd.errors import InvalidInput, LocalProtocolError
from zapd.zmtp import commands
from zapd.zmtp.connection import Connection
from zapd.zmtp.credentials import NullCredentials, PlainCredentials
from zapd.zmtp.events import (
    AuthenticationRequired,
    ConnectionClosed,
    ConnectionFailed,
    Event,
    HandshakeCompleted,
    MessagesReceived,
    PingReceived,
    PongReceived,
    SubscriptionReceived,
)
from zapd.zmtp.framing import encode_command, encode_message, encode_messages, seal_command
from zapd.zmtp.greeting import encode_greeting
from zapd.zmtp.handshake import RECEIVE, Handshake, Mechanism, PeerError, Send, Session, in_batches
from zapd.zmtp.limits import Limits
from zapd.zmtp.mechanisms.null import NullClient, NullServer
from zapd.zmtp.mechanisms.plain import PlainClient, PlainServer
from zapd.zmtp.metadata import encode_properties
from zapd.zmtp.state import State

GREETING = encode_greeting("NULL", as_server=False)
GREETING_3_0 = GREETING[:11] + b"\0" + GREETING[12:]
READY_DEALER = bytes.fromhex(
    "04290552454144590B536F636B65742D54797065000000064445414C4552084964656E7469747900000000"
)
"""What a libzmq DEALER sends, as recorded."""


def ready(socket_type: str) -> bytes:
    return encode_command(commands.encode_ready(encode_properties([("Socket-Type", socket_type.encode())])))


def opened(ours: str = "ROUTER", theirs: str = "DEALER", *, greeting: bytes = GREETING) -> Connection:
    """An engine past its NULL handshake with a peer made of octets, its events and output forgotten."""
    connection = Connection(NullClient(), ours)
    connection.receive_data(greeting + ready(theirs))
    assert connection.ready
    connection.events()
    connection.data_to_send()
    return connection


def failure(connection: Connection) -> ConnectionFailed:
    """The event that ended it, which is the last."""
    last = connection.events()[-1]
    assert isinstance(last, ConnectionFailed)
    assert connection.closed
    return last


# The handshake


def test_all_64_octets_go_out_at_once() -> None:
    """libzmq holds its own greeting back until it has read 11 octets of ours."""
    connection = Connection(NullClient(), "DEALER")
    assert connection.data_to_send() == GREETING
    assert connection.data_to_send() == b""
    assert connection.state is State.GREETING
    assert connection.greeting is None


def test_nothing_follows_the_greeting_before_the_peers_is_complete() -> None:
    """A frame that comes too early kills a libzmq connection."""
    connection = Connection(NullClient(), "DEALER")
    connection.data_to_send()
    feed(connection, GREETING[:63], 1)
    assert connection.data_to_send() == b""
    connection.receive_data(GREETING[63:])
    assert connection.data_to_send() == READY_DEALER
    assert connection.greeting is not None


@pytest.mark.parametrize("piece", [0, 1, 7])
def test_null_lets_both_sides_in(piece: int) -> None:
    """The server is asked, nothing but its greeting shows until it accepts, then each knows the other."""
    server = Connection(NullServer(), "ROUTER", properties=[("X-Zone", b"lab")])
    client = Connection(NullClient(), "DEALER", identity=b"me")
    pair = Pair(client, server)
    pair.pump(piece=piece)
    assert pair.server_events == [AuthenticationRequired(NullCredentials())]
    assert pair.to_client == GREETING
    assert server.state is State.VERDICT
    pair.handshake(piece=piece)
    assert pair.server_events[1:] == [HandshakeCompleted("DEALER", b"me", {})]
    assert pair.client_events == [HandshakeCompleted("ROUTER", b"", {"x-zone": b"lab"})]
    assert server.ready
    assert client.ready


@pytest.mark.parametrize("piece", [0, 1, 7])
def test_plain_shows_name_and_password_to_the_owner(piece: int) -> None:
    """The octets of RFC 24, in its order, and metadata only once the verdict is good."""
    pair = Pair(Connection(PlainClient(b"admin", b"secret"), "DEALER"), Connection(PlainServer(), "ROUTER"))
    pair.pump(piece=piece)
    assert pair.server_events == [AuthenticationRequired(PlainCredentials(b"admin", b"secret"))]
    assert pair.to_server[64:] == bytes.fromhex("04130548454C4C4F0561646D696E06736563726574")
    assert len(pair.to_client) == 64
    pair.handshake(piece=piece)
    assert pair.to_client[64:74] == b"\x04\x08\x07WELCOME"
    assert pair.server_events[-1] == HandshakeCompleted("DEALER", b"", {})
    assert pair.client_events == [HandshakeCompleted("ROUTER", b"", {})]


@pytest.mark.parametrize("piece", [0, 1, 7])
@pytest.mark.parametrize(
    ("client", "server"),
    [(NullClient(), NullServer()), (PlainClient(b"u", b"p"), PlainServer()), (ToyClient(), ToyServer())],
)
@pytest.mark.parametrize("status", [400, 500])
def test_a_refused_peer_hears_the_status(client: Mechanism, server: Mechanism, status: int, piece: int) -> None:
    """400 and 500 go out as ERROR with three digits, then nothing more."""
    pair = Pair(Connection(client, "DEALER"), Connection(server, "ROUTER")).handshake(verdict=status, piece=piece)
    assert pair.server_events[-1] == ConnectionFailed("refused", status)
    assert pair.to_client[64:] == b"\x04\x0a\x05ERROR\x03" + str(status).encode()
    assert pair.client_events[-1] == ConnectionFailed(f"the peer refused: {status}", status)
    assert pair.server.closed
    assert pair.client.closed


def test_a_peer_put_off_hears_nothing_and_costs_nothing() -> None:
    """300 sends no octet, frees what was kept, and the engine takes nothing more."""
    pair = Pair(Connection(PlainClient(b"u", b"p"), "DEALER"), Connection(PlainServer(), "ROUTER"))
    pair.pump()
    pair.server.receive_data(b"\x04\xc8more")
    pair.server.reject(300)
    assert pair.server.data_to_send() == b""
    assert pair.server.events() == [ConnectionFailed("refused for now", 300)]
    assert pair.server._reader.held == 0
    assert pair.server._dialogue.gi_frame is None  # type: ignore[attr-defined]
    pair.server.receive_data(b"anything")
    pair.server.receive_eof()
    assert pair.server.events() == []
    assert pair.server._reader.held == 0


def test_a_plain_client_understands_libzmqs_misspelt_error() -> None:
    """libzmq 4.3 sends `5E RROR`; as a server, nobody may say so."""
    connection = Connection(PlainClient(b"u", b"p"), "DEALER")
    connection.receive_data(encode_greeting("PLAIN", as_server=False) + bytes.fromhex("04095E52524F5203343030"))
    assert failure(connection) == ConnectionFailed("the peer refused: 400", 400)
    connection = Connection(PlainServer(), "ROUTER")
    connection.receive_data(encode_greeting("PLAIN", as_server=False) + bytes.fromhex("04095E52524F5203343030"))
    assert failure(connection).status is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "another protocol"),
        (b"\x01\x00", "ZMTP 1.0"),
        (bytes.fromhex("FF00000000000000017F0105"), "ZMTP 2.0"),
    ],
)
def test_older_peers_are_turned_away_with_a_reason(data: bytes, reason: str) -> None:
    """ZMTP 1.0, 2.0 and strangers fail at once instead of hanging, our greeting still in the queue."""
    for piece in (0, 1):
        connection = Connection(NullClient(), "ROUTER")
        feed(connection, data, piece)
        assert reason in failure(connection).reason
        assert connection.data_to_send() == GREETING


def test_a_mechanism_mismatch_ends_it_after_our_greeting() -> None:
    """The peer learns what we speak; the reason names both."""
    connection = Connection(PlainServer(), "ROUTER")
    feed(connection, GREETING[:63], 1)
    assert not connection.events()
    connection.receive_data(GREETING[63:] + READY_DEALER)
    assert failure(connection).reason == "mechanism mismatch: the peer wants NULL, we speak PLAIN"
    assert connection.data_to_send() == encode_greeting("PLAIN", as_server=True)


def test_a_mechanism_with_junk_behind_it_is_another() -> None:
    """All 20 octets are compared, as libzmq does."""
    connection = Connection(NullClient(), "ROUTER")
    connection.receive_data(GREETING[:20] + b"x" + GREETING[21:])
    assert "mismatch" in failure(connection).reason


def test_an_illegal_pair_gets_error_in_place_of_ready() -> None:
    """A PLAIN server withholds its READY, says ERROR, and closes (RFC 23)."""
    pair = Pair(Connection(PlainClient(b"u", b"p"), "PULL"), Connection(PlainServer(), "ROUTER")).handshake()
    assert pair.server_events[-1] == ConnectionFailed("a PULL socket cannot talk to a ROUTER")
    assert pair.to_client.endswith(b"\x04\x08\x07WELCOME\x04\x12\x05ERROR\x0bSocket-Type")
    assert pair.client_events == [ConnectionFailed("the peer refused: Socket-Type")]


def test_an_illegal_pair_is_refused_by_both_sides_of_null() -> None:
    """Both READYs cross; each side finds out by itself and says ERROR."""
    pair = Pair(Connection(NullClient(), "PULL"), Connection(NullClient(), "ROUTER")).handshake()
    assert pair.server_events == [ConnectionFailed("a PULL socket cannot talk to a ROUTER")]
    assert pair.client_events == [ConnectionFailed("a ROUTER socket cannot talk to a PULL")]
    assert pair.to_server.endswith(b"\x04\x12\x05ERROR\x0bSocket-Type")


def test_a_plain_client_just_leaves_a_wrong_server() -> None:
    """ERROR is the server's to send (RFC 24)."""
    connection = Connection(PlainClient(b"u", b"p"), "PULL")
    greeting = encode_greeting("PLAIN", as_server=True)
    connection.receive_data(greeting + encode_command(b"\x07WELCOME") + ready("ROUTER"))
    assert failure(connection).reason == "a ROUTER socket cannot talk to a PULL"
    assert b"ERROR" not in connection.data_to_send()


def test_a_peer_without_socket_type_is_accepted() -> None:
    """libzmq accepts it, so it may come."""
    connection = Connection(NullClient(), "ROUTER")
    connection.receive_data(GREETING + encode_command(b"\x05READY"))
    assert connection.events() == [HandshakeCompleted("", b"", {})]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (encode_command(b"\x05HELLO"), "expected READY, got HELLO"),
        (encode_command(b""), "malformed command"),
        (encode_command(b"\x05READY\x01"), "cut short"),
        (encode_command(b"\x04PING\0\0"), "expected READY, got PING"),
        (b"\x00\x06\x05READY", "not a command frame"),
        (b"\x06" + (4097).to_bytes(8, "big"), "longer than 4096"),
    ],
)
def test_anything_unexpected_ends_a_handshake_without_error(data: bytes, reason: str) -> None:
    """Malformed input is answered by closing alone."""
    connection = Connection(NullClient(), "ROUTER")
    connection.receive_data(GREETING)
    connection.data_to_send()
    connection.receive_data(data)
    assert reason in failure(connection).reason
    assert connection.data_to_send() == b""


def test_what_comes_ahead_of_the_verdict_is_bounded() -> None:
    """One command's worth may wait for the owner; more ends it, however it comes."""
    for piece in (0, 1000):
        connection = Connection(NullServer(), "ROUTER")
        feed(connection, GREETING + bytes(4096), piece)
        assert connection.state is State.VERDICT
        connection.receive_data(b"x")
        assert "ahead of the verdict" in failure(connection).reason
    connection = Connection(NullServer(), "ROUTER")
    connection.receive_data(GREETING + bytes(5000))
    first, second = connection.events()
    assert isinstance(first, AuthenticationRequired)
    assert isinstance(second, ConnectionFailed)


def test_what_came_ahead_is_taken_after_the_verdict() -> None:
    """A libzmq client sends its NULL READY without waiting, and traffic may follow the READY."""
    connection = Connection(NullServer(), "ROUTER")
    connection.receive_data(GREETING + READY_DEALER + encode_message([b"early"]))
    connection.accept()
    assert messages_of(connection.events()) == [[b"early"]]


def test_no_more_than_4_kib_is_kept_before_ready() -> None:
    """Whatever a stranger trickles, in the greeting, in a command or ahead of a verdict."""
    for stream in (b"\x06" + (4096).to_bytes(8, "big") + bytes(4095), READY_DEALER[:-1]):
        for mechanism in (NullClient(), NullServer()):
            connection = Connection(mechanism, "ROUTER")
            for octet in GREETING + stream:
                connection.receive_data(bytes((octet,)))
                assert connection._reader.held <= 4096


def test_the_peer_leaving_during_the_handshake_is_a_failure() -> None:
    """At every octet of greeting and READY."""
    for size in range(len(GREETING + READY_DEALER)):
        connection = Connection(NullClient(), "ROUTER")
        connection.receive_data((GREETING + READY_DEALER)[:size])
        connection.receive_eof()
        assert failure(connection).reason == "the peer left during the handshake"


def test_a_verdict_nobody_waits_for_is_the_callers_mistake() -> None:
    """Before the question, after the answer, after the end, and with a status that is none."""
    connection = Connection(NullServer(), "ROUTER")
    for attempt in (connection.accept, lambda: connection.reject(400), lambda: connection.reject(300)):
        with pytest.raises(LocalProtocolError):
            attempt()
    connection.receive_data(GREETING)
    for status in (200, 404, 0):
        with pytest.raises(LocalProtocolError, match="300, 400 or 500"):
            connection.reject(status)
    connection.receive_eof()
    with pytest.raises(LocalProtocolError, match="not possible in state failed"):
        connection.accept()


def test_illegal_own_metadata_is_told_at_once() -> None:
    """The constructor raises for a person's mistake."""
    with pytest.raises(InvalidInput, match="socket type"):
        Connection(NullClient(), "router")
    with pytest.raises(InvalidInput, match="property name"):
        Connection(NullClient(), "ROUTER", properties=[("a b", b"")])


# A third party's mechanism


class Broken:
    """A mechanism whose author forgot that peers send anything."""

    name = "BROKEN"
    as_server = True

    def __init__(self, *, reluctant: bool = False) -> None:
        self.reluctant = reluctant

    def handshake(self, metadata: bytes) -> Handshake:
        try:
            yield Send(b"\x05FIRST")
            body = yield RECEIVE
            yield Send(b"\x06SECOND")
            assert body is not None
            return Session({}[body])  # type: ignore[index]
        finally:
            if self.reluctant:
                raise RuntimeError("not going")


def test_a_broken_mechanism_ends_the_connection_alone() -> None:
    """Its exception becomes an event that names its kind and no value; what it had said still goes out."""
    for reluctant in (False, True):
        connection = Connection(Broken(reluctant=reluctant), "ROUTER")
        connection.receive_data(encode_greeting("BROKEN", as_server=False) + encode_command(b"\x06SECRET"))
        assert "SECRET" not in failure(connection).reason
        assert connection.data_to_send().endswith(b"\x04\x06\x05FIRST\x04\x07\x06SECOND")


def test_a_reluctant_mechanism_cannot_hold_the_connection() -> None:
    """What it raises while it is closed goes nowhere."""
    connection = Connection(Broken(reluctant=True), "ROUTER")
    connection.receive_data(encode_greeting("BROKEN", as_server=False))
    connection.receive_eof()
    assert failure(connection).reason == "the peer left during the handshake"


class NoSession(ToyServer):
    """Ends its dialogue with nothing in hand."""

    def handshake(self, metadata: bytes) -> Handshake:
        yield RECEIVE
        return None  # type: ignore[return-value]


def test_a_dialogue_without_a_session_lets_nobody_in() -> None:
    """It is as broken as one that raises."""
    connection = Connection(NoSession(), "ROUTER")
    connection.receive_data(encode_greeting("TOY", as_server=False) + encode_command(b"\x05KNOCK"))
    assert failure(connection).reason == "the mechanism broke: AttributeError"


class _NoCipher(ToyCipher):
    def open(self, body: bytes) -> tuple[int, bytes]:
        raise KeyError(body)


class BrokenCipher(ToyServer):
    """Completes, then cannot open what comes."""

    def handshake(self, metadata: bytes) -> Handshake:
        yield RECEIVE
        return Session(b"", _NoCipher())


def test_a_broken_cipher_ends_the_connection_alone() -> None:
    """As a broken mechanism does."""
    connection = Connection(BrokenCipher(), "ROUTER")
    connection.receive_data(
        encode_greeting("TOY", as_server=False) + encode_command(b"\x05KNOCK") + b"\x00\x06SECRET"
    )
    assert failure(connection).reason == "the mechanism broke: KeyError"


# Traffic


@pytest.mark.parametrize("piece", [0, 1, 7])
@pytest.mark.parametrize("make", [null_pair, toy_pair])
def test_messages_cross_both_ways(make: type[Pair], piece: int) -> None:
    """Multipart, empty, short and long frames arrive whole and in order, in clear and sealed."""
    pair = make()
    messages = [[b""], [b"a", b"", b"c"], [b"x" * 255], [b"y" * 256, b"z"], [b"w" * 70_000]]
    pair.client.send_messages(messages)
    pair.server.send_messages(reversed(messages))
    pair.pump(piece=piece)
    assert messages_of(pair.server_events) == messages
    assert messages_of(pair.client_events) == messages[::-1]


def test_messages_that_came_together_are_one_event() -> None:
    """The hot road has one value for a whole batch."""
    connection = opened()
    connection.receive_data(encode_messages([[b"1"], [b"2", b"3"]]))
    assert connection.events() == [MessagesReceived([[b"1"], [b"2", b"3"]])]


@pytest.mark.parametrize("make", [null_pair, toy_pair])
def test_a_ping_is_answered_with_its_context(make: type[Pair]) -> None:
    """The owner hears of the TTL; the PONG is queued without being asked for."""
    pair = make()
    pair.client.send_ping(12.5, b"context")
    pair.client.send_messages([[b"behind"]])
    pair.pump()
    assert pair.server_events == [PingReceived(12.5), MessagesReceived([[b"behind"]])]
    assert pair.client_events == [PongReceived(b"context")]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "malformed command"),
        (b"\x09PING", "malformed command"),
        (b"\x04PING\0", "malformed PING"),
        (b"\x04PING\0\0" + b"c" * 17, "malformed PING"),
        (b"\x04PONG" + b"c" * 17, "malformed PONG"),
        (b"\x09SUBSCRIBEx", "SUBSCRIBE sent to a ROUTER"),
        (b"\x06CANCELx", "CANCEL sent to a ROUTER"),
    ],
)
def test_malformed_or_misplaced_commands_end_it(body: bytes, reason: str) -> None:
    """What came before is delivered, what follows is not."""
    connection = opened()
    connection.receive_data(encode_message([b"1"]) + encode_command(body) + encode_message([b"2"]))
    delivered, failed = connection.events()
    assert delivered == MessagesReceived([[b"1"]])
    assert isinstance(failed, ConnectionFailed)
    assert reason in failed.reason
    assert connection.data_to_send() == b""


@pytest.mark.parametrize("body", [b"\x05READY", b"\x04JOINgroup", b"\x07UNKNOWN", b"\x09subscribe"])
def test_unknown_commands_are_passed_over(body: bytes) -> None:
    """Later versions may add some; libzmq ignores them too."""
    connection = opened("PUB", "SUB")
    connection.receive_data(encode_command(body))
    assert connection.events() == []
    assert connection.ready


def test_error_amid_traffic_is_the_end() -> None:
    """A peer that says ERROR has given up (RFC 23); nothing behind it counts, faults included."""
    connection = opened()
    connection.receive_data(encode_command(b"\x05ERROR\x03500") + encode_message([b"2"]) + b"\xff\xff")
    assert connection.events() == [ConnectionFailed("the peer gave up: 500", 500)]


def test_a_publisher_takes_both_forms_of_subscription() -> None:
    """As commands and as messages, from peers of either version, in order with other messages."""
    forms = (
        encode_command(b"\x09SUBSCRIBEa")
        + encode_messages([[b"\x01b"], [b"hello"], [b"\x00b"], [b"\x01two", b"parts"], [b""]])
        + encode_command(b"\x06CANCELa")
    )
    subscriptions: list[Event] = [SubscriptionReceived(b"a", True), SubscriptionReceived(b"b", True)]
    cancels: list[Event] = [SubscriptionReceived(b"b", False)]
    last: list[Event] = [SubscriptionReceived(b"a", False)]
    for greeting in (GREETING, GREETING_3_0):
        connection = opened("PUB", "SUB", greeting=greeting)
        connection.receive_data(forms)
        assert connection.events() == subscriptions + cancels + last
        connection = opened("XPUB", "SUB", greeting=greeting)
        connection.receive_data(forms)
        hello, others = MessagesReceived([[b"hello"]]), MessagesReceived([[b"\x01two", b"parts"], [b""]])
        assert connection.events() == [*subscriptions, hello, *cancels, others, *last]


def test_topics_are_bounded_in_both_forms() -> None:
    """A topic costs libzmq a node for each octet; here it is held to the command's bound."""
    for data in (encode_command(b"\x09SUBSCRIBE" + b"t" * 4090), encode_message([b"\x01" + b"t" * 4096])):
        connection = opened("XPUB", "SUB")
        connection.receive_data(encode_message([b"before"]) + data)
        delivered, failed = connection.events()
        assert delivered == MessagesReceived([[b"before"]])
        assert isinstance(failed, ConnectionFailed)
        assert "longer than 4096" in failed.reason


def test_the_peers_version_decides_the_form_of_our_subscriptions() -> None:
    """Commands since 3.1, messages before."""
    connection = opened("SUB", "PUB")
    connection.send_subscription(b"A")
    connection.send_subscription(b"A", subscribe=False)
    assert connection.data_to_send() == b"\x04\x0b\x09SUBSCRIBEA\x04\x08\x06CANCELA"
    connection = opened("SUB", "PUB", greeting=GREETING_3_0)
    connection.send_subscription(b"A")
    connection.send_subscription(b"A", subscribe=False)
    assert connection.data_to_send() == b"\x00\x02\x01A\x00\x02\x00A"


def test_sealed_subscriptions_travel_inside_the_cipher() -> None:
    """SUBSCRIBE is a frame with the inner flag 02, never a command frame."""
    pair = toy_pair("XPUB", "XSUB")
    cipher = in_batches(ToyCipher())
    pair.client.send_subscription(b"A")
    assert pair.client.data_to_send() == seal_command(b"\x09SUBSCRIBEA", cipher)
    pair.server.receive_data(seal_command(b"\x09SUBSCRIBEA", in_batches(ToyCipher())))
    assert pair.server.events() == [SubscriptionReceived(b"A", True)]


def test_sending_at_the_wrong_time_is_the_callers_mistake() -> None:
    """Before READY, after the end, and subscriptions from what is no subscriber."""
    fresh, over = Connection(NullClient(), "SUB"), opened("SUB", "PUB")
    over.receive_eof()
    for connection in (fresh, over):
        with pytest.raises(LocalProtocolError, match="while the connection is ready"):
            connection.send_messages([[b"x"]])
        with pytest.raises(LocalProtocolError, match="while the connection is ready"):
            connection.send_ping()
        with pytest.raises(LocalProtocolError, match="while the connection is ready"):
            connection.send_subscription(b"")
    with pytest.raises(LocalProtocolError, match="ROUTER socket does not subscribe"):
        opened().send_subscription(b"")


@pytest.mark.parametrize("make", [null_pair, toy_pair])
def test_the_peer_may_leave_between_messages(make: type[Pair]) -> None:
    """That is a good end; amid a frame or a message it is a failure."""
    pair = make()
    pair.server.receive_eof()
    assert pair.server.events() == [ConnectionClosed()]
    assert pair.server.closed
    pair.server.receive_eof()
    pair.server.receive_data(b"x")
    assert pair.server.events() == []


@pytest.mark.parametrize("data", [b"\x00", b"\x00\x05abc", b"\x01\x01a", b"\x02\0\0\0"])
def test_the_peer_leaving_amid_a_message_is_a_failure(data: bytes) -> None:
    """Half a message is no message."""
    connection = opened()
    connection.receive_data(data)
    connection.receive_eof()
    assert failure(connection).reason == "the peer left in the middle of a message"


def test_limits_of_traffic_are_the_owners() -> None:
    """A connection with larger limits takes a mebibyte and more."""
    limits = Limits(frame=1 << 22, message=1 << 23, parts=3)
    pair = toy_pair(limits=limits)
    message = [b"x" * (1 << 21), b"y" * (1 << 21)]
    pair.client.send_messages([message])
    pair.pump(piece=60_000)
    assert messages_of(pair.server_events) == [message]


# However it is cut


STREAM = (
    GREETING
    + READY_DEALER
    + encode_messages([[b"a"], [b"b", b"c" * 300]])
    + encode_command(b"\x04PING\0\x0actx")
    + encode_messages([[b"d"]])
    + encode_command(b"\x04PONG")
)


@given(st.lists(st.integers(0, len(STREAM)), max_size=20), st.integers(0, len(STREAM)), st.binary(max_size=8))
def test_the_same_octets_mean_the_same_however_cut(places: list[int], at: int, junk: bytes) -> None:
    """Whole, in n pieces and by the octet, with junk anywhere: the same events and the same octets out."""
    stream = STREAM[:at] + junk + STREAM[at + len(junk) :]
    edges = sorted({*places, 0, len(stream)})
    cuts = [
        [stream],
        [stream[start:stop] for start, stop in pairwise(edges)],
        [stream[start : start + 1] for start in range(len(stream))],
    ]
    results = []
    for pieces in cuts:
        connection = Connection(NullClient(), "ROUTER")
        for piece in pieces:
            connection.receive_data(piece)
        results.append((merged(connection.events()), connection.data_to_send(), connection.state))
    assert results[0] == results[1] == results[2]


def test_peer_error_stays_inside() -> None:
    """`PeerError` is the engine's own word; its owner sees events alone."""
    connection = opened()
    connection.receive_data(b"\xff\xff")
    assert not isinstance(failure(connection), PeerError)
