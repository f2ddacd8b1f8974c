"""Real Kerberos tokens, spoilt: garbage, cuts, flips, replays, other keys, other mechanisms, before our engine."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from typing import Any

import pytest
from support.gssapi_scene import ALICE, Alice, alice, signed_in  # noqa: F401 - a fixture
from support.kdc import HOST_BASED, SERVICE, Kdc, KdcMaker, kdc, make_kdc  # noqa: F401 - fixtures
from support.zmtp_pairs import Pair, feed, messages_of

from zapd.zmtp.connection import Connection
from zapd.zmtp.credentials import GssapiCredentials
from zapd.zmtp.events import AuthenticationRequired, ConnectionFailed, HandshakeCompleted
from zapd.zmtp.framing import encode_command, encode_frame
from zapd.zmtp.greeting import encode_greeting
from zapd.zmtp.mechanisms.gssapi import GssapiClient, GssapiServer, SecurityContext
from zapd.zmtp.metadata import encode_properties
from zapd.zmtp.state import State

pytestmark = pytest.mark.interop

GREETING = encode_greeting("GSSAPI", as_server=False)
METADATA = encode_properties([("Socket-Type", b"DEALER")])
MUTUAL, REPLAY, SEQUENCE = 2, 4, 8


def with_token(name: bytes, token: bytes) -> bytes:
    return bytes((len(name),)) + name + len(token).to_bytes(4, "big") + token


def token_of(alice: Alice) -> bytes:  # noqa: F811
    """A fresh token of alice's."""
    return alice.client().initiate().step(b"")


def presented(server: GssapiServer, token: bytes) -> Connection:
    """A server's engine to which that token has been presented."""
    connection = Connection(server, "ROUTER")
    connection.receive_data(GREETING + encode_command(with_token(b"INITIATE", token)))
    return connection


def refusal(connection: Connection) -> str:
    """Why it was refused: before anybody was asked, and with nothing said but the greeting."""
    (event,) = connection.events()
    assert isinstance(event, ConnectionFailed)
    assert len(connection.data_to_send()) == 64
    return event.reason


def taken(connection: Connection) -> bool:
    """Whether the token was answered and the next command is awaited."""
    return connection.state is State.HANDSHAKE and connection.data_to_send()[66:75] == b"\x08INITIATE"


@pytest.mark.parametrize("plaintext", [False, True])
@pytest.mark.parametrize("piece", [0, 1])
def test_two_of_our_engines_with_real_tickets(alice: Alice, plaintext: bool, piece: int) -> None:  # noqa: F811
    """Whole and octet by octet."""
    pair = Pair(
        Connection(alice.client(plaintext=plaintext), "DEALER"),
        Connection(alice.server(plaintext=plaintext), "ROUTER"),
    ).handshake(piece=piece)
    assert pair.server_events == [
        AuthenticationRequired(GssapiCredentials(ALICE)),
        HandshakeCompleted("DEALER", b"", {}),
    ]
    pair.client.send_messages([[b"", b"x" * 1000], [b"two"]])
    pair.server.send_messages([[b"answer"]])
    pair.pump(piece=piece)
    assert messages_of(pair.server_events) == [[b"", b"x" * 1000], [b"two"]]
    assert messages_of(pair.client_events) == [[b"answer"]]


# Tokens


def test_garbage_is_refused(alice: Alice) -> None:  # noqa: F811
    """Random octets, and the beginning of a token with random octets behind."""
    rng = random.Random(1)
    server, token = alice.server(), token_of(alice)
    for size in (1, 2, 16, 100, 692, 4000):
        assert refusal(presented(server, rng.randbytes(size)))
        assert refusal(presented(server, token[:20] + rng.randbytes(size)))


def test_a_cut_token_is_refused(alice: Alice) -> None:  # noqa: F811
    """At whatever octet."""
    server, token = alice.server(), token_of(alice)
    for size in [*range(1, 40), *range(40, len(token), 37), len(token) - 1]:
        assert refusal(presented(server, token[:size]))
    assert taken(presented(server, token))


def test_a_changed_token_is_refused_or_means_the_same(alice: Alice) -> None:  # noqa: F811
    """One bit, anywhere: nobody is ever somebody else by it."""
    rng = random.Random(2)
    server, token = alice.server(), token_of(alice)
    refused = 0
    for _ in range(200):
        at, bit = rng.randrange(len(token)), 1 << rng.randrange(8)
        connection = presented(server, token[:at] + bytes((token[at] ^ bit,)) + token[at + 1 :])
        if connection.closed:
            refused += 1
            continue
        connection.receive_data(encode_command(b""))
        assert connection.events() == [AuthenticationRequired(GssapiCredentials(ALICE))]
    assert refused > 150


def test_a_replayed_token_is_refused(
    alice: Alice,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By every server of this host that keeps its replays in the same file, as the library does by itself."""
    monkeypatch.setenv("KRB5RCACHENAME", f"file2:{alice.kdc.folder}/replays")
    token = token_of(alice)
    assert taken(presented(alice.server(), token))
    for server in (alice.server(), alice.server(plaintext=True)):
        assert refusal(presented(server, token)) == "the token was refused: Request is a replay"


def test_a_stale_token_is_refused(
    alice: Alice,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Older than the clocks may differ."""
    narrow = "[libdefaults]\n clockskew = 1\n"
    monkeypatch.setenv("KRB5_CONFIG", str(alice.kdc.write_config("narrow.conf", alice.kdc.port, narrow)))
    token = token_of(alice)
    assert taken(presented(alice.server(), token))
    time.sleep(3.1)
    assert refusal(presented(alice.server(), token)) == "the token was refused: Clock skew too great"


def test_a_keytab_of_other_keys_refuses_and_a_new_one_is_taken_up(
    make_kdc: KdcMaker,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A service whose key was changed behind its back refuses the new tickets until its keytab has the new key,
    without a restart."""
    realm = make_kdc()
    realm.add("alice", "alice-Pw1")
    server = signed_in(realm, monkeypatch).server()
    realm.admin(f"ktadd -k {realm.folder / 'new.keytab'} {SERVICE}")
    alice = signed_in(realm, monkeypatch)  # noqa: F811
    assert "not found in keytab" in refusal(presented(server, token_of(alice)))
    os.replace(realm.folder / "new.keytab", realm.keytab)
    assert taken(presented(server, token_of(alice)))


def test_a_ticket_for_another_service_is_refused(alice: Alice) -> None:  # noqa: F811
    """A server that names its principal takes tickets for no other, though the keytab may have both keys."""
    from zapd.net.kerberos import KerberosAcceptor

    alice.kdc.add("other/localhost")
    keytab = alice.kdc.write_keytab(alice.kdc.folder / "both.keytab", SERVICE, "other/localhost")
    token = alice.client(service="other@localhost").initiate().step(b"")
    assert taken(presented(GssapiServer(KerberosAcceptor(keytab)), token))
    assert "does not match server principal" in refusal(
        presented(GssapiServer(KerberosAcceptor(keytab, HOST_BASED)), token)
    )


def raw_context(flags: int | None, mechanism: str = "1.2.840.113554.1.2.2") -> Any:
    """A context of the library's own, as a hostile client may make it; `support.kdc` has seen that it is there."""
    import gssapi

    return gssapi.SecurityContext(
        name=gssapi.Name(HOST_BASED, gssapi.NameType.hostbased_service),
        usage="initiate",
        mech=gssapi.OID.from_int_seq(mechanism),
        flags=flags,
    )


@pytest.mark.parametrize("flags", [0, MUTUAL, REPLAY, SEQUENCE])
def test_a_client_that_asks_for_less_is_refused(alice: Alice, flags: int) -> None:  # noqa: F811
    """No mutual proof, or tokens that could be replayed."""
    assert "lacks mutual proof" in refusal(presented(alice.server(), raw_context(flags).step()))


@pytest.mark.parametrize("mechanism", ["1.3.6.1.5.5.2", "1.3.6.1.5.2.5"])
def test_other_mechanisms_of_the_library_are_not_spoken(alice: Alice, mechanism: str) -> None:  # noqa: F811
    """SPNEGO would negotiate, IAKERB would have us call a KDC."""
    token_of(alice)  # the ticket is in the cache now: whatever the mechanism, its first token needs no KDC
    token = raw_context(None, mechanism).step()
    assert refusal(presented(alice.server(), token)).startswith("the token was refused")


# The server's token


def test_a_server_that_cannot_prove_itself_is_left(alice: Alice) -> None:  # noqa: F811
    """It may be anybody: its answer is cut, changed, another client's, or our own token come back."""
    token = token_of(alice)
    other = presented(alice.server(), token).data_to_send()[64 + 15 :]
    for spoil in (
        lambda answer: answer[:-1],
        lambda answer: answer[:-1] + bytes((answer[-1] ^ 1,)),
        lambda answer: other,
        lambda answer: token,
        lambda answer: b"\0",
    ):
        client = alice.client()
        begun = client.initiate()
        answer = spoil(presented(alice.server(), begun.step(b"")).data_to_send()[64 + 15 :])
        connection = Connection(client, "DEALER")
        connection.receive_data(GREETING + encode_command(with_token(b"INITIATE", answer)))
        (event,) = connection.events()
        assert isinstance(event, ConnectionFailed)
        assert event.reason.startswith("the token was refused")


# Wrapped traffic


def ready_server(alice: Alice) -> tuple[Connection, SecurityContext]:  # noqa: F811
    """A server's engine past the handshake, and the context of its client."""
    context = alice.client().initiate()
    server = presented(alice.server(), context.step(b""))
    assert context.step(server.data_to_send()[64 + 15 :]) == b""
    server.receive_data(encode_command(b""))
    server.accept()
    context.unwrap(server.data_to_send()[14:])
    server.receive_data(encode_command(with_token(b"MESSAGE", context.wrap(b"\0\x05READY" + METADATA))))
    assert server.ready
    server.events()
    return server, context


def wrapped(context: SecurityContext, content: bytes) -> bytes:
    return encode_frame(0, with_token(b"MESSAGE", context.wrap(content)))


def signed_only(context: Any) -> bytes:
    token: bytes = context._context.wrap(b"\0signed", False).message
    return encode_frame(0, with_token(b"MESSAGE", token))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda context: 2 * wrapped(context, b"\0twice"), "refused"),
        (lambda context: wrapped(context, b"\0cut")[:-1] + b"\0", "refused"),
        (lambda context: encode_frame(0, with_token(b"MESSAGE", context.wrap(b"\0cut")[:-1])), "refused"),
        (lambda context: encode_frame(0, with_token(b"MESSAGE", context.wrap(b"\0cut")[:15])), "refused"),
        (lambda context: encode_frame(0, with_token(b"MESSAGE", b"\0")), "refused"),
        (lambda context: encode_frame(0, with_token(b"MESSAGE", b"")), "malformed MESSAGE"),
        (lambda context: encode_frame(0, b"\x07MESSAGE\0\0\xff\xff" + context.wrap(b"\0x")), "malformed MESSAGE"),
        (lambda context: wrapped(context, b""), "not even flags"),
        (signed_only, "not encrypted"),
    ],
)
def test_spoilt_traffic_ends_the_connection(
    alice: Alice,  # noqa: F811
    spoil: Callable[[SecurityContext], bytes],
    reason: str,
) -> None:
    """Replayed, cut, changed, empty, signed only (libzmq would abort): what came whole before is delivered."""
    server, context = ready_server(alice)
    server.receive_data(wrapped(context, b"\0good") + spoil(context))
    happened = server.events()
    assert messages_of(happened)[0] == [b"good"]
    assert isinstance(happened[-1], ConnectionFailed)
    assert reason in happened[-1].reason


def test_traffic_of_another_connection_or_of_our_own_is_refused(alice: Alice) -> None:  # noqa: F811
    """Each context has keys of its own, and each direction."""
    server, _ = ready_server(alice)
    _, other = ready_server(alice)
    server.receive_data(wrapped(other, b"\0stranger"))
    assert server.state is State.FAILED
    server, _ = ready_server(alice)
    server.send_messages([[b"ours"]])
    server.receive_data(server.data_to_send())
    assert server.state is State.FAILED
    assert not messages_of(server.events())


def test_spoilt_conversations_never_raise_and_let_nobody_else_in(alice: Alice) -> None:  # noqa: F811
    """A recorded client with a few octets changed, lost or added: events only, and no name but alice's."""
    rng = random.Random(3)
    recordings: dict[bool, bytes] = {}
    for plaintext in (False, True):
        pair = Pair(
            Connection(alice.client(plaintext=plaintext), "DEALER"),
            Connection(alice.server(plaintext=plaintext), "ROUTER"),
        ).handshake()
        pair.client.send_messages([[b"", b"question"], [b"x" * 300]])
        pair.pump()
        recordings[plaintext] = pair.to_server
    for number in range(int(os.environ.get("ZAPD_FUZZ_INPUTS", "5000")) // 10):
        plaintext = number % 2 == 0
        octets = bytearray(recordings[plaintext])
        for _ in range(rng.randrange(1, 3)):
            at = rng.randrange(64, len(octets))
            match rng.randrange(3):
                case 0:
                    octets[at] ^= 1 << rng.randrange(8)
                case 1:
                    del octets[at : at + rng.randrange(1, 9)]
                case _:
                    octets[at:at] = rng.randbytes(rng.randrange(1, 9))
        server = Connection(alice.server(plaintext=plaintext), "ROUTER")
        feed(server, bytes(octets))
        happened = server.events()
        while server.state is State.VERDICT:
            server.accept()
            happened += server.events()
        server.receive_eof()
        happened += server.events()
        assert server.closed
        for event in happened:
            assert not isinstance(event, ConnectionFailed) or "the mechanism broke" not in event.reason
            if isinstance(event, AuthenticationRequired):
                assert event.credentials == GssapiCredentials(ALICE)


def test_a_client_is_worth_one_connection(alice: Alice) -> None:  # noqa: F811
    """A dealer asks for a client each time; one used twice finds out instead of speaking with two servers."""
    client = alice.client()
    assert isinstance(client, GssapiClient)
    first = Pair(Connection(client, "DEALER"), Connection(alice.server(), "ROUTER")).handshake()
    assert first.client.ready
    second = Pair(Connection(client, "DEALER"), Connection(alice.server(), "ROUTER")).handshake()
    assert not second.client.ready
