"""What deciding and administering both stand on: the registry, the journal, the threads that hash, and
who has tried wrongly."""

from __future__ import annotations

import os
import socket

import structlog

from zapd import __version__
from zapd.app.journalling import open_journal
from zapd.app.parts import Parts
from zapd.app.registry import Registry
from zapd.app.tracing import Tracing, tracing_of
from zapd.app.watermark import Watermark
from zapd.audit.event import AuditEvent, Tag
from zapd.audit.gaps import Summaries
from zapd.audit.journal import Journal, JournalUnavailable
from zapd.auth.hashing import HashPool
from zapd.auth.throttle import Throttle
from zapd.auth.waiting import Waiting
from zapd.config import Config

log = structlog.get_logger(__name__)


class Ground:
    """One for each process. What may be missing at start (database, disk) is waited for by nobody."""

    def __init__(self, config: Config, parts: Parts, penalty_key: bytes = b"") -> None:
        """``penalty_key``: of those with whom penalties are shared (`zapd.auth.throttle.Throttle`)."""
        self._config = config
        self._parts = parts
        self._penalty_key = penalty_key
        self.hash_pool: HashPool
        self.throttle: Throttle
        self.waiting = Waiting(config.pending_bounds())
        """Unknown keys that somebody may approve, until they are written down."""
        self.watermark: Watermark
        self.registry: Registry
        self.journal: Journal
        self.summaries: Summaries
        self.tracing: Tracing | None

    async def start(self) -> None:
        """Come up. Raises `ConfigurationError` for a schema or a key that cannot be used."""
        config = self._config
        self.hash_pool = HashPool(config.limits.hash_workers or None, config.limits.hash_waiting)
        self._parts.up("hash_pool", self.hash_pool.aclose)
        self.throttle = Throttle(config.terms(), secret=self._penalty_key)
        self.watermark = Watermark(config.server.data_dir / "newest-change")
        self.registry = Registry(
            config.database_url(), config.base_dir, config.database.max_staleness, self.watermark
        )
        self._parts.up("registry", self.registry.aclose)
        await self.registry.start()
        self.journal = await open_journal(config)
        self.summaries = Summaries(self.journal)
        self._parts.up("journal", self._close_journal)
        self.tracing = tracing_of(config, {"service.version": __version__, "service.instance.id": _instance()})
        if self.tracing is not None:
            self._parts.up("tracing", self.tracing.aclose)

    def readiness(self) -> list[tuple[str, str]]:
        """(part, ``ok`` or what is wrong) of what every decision needs."""
        return [
            ("registry", self.registry.problem or ("ok" if self.registry.is_current() else "not current")),
            ("journal", "ok" if self.journal.writable else self.journal.why),
        ]

    def note(self, tag: Tag, detail: dict[str, object]) -> None:
        """Put an event of the service itself on record."""
        try:
            self.journal.append(AuditEvent(event=tag, detail=detail or None))
        except JournalUnavailable:
            log.warning("the journal did not take an event of the service", tag=tag.value)

    async def _close_journal(self) -> None:
        self.summaries.flush()
        self.note(Tag.SERVICE_STOP, {})
        await self.journal.close()


def _instance() -> str:
    """Which of several processes it is, for those who look at traces."""
    return f"{socket.gethostname()}:{os.getpid()}"
