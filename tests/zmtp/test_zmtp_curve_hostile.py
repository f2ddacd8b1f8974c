"""CURVE against liars: every field altered, cut, lengthened, replayed, late or forged is refused as PeerError.

`refusal` checks each time that nothing was sent, nobody was asked and no session came of it.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from nacl import bindings as sodium
from support.curve_dialogue import (
    CLIENT_METADATA,
    COMMANDS,
    KEYS,
    SERVER_METADATA,
    HonestClient,
    HonestServer,
    ManualClock,
    Side,
    hold,
    make_client,
    make_server,
    message,
    refusal,
)

from zapd.zmtp.credentials import CurveCredentials
from zapd.zmtp.handshake import Cipher, PeerError, Session
from zapd.zmtp.mechanisms.curve import CurveCipher, CurveServer

CLIENT = HonestClient()
SERVER = HonestServer()
SMALL_POINTS = [
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    b"\xec" + b"\xff" * 30 + b"\x7f",
    b"\xed" + b"\xff" * 30 + b"\x7f",
    b"\xee" + b"\xff" * 30 + b"\x7f",
]


def server_at_hello(server: CurveServer | None = None) -> Side:
    return Side.start((server or make_server()).handshake(SERVER_METADATA))


def server_at_initiate(client: HonestClient = CLIENT, server: CurveServer | None = None) -> tuple[Side, bytes]:
    """A server that waits for INITIATE, and its WELCOME."""
    side = server_at_hello(server)
    (welcome,) = side.receive(client.hello())
    return side, welcome


def client_at_welcome() -> tuple[Side, bytes]:
    """A client of ours that waits for WELCOME, and its HELLO."""
    side = Side.start(make_client().handshake(CLIENT_METADATA))
    return side, side.sent[0]


def client_at_ready(server: HonestServer = SERVER) -> tuple[Side, bytes]:
    """A client of ours that waits for READY, and its HELLO."""
    side, hello = client_at_welcome()
    side.receive(server.welcome(hello))
    return side, hello


def cipher_of(session: Session | None) -> Cipher:
    assert session is not None and session.cipher is not None
    return session.cipher


def altered(body: bytes) -> list[bytes]:
    """One bit changed in each octet in turn."""
    return [body[:at] + bytes([body[at] ^ (1 << at % 8)]) + body[at + 1 :] for at in range(len(body))]


def test_the_honest_peers_of_these_tests_are_taken() -> None:
    """What the lies below are told with is accepted when it tells the truth."""
    side, welcome = server_at_initiate()
    (ready,) = side.receive(CLIENT.initiate(welcome))
    assert side.asked == [CurveCredentials(KEYS["C"])]
    assert ready.startswith(b"\x05READY")

    side, hello = client_at_welcome()
    (initiate,) = side.receive(SERVER.welcome(hello))
    assert SERVER.cookie == initiate[9:105], "the cookie goes back untouched"
    side.receive(SERVER.ready(hello))
    assert side.session is not None and side.session.metadata == SERVER_METADATA


# HELLO


def test_every_octet_of_hello_counts() -> None:
    """A HELLO with any single octet changed, padding and nonce included, is refused."""
    for hello in altered(COMMANDS["HELLO"]):
        refusal(server_at_hello(), hello)


def test_hello_cut_or_lengthened() -> None:
    """HELLO has exactly 200 octets; libzmq's length check is ours too."""
    hello = COMMANDS["HELLO"]
    for size in range(len(hello)):
        refusal(server_at_hello(), hello[:size])
    for more in (b"\0", bytes(56), bytes(3896)):
        assert "too long" in refusal(server_at_hello(), hello + more)


@pytest.mark.parametrize("content", [b"\x01" + bytes(63), bytes(63) + b"\x80", b"\xff" * 64])
def test_hellos_box_holds_zeros(content: bytes) -> None:
    """A box that opens and holds something else is no HELLO, though libzmq takes it."""
    assert "does not hold zeros" in refusal(server_at_hello(), CLIENT.but(hello_content=content).hello())


@pytest.mark.parametrize("version", [b"\x00\x00", b"\x01\x01", b"\x02\x00", b"\x01\xff"])
def test_other_versions_of_curve(version: bytes) -> None:
    """Only version 1.0 is spoken."""
    hello = CLIENT.hello()
    assert "version" in refusal(server_at_hello(), hello[:6] + version + hello[8:])


@pytest.mark.parametrize("point", SMALL_POINTS)
def test_short_term_keys_of_small_order(point: bytes) -> None:
    """C' of small order would make a session key that everybody knows (R6)."""
    hello = COMMANDS["HELLO"]
    assert "small order" in refusal(server_at_hello(), hello[:80] + point + hello[112:])


def test_a_box_made_with_the_known_key_of_a_small_point() -> None:
    """Even with a box that opens under the all-zero point's key, the point is refused before."""
    key = (
        sodium.crypto_core_hsalsa20(bytes(16), bytes(32)) if hasattr(sodium, "crypto_core_hsalsa20") else bytes(32)
    )
    nonce = (1).to_bytes(8, "big")
    box = sodium.crypto_box_afternm(bytes(64), b"CurveZMQHELLO---" + nonce, key)
    hello = b"\x05HELLO\x01\x00" + bytes(72) + bytes(32) + nonce + box
    assert "small order" in refusal(server_at_hello(), hello)


def test_hello_for_another_server() -> None:
    """A client that believes in another server key is refused at HELLO."""
    other = sodium.crypto_scalarmult_base(b"\x07" * 32)
    assert "does not open" in refusal(server_at_hello(), CLIENT.but(server_key=other).hello())


@pytest.mark.parametrize("name", ["WELCOME", "INITIATE", "READY"])
def test_something_else_than_hello(name: str) -> None:
    """A dialogue begins with HELLO."""
    assert refusal(server_at_hello(), COMMANDS[name]) == "expected HELLO"


@pytest.mark.parametrize("body", [b"", b"\x05", b"\x04PING\0\0", b"\x05ERROR\x00", b"\xff" * 200, bytes(200)])
def test_rubbish_at_every_stage(body: bytes) -> None:
    """Short, unknown or empty commands are refused wherever they come."""
    refusal(server_at_hello(), body)
    refusal(server_at_initiate()[0], body)
    refusal(client_at_welcome()[0], body)
    refusal(client_at_ready()[0], body)


def test_scalar_multiplications_begin_after_the_cheap_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Length, version and padding cost a liar nothing and us nothing (R2)."""

    def never(*_: bytes) -> bytes:
        raise AssertionError("a scalar multiplication for rubbish")

    sides = [server_at_hello() for _ in range(4)]
    hello = CLIENT.hello()
    monkeypatch.setattr("zapd.zmtp.crypto.bindings.crypto_box_beforenm", never)
    monkeypatch.setattr("zapd.zmtp.crypto.bindings.crypto_scalarmult_base", never)
    refusal(sides[0], hello[:-1])
    refusal(sides[1], hello + b"\0")
    refusal(sides[2], hello[:7] + b"\x01" + hello[8:])
    refusal(sides[3], hello[:79] + b"\x01" + hello[80:])


# The cookie


def test_every_octet_of_initiate_counts() -> None:
    """An INITIATE with any single octet changed is refused: name, cookie, nonce, box."""
    size = len(CLIENT.initiate(server_at_initiate()[1]))
    for at in range(size):
        side, welcome = server_at_initiate()
        refusal(side, altered(CLIENT.initiate(welcome))[at])


def test_initiate_cut_or_lengthened() -> None:
    """Neither fewer octets nor more: the box covers the end, the length check the rest."""
    _, welcome = server_at_initiate()
    size = len(CLIENT.initiate(welcome))
    for short in [*range(0, 257, 8), 256, size - 1]:
        side, welcome = server_at_initiate()
        refusal(side, CLIENT.initiate(welcome)[:short])
    side, welcome = server_at_initiate()
    refusal(side, CLIENT.initiate(welcome) + b"\0")


def test_an_initiate_without_metadata_is_the_shortest() -> None:
    """257 octets are enough and 256 are not."""
    client = CLIENT.but(metadata=b"")
    side, welcome = server_at_initiate(client)
    initiate = client.initiate(welcome)
    assert len(initiate) == 257
    side.receive(initiate)
    assert side.session is not None and side.session.metadata == b""
    side, welcome = server_at_initiate(client)
    assert "too short" in refusal(side, client.initiate(welcome)[:-1])


def test_a_cookie_opens_only_where_it_was_given() -> None:
    """Two connections to one server, one client, equal keys: each cookie is good on its own connection alone."""
    server = make_server()
    here, _ = server_at_initiate(server=server)
    there, welcome_there = server_at_initiate(server=server)
    assert "the cookie does not open" in refusal(here, CLIENT.initiate(welcome_there))
    there.receive(CLIENT.initiate(welcome_there))
    assert there.session is not None


def test_a_recorded_handshake_does_not_play_again() -> None:
    """A whole recorded dialogue, HELLO and INITIATE, replayed on a new connection fails at INITIATE (R4)."""
    recorded: dict[str, bytes] = {}

    def tap(name: str, body: bytes) -> bytes:
        recorded[name] = body
        return body

    server = make_server()
    hold(make_client().handshake(CLIENT_METADATA), server.handshake(SERVER_METADATA), tap)
    for _ in range(2):
        again = server_at_hello(server)
        again.receive(recorded["HELLO"])
        assert "the cookie does not open" in refusal(again, recorded["INITIATE"])


def test_an_initiate_serves_once() -> None:
    """A second INITIATE finds no dialogue to answer it, and is no MESSAGE for the session either."""
    side, welcome = server_at_initiate()
    initiate = CLIENT.initiate(welcome)
    side.receive(initiate)
    with pytest.raises(StopIteration):
        side.handshake.send(initiate)
    with pytest.raises(PeerError, match="expected MESSAGE"):
        cipher_of(side.session).open(initiate)


def test_no_second_try_after_a_bad_initiate() -> None:
    """The cookie's key goes with the first INITIATE, be it good or bad."""
    side, welcome = server_at_initiate()
    initiate = CLIENT.initiate(welcome)
    refusal(side, initiate[:-1] + b"?")
    with pytest.raises(StopIteration):
        side.handshake.send(initiate)


@pytest.mark.parametrize(
    ("wait", "good"), [(0.0, True), (59.9, True), (60.0, True), (60.001, False), (1e9, False)]
)
def test_a_cookie_lasts_sixty_seconds(wait: float, good: bool) -> None:
    """INITIATE is taken up to 60 seconds after WELCOME and not later."""
    clock = ManualClock()
    side, welcome = server_at_initiate(server=make_server(clock))
    clock.now += wait
    if good:
        side.receive(CLIENT.initiate(welcome))
        assert side.session is not None
    else:
        assert "too late" in refusal(side, CLIENT.initiate(welcome))


def test_a_cookie_that_an_insider_forged() -> None:
    """A cookie sealed with another key, though its content be right, does not open."""
    side, welcome = server_at_initiate()
    initiate = CLIENT.initiate(welcome)
    nonce = bytes(16)
    forged = nonce + sodium.crypto_secretbox(CLIENT.short_public + bytes(32), b"COOKIE--" + nonce, b"k" * 32)
    assert len(forged) == 96
    assert "the cookie" in refusal(side, initiate[:9] + forged + initiate[105:])


# INITIATE's content


@pytest.mark.parametrize("nonce", [0, 1, 4, 5])
def test_initiates_nonce_rises_above_hellos(nonce: int) -> None:
    """Equal or lower is refused, which libzmq does not check (CVE-2014-7203)."""
    client = CLIENT.but(hello_nonce=5, initiate_nonce=nonce)
    side, welcome = server_at_initiate(client)
    assert "does not rise" in refusal(side, client.initiate(welcome))


def test_nonces_may_start_anywhere_and_leave_gaps() -> None:
    """Zero is a nonce, and so is one after a gap; but after 2^64-1 nothing rises."""
    for hello, initiate in ((0, 1), (1, 2**63), (2**64 - 2, 2**64 - 1)):
        client = CLIENT.but(hello_nonce=hello, initiate_nonce=initiate)
        side, welcome = server_at_initiate(client)
        side.receive(client.initiate(welcome))
        assert side.session is not None
    client = CLIENT.but(hello_nonce=2**64 - 1, initiate_nonce=2**64 - 1)
    side, welcome = server_at_initiate(client)
    assert "does not rise" in refusal(side, client.initiate(welcome))


ROGUE = b"\x66" * 32
LIES: list[tuple[str, dict[str, object]]] = [
    ("another's C, vouched with our own key", {"claimed_key": KEYS["S"]}),
    ("our C, vouched with another key", {"vouch_secret": ROGUE}),
    ("C' of another connection", {"vouched_short_key": sodium.crypto_scalarmult_base(ROGUE)}),
    ("S of another server", {"vouched_server_key": sodium.crypto_scalarmult_base(ROGUE)}),
    ("the halves exchanged", {"vouched_short_key": KEYS["S"], "vouched_server_key": KEYS["C'"]}),
    ("C' twice", {"vouched_server_key": KEYS["C'"]}),
    ("a vouch of zeros", {"vouch": bytes(96)}),
    ("the vouch of the vectors, for another s'", {"vouch": COMMANDS["vouch"]}),
]


@pytest.mark.parametrize(("lie", "fields"), LIES, ids=[lie for lie, _ in LIES])
def test_forged_vouches(lie: str, fields: dict[str, object]) -> None:
    """Both halves of the vouch, and the key that sealed it, must be right; else C is nobody's word."""
    client = CLIENT.but(**fields)
    side, welcome = server_at_initiate(client)
    assert "the vouch" in refusal(side, client.initiate(welcome))


def test_a_server_cannot_pass_its_clients_vouch_on() -> None:
    """A rogue server that a client trusts opens its INITIATE and reuses the vouch towards us: in vain."""
    rogue_public = sodium.crypto_scalarmult_base(ROGUE)
    ours, welcome = server_at_initiate()
    server_short, _ = CLIENT.read_welcome(welcome)
    # The rogue hands its victim our S' as its own, so that the vouch is sealed for our s'.
    victim = CLIENT.but(server_key=rogue_public)
    assert "the vouch" in refusal(ours, CLIENT.but(vouch=victim.make_vouch(server_short)).initiate(welcome))


@pytest.mark.parametrize("point", SMALL_POINTS)
def test_a_claimed_key_of_small_order(point: bytes) -> None:
    """With C of small order anybody could make the vouch: refused whatever the vouch is."""
    client = CLIENT.but(claimed_key=point)
    side, welcome = server_at_initiate(client)
    assert "small order" in refusal(side, client.initiate(welcome))


@pytest.mark.parametrize("content", [b"", b"\0" * 31, b"\0" * 127])
def test_initiates_box_with_too_little_inside(content: bytes) -> None:
    """A box cannot hold less than C and a vouch: the whole command is then too short."""
    client = CLIENT.but(initiate_content=content)
    side, welcome = server_at_initiate(client)
    assert "too short" in refusal(side, client.initiate(welcome))


def test_initiate_too_early() -> None:
    """Whoever skips HELLO is refused."""
    _, welcome = server_at_initiate()
    assert refusal(server_at_hello(), CLIENT.initiate(welcome)) == "expected HELLO"


def test_hello_twice() -> None:
    """A second HELLO is not an INITIATE."""
    side, _ = server_at_initiate()
    assert refusal(side, CLIENT.hello()) == "expected INITIATE"


# WELCOME and READY


def test_every_octet_of_welcome_counts() -> None:
    """A client of ours refuses a WELCOME with any octet changed, and sends no INITIATE."""
    for at in range(168):
        side, hello = client_at_welcome()
        refusal(side, altered(SERVER.welcome(hello))[at])


def test_welcome_cut_or_lengthened() -> None:
    """WELCOME has exactly 168 octets."""
    for size in range(168):
        side, hello = client_at_welcome()
        refusal(side, SERVER.welcome(hello)[:size])
    side, hello = client_at_welcome()
    assert "too long" in refusal(side, SERVER.welcome(hello) + b"\0")


def test_welcome_of_another_server() -> None:
    """Only the owner of S's secret can say WELCOME."""
    side, hello = client_at_welcome()
    assert "does not open" in refusal(side, SERVER.but(secret=ROGUE).welcome(hello))


def test_a_replayed_welcome() -> None:
    """Yesterday's WELCOME was for another C'."""
    assert "does not open" in refusal(client_at_welcome()[0], COMMANDS["WELCOME"])


@pytest.mark.parametrize("point", SMALL_POINTS)
def test_a_server_short_term_key_of_small_order(point: bytes) -> None:
    """S' of small order would make C readable by everybody."""
    side, hello = client_at_welcome()
    assert "small order" in refusal(side, SERVER.but(short_key=point).welcome(hello))


def test_a_second_welcome() -> None:
    """After INITIATE only READY may come, though libzmq's client takes another WELCOME."""
    side, hello = client_at_ready()
    assert refusal(side, SERVER.welcome(hello)) == "expected READY"


def test_every_octet_of_ready_counts() -> None:
    """A client of ours refuses a READY with any octet changed."""
    side, hello = client_at_ready()
    for at in range(len(SERVER.ready(hello))):
        side, hello = client_at_ready()
        refusal(side, altered(SERVER.ready(hello))[at])


def test_ready_cut_or_lengthened() -> None:
    """The box covers all of READY's octets."""
    side, hello = client_at_ready()
    for size in range(len(SERVER.ready(hello))):
        side, hello = client_at_ready()
        refusal(side, SERVER.ready(hello)[:size])
    side, hello = client_at_ready()
    refusal(side, SERVER.ready(hello) + b"\0")


def test_ready_by_another_short_term_key() -> None:
    """Whoever did not make S' cannot say READY."""
    side, hello = client_at_ready()
    assert "does not open" in refusal(side, SERVER.but(short_secret=ROGUE).ready(hello))


# MESSAGE

Make = Callable[[int, bytes], bytes]


def session_of_server() -> tuple[Cipher, Make]:
    """Our server's cipher (INITIATE's nonce was 2), and what makes its client's MESSAGEs."""
    side, welcome = server_at_initiate()
    server_short, _ = CLIENT.read_welcome(welcome)
    side.receive(CLIENT.initiate(welcome))

    def make(nonce: int, content: bytes) -> bytes:
        return message(b"CurveZMQMESSAGEC", nonce, content, server_short, CLIENT.short_secret)

    return cipher_of(side.session), make


def session_of_client() -> tuple[Cipher, Make]:
    """Our client's cipher (READY's nonce was 1), and what makes its server's MESSAGEs."""
    side, hello = client_at_ready()
    side.receive(SERVER.ready(hello))

    def make(nonce: int, content: bytes) -> bytes:
        return message(b"CurveZMQMESSAGES", nonce, content, hello[80:112], SERVER.short_secret)

    return cipher_of(side.session), make


SESSIONS = [pytest.param(session_of_server, 2, id="server"), pytest.param(session_of_client, 1, id="client")]
Start = Callable[[], tuple[Cipher, Make]]


@pytest.mark.parametrize(("start", "last"), SESSIONS)
def test_message_nonces_rise_from_the_handshakes(start: Start, last: int) -> None:
    """The handshake's own nonce counts: equal or lower is refused; gaps are fine; nothing counts when refused."""
    cipher, make = start()
    for nonce in (0, last - 1, last):
        with pytest.raises(PeerError, match="does not rise"):
            cipher.open(make(nonce, b"\0x"))
    assert cipher.open(make(last + 1, b"\0x")) == (0, b"x")
    assert cipher.open(make(1000, b"\1y")) == (1, b"y")
    with pytest.raises(PeerError, match="does not open"):
        cipher.open(make(2000, b"\0z")[:-1] + b"?")
    assert cipher.open(make(1001, b"\2z")) == (2, b"z")
    assert cipher.open(make(2**64 - 1, b"\0end")) == (0, b"end")


@pytest.mark.parametrize(("start", "last"), SESSIONS)
def test_a_replayed_message(start: Start, last: int) -> None:
    """Inside a session no MESSAGE is taken twice, and none older than the last (CVE-2014-7203)."""
    cipher, make = start()
    first, second = make(last + 1, b"\0pay 100"), make(last + 2, b"\0pay 200")
    cipher.open(second)
    for replayed in (first, second):
        with pytest.raises(PeerError, match="does not rise"):
            cipher.open(replayed)


@pytest.mark.parametrize(("start", "last"), SESSIONS)
@pytest.mark.parametrize("fault", ["replayed", "older", "altered", "short", "other command", "unknown flags"])
def test_many_messages_at_once_are_held_to_the_same_rules(start: Start, last: int, fault: str) -> None:
    """Up to the first bad one they are opened, whatever stands behind it; and it stays the last that counted."""
    cipher, make = start()
    assert isinstance(cipher, CurveCipher)
    bodies = [make(last + 2 + number, bytes([number % 3]) + b"%d" % number) for number in range(6)]
    bad = {
        "replayed": bodies[2],
        "older": make(last + 1, b"\0x"),
        "altered": bodies[3][:-1] + bytes([bodies[3][-1] ^ 1]),
        "short": bodies[3][:20],
        "other command": b"\x07MASSAGE" + bodies[3][8:],
        "unknown flags": make(last + 5, b"\7x"),
    }
    contents: list[bytes] = []
    with pytest.raises(PeerError):
        cipher.open_all([*bodies[:3], bad[fault], *bodies[4:]], contents)
    assert contents == [b"\x000", b"\x011", b"\x022"]
    with pytest.raises(PeerError, match="does not rise"):
        cipher.open(bodies[2])
    cipher.open_all(bodies[4:], contents)
    cipher.open_all([], contents)
    assert contents[3:] == [b"\x014", b"\x025"]


@pytest.mark.parametrize(("start", "last"), SESSIONS)
def test_every_octet_of_message_counts(start: Start, last: int) -> None:
    """Any octet changed, any octet missing or added: refused."""
    cipher, make = start()
    body = make(last + 5, b"\0hello")
    for wrong in [*altered(body), *(body[:size] for size in range(len(body))), body + b"\0"]:
        with pytest.raises(PeerError):
            cipher.open(wrong)
    assert cipher.open(body) == (0, b"hello")


@pytest.mark.parametrize(("start", "last"), SESSIONS)
def test_ones_own_message_does_not_come_back(start: Start, last: int) -> None:
    """What a side sealed is not taken by that side when it is reflected: the prefixes differ."""
    cipher, _ = start()
    for _ in range(3):
        body = cipher.seal(0, b"mirror")
    with pytest.raises(PeerError, match="does not open"):
        cipher.open(body)


@pytest.mark.parametrize(("start", "last"), SESSIONS)
@pytest.mark.parametrize("flags", [3, 4, 8, 0x80, 0xFF])
def test_unknown_inner_flags(start: Start, last: int, flags: int) -> None:
    """MORE on a command and reserved bits mean nothing that anybody sends."""
    cipher, make = start()
    with pytest.raises(PeerError, match="unknown flags"):
        cipher.open(make(last + 1, bytes([flags]) + b"x"))


@pytest.mark.parametrize(("start", "last"), SESSIONS)
def test_a_box_without_flags(start: Start, last: int) -> None:
    """A sealed nothing has no flags octet and is too short for a MESSAGE."""
    cipher, make = start()
    with pytest.raises(PeerError, match="expected MESSAGE"):
        cipher.open(make(last + 1, b""))


@pytest.mark.parametrize(("start", "last"), SESSIONS)
@pytest.mark.parametrize(
    "body", [b"", b"hello", b"\x04PING\0\0" + bytes(40), COMMANDS["READY"], COMMANDS["WELCOME"]]
)
def test_nothing_else_after_the_handshake(start: Start, last: int, body: bytes) -> None:
    """Clear frames, clear commands and empty frames are refused: everything must be MESSAGE."""
    with pytest.raises(PeerError, match="expected MESSAGE"):
        start()[0].open(body)


def test_messages_of_another_session() -> None:
    """Same client, same server, another connection: its MESSAGEs do not open here."""
    here, _ = session_of_server()
    _, make_there = session_of_server()
    with pytest.raises(PeerError, match="does not open"):
        here.open(make_there(3, b"\0x"))
