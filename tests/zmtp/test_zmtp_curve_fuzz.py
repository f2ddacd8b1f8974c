"""Random and structured rubbish behind the boxes: the fuzzer has the keys, so what it writes is read.

The one rule: `PeerError` or a session, never anything else, whatever the octets and in whatever order they come.
"""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings as sodium
from support.curve_dialogue import (
    CLIENT_METADATA,
    COMMANDS,
    KEYS,
    SERVER_METADATA,
    HonestClient,
    HonestServer,
    Side,
    make_client,
    make_server,
    message,
)

from zapd.zmtp import crypto
from zapd.zmtp.handshake import PeerError
from zapd.zmtp.mechanisms.curve import CurveCipher

KEY32 = st.binary(min_size=32, max_size=32)
NONCE = st.integers(0, 2**64 - 1)
BODIES = st.one_of(
    st.binary(max_size=400),
    st.sampled_from(sorted(COMMANDS.values())),
    st.tuples(st.sampled_from(sorted(COMMANDS.values())), st.integers(0, 400), st.binary(max_size=4)).map(
        lambda parts: parts[0][: parts[1]] + parts[2] + parts[0][parts[1] + len(parts[2]) :]
    ),
)


def feed(side: Side, bodies: list[bytes]) -> None:
    with suppress(PeerError):
        for body in bodies:
            if side.waiting:
                side.receive(body)


@settings(max_examples=300, deadline=None)
@given(st.lists(BODIES, max_size=4))
def test_any_commands_to_a_server(bodies: list[bytes]) -> None:
    """A server that reads anything at all in any order admits nobody but the vectors' client, and never breaks."""
    side = Side.start(make_server().handshake(SERVER_METADATA))
    feed(side, bodies)
    assert side.session is None


@settings(max_examples=300, deadline=None)
@given(st.lists(BODIES, max_size=4))
def test_any_commands_to_a_client(bodies: list[bytes]) -> None:
    """A client that reads anything at all believes none of it."""
    side = Side.start(make_client().handshake(CLIENT_METADATA))
    feed(side, bodies)
    assert side.session is None


@settings(max_examples=300, deadline=None)
@given(NONCE, st.one_of(st.just(bytes(64)), st.binary(min_size=64, max_size=64)), st.binary(max_size=64))
def test_hello_behind_its_box(nonce: int, content: bytes, more: bytes) -> None:
    """Any nonce, any content of the right or another length: WELCOME for 64 zeros alone."""
    hello = HonestClient(hello_nonce=nonce, hello_content=content + more).hello()
    side = Side.start(make_server().handshake(SERVER_METADATA))
    feed(side, [hello])
    assert bool(side.sent) == (content + more == bytes(64))


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.none(), st.binary(max_size=600)),
    st.one_of(st.none(), KEY32, st.just(KEYS["S"])),
    st.one_of(st.none(), st.binary(min_size=96, max_size=96)),
    NONCE,
    st.binary(max_size=600),
)
def test_initiate_behind_its_box(
    content: bytes | None, claimed: bytes | None, vouch: bytes | None, nonce: int, metadata: bytes
) -> None:
    """Any content in INITIATE's box: taken only with C's own vouch and a rising nonce, metadata as it came."""
    client = HonestClient(
        initiate_content=content, claimed_key=claimed, vouch=vouch, initiate_nonce=nonce, metadata=metadata
    )
    side = Side.start(make_server().handshake(SERVER_METADATA))
    (welcome,) = side.receive(client.hello())
    feed(side, [client.initiate(welcome)])
    honest = content is None and claimed in (None, client.public) and vouch is None and nonce > 1
    assert (side.session is not None) == honest
    if side.session is not None:
        assert side.session.metadata == metadata


@settings(max_examples=300, deadline=None)
@given(st.binary(min_size=80, max_size=80), KEY32, st.binary(max_size=20))
def test_inside_the_cookie(content: bytes, secret: bytes, more: bytes) -> None:
    """Should a cookie's key leak and its holder put anything inside a cookie, there are still no exceptions."""
    side = Side.start(make_server().handshake(SERVER_METADATA))
    client = HonestClient()
    (welcome,) = side.receive(client.hello())
    cookie_key = side.handshake.gi_frame.f_locals["cookie_key"]  # type: ignore[attr-defined]
    kept = (KEYS["C'"] + secret + more)[:64] if more else content[:64]
    cookie = bytes(16) + sodium.crypto_secretbox(kept, b"COOKIE--" + bytes(16), cookie_key)
    initiate = client.initiate(welcome)
    feed(side, [initiate[:9] + cookie + initiate[105:]])
    assert side.session is None


@settings(max_examples=300, deadline=None)
@given(st.one_of(st.none(), st.binary(min_size=128, max_size=128)), KEY32, NONCE, st.binary(max_size=300))
def test_welcome_and_ready_behind_their_boxes(
    content: bytes | None, short_key: bytes, nonce: int, metadata: bytes
) -> None:
    """Any S' and cookie, any metadata: a client of ours takes them as far as boxes open, and never breaks."""
    server = HonestServer(welcome_content=content, ready_nonce=nonce, metadata=metadata)
    for liar in (server, server.but(short_key=short_key)):
        side = Side.start(make_client().handshake(CLIENT_METADATA))
        hello = side.sent[0]
        feed(side, [liar.welcome(hello), liar.ready(hello)])
        honest = content is None and liar.short_key is None
        assert (side.session is not None) == honest
        if side.session is not None:
            assert side.session.metadata == metadata


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(NONCE, st.binary(max_size=40)), max_size=20))
def test_messages_behind_their_boxes(messages: list[tuple[int, bytes]]) -> None:
    """Any nonces and contents: taken exactly when the nonce rises and the flags are known ones."""
    box = crypto.Box(crypto.shared_key(KEYS["C'"], KEYS["s'"]))
    cipher = CurveCipher(
        box, sends=b"CurveZMQMESSAGES", sent=1, receives=b"CurveZMQMESSAGEC", received=(2).to_bytes(8, "big")
    )
    last = 2
    for nonce, content in messages:
        body = message(b"CurveZMQMESSAGEC", nonce, content, KEYS["S'"], KEYS["c'"])
        try:
            flags, payload = cipher.open(body)
        except PeerError:
            assert nonce <= last or not content or content[0] > 2
            if nonce > last and content:
                return  # the connection is over
        else:
            assert nonce > last
            assert bytes([flags]) + payload == content
            last = nonce


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=100))
def test_any_octets_as_a_message(body: bytes) -> None:
    """A session given anything at all opens none of it."""
    box = crypto.Box(crypto.shared_key(KEYS["C'"], KEYS["s'"]))
    cipher = CurveCipher(box, sends=b"a" * 16, sent=1, receives=b"CurveZMQMESSAGEC", received=bytes(8))
    for candidate in (body, b"\x07MESSAGE" + body):
        with suppress(PeerError):
            cipher.open(candidate)
            raise AssertionError("it was taken")
