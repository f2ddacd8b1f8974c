"""What the API needs of the rest of zapd, given by whoever composes it."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from zapd.admin.api.guards import SignInBrake
from zapd.admin.roles import Actor
from zapd.admin.services.agents import AgentService
from zapd.admin.services.approval import ApprovalService
from zapd.admin.services.audit import AuditService
from zapd.admin.services.bans import BanService
from zapd.admin.services.changes import ChangeRoad
from zapd.admin.services.explain import ExplainService
from zapd.admin.services.imports import ImportService
from zapd.admin.services.joins import JoinService
from zapd.admin.services.keys import KeyService
from zapd.admin.services.tokens import TokenService
from zapd.admin.services.topology import BackendService, DomainService, Endpoint
from zapd.admin.services.users import UserService

__all__ = ["AdminContext", "Endpoint", "Readiness"]


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether this zapd decides, and what each part says."""

    ready: bool
    parts: tuple[tuple[str, str], ...] = ()
    """(part, ``ok`` or what is wrong)."""


Trace = Callable[[str, str, int, float, str, str], None]
"""Hears of a request: verb, the path's template, status, seconds, its id, and its ``traceparent``, if any."""


class Authenticating(Protocol):
    """See `zapd.admin.services.people`."""

    async def authenticate(self, token: str) -> Actor:
        """Whose token this is. Raises `Unauthenticated`, `Forbidden` and `Unavailable`."""
        ...


@dataclass(frozen=True, slots=True)
class AdminContext:
    """The services behind the routes, and three questions about the process."""

    keys: KeyService
    approvals: ApprovalService
    users: UserService
    agents: AgentService
    tokens: TokenService
    joins: JoinService
    bans: BanService
    audit: AuditService
    explain: ExplainService
    domains: DomainService
    backends: BackendService
    imports: ImportService
    road: ChangeRoad
    endpoints: Callable[[], Sequence[Endpoint]] = tuple
    ready: Callable[[], Readiness] = lambda: Readiness(True)
    metrics: Callable[[], tuple[bytes, str]] = lambda: (b"", "text/plain; version=0.0.4; charset=utf-8")
    """(body, content type)."""
    people: Authenticating | None = None
    """Takes tokens of an issuer's, where the configuration has one."""
    trace: Trace | None = None
    """Called when a request is answered, where that is traced."""
    secret: bytes = field(default_factory=lambda: secrets.token_bytes(32), repr=False)
    """Seals what people who sign in so are given: their tokens change while they work."""
    brake: SignInBrake = field(default_factory=SignInBrake)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server goes down: answers without an end come to one."""
