"""Command bodies, to the octet."""

from __future__ import annotations

import pytest

from zapd.errors import LocalProtocolError
from zapd.zmtp.commands import (
    ErrorCommand,
    command,
    decode_error,
    decode_ping,
    decode_pong,
    encode_error,
    encode_ping,
    encode_pong,
    encode_subscription,
    expect,
    split_command,
)
from zapd.zmtp.handshake import PeerError


def test_bodies_have_no_padding() -> None:
    """Name length, name, data: the bare form on which every implementation agrees."""
    assert command(b"READY", b"x") == b"\x05READYx"
    assert encode_error(b"400") == b"\x05ERROR\x03400"
    assert encode_ping(1.5, b"abc") == b"\x04PING\x00\x0fabc"
    assert encode_pong(b"abc") == b"\x04PONGabc"
    assert encode_subscription(b"A", subscribe=True) == b"\x09SUBSCRIBEA"
    assert encode_subscription(b"A", subscribe=False) == b"\x06CANCELA"


def test_a_command_splits_into_name_and_data() -> None:
    """What was put together comes apart again."""
    assert split_command(b"\x05READYx") == (b"READY", b"x")
    assert split_command(command(b"A" * 255)) == (b"A" * 255, b"")


@pytest.mark.parametrize("body", [b"", b"\0", b"\0x", b"\x06READY", b"\x01", b"\x011", b"\x02A-", b"\xff" * 10])
def test_a_malformed_command_is_refused(body: bytes) -> None:
    """No name, a name past the end, or a name not of letters."""
    with pytest.raises(PeerError, match="malformed command"):
        split_command(body)


def test_another_command_than_expected_is_named() -> None:
    """The reason says what came instead, in printable characters."""
    assert expect(b"\x05READYx", b"READY") == b"x"
    with pytest.raises(PeerError, match="expected READY, got HELLO"):
        expect(b"\x05HELLO", b"READY")


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"\x05ERROR\x03400", ErrorCommand("400", 400)),
        (b"\x05ERROR\x03300", ErrorCommand("300", 300)),
        (b"\x05ERROR\x08400", ErrorCommand("400", 400)),  # libzmq 4.1 counts wrong
        (b"\x05ERRORgo away", ErrorCommand("go away", None)),  # go-zmq4 does not count
        (b"\x05ERROR", ErrorCommand("", None)),
        (b"\x05ERROR\x00", ErrorCommand("", None)),
        (b"\x05ERROR\x04\x1b[2J", ErrorCommand("?[2J", None)),
        (b"\x05ERROR\x03\xb2\xb2\xb2", ErrorCommand("???", None)),
        (b"\x05ERROR\x40" + b"x" * 64, ErrorCommand("x" * 64, None)),
        (b"\x05READY", None),
        (b"", None),
    ],
)
def test_errors_are_read_as_everybody_writes_them(body: bytes, error: ErrorCommand | None) -> None:
    """ERROR is fatal however its reason is counted; three digits are a ZAP status."""
    assert decode_error(body) == error


def test_libzmqs_misspelt_error_is_known_where_it_may_come() -> None:
    """libzmq 4.3 writes PLAIN's ERROR with a caret for its length; nobody else may."""
    assert decode_error(b"\x5eRROR\x03400", misspelt=True) == ErrorCommand("400", 400)
    assert decode_error(b"\x5eRROR\x03400") is None


@pytest.mark.parametrize("ttl", [-0.1, 65.6, 6553.5, float("nan")])
def test_a_ttl_that_libzmq_would_wrap_is_refused(ttl: float) -> None:
    """libzmq counts milliseconds in 16 bits."""
    with pytest.raises(LocalProtocolError, match=r"65\.5"):
        encode_ping(ttl, b"")


def test_a_ping_context_has_16_octets_at_most() -> None:
    """RFC 37's bound, towards our own caller and towards the peer."""
    assert decode_ping(encode_ping(65.5, b"c" * 16)[5:]) == (65.5, b"c" * 16)
    assert decode_pong(b"c" * 16) == b"c" * 16
    with pytest.raises(LocalProtocolError, match="16"):
        encode_ping(0, b"c" * 17)
    for data in (b"", b"\0", b"\0\0" + b"c" * 17):
        with pytest.raises(PeerError, match="PING"):
            decode_ping(data)
    with pytest.raises(PeerError, match="PONG"):
        decode_pong(b"c" * 17)
