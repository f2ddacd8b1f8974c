"""A behaving fake of Kerberos in one process: tickets under a realm's key, sessions of NaCl, tokens that count.

What it keeps of the real one is what the engine relies on: a client proves itself with a token of its own, the
server answers with a proof of its own, and wrapped content opens once, in order, for the other side alone.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from zapd.zmtp.handshake import PeerError

ALICE = b"alice@ZAPD.TEST"
_SIDES = {True: b"C", False: b"S"}
"""Whether it initiates."""


@dataclass
class Realm:
    """Whoever has its key is in it. ``tokens`` is how many each side must send; ``random`` makes a recording the
    same each time."""

    key: bytes = b"\x07" * 32
    name: bytes = ALICE
    tokens: int = 1
    random: Callable[[int], bytes] = os.urandom

    def initiate(self) -> FakeContext:
        return FakeContext(self, initiator=True)

    def accept(self) -> FakeContext:
        return FakeContext(self, initiator=False)


class FakeContext:
    """One side of a session."""

    def __init__(self, realm: Realm, *, initiator: bool) -> None:
        self._realm = realm
        self._initiator = initiator
        self._session = realm.random(32) if initiator else b""
        self._sent = self._received = 0
        self._wrapped = self._unwrapped = 0
        self._name = b"zmq/host@ZAPD.TEST"

    @property
    def complete(self) -> bool:
        return self._sent >= self._realm.tokens and self._received >= self._realm.tokens

    @property
    def peer_name(self) -> bytes:
        assert self.complete
        return self._name

    def step(self, token: bytes) -> bytes:
        if token:
            self._take(token)
        else:
            assert self._initiator
        if self._initiator and self.complete:
            return b""
        number = bytes((self._sent,))
        self._sent += 1
        if self._initiator and number == b"\0":
            return self._sealed(self._realm.key, self._session + self._realm.name)
        return self._sealed(self._session, _SIDES[self._initiator] + number)

    def wrap(self, content: bytes) -> bytes:
        self._wrapped += 1
        return self._sealed(self._session, _SIDES[self._initiator] + self._wrapped.to_bytes(8, "big") + content)

    def unwrap(self, token: bytes) -> bytes:
        content = self._opened(self._session, token)
        mark = _SIDES[not self._initiator] + (self._unwrapped + 1).to_bytes(8, "big")
        if content[:9] != mark:
            raise PeerError("the token came before, or is not the peer's")
        self._unwrapped += 1
        return content[9:]

    def _take(self, token: bytes) -> None:
        number = bytes((self._received,))
        if not self._initiator and number == b"\0":
            content = self._opened(self._realm.key, token)
            if len(content) <= 32:
                raise PeerError("a ticket without a name")
            self._session, self._name = content[:32], content[32:]
        elif self._opened(self._session, token) != _SIDES[not self._initiator] + number:
            raise PeerError("the token is not the one that must come")
        self._received += 1

    def _sealed(self, key: bytes, content: bytes) -> bytes:
        return bytes(SecretBox(key).encrypt(content, self._realm.random(24)))

    @staticmethod
    def _opened(key: bytes, token: bytes) -> bytes:
        try:
            return SecretBox(key).decrypt(token)
        except (CryptoError, ValueError):
            raise PeerError("the token does not open") from None
