"""The only door to libsodium: key pairs, and boxes made with a key that two sides share.

Everything of CURVE is one construction, XSalsa20-Poly1305 under a 32-octet key (NaCl's ``crypto_box`` and
``crypto_secretbox``; RFC 26). A `Box` holds such a key and is made once for each pair of keys, since the scalar
multiplication behind it costs forty times a short message. Nothing here knows a command, a nonce's prefix or a
connection.

PyNaCl's public functions check and allocate on every call, which is more than half the price of a short frame. So
a `Box` calls the same C functions through PyNaCl's own cffi handle and keeps one small buffer for their results;
where a PyNaCl does not have them, `BoundBox` does the same through ``nacl.bindings``. `Box` is the better of the
two that there is.

A box belongs to one thread at a time, as its connection does: a call into C lets other threads run.
"""

from __future__ import annotations

import hmac
import importlib
import os
from collections.abc import Callable, Sequence
from typing import Final, Protocol, cast

from nacl import bindings
from nacl.exceptions import CryptoError as SodiumError

from zapd.zmtp.handshake import Random

KEY_SIZE: Final = 32
"""Octets of a public key, a secret key and a shared key."""
NONCE_SIZE: Final = 24
OVERHEAD: Final = 16
"""What a box is longer than its content: the authenticator."""

_PRIME: Final = 2**255 - 19

_LOW_ORDER: Final = frozenset(
    value.to_bytes(KEY_SIZE, "little")
    for value in (
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        2**255 - 20,
        2**255 - 19,
        2**255 - 18,
    )
)
"""The u-coordinates of all points of small order on Curve25519 and its twist, also as written above the prime.
Whatever the secret, the key shared with one of them is known (RFC 7748, section 6.1)."""


class CryptoError(Exception):
    """A box that does not open with this key and nonce, or a public key of small order."""


class BoxLike(Protocol):
    """Seals and opens with one shared key."""

    def seal(self, message: bytes, nonce: bytes) -> bytes:
        """``message`` with its authenticator in front, `OVERHEAD` octets longer. Never twice with one nonce."""
        ...

    def open(self, box: bytes, nonce: bytes) -> bytes:
        """What was sealed. `CryptoError` when it was not sealed with this key and nonce, or was changed since."""
        ...

    def seal_all(self, messages: Sequence[bytes], nonces: Sequence[bytes]) -> list[bytes]:
        """`seal` for many, each with its own nonce."""
        ...

    def open_all(self, boxes: Sequence[bytes], nonces: Sequence[bytes]) -> list[bytes]:
        """`open` for many; `CryptoError` when one of them does not open."""
        ...


def public_of(secret: bytes) -> bytes:
    """The public half of a secret key: one scalar multiplication."""
    return bindings.crypto_scalarmult_base(secret)


def keypair(random: Random = os.urandom) -> tuple[bytes, bytes]:
    """A fresh (public, secret) pair. Any 32 octets serve as a secret (RFC 7748, section 5)."""
    secret = random(KEY_SIZE)
    return public_of(secret), secret


def is_low_order(public: bytes) -> bool:
    """Whether these 32 octets name a point of small order, as no honest key does. The top bit is ignored, as
    RFC 7748, section 5, has it ignored in the multiplication."""
    return public[:-1] + bytes([public[-1] & 0x7F]) in _LOW_ORDER


def is_ordinary(public: bytes) -> bool:
    """Whether these 32 octets are what multiplying the base point gives: on the curve and not on its twist, in the
    subgroup of prime order, written below the prime (RFC 7748, sections 4.1 and 5). Every honest public key is."""
    u = int.from_bytes(public, "little")
    if u >= _PRIME or (u + 1) % _PRIME == 0:
        return False
    # libsodium judges points of edwards25519: the same curve under the map of RFC 7748, section 4.1.
    y = (u - 1) * pow(u + 1, -1, _PRIME) % _PRIME
    return bool(bindings.crypto_core_ed25519_is_valid_point(y.to_bytes(KEY_SIZE, "little")))


def shared_key(public: bytes, secret: bytes) -> bytes:
    """The key that the owners of these two pairs share: one scalar multiplication.

    `CryptoError` when ``public`` is of small order, since the result would be no secret.
    """
    try:
        return bindings.crypto_box_beforenm(public, secret)
    except SodiumError:
        raise CryptoError("a public key of small order") from None


def equal(a: bytes, b: bytes) -> bool:
    """Whether they are the same, in a time that does not tell where they differ."""
    return hmac.compare_digest(a, b)


class BoundBox:
    """A `BoxLike` that uses PyNaCl's public functions alone."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key  # 32 octets: the functions check it

    def seal(self, message: bytes, nonce: bytes) -> bytes:
        return bindings.crypto_box_afternm(message, nonce, self._key)

    def open(self, box: bytes, nonce: bytes) -> bytes:
        if len(box) < OVERHEAD:
            raise CryptoError("too short for a box")
        try:
            return bindings.crypto_box_open_afternm(box, nonce, self._key)
        except SodiumError:
            raise CryptoError("the box does not open") from None

    def seal_all(self, messages: Sequence[bytes], nonces: Sequence[bytes]) -> list[bytes]:
        return list(map(self.seal, messages, nonces))

    def open_all(self, boxes: Sequence[bytes], nonces: Sequence[bytes]) -> list[bytes]:
        return list(map(self.open, boxes, nonces))


class _Memory(Protocol):
    """A C array, or Python's window on one."""

    def __getitem__(self, item: slice, /) -> bytes: ...


class _Ffi(Protocol):
    def new(self, declaration: str, initial: bytes | int) -> _Memory: ...
    def buffer(self, memory: _Memory, size: int) -> _Memory: ...
    def new_allocator(self, *, should_clear_after_alloc: bool) -> Callable[[str, int], _Memory]: ...


_CFunction = Callable[[_Memory, bytes, int, bytes, _Memory], int]


class _Lib(Protocol):
    crypto_box_easy_afternm: _CFunction
    crypto_box_open_easy_afternm: _CFunction


class _Sodium(Protocol):
    """What is used of PyNaCl's compiled module, which has no types of its own."""

    ffi: _Ffi
    lib: _Lib


_SCRATCH: Final = 512
"""Octets that each box keeps for results: enough for the frames of a ZAP question, little enough for ten thousand
connections. Longer results get memory of their own."""


def direct_box(sodium: _Sodium) -> Callable[[bytes], BoxLike]:
    """The class of boxes that call C themselves; `AttributeError` when this PyNaCl lacks a function for it."""
    c_seal = sodium.lib.crypto_box_easy_afternm
    c_open = sodium.lib.crypto_box_open_easy_afternm
    new, window = sodium.ffi.new, sodium.ffi.buffer
    # Not cleared, since every octet that is read has been written first.
    allocate = sodium.ffi.new_allocator(should_clear_after_alloc=False)

    class DirectBox:
        """C reads 32 octets of key and 24 of nonce whatever it is given, so their lengths are checked here."""

        __slots__ = ("_key", "_scratch", "_window")

        def __init__(self, key: bytes) -> None:
            if len(key) != KEY_SIZE:
                raise ValueError(f"a shared key has {KEY_SIZE} octets")
            self._key = new("unsigned char[]", key)
            self._scratch = new("unsigned char[]", _SCRATCH)
            self._window = window(self._scratch, _SCRATCH)

        def seal(self, message: bytes, nonce: bytes) -> bytes:
            if len(nonce) != NONCE_SIZE:
                raise ValueError(f"a nonce has {NONCE_SIZE} octets")
            size = len(message) + OVERHEAD
            if size <= _SCRATCH:
                c_seal(self._scratch, message, len(message), nonce, self._key)
                return self._window[:size]
            memory = allocate("unsigned char[]", size)
            c_seal(memory, message, len(message), nonce, self._key)
            return window(memory, size)[:]

        def open(self, box: bytes, nonce: bytes) -> bytes:
            if len(nonce) != NONCE_SIZE:
                raise ValueError(f"a nonce has {NONCE_SIZE} octets")
            size = len(box) - OVERHEAD
            if size < 0:
                raise CryptoError("too short for a box")
            if size <= _SCRATCH:
                if c_open(self._scratch, box, len(box), nonce, self._key) != 0:
                    raise CryptoError("the box does not open")
                return self._window[:size]
            memory = allocate("unsigned char[]", size)
            if c_open(memory, box, len(box), nonce, self._key) != 0:
                raise CryptoError("the box does not open")
            return window(memory, size)[:]

        def seal_all(self, messages: Sequence[bytes], nonces: Sequence[bytes]) -> list[bytes]:
            # The loops of the hot road under CURVE: a method called for each frame would cost half as much again.
            if not alike(nonces):
                raise ValueError(f"a nonce has {NONCE_SIZE} octets")
            key, scratch, result = self._key, self._scratch, self._window
            boxes: list[bytes] = []
            for message, nonce in zip(messages, nonces, strict=True):
                size = len(message)
                if size > _SCRATCH - OVERHEAD:
                    boxes.append(self.seal(message, nonce))
                    continue
                c_seal(scratch, message, size, nonce, key)
                boxes.append(result[: size + OVERHEAD])
            return boxes

        def open_all(self, boxes: Sequence[bytes], nonces: Sequence[bytes]) -> list[bytes]:
            if not alike(nonces):
                raise ValueError(f"a nonce has {NONCE_SIZE} octets")
            key, scratch, result = self._key, self._scratch, self._window
            messages: list[bytes] = []
            for box, nonce in zip(boxes, nonces, strict=True):
                size = len(box)
                if not OVERHEAD <= size <= _SCRATCH:
                    messages.append(self.open(box, nonce))
                    continue
                if c_open(scratch, box, size, nonce, key) != 0:
                    raise CryptoError("the box does not open")
                messages.append(result[: size - OVERHEAD])
            return messages

    def alike(nonces: Sequence[bytes]) -> bool:
        return set(map(len, nonces)) <= {NONCE_SIZE}

    return DirectBox


def best_box(module: str = "nacl._sodium") -> Callable[[bytes], BoxLike]:
    """The quickest kind of box that the installed PyNaCl allows."""
    try:
        return direct_box(cast(_Sodium, importlib.import_module(module)))
    except (ImportError, AttributeError):
        return BoundBox


Box: Final = best_box()
"""Makes a `BoxLike` from a shared key of 32 octets."""
