"""The running zapd: every part, in the order in which they come up, change and go down.

Up: what may be missing comes first and nobody waits for it (registry, journal: decisions are 300 until they are
there), then backends, then the doors. Down: the doors first, the journal last, so that whatever was answered is
on record.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial

import structlog

from zapd import __version__
from zapd.admin.api.context import Readiness
from zapd.admin.services.changes import ChangeRoad
from zapd.admin.services.topology import BackendInfo, DomainInfo
from zapd.app.administration import AdminServer, admin_context
from zapd.app.backends import Backends
from zapd.app.doors import Doors
from zapd.app.gauges import gauges
from zapd.app.journalling import journal_what_is_missing, open_journal
from zapd.app.registry import Registry
from zapd.app.restart import needs_restart, start_only
from zapd.app.searching import Searching
from zapd.app.translate import backend_info, domain_infos
from zapd.app.watermark import Watermark
from zapd.audit.event import AuditEvent, Tag
from zapd.audit.gaps import Summaries
from zapd.audit.journal import Journal, JournalUnavailable
from zapd.audit.sinks.sql import SqlSink
from zapd.auth.authority import Authority
from zapd.auth.backend import BackendContext
from zapd.auth.catalog import BackendHandle
from zapd.auth.hashing import HashPool
from zapd.auth.policy import Policy
from zapd.config import Config, load
from zapd.errors import ConfigurationError, Unavailable
from zapd.server.door import AgentDirectory
from zapd.server.endpoint import Endpoint
from zapd.server.express import Express
from zapd.server.lifecycle import hold_folder
from zapd.server.metrics import DecisionMetrics, ServiceCollector, page
from zapd.server.recorder import ChangeRecorder, Recorder

log = structlog.get_logger(__name__)

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_CATCH_UP = 1.0
"""Seconds between two attempts to journal what a full disk kept out."""
_LOOK = 30.0
"""Seconds after which changes that are not journalled are looked for although nothing hints at any."""


class Service:
    """See `zapd.server.lifecycle.Runnable`. One for each process."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._start_only: dict[str, object] = {}
        """What the start took of the settings that no reload reads."""
        self.registry: Registry
        self.journal: Journal
        self.authority: Authority
        self.doors: Doors
        self.admin: AdminServer
        self._searching: Searching
        self._hash_pool: HashPool
        self._backends: Backends
        self._endpoint: Endpoint
        self._road: ChangeRoad
        self._summaries: Summaries
        self._metrics = DecisionMetrics()
        self._started: list[str] = []
        """What is up, so that a start that failed half-way takes down just that."""
        self._owing: asyncio.Task[None] | None = None
        self._folder = -1

    # -- up --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Come up whole, or raise."""
        config = self.config
        insist_on_domains(config)
        self._start_only = start_only(config)
        config.server.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder = hold_folder(config.server.data_dir)
        self._started.append("folder")
        self._hash_pool = HashPool(config.limits.hash_workers or None, config.limits.hash_waiting)
        self._started.append("hash_pool")
        watermark = Watermark(config.server.data_dir / "newest-change")
        self.registry = Registry(config.database_url(), config.base_dir, config.database.max_staleness, watermark)
        self._started.append("registry")
        await self.registry.start()
        self.journal = await open_journal(config)
        self._summaries = Summaries(self.journal)
        self._started.append("journal")
        await self._start_deciding()
        recorder = Recorder(self.journal, self._summaries)
        self._endpoint = Endpoint(
            self.authority.decide,
            recorder,
            self._metrics,
            express=Express(self.authority, recorder, self._metrics),
            in_flight=config.limits.max_in_flight_per_agent,
            in_flight_total=config.limits.max_in_flight,
        )
        self.doors = Doors(config, self.authority, self._endpoint, recorder, self.registry.agents)
        self._started.append("doors")
        await self.doors.open()
        self._searching = Searching(config)
        self._started.append("searching")
        if config.audit.durability != "off":
            await self._searching.start()
        self._road = ChangeRoad(
            self.registry.engine, recorder=ChangeRecorder(self.journal, watermark.rise), feed=self.registry.feed
        )
        await self._start_admin(recorder)
        self._owing = asyncio.create_task(self._journal_what_is_owed(), name="zapd-owed-changes")
        self._note(Tag.SERVICE_START, {"version": __version__, "listening": self.doors.listening})
        self._say_where()

    async def _start_deciding(self) -> None:
        context = BackendContext(
            base_dir=self.config.base_dir,
            hash_pool=self._hash_pool,
            database=self.registry.engine,
            feed=self.registry.feed,
            wall_clock=time.time,
            forget=lambda: self.authority.forget(),
        )
        self._backends = Backends(context)
        wanted = self._backends.plan(self.config)
        self.authority = Authority(
            Policy(self.config.rules()),
            wanted,
            agents=AgentDirectory(self.registry.agents),
            hash_pool=self._hash_pool,
            is_current=self.registry.is_current,
        )
        self._started.append("backends")
        await self._backends.adopt(wanted, self.config)

    async def _start_admin(self, recorder: Recorder) -> None:
        admin = self.config.admin
        collector = ServiceCollector(self._metrics, partial(gauges, self, recorder))
        context = admin_context(
            road=self._road,
            hash_pool=self._hash_pool,
            authority=self.authority,
            domains=self.domains,
            backends=self.backends,
            endpoints=self.doors.endpoints,
            search=self._searching.search,
            ready=self.readiness,
            metrics=lambda: (page(collector), _METRICS_TYPE),
        )
        tls = (admin.tls_cert, admin.tls_key) if admin.tls_cert and admin.tls_key else None
        self.admin = AdminServer(context, admin.listen, tls=tls, proxies=admin.trusted_proxies)
        self._started.append("admin")
        await self.admin.start()

    def _say_where(self) -> None:
        lines = [f"zapd {__version__} decides"]
        lines += [f"  zap    {line}" for line in self.doors.listening]
        lines.append(f"  admin  {self.admin.url}")
        lines.append(f"  audit  {self.config.audit.durability}, instance {self.journal.instance or '-'}")
        print("\n".join(lines), flush=True)  # noqa: T201 - what `zapd serve` promises to print
        for part, state in self.readiness().parts:
            if state != "ok":
                log.warning("not ready", part=part, reason=state)

    # -- what others ask -------------------------------------------------------------------------------------

    @property
    def sink(self) -> SqlSink:
        """What copies the journal into SQL."""
        return self._searching.sink

    @property
    def endpoint(self) -> Endpoint:
        return self._endpoint

    @property
    def hash_pool(self) -> HashPool:
        return self._hash_pool

    def backend_handles(self) -> Sequence[BackendHandle]:
        """The backends in force."""
        return list(self._backends.handles.values())

    def domains(self) -> Sequence[DomainInfo]:
        """The rules in force."""
        return domain_infos(self.authority.policy.rules)

    def backends(self) -> Sequence[BackendInfo]:
        """The backends and how they fare."""
        return [backend_info(handle.health(), handle.mechanisms) for handle in self._backends.handles.values()]

    def readiness(self) -> Readiness:
        """Ready: the registry may decide and the journal takes records. Backends are named, not counted in: one
        that is away must not take its neighbours' domains out of service."""
        parts = [
            ("registry", self.registry.problem or ("ok" if self.registry.is_current() else "not current")),
            ("journal", "ok" if self.journal.writable else self.journal.why),
        ]
        ready = all(state == "ok" for _, state in parts) and not self._endpoint.draining
        if self._endpoint.draining:
            parts.append(("service", "draining"))
        if self.config.audit.durability != "off":
            # Searching may lag or fail; decisions do not wait for it.
            lag = self.sink.lag
            parts.append(("search copy", "ok" if self.sink.healthy else f"not healthy, {lag} records behind"))
        parts += [
            (f"backend {info.name}", "ok" if info.state == "ready" else info.reason or info.state)
            for info in self.backends()
        ]
        return Readiness(ready, tuple(parts))

    # -- anew ------------------------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Read the configuration again: all of it or nothing. What is wrong keeps the old and says so."""
        try:
            config = insist_on_domains(await asyncio.to_thread(load, self.config.path))
            policy = Policy(config.rules())
            wanted = self._backends.plan(config)
            # The last thing that can be wrong; behind it the new comes into force whole.
            self.admin.reload_tls(config.admin.tls_cert, config.admin.tls_key)
            gone = await self._backends.adopt(wanted, config)
            self.authority.reload(policy, wanted)
        except ConfigurationError as error:
            for line in str(error).splitlines():
                log.error("the configuration was not reloaded; the old one stays in force", mistake=line)
            return
        for handle in gone:
            await handle.aclose()
        self.doors.set_limits(config.limits)
        for setting in needs_restart(self._start_only, config):
            log.warning("a change needs a restart; the old value stays in force", setting=setting)
        self.config = config
        self._note(Tag.SERVICE_RELOAD, {"domains": [rule.pattern for rule in policy.rules]})
        log.info("the configuration was reloaded", domains=len(policy.rules), backends=len(wanted))

    # -- down ------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """300 to newcomers, and ``drain`` seconds for what is open."""
        self.doors.draining = True
        await self._endpoint.drain(self.config.server.drain)
        with suppress(JournalUnavailable):
            await self.journal.durable()  # until then the last answers wait for their records

    async def stop(self) -> None:
        """Take down what came up, in the opposite order; one part's trouble does not keep the others up."""
        if self._owing is not None:
            self._owing.cancel()
        for part in reversed(self._started):
            try:
                await getattr(self, f"_stop_{part}")()
            except Exception:
                log.exception("a part did not stop in order", part=part)

    async def _stop_admin(self) -> None:
        await self.admin.aclose()
        await self._road.aclose()

    async def _stop_doors(self) -> None:
        await self.doors.close()

    async def _stop_backends(self) -> None:
        await self._backends.aclose()

    async def _stop_journal(self) -> None:
        self._summaries.flush()
        self._note(Tag.SERVICE_STOP, {})
        await self.journal.close()

    async def _stop_searching(self) -> None:
        await self._searching.stop()

    async def _stop_registry(self) -> None:
        await self.registry.aclose()

    async def _stop_folder(self) -> None:
        os.close(self._folder)

    async def _stop_hash_pool(self) -> None:
        await self._hash_pool.aclose()

    # -- the record of the service itself --------------------------------------------------------------------

    def _note(self, tag: Tag, detail: dict[str, object]) -> None:
        try:
            self.journal.append(AuditEvent(event=tag, detail=detail or None))
        except JournalUnavailable:
            log.warning("the journal did not take an event of the service", tag=tag.value)

    async def _journal_what_is_owed(self) -> None:
        """At start, whenever the journal or the database has healed, and after changes that somebody made beside
        us, such as ``zapd token create --offline``: no change stays unrecorded."""
        look_at = 0.0

        def look_soon(_changes: object) -> None:
            nonlocal look_at
            look_at = 0.0

        self.registry.feed.subscribe(look_soon)
        while True:
            if not self.journal.writable:
                look_at = 0.0
            elif time.monotonic() >= look_at:
                look_at = time.monotonic() + _LOOK
                try:
                    missing = await journal_what_is_missing(self._road, self.journal, alone=self.registry.alone)
                    if missing:
                        log.info("changes made while no journal took them are journalled now", count=missing)
                except (JournalUnavailable, Unavailable):
                    look_at = 0.0
                except Exception:
                    log.exception("looking for changes that are not journalled failed")
            await asyncio.sleep(_CATCH_UP)


def insist_on_domains(config: Config) -> Config:
    """Raise `ConfigurationError` where there is none: nobody wants a final no for everybody, so this is a file
    that an editor has cut off."""
    if not config.domain:
        raise ConfigurationError(f"{config.path}: there is no domain: add a [domain.NAME]")
    return config
