"""CURVE between honest sides: to the byte against the vectors, and the promises about cost and memory."""

from __future__ import annotations

import copy
import gc
import os
import pickle
import subprocess
import sys
import threading
from multiprocessing import Pipe
from types import GeneratorType

import pytest
from support.curve_dialogue import (
    CLIENT_METADATA,
    COMMANDS,
    KEYS,
    SERVER_METADATA,
    ManualClock,
    Scripted,
    Side,
    hold,
    make_client,
    make_server,
)

from zapd.errors import InvalidInput, LocalProtocolError
from zapd.zmtp import crypto
from zapd.zmtp.credentials import CurveCredentials
from zapd.zmtp.handshake import Cipher, PeerError, Session
from zapd.zmtp.mechanisms import curve
from zapd.zmtp.mechanisms.curve import CurveCipher, CurveClient, CurveServer

MESSAGES = [
    ("C->S", 0, b"hello", "MESSAGE C->S nonce 3 flags 0 'hello'"),
    ("C->S", 1, b"", "MESSAGE C->S nonce 4 flags 1 ''"),
    ("S->C", 0, b"world", "MESSAGE S->C nonce 2 flags 0 'world'"),
    ("C->S", 2, b"\x04PING\x00\x1eabc", "MESSAGE C->S nonce 5 flags 2 PING"),
    ("C->S", 2, b"\x09SUBSCRIBEA", "MESSAGE C->S nonce 6 flags 2 SUBSCRIBE A"),
]


def scripted_pair() -> tuple[CurveClient, CurveServer]:
    client = CurveClient(KEYS["S"], KEYS["c"], random=Scripted(KEYS["c'"], KEYS["vouch nonce"]))
    server = CurveServer(
        KEYS["s"],
        clock=ManualClock(),
        random=Scripted(KEYS["s'"], KEYS["cookie key"], KEYS["cookie nonce"], KEYS["welcome nonce"]),
    )
    return client, server


def ciphers(left: Side, right: Side) -> tuple[Cipher, Cipher]:
    assert left.session is not None and right.session is not None
    assert left.session.cipher is not None and right.session.cipher is not None
    return left.session.cipher, right.session.cipher


def test_vectors_of_the_handshake_to_the_byte() -> None:
    """Given their keys and nonces, both sides produce and accept the vectors' four commands exactly."""
    seen: dict[str, bytes] = {}

    def tap(name: str, body: bytes) -> bytes:
        seen[name] = body
        return COMMANDS[name]

    client, server = scripted_pair()
    left, right = hold(client.handshake(CLIENT_METADATA), server.handshake(SERVER_METADATA), tap)
    assert seen == {name: COMMANDS[name] for name in ("HELLO", "WELCOME", "INITIATE", "READY")}
    assert seen["WELCOME"].endswith(seen["WELCOME"][-16:]) and COMMANDS["cookie"] in seen["INITIATE"]
    assert right.asked == [CurveCredentials(KEYS["C"])] and not left.asked
    assert left.session is not None and left.session.metadata == SERVER_METADATA
    assert right.session is not None and right.session.metadata == CLIENT_METADATA


def test_vectors_of_messages_to_the_byte() -> None:
    """Both ciphers seal and open the vectors' MESSAGEs exactly, in the vectors' order."""
    client, server = scripted_pair()
    left, right = ciphers(*hold(client.handshake(CLIENT_METADATA), server.handshake(SERVER_METADATA)))
    for direction, flags, payload, name in MESSAGES:
        sender, receiver = (left, right) if direction == "C->S" else (right, left)
        body = sender.seal(flags, payload)
        assert body == COMMANDS[name], name
        assert receiver.open(body) == (flags, payload), name


def test_the_session_key_is_the_vectors() -> None:
    """beforenm(C', s') and beforenm(S', c') are one key, the one the vectors state."""
    assert crypto.shared_key(KEYS["C'"], KEYS["s'"]) == COMMANDS["session key k"]
    assert crypto.shared_key(KEYS["S'"], KEYS["c'"]) == COMMANDS["session key k"]


def test_two_of_ours_with_real_randomness() -> None:
    """A pair of our own agrees on everything, and two connections of one server share nothing secret."""
    server = make_server()
    seen: list[bytes] = []

    def tap(name: str, body: bytes) -> bytes:
        seen.append(body)
        return body

    for _ in range(2):
        left, right = hold(make_client().handshake(b"one"), server.handshake(b"two"), tap)
        assert left.session is not None and left.session.metadata == b"two"
        assert right.session is not None and right.session.metadata == b"one"
        here, there = ciphers(left, right)
        for payload in (b"", b"x", os.urandom(300), os.urandom(511), os.urandom(512), os.urandom(70_000)):
            assert there.open(here.seal(0, payload)) == (0, payload)
            assert here.open(there.seal(1, payload)) == (1, payload)
    assert len(set(seen)) == 8


def test_metadata_may_be_missing_or_large() -> None:
    """INITIATE and READY carry nothing at all, or some thousand octets, alike."""
    for metadata in (b"", bytes(300), bytes(3500)):
        left, right = hold(make_client().handshake(metadata), make_server().handshake(metadata))
        assert left.session is not None and left.session.metadata == metadata
        assert right.session is not None and right.session.metadata == metadata


def test_sizes_leave_nothing_to_amplify() -> None:
    """Each answer before INITIATE is shorter than what asked for it (R3)."""
    sizes: dict[str, int] = {}

    def tap(name: str, body: bytes) -> bytes:
        sizes[name] = len(body)
        return body

    hold(make_client().handshake(CLIENT_METADATA), make_server().handshake(SERVER_METADATA), tap)
    assert (sizes["HELLO"], sizes["WELCOME"]) == (200, 168)


def test_no_metadata_before_initiate_and_ready() -> None:
    """Nobody's properties are readable on the wire, in any command."""
    wire: list[bytes] = []

    def tap(name: str, body: bytes) -> bytes:
        wire.append(body)
        return body

    hold(make_client().handshake(b"client-says" * 9), make_server().handshake(b"server-says" * 9), tap)
    assert not any(b"-says" in body for body in wire)
    assert [len(body) for body in wire[:2]] == [200, 168]


def test_short_nonces_count_as_libzmq_counts() -> None:
    """HELLO 1, INITIATE 2, first MESSAGE 3 from the client; READY 1, first MESSAGE 2 from the server."""
    nonces: dict[str, int] = {}

    def tap(name: str, body: bytes) -> bytes:
        at = {"HELLO": 112, "INITIATE": 105, "READY": 6}.get(name)
        if at is not None:
            nonces[name] = int.from_bytes(body[at : at + 8], "big")
        return body

    left, right = ciphers(*hold(make_client().handshake(b""), make_server().handshake(b""), tap))
    assert nonces == {"HELLO": 1, "INITIATE": 2, "READY": 1}
    assert [int.from_bytes(left.seal(0, b"")[8:16], "big") for _ in range(2)] == [3, 4]
    assert [int.from_bytes(right.seal(0, b"")[8:16], "big") for _ in range(2)] == [2, 3]


def test_four_scalar_multiplications_for_either_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """A handshake costs each side one key pair and three shared keys, and MESSAGEs cost none."""
    counted: list[str] = []
    beforenm, base = crypto.bindings.crypto_box_beforenm, crypto.bindings.crypto_scalarmult_base

    def count_shared(public: bytes, secret: bytes) -> bytes:
        counted.append("shared")
        return beforenm(public, secret)

    def count_base(secret: bytes) -> bytes:
        counted.append("base")
        return base(secret)

    client, server = make_client(), make_server()
    monkeypatch.setattr(crypto.bindings, "crypto_box_beforenm", count_shared)
    monkeypatch.setattr(crypto.bindings, "crypto_scalarmult_base", count_base)
    left, right = Side.start(client.handshake(b"")), Side.start(server.handshake(b""))
    by_side: dict[str, list[str]] = {"client": counted[:], "server": []}

    def step(side: Side, name: str, body: bytes) -> bytes:
        counted.clear()
        (answer,) = side.receive(body) or [b""]
        by_side[name] += counted
        return answer

    welcome = step(right, "server", left.sent[0])
    initiate = step(left, "client", welcome)
    ready = step(right, "server", initiate)
    step(left, "client", ready)
    for name in ("client", "server"):
        assert sorted(by_side[name]) == ["base", "shared", "shared", "shared"], name
    counted.clear()
    here, there = ciphers(left, right)
    there.open(here.seal(0, b"x"))
    assert not counted


def octets_reachable(root: object) -> list[bytes]:
    """Every bytes object that a suspended generator keeps, classes and modules left out."""
    found: list[bytes] = []
    seen: set[int] = set()
    todo = [root]
    while todo:
        thing = todo.pop()
        if id(thing) in seen or isinstance(thing, type) or type(thing).__name__ in ("module", "function", "code"):
            continue
        seen.add(id(thing))
        if isinstance(thing, bytes):
            found.append(thing)
        if isinstance(thing, GeneratorType) and thing.gi_frame is not None:
            todo.extend(thing.gi_frame.f_locals.values())
        todo.extend(gc.get_referents(thing) if not isinstance(thing, dict) else list(thing.values()))
    return found


def test_between_welcome_and_initiate_at_most_64_octets_are_kept() -> None:
    """A server that has said WELCOME keeps a cookie key, a nonce and a deadline: s', S' and C' are nowhere."""
    _, server = scripted_pair()
    metadata = b"our own, shared by the listener's connections"
    side = Side.start(server.handshake(metadata))
    side.receive(COMMANDS["HELLO"])
    assert isinstance(side.handshake, GeneratorType)
    kept = dict(side.handshake.gi_frame.f_locals)
    assert kept.pop("self") is server and kept.pop("metadata") is metadata
    sizes = {name: len(value) if isinstance(value, bytes) else 8 for name, value in kept.items()}
    assert sizes == {"cookie_key": 32, "hello_nonce": 8, "deadline": 8}
    assert sum(sizes.values()) <= 64

    everything = octets_reachable(side.handshake)
    assert KEYS["cookie key"] in everything, "the search finds what is there"
    for name in ("s'", "S'", "C'", "cookie nonce"):
        assert not any(KEYS[name] in octets for octets in everything), name
    assert not any(octets in (COMMANDS["HELLO"], COMMANDS["WELCOME"]) for octets in everything)


def test_short_term_keys_are_forgotten_on_both_sides() -> None:
    """After the handshake neither session nor generator leads to a short-term secret or to the cookie's key."""
    client, server = scripted_pair()
    left, right = hold(client.handshake(CLIENT_METADATA), server.handshake(SERVER_METADATA))
    kept = octets_reachable([left.session, right.session, left.handshake, right.handshake])
    for name in ("s'", "c'", "cookie key"):
        assert not any(KEYS[name] in octets for octets in kept), name


def test_while_the_owner_thinks_only_the_session_is_kept() -> None:
    """While C waits for its verdict, the server's short-term secret and the cookie's key are already gone."""
    client, server = scripted_pair()
    left, generator = Side.start(client.handshake(CLIENT_METADATA)), server.handshake(SERVER_METADATA)
    next(generator)
    generator.send(left.sent[0])
    next(generator)
    left.receive(COMMANDS["WELCOME"])
    generator.send(left.sent[1])
    assert isinstance(generator, GeneratorType)
    assert set(generator.gi_frame.f_locals) == {
        "self",
        "metadata",
        "deadline",
        "client_key",
        "box",
        "nonce",
        "peer_metadata",
    }
    for name in ("s'", "cookie key"):
        assert not any(KEYS[name] in octets for octets in octets_reachable(generator)), name
    generator.close()


def test_our_counter_never_wraps() -> None:
    """The last nonce is 2^64-1; the frame after it is refused to the caller, for good."""
    box = crypto.Box(bytes(32))
    cipher = CurveCipher(box, sends=b"CurveZMQMESSAGEC", sent=2**64 - 2, receives=b"-" * 16, received=bytes(8))
    assert cipher.seal(0, b"last")[8:16] == b"\xff" * 8
    for _ in range(2):
        with pytest.raises(LocalProtocolError, match="no nonce is left"):
            cipher.seal(0, b"one more")
        with pytest.raises(LocalProtocolError, match="no nonce is left"):
            cipher.seal_all([b"\0one more"])


def test_a_batch_that_would_wrap_the_counter_is_not_begun() -> None:
    """Frames sealed together count as each would alone."""
    box = crypto.Box(bytes(32))
    cipher = CurveCipher(box, sends=b"CurveZMQMESSAGEC", sent=2**64 - 3, receives=b"-" * 16, received=bytes(8))
    with pytest.raises(LocalProtocolError, match="no nonce is left"):
        cipher.seal_all([b"\0a", b"\0b", b"\0c"])
    first, last = cipher.seal_all([b"\1a", b"\0b"])
    assert first[8:16] == (2**64 - 2).to_bytes(8, "big")
    assert last[8:16] == b"\xff" * 8


def test_the_peers_last_nonce_is_taken_and_nothing_after_it() -> None:
    """A peer may use 2^64-1, as libzmq allows, and has then nothing left to say."""
    box = crypto.Box(bytes(32))
    sender = CurveCipher(box, sends=b"a" * 16, sent=2**64 - 2, receives=b"b" * 16, received=bytes(8))
    receiver = CurveCipher(box, sends=b"b" * 16, sent=1, receives=b"a" * 16, received=bytes(8))
    body = sender.seal(0, b"last")
    assert receiver.open(body) == (0, b"last")
    with pytest.raises(PeerError, match="does not rise"):
        receiver.open(body)


def test_a_forked_child_cannot_reuse_nonces() -> None:
    """Both would seal with one key and one nonce: the child's copy refuses, the parent's goes on (R5)."""
    script = """
import os, sys
from zapd.errors import LocalProtocolError
from zapd.zmtp import crypto
from zapd.zmtp.mechanisms.curve import CurveCipher
cipher = CurveCipher(crypto.Box(bytes(32)), sends=b"a" * 16, sent=1, receives=b"b" * 16, received=bytes(8))
child = os.fork()
if child == 0:
    try:
        cipher.seal(0, b"secret")
    except LocalProtocolError:
        os._exit(7)
    os._exit(0)
status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
cipher.seal(0, b"the parent goes on")
sys.exit(status)
"""
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == 7


def test_what_a_forked_child_runs_ends_every_cipher() -> None:
    """The hook that the child runs reaches each live cipher, and dropped ciphers are not kept for its sake."""
    box = crypto.Box(bytes(32))
    cipher = CurveCipher(box, sends=b"a" * 16, sent=1, receives=b"b" * 16, received=bytes(8))
    before = len(curve._ciphers)
    assert cipher.seal(0, b"in time")
    curve._exhaust_copies()
    with pytest.raises(LocalProtocolError):
        cipher.seal(0, b"secret")
    del cipher
    assert len(curve._ciphers) == before - 1


def test_a_cipher_is_neither_copied_nor_pickled() -> None:
    """A copy would use each nonce a second time, and a pickle would carry the key away."""
    cipher, _ = ciphers(*hold(make_client().handshake(b""), make_server().handshake(b"")))
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="cannot be copied"):
            duplicate(cipher)


def test_no_repr_shows_a_secret() -> None:
    """What a log may print of mechanisms, ciphers, boxes and sessions holds no key but public ones."""
    client, server = make_client(), make_server()
    left, right = hold(client.handshake(b""), server.handshake(b""))
    here, there = ciphers(left, right)
    shown = " ".join(map(repr, (client, server, left.session, right.session, here, there, left.handshake)))
    assert KEYS["C"].hex() in shown and KEYS["S"].hex() in shown
    for name in ("s", "c"):
        for text in (KEYS[name].hex(), repr(KEYS[name]), repr(KEYS[name])[2:-1]):
            assert text not in shown


@pytest.mark.parametrize("size", [0, 31, 33, 40, 64])
def test_keys_of_another_size_are_refused_at_once(size: int) -> None:
    """A mechanism is not made with half a key, or with its Z85 text."""
    with pytest.raises(InvalidInput, match="32 octets"):
        CurveServer(bytes(size), clock=ManualClock())
    with pytest.raises(InvalidInput, match="32 octets"):
        CurveClient(KEYS["S"], bytes(size))
    with pytest.raises(InvalidInput, match="32 octets"):
        CurveClient(bytes(size), KEYS["c"])


def test_a_server_key_of_small_order_is_refused_at_once() -> None:
    """A client cannot be configured with a server key that anybody could serve with."""
    with pytest.raises(InvalidInput, match="small order"):
        CurveClient(bytes(32), KEYS["c"])


def test_sides_and_names() -> None:
    """The greeting of either side says CURVE, and only the server's says as-server."""
    assert (make_server().name, make_server().as_server) == ("CURVE", True)
    assert (make_client().name, make_client().as_server) == ("CURVE", False)
    assert make_server().public_key == KEYS["S"]
    assert (make_client().public_key, make_client().server_key) == (KEYS["C"], KEYS["S"])


def test_curve_alone_over_a_pair_of_pipes() -> None:
    """RFC 26 wants CurveZMQ usable over any transport: here a pair of pipes carries the command bodies."""
    near, far = Pipe()
    results: list[Session] = []

    def serve() -> None:
        side = Side.start(make_server().handshake(SERVER_METADATA))
        while side.session is None:
            for body in side.receive(far.recv_bytes(4096)):
                far.send_bytes(body)
        results.append(side.session)
        assert side.session.cipher is not None
        _, payload = side.session.cipher.open(far.recv_bytes(4096))
        far.send_bytes(side.session.cipher.seal(0, payload[::-1]))

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        side = Side.start(make_client().handshake(CLIENT_METADATA))
        near.send_bytes(side.sent[0])
        while side.session is None:
            for body in side.receive(near.recv_bytes(4096)):
                near.send_bytes(body)
        assert side.session.cipher is not None
        near.send_bytes(side.session.cipher.seal(0, b"abc"))
        assert side.session.cipher.open(near.recv_bytes(4096)) == (0, b"cba")
    finally:
        thread.join(10)
        near.close()
        far.close()
    assert [session.metadata for session in results] == [CLIENT_METADATA]


def test_the_lifetime_of_a_cookie_is_the_rfcs() -> None:
    """RFC 26 says around 60 seconds."""
    assert curve.COOKIE_LIFETIME == 60.0
