"""GSSAPI by itself, over a fake of Kerberos: its octets, wrapped and in clear, and what a peer may do wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.gssapi_fake import ALICE, FakeContext, Realm
from support.zmtp_pairs import Pair, messages_of

from zapd.zmtp.connection import Connection
from zapd.zmtp.credentials import GssapiCredentials
from zapd.zmtp.events import (
    AuthenticationRequired,
    ConnectionFailed,
    HandshakeCompleted,
    MessagesReceived,
    PingReceived,
    PongReceived,
    SubscriptionReceived,
)
from zapd.zmtp.framing import encode_command, encode_frame
from zapd.zmtp.greeting import encode_greeting
from zapd.zmtp.handshake import PeerError
from zapd.zmtp.limits import DEFAULT_LIMITS, Limits
from zapd.zmtp.mechanisms import lookup, run
from zapd.zmtp.mechanisms.gssapi import (
    GSSAPI_LIMITS,
    MAX_TOKENS,
    GssapiCipher,
    GssapiClient,
    GssapiServer,
)
from zapd.zmtp.metadata import encode_properties
from zapd.zmtp.state import State

GREETING = encode_greeting("GSSAPI", as_server=False)
METADATA = encode_properties([("Socket-Type", b"DEALER"), ("Identity", b"")])


def pair_of(
    realm: Realm | None = None,
    *,
    plaintext: bool = False,
    types: tuple[str, str] = ("DEALER", "ROUTER"),
    limits: Limits = DEFAULT_LIMITS,
) -> Pair:
    """A client's and a server's engine in one realm."""
    realm = realm or Realm()
    return Pair(
        Connection(GssapiClient(realm.initiate, plaintext), types[0], limits=limits),
        Connection(GssapiServer(realm.accept, plaintext), types[1], limits=limits),
    )


def with_token(name: bytes, token: bytes) -> bytes:
    return bytes((len(name),)) + name + len(token).to_bytes(4, "big") + token


def server_past_tokens(realm: Realm, *, plaintext: bool = False) -> tuple[Connection, FakeContext]:
    """A server's engine that waits for the empty command, and the client's context."""
    server = Connection(GssapiServer(realm.accept, plaintext), "ROUTER")
    context = realm.initiate()
    server.receive_data(GREETING + encode_command(with_token(b"INITIATE", context.step(b""))))
    answer = server.data_to_send()[64:]
    assert answer[2:11] == b"\x08INITIATE"
    assert context.step(answer[15:]) == b""
    return server, context


def failure(connection: Connection) -> str:
    """Why it failed."""
    assert connection.state is State.FAILED
    last = connection.events()[-1]
    assert isinstance(last, ConnectionFailed)
    return last.reason


def test_gssapi_is_registered() -> None:
    """Both sides are found by the greeting's name."""
    assert lookup("GSSAPI").server is GssapiServer
    assert lookup("GSSAPI").client is GssapiClient


@pytest.mark.parametrize("name", ["NULL", "PLAIN", "CURVE", "gssapi", "GSSAPI\0NULL", "GSSAPI2", ""])
@pytest.mark.parametrize("plaintext", [False, True])
def test_no_other_mechanism_gets_in(name: str, plaintext: bool) -> None:
    """The mechanism is ours to choose (CVE-2014-7202), and what a peer of another says next is not looked at."""
    server = Connection(GssapiServer(Realm().accept, plaintext), "ROUTER")
    greeting = GREETING[:12] + name.encode().ljust(20, b"\0") + GREETING[32:]
    server.receive_data(greeting + encode_command(b"\x05READY" + METADATA) + b"\0\5hello")
    assert "mechanism mismatch" in failure(server)


@pytest.mark.parametrize("plaintext", [False, True])
@pytest.mark.parametrize("piece", [0, 1, 7, 64])
def test_two_engines_however_the_octets_are_cut(plaintext: bool, piece: int) -> None:
    """The owner is asked about the principal, then messages and heartbeats pass both ways."""
    pair = pair_of(plaintext=plaintext).handshake(piece=piece)
    assert pair.server_events == [
        AuthenticationRequired(GssapiCredentials(ALICE)),
        HandshakeCompleted("DEALER", b"", {}),
    ]
    assert pair.client_events == [HandshakeCompleted("ROUTER", b"", {})]
    pair.client.send_messages([[b"", b"question", b"x" * 300], [b""]])
    pair.server.send_messages([[b"answer"]])
    pair.client.send_ping(1.5, b"abc")
    pair.pump(piece=piece)
    assert messages_of(pair.server_events) == [[b"", b"question", b"x" * 300], [b""]]
    assert messages_of(pair.client_events) == [[b"answer"]]
    assert PingReceived(1.5) in pair.server_events
    assert PongReceived(b"abc") in pair.client_events
    assert (b"question" in pair.to_server) is plaintext


def test_the_dialogue_is_libzmqs() -> None:
    """INITIATE with its token both ways, an empty command, then the server's READY before the client's."""
    said: list[tuple[str, bytes]] = []
    pair = pair_of(plaintext=True)
    for _ in range(9):
        for name, speaker, hearer in (("C", pair.client, pair.server), ("S", pair.server, pair.client)):
            data = speaker.data_to_send()
            if data:
                said.append((name, data))
                hearer.receive_data(data)
        if pair.server.state is State.VERDICT:
            pair.server.accept()
    frames = [(name, data[2:11] if len(data) > 2 else data) for name, data in said]
    assert frames == [
        ("C", GREETING[2:11]),
        ("S", GREETING[2:11]),
        ("C", b"\x08INITIATE"),
        ("S", b"\x08INITIATE"),
        ("C", b"\x04\x00"),
        ("S", b"\x05READY\x0bSo"),
        ("C", b"\x05READY\x0bSo"),
    ]
    initiate = said[2][1]
    assert int.from_bytes(initiate[11:15], "big") == len(initiate) - 15


def test_ready_travels_wrapped() -> None:
    """In a command frame as MESSAGE, its inner flags zero; traffic goes in message frames without flags."""
    realm = Realm()
    server, context = server_past_tokens(realm)
    server.receive_data(encode_command(b""))
    server.accept()
    ready = server.data_to_send()
    assert ready[0] == 4
    assert ready[2:10] == b"\x07MESSAGE"
    assert context.unwrap(ready[14:])[:7] == b"\0\x05READY"
    server.receive_data(encode_command(with_token(b"MESSAGE", context.wrap(b"\0\x05READY" + METADATA))))
    assert server.ready
    server.send_messages([[b"a", b"b"]])
    sent = server.data_to_send()
    first = sent[2 : 2 + sent[1]]
    second = sent[4 + sent[1] :]
    assert sent[0] == sent[2 + sent[1]] == 0
    assert [context.unwrap(body[12:]) for body in (first, second)] == [b"\1a", b"\0b"]


def test_a_context_may_need_more_tokens() -> None:
    """As long as there are not more than the bound."""
    pair = pair_of(Realm(tokens=MAX_TOKENS)).handshake()
    assert pair.client.ready
    assert pair.server.ready
    pair = pair_of(Realm(tokens=MAX_TOKENS + 1)).handshake()
    reasons = [event.reason for event in pair.server_events if isinstance(event, ConnectionFailed)]
    assert reasons == [f"no context after {MAX_TOKENS} tokens"]


def test_a_client_does_not_answer_for_ever() -> None:
    """A server that always wants one token more is left."""
    realm = Realm(tokens=MAX_TOKENS + 1)
    dialogue = GssapiClient(realm.initiate).handshake(b"")
    server = realm.accept()

    def receive() -> bytes:
        return with_token(b"INITIATE", server.step(said[-1][13:]))

    said: list[bytes] = []
    with pytest.raises(PeerError, match="no context after"):
        run(dialogue, send=said.append, receive=receive)
    assert len(said) == MAX_TOKENS


@pytest.mark.parametrize("status", [300, 400, 500])
@pytest.mark.parametrize("plaintext", [False, True])
def test_a_refused_peer_is_out(status: int, plaintext: bool) -> None:
    """Whatever it says afterwards; 300 tells it nothing."""
    pair = pair_of(plaintext=plaintext).handshake(verdict=status)
    assert pair.server.state is State.FAILED
    assert not pair.client.ready
    pair.server.receive_data(encode_command(b"\x05READY" + METADATA) + b"\0\5hello")
    assert not pair.server.events()
    if status == 300:
        assert not pair.client_events
    else:
        assert pair.client_events == [ConnectionFailed(f"the peer refused: {status}", status)]


def test_nothing_is_said_before_the_verdict() -> None:
    """READY and traffic sent ahead wait; refused, they are never looked at."""
    realm = Realm()
    server, context = server_past_tokens(realm, plaintext=True)
    server.receive_data(encode_command(b"") + encode_command(b"\x05READY" + METADATA) + b"\0\5hello")
    assert server.state is State.VERDICT
    assert server.data_to_send() == b""
    server.accept()
    happened = server.events()
    assert [type(event) for event in happened] == [AuthenticationRequired, HandshakeCompleted, MessagesReceived]
    assert context.complete


@pytest.mark.parametrize("plaintext", [False, True])
def test_both_sides_must_agree_on_encryption(plaintext: bool) -> None:
    """It is not negotiated: who expects the other way finds out at READY."""
    realm = Realm()
    pair = Pair(
        Connection(GssapiClient(realm.initiate, plaintext), "DEALER"),
        Connection(GssapiServer(realm.accept, not plaintext), "ROUTER"),
    ).handshake()
    (failed,) = pair.client_events
    assert isinstance(failed, ConnectionFailed)
    assert failed.reason == ("expected READY, got MESSAGE" if plaintext else "expected MESSAGE")
    assert not pair.server.ready


def test_an_illegal_pair_is_refused_by_both() -> None:
    """The server's READY has gone by then, so its ERROR comes too late to matter."""
    pair = pair_of(types=("PUSH", "ROUTER")).handshake()
    assert pair.client_events[-1] == ConnectionFailed("a ROUTER socket cannot talk to a PUSH")
    assert not pair.server.ready


MALFORMED: list[tuple[bytes, str]] = [
    (b"\x05HELLO", "expected INITIATE"),
    (b"", "expected INITIATE"),
    (b"\x08INITIATE", "malformed INITIATE"),
    (b"\x08INITIATE\0\0\0\0", "malformed INITIATE"),
    (b"\x08INITIATE\0\0\0\5toke", "malformed INITIATE"),
    (b"\x08INITIATE\0\0\0\5tokens", "malformed INITIATE"),
    (b"\x08INITIATE\xff\xff\xff\xfftoken", "malformed INITIATE"),
    (b"\x08INITIATE\0\0\0\5token", "the token does not open"),
    (b"\x08initiate\0\0\0\5token", "expected INITIATE"),
]


@pytest.mark.parametrize(("body", "reason"), MALFORMED)
def test_a_malformed_token_is_refused_by_the_server(body: bytes, reason: str) -> None:
    """Wrong name, wrong size, nothing in it, anything behind, garbage inside."""
    server = Connection(GssapiServer(Realm().accept), "ROUTER")
    server.receive_data(GREETING + encode_command(body))
    assert failure(server) == reason
    assert server.data_to_send()[64:] == b""


@pytest.mark.parametrize(("body", "reason"), MALFORMED)
def test_a_malformed_token_is_refused_by_the_client(body: bytes, reason: str) -> None:
    """The same of a server's."""
    client = Connection(GssapiClient(Realm().initiate), "DEALER")
    client.receive_data(GREETING + encode_command(body))
    assert failure(client) == reason


class Unanswering(FakeContext):
    """Never has anything to say in answer."""

    def step(self, token: bytes) -> bytes:
        answer = super().step(token)
        return b"" if token else answer


def test_a_client_that_wants_no_proof_of_us_is_refused() -> None:
    """Without mutual authentication there is nothing to answer, and no such client is libzmq's."""
    realm = Realm()
    server = Connection(GssapiServer(lambda: Unanswering(realm, initiator=False)), "ROUTER")
    server.receive_data(GREETING + encode_command(with_token(b"INITIATE", realm.initiate().step(b""))))
    assert "asks for no answer" in failure(server)


def test_a_server_whose_token_proves_nothing_is_left() -> None:
    """The client's context is not complete, and has nothing to add."""
    realm = Realm(tokens=2)
    pair = Pair(
        Connection(GssapiClient(lambda: Unanswering(realm, initiator=True)), "DEALER"),
        Connection(GssapiServer(realm.accept), "ROUTER"),
    ).handshake()
    (failed,) = pair.client_events
    assert isinstance(failed, ConnectionFailed)
    assert "does not complete the context" in failed.reason


def test_what_comes_in_the_place_of_the_empty_command_is_refused() -> None:
    """libzmq's server would take anything; ours asks nobody about such a peer."""
    for body in (b"\0", b"\x05READY" + METADATA, with_token(b"INITIATE", b"token")):
        server, _ = server_past_tokens(Realm())
        server.receive_data(encode_command(body))
        assert failure(server) == "expected an empty command"


def wrapped(content: bytes) -> Callable[[FakeContext], bytes]:
    return lambda context: with_token(b"MESSAGE", context.wrap(content))


@pytest.mark.parametrize(
    ("ready", "reason"),
    [
        (lambda context: b"\x05READY" + METADATA, "expected MESSAGE"),
        (lambda context: b"\x07MESSAGE\0\0\0", "malformed MESSAGE"),
        (lambda context: wrapped(b"\0\x05READY")(context)[:-1], "malformed MESSAGE"),
        (lambda context: wrapped(b"\0\x05READY")(context) + b"!", "malformed MESSAGE"),
        (lambda context: with_token(b"MESSAGE", context.wrap(b"\0\x05READY")[:-1]), "the token does not open"),
        (wrapped(b""), "MESSAGE holds not even flags"),
        (wrapped(b"\0"), "malformed command"),
        (wrapped(b"\0\x04PING"), "expected READY, got PING"),
        (wrapped(b"\1\x05READY"), "READY has unknown flags"),
        (wrapped(b"\3\x05READY"), "MESSAGE has unknown flags"),
        (wrapped(b"\0\x05READY\x0bSocket-Type"), "metadata is cut short"),
    ],
)
def test_a_ready_that_is_none_is_refused(ready: Callable[[FakeContext], bytes], reason: str) -> None:
    """In clear, cut, grown, empty, of another kind: the peer was admitted, and still does not get in."""
    server, context = server_past_tokens(Realm())
    server.receive_data(encode_command(b""))
    server.accept()
    server.data_to_send()
    server.receive_data(encode_command(ready(context)))
    assert failure(server) == reason


def test_a_ready_that_says_it_is_a_command_is_taken() -> None:
    """Inner flags 2, which the frame around it says as well; libzmq looks at neither."""
    server, context = server_past_tokens(Realm())
    server.receive_data(encode_command(b""))
    server.accept()
    server.receive_data(encode_command(wrapped(b"\2\x05READY" + METADATA)(context)))
    assert server.ready


def ready_server(socket_type: str = "ROUTER") -> tuple[Connection, FakeContext]:
    """A server's engine past the handshake, and the context of its client."""
    realm = Realm()
    server = Connection(GssapiServer(realm.accept), socket_type)
    context = realm.initiate()
    server.receive_data(GREETING + encode_command(with_token(b"INITIATE", context.step(b""))))
    context.step(server.data_to_send()[64 + 15 :])
    server.receive_data(encode_command(b""))
    server.accept()
    context.unwrap(server.data_to_send()[14:])
    theirs = encode_properties([("Socket-Type", b"SUB" if socket_type == "XPUB" else b"DEALER")])
    server.receive_data(encode_command(wrapped(b"\0\x05READY" + theirs)(context)))
    assert server.ready
    server.events()
    return server, context


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (lambda context: b"\0\5clear", "expected MESSAGE"),
        (lambda context: encode_command(b"\x04PING\0\0"), "traffic outside the cipher"),
        (lambda context: encode_frame(1, wrapped(b"\1part")(context)), "traffic outside the cipher"),
        (lambda context: encode_frame(0, wrapped(b"\4topic")(context)), "SUBSCRIBE sent to a ROUTER socket"),
        (lambda context: encode_frame(0, wrapped(b"\x0ctopic")(context)), "MESSAGE has unknown flags"),
        (lambda context: encode_frame(0, wrapped(b"\3both")(context)), "MESSAGE has unknown flags"),
        (lambda context: encode_frame(0, wrapped(b"")(context)), "MESSAGE holds not even flags"),
        (lambda context: 2 * encode_frame(0, wrapped(b"\0twice")(context)), "the token came before"),
        (lambda context: encode_frame(0, wrapped(b"\0changed")(context)[:-1] + b"!"), "the token does not open"),
        (lambda context: encode_frame(2, b"")[:1] + b"\xff" * 8, "a frame longer than"),
    ],
)
def test_traffic_that_is_not_the_peers_ends_it(frame: Callable[[FakeContext], bytes], reason: str) -> None:
    """In clear, replayed, changed, of unknown flags, out of bounds; what came whole before is still delivered."""
    server, context = ready_server()
    good = encode_frame(0, wrapped(b"\0good")(context))
    server.receive_data(good + frame(context))
    happened = server.events()
    assert messages_of(happened)[0] == [b"good"]
    assert isinstance(happened[-1], ConnectionFailed)
    assert reason in happened[-1].reason


def test_a_topic_is_subscribed_to_in_both_ways() -> None:
    """As a command inside MESSAGE, which every libzmq takes, and by the flags that later ones send."""
    server, context = ready_server("XPUB")
    contents = [b"\2\x09SUBSCRIBEa", b"\4b", b"\x08a", b"\0\1c", b"\4"]
    server.receive_data(b"".join(encode_frame(0, wrapped(content)(context)) for content in contents))
    assert server.events() == [
        SubscriptionReceived(b"a", True),
        SubscriptionReceived(b"b", True),
        SubscriptionReceived(b"a", False),
        SubscriptionReceived(b"c", True),
        SubscriptionReceived(b"", True),
    ]
    pair = pair_of(types=("SUB", "XPUB")).handshake()
    pair.client.send_subscription(b"topic")
    pair.pump()
    assert pair.server_events[-1] == SubscriptionReceived(b"topic", True)


def test_a_large_token_needs_the_room_it_is_given() -> None:
    """4 KiB by default; within the mechanism's own bounds a ticket with many groups passes, and no larger one."""
    groups = b"g" * 48000
    pair = pair_of(Realm(name=ALICE + groups)).handshake()
    assert pair.server_events == [ConnectionFailed("a handshake command longer than 4096 octets")]
    pair = pair_of(Realm(name=ALICE + groups), limits=GSSAPI_LIMITS).handshake(piece=5000)
    assert pair.server.ready
    server = Connection(GssapiServer(Realm().accept), "ROUTER", limits=GSSAPI_LIMITS)
    server.receive_data(GREETING + b"\x06" + (65537).to_bytes(8, "big"))
    assert failure(server) == "a handshake command longer than 65536 octets"


class Broken:
    """A context whose library is ill."""

    complete = False
    peer_name = b""

    def step(self, token: bytes) -> bytes:
        raise RuntimeError("hunter2")

    wrap = unwrap = step


def test_a_context_that_breaks_ends_the_connection_and_is_not_quoted() -> None:
    """An exception that is no `PeerError` may hold a secret: only its kind is told."""
    server = Connection(GssapiServer(Broken), "ROUTER")
    server.receive_data(GREETING + encode_command(with_token(b"INITIATE", b"token")))
    assert failure(server) == "the mechanism broke: RuntimeError"


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.binary(max_size=600), min_size=1, max_size=5), min_size=1, max_size=5),
    st.integers(min_value=0, max_value=90),
    st.booleans(),
)
def test_any_messages_arrive_as_they_were(messages: list[list[bytes]], piece: int, plaintext: bool) -> None:
    """Whatever the parts, however the octets are cut, wrapped and in clear."""
    pair = pair_of(plaintext=plaintext).handshake()
    pair.client.send_messages(messages)
    pair.server.send_messages(messages)
    pair.pump(piece=piece)
    assert messages_of(pair.server_events) == messages
    assert messages_of(pair.client_events) == messages


@given(st.integers(min_value=0, max_value=2), st.binary(max_size=300))
def test_a_cipher_opens_what_its_other_side_sealed(flags: int, payload: bytes) -> None:
    """Flags and payload, once."""
    realm = Realm()
    client, server = realm.initiate(), realm.accept()
    client.step(server.step(client.step(b"")))
    body = GssapiCipher(client).seal(flags, payload)
    assert GssapiCipher(server).open(body) == (flags, payload)
    with pytest.raises(PeerError):
        GssapiCipher(server).open(body)
