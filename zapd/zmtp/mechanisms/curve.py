"""CURVE: encryption and authentication with long-term keys (RFC 26; wire layouts RFC 25).

    client                                                              server
      | HELLO     C', Box[64 zeros](C'->S)                                |
      | ----------------------------------------------------------------> |
      |             WELCOME   Box[S', cookie](S->C')                      |  cookie = what the server forgets
      | <---------------------------------------------------------------- |
      | INITIATE  cookie, Box[C, vouch, metadata](C'->S')                 |  vouch = Box[C', S](C->S')
      | ----------------------------------------------------------------> |  the owner is asked about C
      |             READY     Box[metadata](S'->C')                       |
      | <---------------------------------------------------------------- |
      | MESSAGE   Box[flags, payload](C'->S')  and  (S'->C')              |

Capitals are public keys, small letters secret ones; a prime marks the short-term pair that each side makes for one
connection. Each shared key is computed once, so a handshake costs either side four scalar multiplications: its
short-term pair, and the boxes between C' and S, C' and S', C and S'.

**The cookie.** Between WELCOME and INITIATE the server keeps 48 octets of a client: a cookie key made for this
connection alone, the nonce of HELLO, a deadline. Its short-term secret travels in the cookie. A key for each
connection rather than one for the listener makes "only here, only once, not for long" need no table, no rotation
and no stored nonce: the key goes when INITIATE comes, and whoever learns one opens one cookie.

libzmq checks neither HELLO's padding and content, nor INITIATE's nonce, nor the vouch's S. Here all is checked.
What is believed about C is the owner's affair, and ERROR is the driver's.
"""

from __future__ import annotations

import os
import struct
import weakref
from collections.abc import Sequence
from operator import lt
from typing import Final, NoReturn

from zapd.errors import InvalidInput, LocalProtocolError
from zapd.zmtp import crypto
from zapd.zmtp.credentials import CurveCredentials
from zapd.zmtp.crypto import Box, BoxLike, CryptoError
from zapd.zmtp.handshake import RECEIVE, Ask, Clock, Handshake, PeerError, Random, Send, Session

COOKIE_LIFETIME: Final = 60.0
"""Seconds from WELCOME to INITIATE (RFC 26, "around 60 seconds")."""

_HELLO: Final = b"\x05HELLO"
_WELCOME: Final = b"\x07WELCOME"
_INITIATE: Final = b"\x08INITIATE"
_READY: Final = b"\x05READY"
_MESSAGE: Final = b"\x07MESSAGE"

_HELLO_START: Final = _HELLO + b"\x01\x00" + bytes(72)
"""Name, version 1.0, and the padding that makes HELLO longer than WELCOME, so that forging a sender's address wins
nothing."""
_HELLO_SIZE: Final = 200
_WELCOME_SIZE: Final = 168
_INITIATE_SIZE: Final = 257
"""Without metadata."""
_READY_SIZE: Final = 30
"""Without metadata."""
_MESSAGE_SIZE: Final = 33
"""With an empty payload."""
_COOKIE_SIZE: Final = 96
_VOUCH_SIZE: Final = 96
_ZEROS: Final = bytes(64)

# Nonces are a prefix and 8 octets that count, or a prefix and 16 that are random; only the second part travels.
_HELLO_NONCE: Final = b"CurveZMQHELLO---"
_WELCOME_NONCE: Final = b"WELCOME-"
_COOKIE_NONCE: Final = b"COOKIE--"
_VOUCH_NONCE: Final = b"VOUCH---"
_INITIATE_NONCE: Final = b"CurveZMQINITIATE"
_READY_NONCE: Final = b"CurveZMQREADY---"
_CLIENT_NONCE: Final = b"CurveZMQMESSAGEC"
_SERVER_NONCE: Final = b"CurveZMQMESSAGES"

_LAST: Final = 2**64 - 1
_short = struct.Struct(">Q").pack
_FLAGS: Final = (b"\x00", b"\x01", b"\x02")
"""Inner flags: nothing, MORE, COMMAND. (RFC 26 has MORE only; everybody sends COMMAND as 2, where ZMTP has 4.)"""


class CurveCipher:
    """Seals and opens MESSAGE on one connection, for one side of it.

    Nonces count up from the handshake's in both directions. A counter never wraps and is never used by two
    processes: after a fork the child's copy refuses to seal.
    """

    __slots__ = ("__weakref__", "_box", "_received", "_receives", "_sends", "_sent")

    def __init__(self, box: BoxLike, *, sends: bytes, sent: int, receives: bytes, received: bytes) -> None:
        self._box = box
        self._sends, self._sent = sends, sent
        self._receives, self._received = receives, received
        _ciphers.add(self)

    def seal(self, flags: int, payload: bytes) -> bytes:
        """The body of a MESSAGE, 33 octets longer than the payload. ``flags``: 0, 1 = MORE, 2 = COMMAND.

        `LocalProtocolError` when the nonces are used up.
        """
        sent = self._sent
        if sent >= _LAST:
            raise LocalProtocolError("no nonce is left on this connection: open a new one")
        self._sent = sent + 1
        short = _short(sent + 1)
        return _MESSAGE + short + self._box.seal(_FLAGS[flags] + payload, self._sends + short)

    def open(self, body: bytes) -> tuple[int, bytes]:
        """(flags, payload) of a MESSAGE; `PeerError` unless it is whole, newer than the last, and the peer's."""
        if body[:8] != _MESSAGE or len(body) < _MESSAGE_SIZE:
            raise PeerError("expected MESSAGE")
        short = body[8:16]
        if short <= self._received:  # eight octets, big end first, compare as their numbers do
            raise PeerError("the nonce of MESSAGE does not rise")
        try:
            content = self._box.open(body[16:], self._receives + short)
        except CryptoError:
            raise PeerError("MESSAGE does not open") from None
        self._received = short
        flags = content[0]
        if flags >= len(_FLAGS):
            raise PeerError("MESSAGE has unknown flags")
        return flags, content[1:]

    def seal_all(self, contents: Sequence[bytes]) -> list[bytes]:
        """`seal` for many frames, each an octet of flags and the payload."""
        first = self._sent + 1
        end = first + len(contents)
        if end - 1 > _LAST:
            raise LocalProtocolError("no nonce is left on this connection: open a new one")
        self._sent = end - 1
        sends = self._sends
        shorts = [_short(number) for number in range(first, end)]
        boxes = self._box.seal_all(contents, [sends + short for short in shorts])
        return [_MESSAGE + short + box for short, box in zip(shorts, boxes, strict=True)]

    def open_all(self, bodies: Sequence[bytes], contents: list[bytes]) -> None:
        """`open` for many frames: appends what they hold, each an octet of flags and the payload."""
        shorts = [body[8:16] for body in bodies]
        rising = all(map(lt, (self._received, *shorts), shorts))
        if rising and {body[:8] for body in bodies} == {_MESSAGE} and len(min(bodies, key=len)) >= _MESSAGE_SIZE:
            receives = self._receives
            try:
                found = self._box.open_all([body[16:] for body in bodies], [receives + short for short in shorts])
            except CryptoError:
                pass
            else:
                if max(found)[0] < len(_FLAGS):  # the first octets sort them
                    self._received = shorts[-1]
                    contents += found
                    return
        # One of them is bad: up to it they are opened again, one by one.
        for body in bodies:
            flags, payload = self.open(body)
            contents.append(_FLAGS[flags] + payload)

    def exhaust(self) -> None:
        """Never seal again."""
        self._sent = _LAST

    def __reduce__(self) -> NoReturn:
        """Neither copied nor pickled: a copy would count the same nonces again, a pickle would show the key."""
        raise TypeError("a CurveCipher cannot be copied or pickled")


_ciphers: Final[weakref.WeakSet[CurveCipher]] = weakref.WeakSet()


def _exhaust_copies() -> None:
    """In the child of a fork: parent and child would both go on with the same key and the same next nonce, which
    would give the content away."""
    for cipher in list(_ciphers):
        cipher.exhaust()


os.register_at_fork(after_in_child=_exhaust_copies)


class CurveServer:
    """The side that owns the key which clients must know beforehand.

    ``secret_key`` is its 32 octets, one for a listener; ``clock`` says how old a cookie is. Serves any number of
    connections.
    """

    __slots__ = ("_clock", "_random", "_secret", "public_key")

    name: Final = "CURVE"
    as_server: Final = True

    def __init__(self, secret_key: bytes, *, clock: Clock, random: Random = os.urandom) -> None:
        self._secret = _checked(secret_key)
        self._clock = clock
        self._random = random
        self.public_key: Final = crypto.public_of(secret_key)
        """S, 32 octets."""

    def __repr__(self) -> str:
        return f"CurveServer(public_key={self.public_key.hex()})"

    def handshake(self, metadata: bytes) -> Handshake:
        """The dialogue with one client; ``metadata`` goes out in READY."""
        welcome, cookie_key, hello_nonce = self._answer_hello((yield RECEIVE))
        deadline = self._clock() + COOKIE_LIFETIME
        yield Send(welcome)
        del welcome
        initiate = yield RECEIVE
        if self._clock() > deadline:
            raise PeerError("INITIATE came too late for its cookie")
        client_key, box, nonce, peer_metadata = self._open_initiate(initiate, cookie_key, hello_nonce)
        del initiate, cookie_key, hello_nonce
        yield Ask(CurveCredentials(client_key))
        ready_nonce = _short(1)
        yield Send(_READY + ready_nonce + box.seal(metadata, _READY_NONCE + ready_nonce))
        cipher = CurveCipher(box, sends=_SERVER_NONCE, sent=1, receives=_CLIENT_NONCE, received=nonce)
        return Session(peer_metadata, cipher)

    def _answer_hello(self, hello: bytes | None) -> tuple[bytes, bytes, bytes]:
        """(WELCOME, the cookie's key, HELLO's nonce). A function of its own, so that s' ends with it."""
        hello = _exactly(hello, _HELLO, _HELLO_SIZE)
        if hello[:80] != _HELLO_START:
            raise PeerError("HELLO is of another version or not padded with zeros")
        client_short, nonce = hello[80:112], hello[112:120]
        box = _box_with(client_short, self._secret)
        if _opened(box, hello[120:], _HELLO_NONCE + nonce, "HELLO") != _ZEROS:
            raise PeerError("HELLO's box does not hold zeros")

        public, secret = crypto.keypair(self._random)
        cookie_key, cookie_nonce = self._random(crypto.KEY_SIZE), self._random(16)
        cookie = cookie_nonce + Box(cookie_key).seal(client_short + secret, _COOKIE_NONCE + cookie_nonce)
        welcome_nonce = self._random(16)
        welcome = _WELCOME + welcome_nonce + box.seal(public + cookie, _WELCOME_NONCE + welcome_nonce)
        return welcome, cookie_key, nonce

    def _open_initiate(
        self, initiate: bytes | None, cookie_key: bytes, hello_nonce: bytes
    ) -> tuple[bytes, BoxLike, bytes, bytes]:
        """(C, the box between C' and S', INITIATE's nonce, the client's metadata)."""
        initiate = _at_least(initiate, _INITIATE, _INITIATE_SIZE)
        cookie, nonce = initiate[9:105], initiate[105:113]
        if nonce <= hello_nonce:
            raise PeerError("the nonce of INITIATE does not rise")
        kept = _opened(Box(cookie_key), cookie[16:], _COOKIE_NONCE + cookie[:16], "the cookie")
        client_short, secret = kept[:32], kept[32:]

        box = _box_with(client_short, secret)
        content = _opened(box, initiate[113:], _INITIATE_NONCE + nonce, "INITIATE")
        client_key, vouch, metadata = content[:32], content[32:128], content[128:]

        vouch_box = _box_with(client_key, secret)
        vouched = _opened(vouch_box, vouch[16:], _VOUCH_NONCE + vouch[:16], "the vouch")
        # Both halves: C' binds C to this connection, S to this server. Without S a server that the client trusts
        # less could pass its vouch on to us (RFC 26, "INITIATE").
        if not crypto.equal(vouched, client_short + self.public_key):
            raise PeerError("the vouch is for another connection or another server")
        return client_key, box, nonce, metadata


class CurveClient:
    """The side that knows the server's public key beforehand and shows its own only to that server.

    ``server_key`` is S and ``secret_key`` is c, 32 octets each. Serves any number of connections.
    """

    __slots__ = ("_random", "_secret", "public_key", "server_key")

    name: Final = "CURVE"
    as_server: Final = False

    def __init__(self, server_key: bytes, secret_key: bytes, *, random: Random = os.urandom) -> None:
        if len(server_key) != crypto.KEY_SIZE:
            raise InvalidInput(f"a server's public key has {crypto.KEY_SIZE} octets, not {len(server_key)}")
        if crypto.is_low_order(server_key):
            raise InvalidInput("the server's public key is a point of small order: anybody could pass for it")
        self._secret = _checked(secret_key)
        self._random = random
        self.server_key: Final = server_key
        """S, 32 octets."""
        self.public_key: Final = crypto.public_of(secret_key)
        """C, 32 octets."""

    def __repr__(self) -> str:
        return f"CurveClient(public_key={self.public_key.hex()}, server_key={self.server_key.hex()})"

    def handshake(self, metadata: bytes) -> Handshake:
        """The dialogue with the server; ``metadata`` goes out in INITIATE."""
        public, secret = crypto.keypair(self._random)
        welcome_box = _box_with(self.server_key, secret)
        hello_nonce = _short(1)
        yield Send(_HELLO_START + public + hello_nonce + welcome_box.seal(_ZEROS, _HELLO_NONCE + hello_nonce))
        initiate, box = self._answer_welcome((yield RECEIVE), welcome_box, public, secret, metadata)
        del public, secret, welcome_box
        yield Send(initiate)
        del initiate
        ready = _at_least((yield RECEIVE), _READY, _READY_SIZE)
        nonce = ready[6:14]
        peer_metadata = _opened(box, ready[14:], _READY_NONCE + nonce, "READY")
        cipher = CurveCipher(box, sends=_CLIENT_NONCE, sent=2, receives=_SERVER_NONCE, received=nonce)
        return Session(peer_metadata, cipher)

    def _answer_welcome(
        self, welcome: bytes | None, welcome_box: BoxLike, public: bytes, secret: bytes, metadata: bytes
    ) -> tuple[bytes, BoxLike]:
        """(INITIATE, the box between C' and S')."""
        welcome = _exactly(welcome, _WELCOME, _WELCOME_SIZE)
        content = _opened(welcome_box, welcome[24:], _WELCOME_NONCE + welcome[8:24], "WELCOME")
        server_short, cookie = content[:32], content[32:]

        vouch_nonce = self._random(16)
        vouch_box = _box_with(server_short, self._secret)
        vouch = vouch_nonce + vouch_box.seal(public + self.server_key, _VOUCH_NONCE + vouch_nonce)
        box = _box_with(server_short, secret)
        nonce = _short(2)
        content = self.public_key + vouch + metadata
        return _INITIATE + cookie + nonce + box.seal(content, _INITIATE_NONCE + nonce), box


def _checked(secret_key: bytes) -> bytes:
    if len(secret_key) != crypto.KEY_SIZE:
        raise InvalidInput(f"a CURVE secret key has {crypto.KEY_SIZE} octets, not {len(secret_key)}")
    return secret_key


def _exactly(body: bytes | None, name: bytes, size: int) -> bytes:
    """The command that must come now, of exactly this size with its name."""
    body = _at_least(body, name, size)
    if len(body) != size:
        raise PeerError(f"{name[1:].decode()} is too long")
    return body


def _at_least(body: bytes | None, name: bytes, size: int) -> bytes:
    """The command that must come now, of this size or longer. Looks at sizes before anything is computed."""
    if body is None or not body.startswith(name):
        raise PeerError(f"expected {name[1:].decode()}")
    if len(body) < size:
        raise PeerError(f"{name[1:].decode()} is too short")
    return body


def _box_with(public: bytes, secret: bytes) -> BoxLike:
    """The box between a peer's key and one of ours; a key that is not fit for it is the peer's fault.

    X25519 ignores a key's top bit (RFC 7748, section 5), and no key pair has it set. Taken with it, each key would
    have a second spelling, unknown wherever keys are told apart by their octets.
    """
    if public[-1] & 0x80:
        raise PeerError("the peer's public key has its top bit set")
    try:
        return Box(crypto.shared_key(public, secret))
    except CryptoError:
        raise PeerError("the peer's public key is of small order") from None


def _opened(box: BoxLike, sealed: bytes, nonce: bytes, what: str) -> bytes:
    try:
        return box.open(sealed, nonce)
    except CryptoError:
        raise PeerError(f"{what} does not open") from None
