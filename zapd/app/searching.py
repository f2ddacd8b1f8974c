"""The SQL copy of the journal: filled beside the daemon, searched for administration."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from zapd.admin.services.audit import AuditFilter, AuditRecord
from zapd.config import Config
from zapd.errors import Unavailable

Search = Callable[[AuditFilter, int, "str | None"], Awaitable["tuple[Sequence[AuditRecord], str | None]"]]


async def open_sink(config: Config):
    return None


def searcher(config: Config):
    async def search(wanted, limit, cursor):
        raise Unavailable("nothing yet")

    return search
