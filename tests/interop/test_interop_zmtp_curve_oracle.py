"""libzmq as the oracle: the same handshakes, honest and not, put to libzmq's CURVE server and to ours.

Where the two differ, ours is the stricter, and the row says why. The liar holds its own keys, so its lies sit
inside the boxes, where they are believed or not.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest
import zmq
from nacl import bindings as sodium
from support.curve_dialogue import KEYS, HonestClient, ManualClock, make_server, message

from zapd.zmtp.connection import Connection
from zapd.zmtp.events import AuthenticationRequired, MessagesReceived
from zapd.zmtp.greeting import encode_greeting
from zapd.zmtp.keys import encode_key

pytestmark = pytest.mark.interop

Exchange = Callable[[bytes, int], bytes]
"""Sends octets and gives what came back, at most so many; fewer mean that the server is gone or silent."""

DEALER = b"\x0bSocket-Type\0\0\0\x06DEALER"
ROGUE = b"\x66" * 32


def prop(name: bytes, value: bytes) -> bytes:
    return bytes([len(name)]) + name + len(value).to_bytes(4, "big") + value


def command(body: bytes) -> bytes:
    if len(body) < 256:
        return b"\x04" + bytes([len(body)]) + body
    return b"\x06" + len(body).to_bytes(8, "big") + body


def top_bit(key: bytes) -> bytes:
    return key[:-1] + bytes([key[-1] | 0x80])


def same(octets: bytes) -> bytes:
    return octets


@dataclass(frozen=True)
class Case:
    """One client's story and what becomes of it."""

    name: str
    libzmq: bool
    ours: bool
    lies: dict[str, object] = field(default_factory=dict)
    greeting: Callable[[bytes], bytes] = same
    hello: Callable[[bytes], bytes] = same
    hello_frame: Callable[[bytes], bytes] = command
    initiate: Callable[[bytes], bytes] = same
    initiate_frame: Callable[[bytes], bytes] = command
    content: bytes = b"\0hello"
    nonce: int | None = None
    message_frame: Callable[[bytes], bytes] = lambda body: b"\x00" + bytes([len(body)]) + body


def long_form(body: bytes) -> bytes:
    return b"\x06" + len(body).to_bytes(8, "big") + body


CASES = [
    Case("honest", True, True),
    # Greeting and frames
    Case("as-server set by a client", True, True, greeting=lambda g: g[:32] + b"\x01" + g[33:]),
    Case("filler not zero", True, True, greeting=lambda g: g[:33] + b"x" * 31),
    Case("version 3.0", True, True, greeting=lambda g: g[:11] + b"\0" + g[12:]),
    Case("version 9.7", True, True, greeting=lambda g: g[:10] + b"\x09\x07" + g[12:]),
    Case("mechanism in small letters", False, False, greeting=lambda g: g[:12] + b"curve" + g[17:]),
    Case("mechanism NULL", False, False, greeting=lambda g: g[:12] + b"NULL\0" + g[17:]),
    Case("junk behind the mechanism's name", False, False, greeting=lambda g: g[:18] + b"x" + g[19:]),
    Case("HELLO with a long size", True, True, hello_frame=long_form),
    Case("HELLO as a message: no command", True, False, hello_frame=lambda b: b"\0\xc8" + b),
    Case("HELLO with MORE: no command has it", True, False, hello_frame=lambda b: b"\x05\xc8" + b),
    Case("HELLO with reserved bits", True, False, hello_frame=lambda b: b"\x44\xc8" + b),
    # HELLO
    Case("HELLO's version", False, False, hello=lambda b: b[:6] + b"\x02" + b[7:]),
    Case("HELLO's padding: RFC 26 wants zeros", True, False, hello=lambda b: b[:79] + b"\1" + b[80:]),
    Case("HELLO's content: RFC 26 wants zeros", True, False, {"hello_content": b"\1" * 64}),
    Case("HELLO's box", False, False, hello=lambda b: b[:-1] + bytes([b[-1] ^ 1])),
    Case("HELLO too short", False, False, hello=lambda b: b[:-1]),
    Case("HELLO too long", False, False, hello=lambda b: b + b"\0"),
    Case("C' of zeros", False, False, hello=lambda b: b[:80] + bytes(32) + b[112:]),
    Case("C' in its second spelling", False, False, hello=lambda b: b[:80] + top_bit(b[80:112]) + b[112:]),
    Case("HELLO's nonce 0", True, True, {"hello_nonce": 0}),
    # INITIATE
    Case("INITIATE's nonce falls: RFC 26 wants it to rise", True, False, {"hello_nonce": 9}),
    Case("INITIATE's nonce stays: RFC 26 wants it to rise", True, False, {"initiate_nonce": 1}),
    Case("cookie altered", False, False, initiate=lambda b: b[:50] + bytes([b[50] ^ 1]) + b[51:]),
    Case("INITIATE's box altered", False, False, initiate=lambda b: b[:-1] + bytes([b[-1] ^ 1])),
    Case("INITIATE too short", False, False, initiate=lambda b: b[:256]),
    Case("vouch by another key", False, False, {"vouch_secret": ROGUE}),
    Case("another's C", False, False, {"claimed_key": KEYS["S"]}),
    Case("C of zeros", False, False, {"claimed_key": bytes(32)}),
    Case(
        "C in its second spelling: keys are told apart by octets", True, False, {"claimed_key": top_bit(KEYS["C"])}
    ),
    Case("vouch for another C'", False, False, {"vouched_short_key": KEYS["S"]}),
    Case(
        "vouch for another S: a server's client could be passed on", True, False, {"vouched_server_key": KEYS["C"]}
    ),
    # Metadata
    Case("no metadata", True, True, {"metadata": b""}),
    Case("a type that does not fit", False, False, {"metadata": prop(b"Socket-Type", b"PUB")}),
    Case("an unknown type", False, False, {"metadata": prop(b"Socket-Type", b"NOBODY")}),
    Case("an unknown property", True, True, {"metadata": DEALER + prop(b"X-a", b"b")}),
    Case("300 octets in a property", True, True, {"metadata": DEALER + prop(b"X-a", bytes(300))}),
    Case("5000 octets: our bound before READY", True, False, {"metadata": DEALER + prop(b"X-a", bytes(5000))}),
    Case("an empty name: RFC 23 wants a letter", True, False, {"metadata": DEALER + prop(b"", b"x")}),
    Case("an illegal name", True, False, {"metadata": DEALER + prop(b"a b", b"x")}),
    Case("a name that comes twice", True, False, {"metadata": DEALER + prop(b"X-a", b"1") + prop(b"X-a", b"2")}),
    Case("cut short", False, False, {"metadata": DEALER + b"\x03X-a\0\0\0\x09x"}),
    Case("Identity too long: RFC 37 says 255", True, False, {"metadata": DEALER + prop(b"Identity", b"i" * 256)}),
    Case("Identity with zero first: RFC 37", True, False, {"metadata": DEALER + prop(b"Identity", b"\0i")}),
    # MESSAGE
    Case("a gap in the nonces", True, True, nonce=1000),
    Case("the last nonce of all", True, True, nonce=2**64 - 1),
    Case("MESSAGE's nonce stays", False, False, nonce=2),
    Case("MESSAGE's nonce falls", False, False, nonce=1),
    Case("reserved inner flags", True, False, content=b"\x80hello"),
    Case("MESSAGE as a command", False, False, message_frame=lambda b: b"\x04" + bytes([len(b)]) + b),
    Case("a clear message", False, False, message_frame=lambda b: b"\0\x05hello"),
    Case("MESSAGE with a long size", True, True, message_frame=lambda b: b"\2" + len(b).to_bytes(8, "big") + b),
]


def tell(case: Case, exchange: Exchange) -> None:
    """The client's side of the story, as far as the server listens."""
    client = HonestClient(metadata=DEALER).but(**case.lies)
    greeting = case.greeting(encode_greeting("CURVE", as_server=False))
    if len(exchange(greeting, 64)) < 64:
        return
    welcome = exchange(case.hello_frame(case.hello(client.hello())), 170)
    if len(welcome) < 170:
        return
    initiate = client.initiate(welcome[2:])
    if len(exchange(case.initiate_frame(case.initiate(initiate)), 32)) < 32:
        return
    server_short, _ = client.read_welcome(welcome[2:])
    nonce = case.nonce if case.nonce is not None else 3
    body = message(b"CurveZMQMESSAGEC", nonce, case.content, server_short, client.short_secret)
    exchange(case.message_frame(body), 0)


def hears_us(case: Case) -> bool:
    """Whether our server delivers the message."""
    connection = Connection(make_server(ManualClock()), "ROUTER")
    heard: list[list[bytes]] = []
    tell(case, lambda octets, _: deliver(connection, octets, heard))
    return heard == [[b"hello"]]


def deliver(connection: Connection, octets: bytes, heard: list[list[bytes]]) -> bytes:
    """Octets into a connection of ours, everybody accepted; what comes out."""
    connection.receive_data(octets)
    for event in connection.events():
        if isinstance(event, AuthenticationRequired):
            connection.accept()
        elif isinstance(event, MessagesReceived):
            heard.extend(event.messages)
    return connection.data_to_send()


@pytest.fixture(scope="module")
def libzmq() -> Iterator[tuple[zmq.Socket[bytes], int]]:
    """A CURVE ROUTER of libzmq's with the vectors' key, and its port."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as server:
        server.linger = 0
        server.curve_server = True
        server.curve_secretkey = encode_key(KEYS["s"]).encode()
        yield server, server.bind_to_random_port("tcp://127.0.0.1")


def libzmq_hears(server: zmq.Socket[bytes], port: int, case: Case) -> bool:
    """Whether libzmq delivers the message."""
    with socket.create_connection(("127.0.0.1", port), 10) as stream:
        stream.settimeout(5)

        def exchange(octets: bytes, size: int) -> bytes:
            came = b""
            try:
                stream.sendall(octets)
                while len(came) < size and (data := stream.recv(size - len(came))):
                    came += data
            except OSError:
                pass
            return came

        tell(case, exchange)
        # It delivers the message, or closes. A command it drops in silence, so a short wait must do there.
        heard = bool(server.poll(1000 if case.libzmq else 100))
        return heard and server.recv_multipart()[1:] == [b"hello"]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_against_the_oracle(libzmq: tuple[zmq.Socket[bytes], int], case: Case) -> None:
    """libzmq and we hear, or do not hear, the message at the end of each story as its row says."""
    assert (libzmq_hears(*libzmq, case), hears_us(case)) == (case.libzmq, case.ours)


def test_ours_is_never_the_laxer() -> None:
    """No row lets in with us what libzmq keeps out, and the rogue of these rows is nobody known."""
    assert not [case.name for case in CASES if case.ours and not case.libzmq]
    assert sodium.crypto_scalarmult_base(ROGUE) not in (KEYS["C"], KEYS["S"])
