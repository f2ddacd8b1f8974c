"""What broke libzmq must not break this engine: one test for each advisory that concerns it."""

from __future__ import annotations

import tracemalloc

import pytest
from support.zmtp_pairs import ToyServer

from zapd.zmtp.connection import Connection
from zapd.zmtp.events import ConnectionFailed, MessagesReceived
from zapd.zmtp.framing import encode_command, encode_message
from zapd.zmtp.greeting import encode_greeting
from zapd.zmtp.handshake import Mechanism
from zapd.zmtp.mechanisms.null import NullClient, NullServer
from zapd.zmtp.mechanisms.plain import PlainServer

HUGE = [2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 9, 2**64 - 1]
READY = encode_command(b"\x05READY")


def ended(connection: Connection) -> str:
    """Why it failed."""
    last = connection.events()[-1]
    assert isinstance(last, ConnectionFailed)
    return last.reason


@pytest.mark.parametrize("wanted", ["NULL", "PLAIN", "CURVE", "GSSAPI", "plain", ""])
@pytest.mark.parametrize("as_server", [False, True])
def test_cve_2014_7202_a_greeting_cannot_choose_the_mechanism(wanted: str, as_server: bool) -> None:
    """A man in the middle rewrites the greeting: the listener's mechanism, or the end, and nothing is asked."""
    for ours in (PlainServer(), ToyServer()):
        connection = Connection(ours, "ROUTER")
        connection.receive_data(encode_greeting(wanted, as_server=as_server) + READY)
        if wanted != ours.name:
            assert "mechanism mismatch" in ended(connection)
            assert connection.data_to_send() == encode_greeting(ours.name, as_server=True)


@pytest.mark.parametrize(
    "greeting",
    [
        b"\x01\x00",
        b"\x05\x00hello",
        b"\xff\0\0\0\0\0\0\0\x05\x00hello",
        bytes.fromhex("FF00000000000000017F0005"),
        bytes.fromhex("FF00000000000000017F0105"),
        bytes.fromhex("FF00000000000000017F0205"),
    ],
)
def test_cve_2014_7202_an_older_version_is_no_way_around(greeting: bytes) -> None:
    """There is no ZMTP 1.0 or 2.0 to fall back to, with any mechanism."""
    for mechanism in (NullServer(), PlainServer(), ToyServer()):
        connection = Connection(mechanism, "ROUTER")
        connection.receive_data(greeting)
        assert "not ZMTP 3" in ended(connection)


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize("flags", [2, 3, 6])
@pytest.mark.parametrize("cut", [0, 1])
def test_cve_2019_6250_a_huge_size_is_compared_and_never_added(flags: int, size: int, cut: int) -> None:
    """After the handshake a frame announces up to 2^64-1 octets: refused by its header, nothing reserved."""
    connection = Connection(NullClient(), "ROUTER")
    connection.receive_data(encode_greeting("NULL", as_server=False) + READY + encode_message([b"good"]))
    header = bytes((flags,)) + size.to_bytes(8, "big")
    tracemalloc.start()
    try:
        for piece in [header] if not cut else [header[at : at + 1] for at in range(9)]:
            connection.receive_data(piece)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 100_000
    happened = connection.events()
    assert MessagesReceived([[b"good"]]) in happened
    assert isinstance(happened[-1], ConnectionFailed)
    assert "longer than" in happened[-1].reason


@pytest.mark.parametrize("size", [4097, 65_536, *HUGE])
@pytest.mark.parametrize("mechanism", [NullClient(), PlainServer(), ToyServer()])
def test_cve_2019_13132_a_handshake_command_has_a_small_bound(mechanism: Mechanism, size: int) -> None:
    """An oversized INITIATE is refused by its header, before any of it is kept, opened or parsed."""
    connection = Connection(mechanism, "ROUTER")
    connection.receive_data(encode_greeting(mechanism.name, as_server=False) + b"\x06" + size.to_bytes(8, "big"))
    assert "longer than 4096" in ended(connection)


def test_cve_2019_13132_an_initiate_with_300_octets_of_metadata_passes() -> None:
    """The bound is not so small that honest peers break."""
    connection = Connection(NullClient(), "ROUTER")
    ready = encode_command(b"\x05READY\x05X-Abc" + (300).to_bytes(4, "big") + bytes(300))
    connection.receive_data(encode_greeting("NULL", as_server=False) + ready)
    assert connection.ready


def test_cve_2021_20234_half_a_message_is_freed_with_its_connection() -> None:
    """Parts without an end, again and again: what is kept is bounded, and gone when the connection ends."""
    start = (
        encode_greeting("NULL", as_server=False)
        + READY
        + b"\x01\xff"
        + bytes(255)
        + b"\x03"
        + (60_000).to_bytes(8, "big")
    )

    def half_a_message() -> None:
        connection = Connection(NullClient(), "ROUTER")
        connection.receive_data(start + bytes(50_000))
        connection.receive_eof()
        assert connection._decoder is None

    half_a_message()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(50):
            half_a_message()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 20_000
    assert peak - before < 500_000


def test_cve_2021_20235_there_is_no_zmtp_1_parser() -> None:
    """An allocation by a ZMTP 1 length cannot happen: its first octet is the end."""
    connection = Connection(NullClient(), "ROUTER")
    connection.receive_data(b"\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00" + bytes(1000))
    assert "ZMTP 1.0" in ended(connection)
    assert connection._reader.held == 0


def test_cve_2021_20236_topics_are_never_walked_recursively() -> None:
    """A long topic is one value: refused beyond the bound, handed on whole within it."""
    connection = Connection(NullClient(), "XPUB")
    connection.receive_data(
        encode_greeting("NULL", as_server=False) + READY + encode_command(b"\x09SUBSCRIBE" + b"t" * 4086)
    )
    assert connection.ready
    connection.receive_data(encode_command(b"\x09SUBSCRIBE" + b"t" * 4087))
    assert "command longer than 4096" in ended(connection)


def test_cve_2021_20237_metadata_of_a_publishers_peer_does_not_pile_up() -> None:
    """Every connection forgets its handshake, whoever it was with."""
    ready = encode_command(
        b"\x05READY\x0bSocket-Type\0\0\0\x03SUB\x03X-a" + (3000).to_bytes(4, "big") + bytes(3000)
    )
    connection = Connection(NullClient(), "PUB")
    connection.receive_data(encode_greeting("NULL", as_server=False) + ready)
    connection.events()
    assert connection._dialogue.gi_frame is None  # type: ignore[attr-defined]
    assert connection._reader.held == 0
