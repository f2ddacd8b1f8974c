"""What the configuration made: endpoints, domains, and backends with their health. Read only; the app supplies
them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal

from zapd.admin.roles import Actor, Operation


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A ZAP endpoint, as agents reach it."""

    address: str
    mechanism: str
    server_keys: tuple[bytes, ...] = ()
    """Accepted server public keys, 32 octets each."""


@dataclass(frozen=True, slots=True)
class DomainInfo:
    """One ``[domain.…]``."""

    pattern: str
    mechanisms: tuple[str, ...]
    backends: tuple[str, ...]
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    unknown_keys: Literal["refuse", "pending"] = "refuse"
    grace_seconds: float = 0.0
    null_user: str | None = None


@dataclass(frozen=True, slots=True)
class BackendInfo:
    """One ``[backend.…]`` and how it is."""

    name: str
    type: str
    mechanisms: tuple[str, ...]
    state: Literal["starting", "ready", "disabled"]
    reason: str = ""
    circuit: Literal["closed", "open", "half_open"] = "closed"
    in_flight: int = 0
    last_error: str = ""
    last_error_at: datetime | None = None

    @property
    def word(self) -> str:
        """How it is, for ``/readyz``, which asks for no token: what went wrong is for those who may list it."""
        if self.state != "ready":
            return self.reason or self.state
        return "ok" if self.circuit == "closed" else "does not answer; its circuit is open"


_STATES: Final = ("ready", "starting", "disabled")
_CIRCUITS: Final = ("closed", "half_open", "open")
_NEVER: Final = datetime.min.replace(tzinfo=UTC)


def as_one(infos: Sequence[BackendInfo]) -> BackendInfo:
    """One backend as several processes have it: how it fares where it fares worst, what all of them wait for, and
    what happened last."""
    worst = max(infos, key=lambda info: (_STATES.index(info.state), _CIRCUITS.index(info.circuit)))
    last = max(infos, key=lambda info: info.last_error_at or _NEVER)
    return replace(
        worst,
        in_flight=sum(info.in_flight for info in infos),
        last_error=last.last_error,
        last_error_at=last.last_error_at,
    )


class DomainService:
    """The configuration's domains, for those who may see them."""

    def __init__(self, domains: Callable[[], Sequence[DomainInfo]]) -> None:
        self._domains = domains

    async def list(self, actor: Actor) -> Sequence[DomainInfo]:
        """Those that lie within the actor's own domains."""
        actor.require(Operation.READ_DOMAINS)
        return [domain for domain in self._domains() if actor.sees([domain.pattern])]


class BackendService:
    """The configuration's backends, for those who may see them."""

    def __init__(
        self, backends: Callable[[], Sequence[BackendInfo]], domains: Callable[[], Sequence[DomainInfo]]
    ) -> None:
        self._backends = backends
        self._domains = domains

    async def list(self, actor: Actor) -> Sequence[BackendInfo]:
        """All of them; an actor limited to domains sees those that its domains ask."""
        actor.require(Operation.READ_BACKENDS)
        if actor.everywhere:
            return list(self._backends())
        used = {name for domain in self._domains() if actor.sees([domain.pattern]) for name in domain.backends}
        return [backend for backend in self._backends() if backend.name in used]
