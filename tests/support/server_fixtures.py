"""An endpoint with its real journal and authority, and a connection that remembers what it was sent."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from zapd.audit.gaps import Summaries
from zapd.audit.journal import Durability, Journal
from zapd.auth.authority import Authority
from zapd.auth.backend import UNKNOWN, BackendContext, Outcome, Principal, Question, Verdict
from zapd.auth.catalog import BackendHandle
from zapd.auth.policy import Link, Policy, Rule
from zapd.server.endpoint import Endpoint, EndpointPeer
from zapd.server.metrics import DecisionMetrics
from zapd.server.recorder import Recorder
from zapd.server.repeats import Repeats
from zapd.zap import Asker
from zapd.zmtp.decoding import ClearDecoder, Item
from zapd.zmtp.limits import DEFAULT_LIMITS

MANY = 1 << 30
"""Refusals a second: none is one too many."""
ALICE = bytes(range(32))
STRANGER = bytes(reversed(range(32)))
SLOW = b"s" * 32
BROKEN = b"b" * 32


class Keys:
    """A backend that knows Alice at once, and everybody else only after ``gate`` opens."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"CURVE"})

    def __init__(self) -> None:
        self.gate = asyncio.Event()

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        return cls()

    async def start(self) -> None: ...

    async def check(self, question: Question) -> Verdict:
        if question.key == SLOW:
            await self.gate.wait()
            return Verdict(Outcome.ACCEPT, Principal("slow"))
        if question.key == BROKEN:
            raise RuntimeError("a bug")
        return Verdict(Outcome.ACCEPT, Principal("alice", ("traders",))) if question.key == ALICE else UNKNOWN

    async def aclose(self) -> None: ...


class People:
    """A backend that knows who has the password ``good``, after a moment's work."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"PLAIN"})

    def __init__(self) -> None:
        self.asked = 0
        self.gone: set[str] = set()

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        return cls()

    async def start(self) -> None: ...

    async def check(self, question: Question) -> Verdict:
        self.asked += 1
        await asyncio.sleep(0)
        if question.username in self.gone:
            return Verdict(Outcome.LOCKED, reason="disabled")
        if question.password != b"good":
            return Verdict(Outcome.REJECT, reason="wrong_password")
        return Verdict(Outcome.ACCEPT, Principal(f"person {question.username}", ("staff",)))

    async def aclose(self) -> None: ...


class Connection:
    """Stands where `zapd.net.peer.Peer` does."""

    def __init__(self, asker: Asker) -> None:
        self.context = EndpointPeer(asker)
        self.sent: list[list[bytes]] = []
        self.writes = 0

    def send_messages(self, messages: Iterable[Sequence[bytes]]) -> bool:
        self.writes += 1
        self.sent += [list(parts) for parts in messages]
        return True

    def send_encoded(self, octets: bytes) -> bool:
        self.writes += 1
        self.sent += messages_in(octets)
        return True


def messages_in(octets: bytes) -> list[list[bytes]]:
    """Clear frames, read."""
    items: list[Item] = []
    decoder = ClearDecoder(DEFAULT_LIMITS)
    decoder.feed(octets, items)
    assert decoder.between_messages
    return [parts for item in items for parts in item if not isinstance(parts, int)]


@dataclass
class House:
    endpoint: Endpoint
    journal: Journal
    recorder: Recorder
    metrics: DecisionMetrics
    keys: Keys
    people: People
    authority: Authority
    folder: Path

    async def settled(self) -> None:
        """Everything recorded so far is on disk and every reply that waits for it is out."""
        await self.journal.durable()

    def lines(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("*/*.jsonl")))


@asynccontextmanager
async def house(folder: Path, durability: Durability = "strict", **bounds: int) -> AsyncIterator[House]:
    journal = await Journal.open(folder, durability=durability)
    keys, people = Keys(), People()
    handles = {"keys": BackendHandle("keys", "test", keys), "people": BackendHandle("people", "test", people)}
    for handle in handles.values():
        await handle.start()
    rules = (
        Rule("orders", frozenset({"CURVE"}), (Link("keys"),), backend_deadline=0.5),
        Rule("office", frozenset({"PLAIN"}), (Link("people"),), refusal_tick=0.001),
    )
    authority = Authority(Policy(rules), handles)
    recorder = Recorder(journal, Summaries(journal), Repeats(MANY, MANY))
    metrics = DecisionMetrics()
    endpoint = Endpoint(authority.decide, recorder, metrics, **bounds)
    try:
        yield House(endpoint, journal, recorder, metrics, keys, people, authority, folder)
    finally:
        await endpoint.drain(0)
        for handle in handles.values():
            await handle.aclose()
        await journal.close()


def question(
    key: bytes, *, request_id: bytes = b"1", domain: bytes = b"orders", envelope: Sequence[bytes] = ()
) -> list[bytes]:
    return [*envelope, b"", b"1.0", request_id, domain, b"127.0.0.1", b"", b"CURVE", key]
