"""Properties: encoded, read back, and held to their bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zapd.errors import InvalidInput
from zapd.zmtp.handshake import PeerError
from zapd.zmtp.limits import DEFAULT_LIMITS, Limits
from zapd.zmtp.metadata import (
    check_property_name,
    decode_properties,
    encode_properties,
    own_metadata,
    read_metadata,
)

NAMES = st.text("ABCXYZabcxyz0189-_.+", min_size=1, max_size=255)


def property_(name: bytes, value: bytes) -> bytes:
    return bytes((len(name),)) + name + len(value).to_bytes(4, "big") + value


def test_our_metadata_is_libzmqs_to_the_octet() -> None:
    """Socket-Type, then Identity, even when it is empty."""
    expected = "0B536F636B65742D54797065000000064445414C4552084964656E7469747900000000"
    assert own_metadata("DEALER", b"", ()) == bytes.fromhex(expected)
    assert own_metadata("PUB", b"", [("X-a", b"1")]) == property_(b"Socket-Type", b"PUB") + property_(b"X-a", b"1")


@given(st.lists(st.tuples(NAMES, st.binary(max_size=300)), unique_by=lambda item: item[0].lower(), max_size=20))
def test_what_is_encoded_is_read_back(properties: list[tuple[str, bytes]]) -> None:
    """Names in lower case, values and order as they were."""
    decoded = decode_properties(encode_properties(properties))
    assert list(decoded.items()) == [(name.lower(), value) for name, value in properties]


@given(st.binary(max_size=200))
def test_any_octets_decode_or_are_refused(data: bytes) -> None:
    """Whatever comes, properties or `PeerError`; and what decodes is all there was."""
    try:
        decoded = decode_properties(data)
    except PeerError:
        return
    assert sum(5 + len(name) + len(value) for name, value in decoded.items()) == len(data)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00\0\0\0\0", "illegal property name"),
        (b"\x01 \0\0\0\0", "illegal property name"),
        (b"\x01\xe9\0\0\0\0", "illegal property name"),
        (b"\x01", "cut short"),
        (b"\x05abc", "cut short"),
        (b"\x01a\0\0\0", "cut short"),
        (b"\x01a\0\0\0\x02x", "cut short"),
        (b"\x01a\xff\xff\xff\xff", "cut short"),
        (b"\x01a\x7f\xff\xff\xffx", "cut short"),
        (property_(b"a", b"1") + b"\x00", "cut short"),
        (property_(b"X-a", b"1") + property_(b"x-A", b"2"), "twice"),
    ],
)
def test_malformed_metadata_is_refused(data: bytes, reason: str) -> None:
    """Each way to write it wrong has its reason; sizes are compared with what is there, never trusted."""
    with pytest.raises(PeerError, match=reason):
        decode_properties(data)


def test_the_number_of_properties_is_bounded() -> None:
    """One more than the limit is refused."""
    data = encode_properties([(f"X-{number}", b"") for number in range(3)])
    assert len(decode_properties(data, Limits(properties=3))) == 3
    with pytest.raises(PeerError, match="more than 2"):
        decode_properties(data, Limits(properties=2))


@pytest.mark.parametrize("name", ["", "a b", "ä", "a\n", "a:", "x" * 256, "a\0"])
def test_an_illegal_name_is_told_to_who_chose_it(name: str) -> None:
    """`check_property_name` is for people: its error names the rule."""
    with pytest.raises(InvalidInput, match="property name"):
        check_property_name(name)


def test_a_property_given_twice_is_refused() -> None:
    """Names differing in case alone are the same name."""
    with pytest.raises(InvalidInput, match="twice"):
        encode_properties([("X-a", b""), ("x-A", b"")])


class _Huge(bytes):
    def __len__(self) -> int:
        return 1 << 31


def test_a_value_beyond_31_bits_is_refused() -> None:
    """RFC 23 ends a value at 2^31-1 octets."""
    with pytest.raises(InvalidInput, match="longer"):
        encode_properties([("X-a", _Huge())])


def test_own_metadata_is_checked() -> None:
    """An unknown socket type, an identity where there can be none, and an illegal identity."""
    with pytest.raises(InvalidInput, match="unknown socket type"):
        own_metadata("dealer", b"", ())
    with pytest.raises(InvalidInput, match="PUSH socket has no identity"):
        own_metadata("PUSH", b"me", ())
    for identity in (b"\0me", b"x" * 256):
        with pytest.raises(InvalidInput, match="identity"):
            own_metadata("DEALER", identity, ())
    with pytest.raises(InvalidInput, match="twice"):
        own_metadata("DEALER", b"me", [("identity", b"you")])


def test_a_peer_cannot_pass_for_somebody_else() -> None:
    """`User-Id` and `Peer-Address` belong to ZAP and the transport; a peer's are dropped."""
    data = encode_properties(
        [
            ("Socket-Type", b"REQ"),
            ("Identity", b"me"),
            ("User-Id", b"root"),
            ("Peer-Address", b"::1"),
            ("X-b", b"2"),
        ]
    )
    peer = read_metadata(data, DEFAULT_LIMITS)
    assert (peer.socket_type, peer.identity, peer.others) == ("REQ", b"me", (("x-b", b"2"),))


def test_a_peer_may_say_nothing_of_itself() -> None:
    """libzmq accepts a READY without Socket-Type, and so do we."""
    peer = read_metadata(b"", DEFAULT_LIMITS)
    assert (peer.socket_type, peer.identity, peer.others) == ("", b"", ())


@pytest.mark.parametrize(
    "data",
    [property_(b"Identity", b"\0x"), property_(b"Identity", b"x" * 256), property_(b"Socket-Type", b"")],
)
def test_an_illegal_identity_or_type_is_refused(data: bytes) -> None:
    """RFC 37: at most 255 octets, the first not zero; and a type that is named is not empty."""
    with pytest.raises(PeerError):
        read_metadata(data, DEFAULT_LIMITS)
