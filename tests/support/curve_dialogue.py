"""Two CURVE generators and the commands between them, with the test's hand in the middle.

No connection and no frames: what one side sends is what the other receives, unless a test's ``tap`` changes it.
`HonestClient` and `HonestServer` are written out from RFC 25/26 with PyNaCl's public functions alone, so that they
can be made to lie inside their boxes, where a stranger's bytes could not reach.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from nacl import bindings as sodium

from zapd.zmtp.handshake import Ask, CredentialsLike, Handshake, PeerError, Receive, Send, Session
from zapd.zmtp.mechanisms.curve import CurveClient, CurveServer

_DOCUMENT = json.loads((Path(__file__).parent.parent / "zmtp" / "curve_vectors.json").read_text())
KEYS = {name.split(" (")[0]: bytes.fromhex(value) for name, value in _DOCUMENT["keys"].items()}
"""``s``, ``S``, ``s'``, ``cookie key``, ``vouch nonce``, …"""
COMMANDS = {name: bytes.fromhex(value) for name, value in _DOCUMENT["commands"].items()}
Z85: dict[str, str] = _DOCUMENT["z85"]

CLIENT_METADATA = KEYS["client metadata"]
SERVER_METADATA = KEYS["server metadata"]

Tap = Callable[[str, bytes], bytes]
"""Sees (command name, body) of all that is sent and says what arrives."""


class Scripted:
    """Randomness in a known order; asking for something else is an error of the test."""

    def __init__(self, *values: bytes) -> None:
        self._values = list(values)

    def __call__(self, size: int) -> bytes:
        value = self._values.pop(0)
        if len(value) != size:
            raise AssertionError(f"asked for {size} octets, the script has {len(value)}")
        return value


class ManualClock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make_server(clock: Callable[[], float] | None = None, secret: bytes = KEYS["s"]) -> CurveServer:
    return CurveServer(secret, clock=clock or ManualClock())


def make_client(server_key: bytes = KEYS["S"], secret: bytes = KEYS["c"]) -> CurveClient:
    return CurveClient(server_key, secret)


@dataclass
class Side:
    """One generator, stepped by hand."""

    handshake: Handshake
    sent: list[bytes] = field(default_factory=list)
    asked: list[CredentialsLike] = field(default_factory=list)
    session: Session | None = None
    waiting: bool = False

    @classmethod
    def start(cls, handshake: Handshake) -> Side:
        side = cls(handshake)
        side._go(None)
        return side

    def receive(self, body: bytes) -> list[bytes]:
        """Give it a command; what it sends until it waits again. `PeerError` comes through."""
        assert self.waiting, "it does not wait for anything"
        return self._go(body)

    def _go(self, value: bytes | None) -> list[bytes]:
        before = len(self.sent)
        self.waiting = False
        try:
            while True:
                step = self.handshake.send(value)
                value = None
                if isinstance(step, Send):
                    self.sent.append(step.body)
                elif isinstance(step, Ask):
                    self.asked.append(step.credentials)
                elif isinstance(step, Receive):
                    self.waiting = True
                    return self.sent[before:]
        except StopIteration as end:
            self.session = end.value
            return self.sent[before:]


def hold(client: Handshake, server: Handshake, tap: Tap = lambda name, body: body) -> tuple[Side, Side]:
    """The whole dialogue; both sides afterwards. `PeerError` of either side comes through."""
    left, right = Side.start(client), Side.start(server)
    (hello,) = left.sent
    (welcome,) = right.receive(tap("HELLO", hello))
    (initiate,) = left.receive(tap("WELCOME", welcome))
    (ready,) = right.receive(tap("INITIATE", initiate))
    left.receive(tap("READY", ready))
    return left, right


def refusal(side: Side, body: bytes) -> str:
    """The reason for which a side refuses this command. It must send nothing and ask nobody."""
    sent, asked = len(side.sent), len(side.asked)
    try:
        side.receive(body)
    except PeerError as error:
        assert (len(side.sent), len(side.asked)) == (sent, asked)
        assert side.session is None
        return str(error)
    raise AssertionError("it was taken")


@dataclass(frozen=True)
class HonestClient:
    """A CURVE client of the test's own; every field may be replaced by a lie."""

    server_key: bytes = KEYS["S"]
    secret: bytes = KEYS["c"]
    short_secret: bytes = KEYS["c'"]
    hello_nonce: int = 1
    hello_content: bytes = bytes(64)
    initiate_nonce: int = 2
    metadata: bytes = CLIENT_METADATA
    claimed_key: bytes | None = None
    vouch_secret: bytes | None = None
    vouch_nonce: bytes = KEYS["vouch nonce"]
    vouched_short_key: bytes | None = None
    vouched_server_key: bytes | None = None
    vouch: bytes | None = None
    initiate_content: bytes | None = None

    def but(self, **lies: object) -> HonestClient:
        return replace(self, **lies)  # type: ignore[arg-type]

    @property
    def public(self) -> bytes:
        return sodium.crypto_scalarmult_base(self.secret)

    @property
    def short_public(self) -> bytes:
        return sodium.crypto_scalarmult_base(self.short_secret)

    def hello(self) -> bytes:
        nonce = self.hello_nonce.to_bytes(8, "big")
        box = sodium.crypto_box(
            self.hello_content, b"CurveZMQHELLO---" + nonce, self.server_key, self.short_secret
        )
        return b"\x05HELLO\x01\x00" + bytes(72) + self.short_public + nonce + box

    def read_welcome(self, welcome: bytes) -> tuple[bytes, bytes]:
        """(S', cookie)."""
        content = sodium.crypto_box_open(
            welcome[24:], b"WELCOME-" + welcome[8:24], self.server_key, self.short_secret
        )
        return content[:32], content[32:]

    def make_vouch(self, server_short: bytes) -> bytes:
        content = (self.vouched_short_key or self.short_public) + (self.vouched_server_key or self.server_key)
        secret = self.vouch_secret or self.secret
        return self.vouch_nonce + sodium.crypto_box(content, b"VOUCH---" + self.vouch_nonce, server_short, secret)

    def initiate(self, welcome: bytes) -> bytes:
        server_short, cookie = self.read_welcome(welcome)
        nonce = self.initiate_nonce.to_bytes(8, "big")
        content = self.initiate_content
        if content is None:
            vouch = self.vouch if self.vouch is not None else self.make_vouch(server_short)
            content = (self.claimed_key or self.public) + vouch + self.metadata
        box = sodium.crypto_box(content, b"CurveZMQINITIATE" + nonce, server_short, self.short_secret)
        return b"\x08INITIATE" + cookie + nonce + box


@dataclass(frozen=True)
class HonestServer:
    """A CURVE server of the test's own; its cookie is any 96 octets, since only it would open it."""

    secret: bytes = KEYS["s"]
    short_secret: bytes = KEYS["s'"]
    cookie: bytes = COMMANDS["cookie"]
    metadata: bytes = SERVER_METADATA
    ready_nonce: int = 1
    short_key: bytes | None = None
    welcome_content: bytes | None = None

    def but(self, **lies: object) -> HonestServer:
        return replace(self, **lies)  # type: ignore[arg-type]

    def welcome(self, hello: bytes) -> bytes:
        content = self.welcome_content
        if content is None:
            content = (self.short_key or sodium.crypto_scalarmult_base(self.short_secret)) + self.cookie
        nonce = KEYS["welcome nonce"]
        box = sodium.crypto_box(content, b"WELCOME-" + nonce, hello[80:112], self.secret)
        return b"\x07WELCOME" + nonce + box

    def ready(self, hello: bytes) -> bytes:
        nonce = self.ready_nonce.to_bytes(8, "big")
        box = sodium.crypto_box(self.metadata, b"CurveZMQREADY---" + nonce, hello[80:112], self.short_secret)
        return b"\x05READY" + nonce + box


def message(prefix: bytes, nonce: int, content: bytes, public: bytes, secret: bytes) -> bytes:
    """A MESSAGE with any content, flags octet included, sealed by whoever has these keys."""
    short = nonce.to_bytes(8, "big")
    return b"\x07MESSAGE" + short + sodium.crypto_box(content, prefix + short, public, secret)
