"""The door to libsodium: both kinds of box, key pairs, and the points that anybody can use."""

from __future__ import annotations

import os
import sys
import types
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl import bindings
from support.curve_dialogue import COMMANDS, KEYS

from zapd.zmtp import crypto
from zapd.zmtp.crypto import BoundBox, Box, BoxLike, CryptoError, best_box

KEY = COMMANDS["session key k"]
NONCE = b"CurveZMQMESSAGEC" + (3).to_bytes(8, "big")
KINDS: list[Callable[[bytes], BoxLike]] = [Box, BoundBox]

PRIME = 2**255 - 19
ORDER_8 = [
    325606250916557431795983626356110631294008115727848805560023387167927233504,
    39382357235489614581723060781553021112529911719440698176882885853963445705823,
]
SMALL = [0, 1, PRIME - 1, PRIME, PRIME + 1, *ORDER_8]


def octets(number: int) -> bytes:
    return number.to_bytes(32, "little")


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_is_naclss_box(kind: Callable[[bytes], BoxLike]) -> None:
    """Either kind of box seals the vector's MESSAGE to the byte, and opens it."""
    sealed = COMMANDS["MESSAGE C->S nonce 3 flags 0 'hello'"][16:]
    assert kind(KEY).seal(b"\0hello", NONCE) == sealed
    assert kind(KEY).open(sealed, NONCE) == b"\0hello"


@settings(deadline=None)
@given(st.binary(max_size=2000), st.binary(min_size=32, max_size=32), st.binary(min_size=24, max_size=24))
def test_both_kinds_agree(content: bytes, key: bytes, nonce: bytes) -> None:
    """Whatever the content, each kind opens what the other sealed, as PyNaCl's own functions do."""
    sealed = Box(key).seal(content, nonce)
    assert sealed == BoundBox(key).seal(content, nonce) == bindings.crypto_box_afternm(content, nonce, key)
    assert Box(key).open(sealed, nonce) == BoundBox(key).open(sealed, nonce) == content


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [0, 1, 495, 496, 497, 511, 512, 513, 100_000])
def test_sizes_around_the_scratch_buffer(kind: Callable[[bytes], BoxLike], size: int) -> None:
    """Results that just fit the kept buffer, and those that just do not, are right, and stay so afterwards."""
    content, other = os.urandom(size), os.urandom(size)
    box = kind(KEY)
    sealed = box.seal(content, NONCE)
    again = box.seal(other, bytes(24))
    assert len(sealed) == size + crypto.OVERHEAD
    opened = box.open(sealed, NONCE)
    assert box.open(again, bytes(24)) == other
    assert opened == content


@pytest.mark.parametrize("kind", KINDS)
def test_many_at_once_are_as_one_by_one(kind: Callable[[bytes], BoxLike]) -> None:
    """Whatever their sizes, in order; and one that does not open spoils them all."""
    contents = [os.urandom(size) for size in (0, 60, 496, 497, 5000, 1)]
    nonces = [os.urandom(24) for _ in contents]
    sealed = kind(KEY).seal_all(contents, nonces)
    assert sealed == [bindings.crypto_box_afternm(*each, KEY) for each in zip(contents, nonces, strict=True)]
    assert kind(KEY).open_all(sealed, nonces) == contents
    for bad in (sealed[0][:15], sealed[1][:-1], sealed[4][:-1]):
        with pytest.raises(CryptoError):
            kind(KEY).open_all([*sealed[:2], bad], nonces[:3])


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_open(kind: Callable[[bytes], BoxLike]) -> None:
    """Too short, another key, another nonce, one bit changed, cut or lengthened: CryptoError, small and large."""
    for content in (b"content", bytes(1000)):
        box = kind(KEY)
        sealed = box.seal(content, NONCE)
        for wrong in (b"", sealed[:15], sealed[:16], sealed[:-1], sealed + b"\0", sealed[1:]):
            with pytest.raises(CryptoError):
                box.open(wrong, NONCE)
        for place in (0, 15, 16, len(sealed) - 1):
            changed = bytearray(sealed)
            changed[place] ^= 1
            with pytest.raises(CryptoError):
                box.open(bytes(changed), NONCE)
        with pytest.raises(CryptoError):
            box.open(sealed, bytes(24))
        with pytest.raises(CryptoError):
            kind(bytes(32)).open(sealed, NONCE)


def test_lengths_that_c_would_not_check() -> None:
    """C would read past a short key or nonce, so such a thing never reaches it."""
    for key in (b"", bytes(31), bytes(33)):
        with pytest.raises(ValueError, match="32 octets"):
            Box(key)
    for nonce in (b"", bytes(23), bytes(25)):
        with pytest.raises(ValueError, match="24 octets"):
            Box(KEY).seal(b"x", nonce)
        with pytest.raises(ValueError, match="24 octets"):
            Box(KEY).open(bytes(17), nonce)
        with pytest.raises(ValueError, match="24 octets"):
            Box(KEY).seal_all([b"x", b"y"], [NONCE, nonce])
        with pytest.raises(ValueError, match="24 octets"):
            Box(KEY).open_all([bytes(17), bytes(17)], [NONCE, nonce])


def test_without_pynacls_inside_the_public_functions_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PyNaCl that keeps its compiled module elsewhere, or has fewer functions in it, costs speed only."""
    assert best_box("nacl._no_such_module") is BoundBox
    poorer = types.ModuleType("poorer")
    poorer.lib, poorer.ffi = types.SimpleNamespace(), None  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "poorer", poorer)
    assert best_box("poorer") is BoundBox
    assert Box is not BoundBox


def test_key_pairs() -> None:
    """A pair is made from the randomness given, its halves belong together, and two are never the same."""
    asked: list[int] = []

    def random(size: int) -> bytes:
        asked.append(size)
        return KEYS["s"]

    assert crypto.keypair(random) == (KEYS["S"], KEYS["s"])
    assert asked == [32]
    public, secret = crypto.keypair()
    assert crypto.public_of(secret) == public
    assert crypto.keypair()[1] != secret


def test_the_shared_key_is_shared() -> None:
    """Both owners compute one key, and it is the one that libsodium's boxes use."""
    assert crypto.shared_key(KEYS["C"], KEYS["s"]) == crypto.shared_key(KEYS["S"], KEYS["c"])


@pytest.mark.parametrize("number", SMALL)
@pytest.mark.parametrize("top", [0, 1 << 255])
def test_points_of_small_order(number: int, top: int) -> None:
    """Each of them, also with the bit that X25519 ignores, is known by sight and refused by libsodium itself."""
    if number + top >= 2**256:
        return
    point = octets(number + top)
    assert crypto.is_low_order(point)
    with pytest.raises(CryptoError, match="small order"):
        crypto.shared_key(point, KEYS["s"])


@pytest.mark.parametrize("number", SMALL)
def test_neighbours_of_small_points_are_fine(number: int) -> None:
    """Only the points themselves are refused: libsodium and we agree about every number beside them."""
    for near in (number - 2, number - 1, number + 1, number + 2):
        if near < 0 or near in SMALL:
            continue
        assert not crypto.is_low_order(octets(near))
        crypto.shared_key(octets(near), KEYS["s"])


@settings(deadline=None)
@given(st.binary(min_size=32, max_size=32))
def test_libsodium_and_the_list_agree(point: bytes) -> None:
    """No octets at all make libsodium refuse what the list would take, or the other way round."""
    try:
        crypto.shared_key(point, KEYS["s"])
    except CryptoError:
        assert crypto.is_low_order(point)
    else:
        assert not crypto.is_low_order(point)


def test_equal() -> None:
    """Equality is equality, lengths included."""
    assert crypto.equal(b"abc", b"abc")
    assert not crypto.equal(b"abc", b"abd")
    assert not crypto.equal(b"abc", b"ab")
