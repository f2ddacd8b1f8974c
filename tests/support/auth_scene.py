"""A small world for deciding: rules, behaving fake backends, an authority, and words to ask it with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from zapd.auth.authority import Authority
from zapd.auth.backend import Principal
from zapd.auth.decision import Decision
from zapd.auth.gate import DEFAULT, Keeping
from zapd.auth.policy import Link, Policy, Rule
from zapd.testing import FakeBackend, started
from zapd.zap import Asker, ZapRequest
from zapd.zap.request import CREDENTIALS

ADA = b"a" * 32
EVE = b"e" * 32
AGENT = Asker("agent-1", mechanisms=frozenset(CREDENTIALS))


def rule(pattern: str = "lab", *backends: str | Link, mechanisms: str = "CURVE PLAIN", **more: object) -> Rule:
    """A rule that asks ``backends``; quick ticks, so that tests do not wait."""
    links = tuple(link if isinstance(link, Link) else Link(link) for link in backends or ("keys",))
    settings = {"refusal_tick": 0.01, **more}
    return Rule(pattern, frozenset(mechanisms.split()), links, **settings)  # type: ignore[arg-type]


def curve(
    key: bytes = ADA, domain: str = "lab", address: str = "192.0.2.1", asker: Asker | None = AGENT
) -> ZapRequest:
    return ZapRequest(b"1", domain, address, b"", "CURVE", (key,), asker=asker)


def plain(
    name: str = "ada",
    password: bytes = b"lovelace",
    domain: str = "lab",
    address: str = "192.0.2.1",
    asker: Asker | None = AGENT,
) -> ZapRequest:
    return ZapRequest(b"1", domain, address, b"", "PLAIN", (name.encode(), password), asker=asker)


def null(domain: str = "lab", address: str = "192.0.2.1") -> ZapRequest:
    return ZapRequest(b"1", domain, address, b"", "NULL", (), asker=AGENT)


def knowing_ada() -> FakeBackend:
    return FakeBackend(users={"ada": b"lovelace"}, keys={ADA: Principal("ada", ("staff",), (("Team", "engine"),))})


@dataclass
class Scene:
    """An authority with its fakes."""

    rules: Sequence[Rule] = field(default_factory=lambda: (rule(),))
    backends: dict[str, FakeBackend] = field(default_factory=lambda: {"keys": knowing_ada()})
    options: dict[str, object] = field(default_factory=dict)
    keeping: Keeping = DEFAULT

    async def open(self) -> Scene:
        self.handles = {
            name: await started(backend, name, keeping=self.keeping) for name, backend in self.backends.items()
        }
        self.authority = Authority(Policy(tuple(self.rules)), self.handles, **self.options)  # type: ignore[arg-type]
        return self

    async def ask(self, request: ZapRequest) -> Decision:
        return await self.authority.decide(request)

    async def said(self, request: ZapRequest) -> tuple[int, str]:
        """(status, reason)."""
        decision = await self.ask(request)
        return int(decision.status), decision.reason


async def scene(
    *rules: Rule, keeping: Keeping = DEFAULT, options: dict[str, object] | None = None, **backends: FakeBackend
) -> Scene:
    """A scene with these rules and backends; by default one of each."""
    return await Scene(rules or (rule(),), backends or {"keys": knowing_ada()}, options or {}, keeping).open()
