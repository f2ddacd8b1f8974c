"""The opening 64 octets, read in pieces and refused at the first impossible one."""

from __future__ import annotations

import pytest

from zapd.zmtp.greeting import GREETING_SIZE, Greeting, encode_greeting, parse_greeting, printable
from zapd.zmtp.handshake import PeerError

LIBZMQ = bytes.fromhex("FF00000000000000017F0301") + b"NULL".ljust(20, b"\0") + bytes(32)


def test_greeting_is_libzmqs_to_the_octet() -> None:
    """Our NULL greeting is what libzmq 4.3.5 sends."""
    assert encode_greeting("NULL", as_server=False) == LIBZMQ


def test_greeting_announces_the_server_side() -> None:
    """Octet 32 says which side serves (RFC 23)."""
    greeting = encode_greeting("PLAIN", as_server=True)
    assert len(greeting) == GREETING_SIZE
    assert greeting[32] == 1
    assert parse_greeting(greeting) == Greeting(3, 1, b"PLAIN".ljust(20, b"\0"), True)


@pytest.mark.parametrize("size", range(GREETING_SIZE))
def test_an_unfinished_greeting_is_not_judged(size: int) -> None:
    """Every proper prefix of a good greeting asks for more."""
    assert parse_greeting(LIBZMQ[:size]) is None


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        (b"GET / HTTP/1.1", "another protocol"),
        (b"\x00", "1.0"),
        (b"\x01\x00", "1.0"),
        (b"\xff\0\0\0\0\0\0\0\x04\x7e", "1.0"),
        (b"\xff\0\0\0\0\0\0\0\x01\x7f\x00", "2.0"),
        (b"\xff\0\0\0\0\0\0\0\x01\x7f\x01", "2.0"),
        (b"\xff\0\0\0\0\0\0\0\x01\x7f\x02", "2.0"),
    ],
)
def test_the_first_impossible_octet_is_enough(prefix: bytes, reason: str) -> None:
    """Older peers and strangers are told apart as soon as they differ, with a reason."""
    with pytest.raises(PeerError, match=reason):
        parse_greeting(prefix)


@pytest.mark.parametrize("major", [3, 4, 9, 255])
@pytest.mark.parametrize("minor", [0, 1, 2, 255])
def test_versions_at_or_above_ours_are_accepted(major: int, minor: int) -> None:
    """RFC 23: a peer of a later version must be accepted; only 3.0 lacks the subscription commands."""
    greeting = parse_greeting(LIBZMQ[:10] + bytes((major, minor)) + LIBZMQ[12:])
    assert greeting is not None
    assert greeting.speaks_commands is not ((major, minor) == (3, 0))


@pytest.mark.parametrize("ninth", [0x01, 0x7F, 0xFF])
@pytest.mark.parametrize("as_server", [0, 1, 7])
def test_what_libzmq_overlooks_is_overlooked(ninth: int, as_server: int) -> None:
    """Padding, filler, as-server and all of octet 9 but bit 0 may be anything."""
    data = (
        b"\xff"
        + b"\xaa" * 8
        + bytes((ninth, 3, 1))
        + b"CURVE".ljust(20, b"\0")
        + bytes((as_server,))
        + b"\xbb" * 31
    )
    greeting = parse_greeting(data)
    assert greeting is not None
    assert greeting.mechanism_name == "CURVE"
    assert greeting.as_server is bool(as_server)


def test_foreign_octets_print_harmlessly() -> None:
    """A name from the wire cannot carry control characters into a log, nor fill it."""
    assert printable(b"A\x1b[2J\nB\xff") == "A?[2J?B?"
    assert len(printable(b"x" * 1000)) == 64
