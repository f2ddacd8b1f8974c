"""Hostile octets by the ten thousand: random, shaped like ZMTP, and recorded handshakes with mistakes.

``ZAPD_FUZZ_INPUTS`` sets how many inputs each test takes (5,000 by itself); the seed is fixed, so a failure
comes again.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest
from support.gssapi_fake import Realm
from support.zmtp_pairs import Pair, ToyClient, ToyServer, merged

from zapd.zmtp.connection import Connection
from zapd.zmtp.events import ConnectionClosed, ConnectionFailed, Event
from zapd.zmtp.framing import encode_command, encode_message
from zapd.zmtp.greeting import encode_greeting
from zapd.zmtp.handshake import Mechanism
from zapd.zmtp.mechanisms.gssapi import GssapiClient, GssapiServer
from zapd.zmtp.mechanisms.null import NullClient, NullServer
from zapd.zmtp.mechanisms.plain import PlainClient, PlainServer, encode_hello
from zapd.zmtp.metadata import encode_properties
from zapd.zmtp.state import State

INPUTS = int(os.environ.get("ZAPD_FUZZ_INPUTS", "5000"))

REALM = Realm(random=bytes)
"""Its keys and nonces are zeros, so that a recording is understood by every engine."""

MAKERS: list[tuple[Callable[[], Mechanism], str]] = [
    (NullServer, "XPUB"),
    (NullClient, "XSUB"),
    (PlainServer, "ROUTER"),
    (lambda: PlainClient(b"u", b"p"), "DEALER"),
    (ToyServer, "REP"),
    (ToyClient, "REQ"),
    (lambda: GssapiServer(REALM.accept), "ROUTER"),
    (lambda: GssapiClient(REALM.initiate), "DEALER"),
    (lambda: GssapiServer(REALM.accept, plaintext=True), "PULL"),
    (lambda: GssapiClient(REALM.initiate, plaintext=True), "PUSH"),
]
SOCKET_TYPES = [b"DEALER", b"ROUTER", b"REQ", b"REP", b"SUB", b"XPUB", b"nonsense", b""]
NUMBERS = [0, 1, 2, 4, 5, 8, 0x0B, 0x20, 0x7F, 0x80, 0xFE, 0xFF]


def survive(
    make: Callable[[], Mechanism], socket_type: str, data: bytes, piece: int = 0
) -> tuple[list[Event], bytes]:
    """Feed an engine, letting everybody in; it may fail the connection but never raise or hoard."""
    connection = Connection(make(), socket_type)
    sent = connection.data_to_send()
    happened: list[Event] = []
    for start in range(0, len(data), piece or len(data) or 1):
        connection.receive_data(data[start : start + (piece or len(data))])
        if connection._decoder is None:
            assert connection._reader.held <= 4096
        happened += connection.events()
        while connection.state is State.VERDICT:
            # R3: before anybody is authenticated, no more goes out than came in, and a greeting.
            sent += connection.data_to_send()
            assert len(sent) <= start + (piece or len(data)) + 64
            connection.accept()
            happened += connection.events()
    connection.receive_eof()
    happened += connection.events()
    sent += connection.data_to_send()
    for event in happened:
        assert not isinstance(event, ConnectionFailed) or "the mechanism broke" not in event.reason
        repr(event)
    assert connection.closed
    return merged(happened), sent


def shaped(rng: random.Random, name: str) -> bytes:
    """Octets that get past the first checks: a greeting, commands, messages, with mistakes among them."""
    metadata = encode_properties(
        [("Socket-Type", rng.choice(SOCKET_TYPES)), ("Identity", rng.randbytes(rng.randrange(4)))]
    )
    bodies = [
        b"\x05READY" + metadata,
        b"\x08INITIATE" + metadata,
        b"\x05KNOCK" + metadata,
        b"\x05ENTER" + metadata,
        b"\x07WELCOME",
        encode_hello(rng.randbytes(3), rng.randbytes(3)),
        b"\x05ERROR\x03400",
        b"\x5eRROR\x03400",
        b"\x04PING\x00\x01" + rng.randbytes(rng.randrange(20)),
        b"\x04PONG",
        b"\x09SUBSCRIBEa",
        b"\x06CANCELa",
        rng.randbytes(rng.randrange(12)),
    ]
    usual = {
        "NULL": [bodies[0]],
        "PLAIN": [bodies[5], bodies[1]] if rng.random() < 0.5 else [bodies[4], bodies[0]],
        "TOY": [bodies[2]] if rng.random() < 0.5 else [bodies[3]],
        "GSSAPI": gssapi_bodies(rng, bodies[0]),
    }[name]
    frames = [encode_command(body) for body in usual]
    for _ in range(rng.randrange(6)):
        kind = rng.random()
        if kind < 0.4:
            frames.append(encode_command(rng.choice(bodies)))
        elif kind < 0.8:
            frames.append(
                encode_message(
                    [rng.randbytes(rng.choice([0, 1, 5, 255, 256])) for _ in range(rng.randrange(1, 4))]
                )
            )
        elif kind < 0.9:
            size = rng.choice([0, 1, 255, 256, 1 << 20, (1 << 20) + 1, 2**31, 2**63 - 1, 2**63, 2**64 - 1])
            frames.append(bytes((rng.randrange(8),)) + size.to_bytes(8, "big"))
        else:
            frames.append(rng.randbytes(rng.randrange(8)))
    if rng.random() < 0.2:
        rng.shuffle(frames)
    return encode_greeting(name, as_server=False) + b"".join(frames)


def gssapi_bodies(rng: random.Random, ready: bytes) -> list[bytes]:
    """What one side hears from the other in a good handshake, wrapped or in clear."""

    def framed(name: bytes, token: bytes) -> bytes:
        return name + len(token).to_bytes(4, "big") + token

    client, server = REALM.initiate(), REALM.accept()
    question = client.step(b"")
    answer = server.step(question)
    client.step(answer)
    speaker, token = rng.choice([(client, question), (server, answer)])
    if rng.random() < 0.5:
        ready = framed(b"\x07MESSAGE", speaker.wrap(b"\0" + ready))
    between = [b""] if speaker is client else []
    return [framed(b"\x08INITIATE", token), *between, ready]


def mutated(rng: random.Random, data: bytes) -> bytes:
    """A recording with a few mistakes in it."""
    octets = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(octets)) if octets else 0
        match rng.randrange(5):
            case 0:
                octets[at : at + 1] = bytes((rng.choice(NUMBERS),))
            case 1:
                octets[at : at + 1] = bytes((rng.randrange(256),))
            case 2:
                del octets[at : at + rng.randrange(1, 9)]
            case 3:
                octets[at:at] = octets[at : at + rng.randrange(1, 40)]
            case _:
                octets[at:at] = rng.randbytes(rng.randrange(1, 9))
    return bytes(octets)


def recordings() -> list[tuple[int, bytes]]:
    """What each side of each mechanism hears in a good conversation, and who hears it."""
    result = []
    for index in range(0, len(MAKERS), 2):
        (server, ours), (client, theirs) = MAKERS[index], MAKERS[index + 1]
        pair = Pair(Connection(client(), theirs), Connection(server(), ours)).handshake()
        pair.client.send_messages([[b"", b"question"], [b"x" * 300]])
        pair.client.send_ping(1, b"context")
        pair.server.send_messages([[b"", b"answer"]])
        pair.pump()
        result += [(index, pair.to_server), (index + 1, pair.to_client)]
    return result


def test_random_octets_never_raise() -> None:
    """With and without a good greeting in front."""
    rng = random.Random(1)
    for number in range(INPUTS):
        make, socket_type = MAKERS[number % len(MAKERS)]
        data = rng.randbytes(rng.randrange(120))
        if number % 2:
            data = encode_greeting(make().name, as_server=False) + data
        survive(make, socket_type, data)


def test_shaped_octets_never_raise_and_mean_the_same_however_cut() -> None:
    """The same events and answers whole and in pieces, for input that reaches every state."""
    rng = random.Random(2)
    ended: set[str] = set()
    for number in range(INPUTS):
        make, socket_type = MAKERS[number % len(MAKERS)]
        data = shaped(rng, make().name)
        if rng.random() < 0.3:
            data = mutated(rng, data)
        whole = survive(make, socket_type, data)
        ended.add(getattr(whole[0][-1], "reason", "closed")[:12])
        if number % 4 == 0:
            piece = rng.choice([1, 2, 3, 7, 50])
            cut = survive(make, socket_type, data, piece)
            # What is sent ahead of the verdict is bounded by octets, so there alone the cut may tell.
            assert cut == whole or "ahead of the verdict" in whole[0][-1].reason
    assert len(ended) > 8, "the fuzzer has grown blunt"


@pytest.mark.parametrize("seed", [3, 4])
def test_mutated_recordings_never_raise(seed: int) -> None:
    """Good conversations of every mechanism with a few octets changed, lost, doubled or added."""
    rng = random.Random(seed)
    known = recordings()
    for number in range(INPUTS):
        index, data = known[number % len(known)]
        make, socket_type = MAKERS[index]
        survive(make, socket_type, mutated(rng, data))


def test_recordings_themselves_are_good() -> None:
    """Unchanged, each conversation ends in good order, so mutation starts from the far side of the handshake."""
    for index, data in recordings():
        make, socket_type = MAKERS[index]
        happened, _ = survive(make, socket_type, data)
        assert happened[-1] == ConnectionClosed()
