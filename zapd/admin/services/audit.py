"""Searching the record. The copy in SQL belongs to `zapd.audit.sinks.sql`; here is only who may see what of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from zapd.admin.roles import Actor, Operation
from zapd.admin.services.common import check_limit


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What is sought; None is no condition. ``domains`` None is every domain and what has none."""

    user: str | None = None
    """A principal or a PLAIN user name."""
    key: str | None = None
    """``SHA256:…``."""
    address: str | None = None
    domain: str | None = None
    status: int | None = None
    event: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    domains: tuple[str, ...] | None = None
    """Domain patterns beyond which nothing is shown."""


AuditRecord = Mapping[str, object]
"""A record as the journal's line has it."""

Search = Callable[[AuditFilter, int, "str | None"], Awaitable[tuple[Sequence[AuditRecord], "str | None"]]]
"""(filter, limit, cursor) to (records, cursor of the next page). Raises `zapd.errors.Unavailable`."""


class AuditService:
    """The searchable record, for those who may."""

    def __init__(self, search: Search) -> None:
        self._search = search

    async def search(
        self, actor: Actor, wanted: AuditFilter, *, cursor: str | None = None, limit: int = 100
    ) -> tuple[Sequence[AuditRecord], str | None]:
        """Newest first. An actor limited to domains sees what happened in them, and nothing without a domain."""
        actor.require(Operation.READ_AUDIT)
        check_limit(limit)
        if not actor.everywhere:
            wanted = replace(wanted, domains=actor.domains)
        return await self._search(wanted, limit, cursor)
