"""The services over the registry and the journal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from zapd.admin.api.context import AdminContext, Authenticating, Readiness, Trace
from zapd.admin.services.agents import AgentService
from zapd.admin.services.approval import ApprovalService
from zapd.admin.services.audit import AuditService
from zapd.admin.services.bans import BanService
from zapd.admin.services.changes import ChangeRoad
from zapd.admin.services.explain import ExplainService, Explanation, Supposed
from zapd.admin.services.imports import ImportService
from zapd.admin.services.joins import JoinService
from zapd.admin.services.keys import KeyService
from zapd.admin.services.tokens import TokenService
from zapd.admin.services.topology import BackendInfo, BackendService, DomainInfo, DomainService, Endpoint
from zapd.admin.services.users import UserService
from zapd.auth.hashing import HashPool


def admin_context(
    *,
    road: ChangeRoad,
    hash_pool: HashPool,
    explain: Callable[[Supposed], Awaitable[Explanation]],
    domains: Callable[[], Sequence[DomainInfo]],
    backends: Callable[[], Sequence[BackendInfo]],
    endpoints: Callable[[], Sequence[Endpoint]],
    audit: AuditService,
    ready: Callable[[], Readiness],
    metrics: Callable[[], tuple[bytes, str]],
    joins: int,
    people: Authenticating | None = None,
    trace: Trace | None = None,
) -> AdminContext:
    """Everything that the routes need. ``joins`` bounds the join tokens that may still be exchanged."""

    def patterns() -> list[str]:
        return [domain.pattern for domain in domains()]

    def server_keys() -> list[bytes]:
        return [key for endpoint in endpoints() for key in endpoint.server_keys]

    return AdminContext(
        keys=KeyService(road, domains=patterns, server_keys=server_keys),
        approvals=ApprovalService(road, domains=patterns, server_keys=server_keys),
        users=UserService(road, domains=patterns, hasher=hash_pool),
        agents=AgentService(road, domains=patterns, server_keys=server_keys),
        tokens=TokenService(road),
        joins=JoinService(road, domains=patterns, most=joins),
        bans=BanService(road),
        audit=audit,
        explain=ExplainService(explain),
        domains=DomainService(domains),
        backends=BackendService(backends, domains),
        road=road,
        imports=ImportService(road, domains=patterns, server_keys=server_keys),
        endpoints=endpoints,
        ready=ready,
        metrics=metrics,
        people=people,
        trace=trace,
    )
