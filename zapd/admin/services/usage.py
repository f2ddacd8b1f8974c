"""When a key was last let in, read from the searchable copy of the journal: the road of decisions pays nothing.

So it is as late as that copy (under a second while it keeps up; its lag is in ``/readyz`` and the metrics), and
reaches back as far as it does (``[audit] search_retention``). What cannot be told now is None, never a guess.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from zapd.admin.roles import Actor
from zapd.admin.services.audit import AuditFilter, AuditService
from zapd.audit.event import Tag
from zapd.errors import Unavailable

_PATIENCE: Final = 3.0
"""Seconds for all that is asked at once."""

_AT_ONCE: Final = 4


@dataclass(frozen=True, slots=True)
class LastUse:
    """The newest admission that is known; ``time`` None: none within the copy's reach."""

    time: datetime | None = None
    domain: str = ""
    address: str = ""
    agent: str = ""


class UsageService:
    """Who was let in when, as far as an actor may see it."""

    def __init__(self, audit: AuditService) -> None:
        self._audit = audit

    async def last_uses(self, actor: Actor, marks: Iterable[str]) -> Mapping[str, LastUse]:
        """By fingerprint (``SHA256:…``). What is missing cannot be told now: the copy is away or slow."""
        found: dict[str, LastUse] = {}
        left = iter(dict.fromkeys(marks))

        async def ask() -> None:
            with suppress(Unavailable):
                for mark in left:
                    found[mark] = await self._last_use(actor, mark)

        with suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                await asyncio.gather(*(ask() for _ in range(_AT_ONCE)))
        return found

    async def _last_use(self, actor: Actor, mark: str) -> LastUse:
        wanted = AuditFilter(key=mark, event=Tag.AUTH_ACCEPT.value)
        cursor: str | None = None
        while True:  # a page may be empty although there are more: the search leaves in time
            records, cursor = await self._audit.search(actor, wanted, cursor=cursor, limit=1)
            for record in records:
                return LastUse(
                    datetime.fromisoformat(str(record["time"])),
                    str(record.get("domain") or ""),
                    str(record.get("address") or ""),
                    str(record.get("agent") or ""),
                )
            if cursor is None:
                return LastUse()
