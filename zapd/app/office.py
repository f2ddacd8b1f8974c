"""Administration at work: the copy in SQL, the road of changes, the API, and what is owed to the journal."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

import structlog

from zapd.admin.api.app import create_app
from zapd.admin.api.context import Readiness
from zapd.admin.services.audit import AuditService
from zapd.admin.services.changes import ChangeRoad, Feed
from zapd.admin.services.explain import Explanation, Supposed
from zapd.admin.services.signing_in import Judged, Login, SignInRule
from zapd.admin.services.topology import BackendInfo, DomainInfo, Endpoint
from zapd.app.administration import admin_context
from zapd.app.enrolment import Enrolment
from zapd.app.errands import Errands
from zapd.app.ground import Ground
from zapd.app.journalling import journal_what_is_missing
from zapd.app.noting import Noting
from zapd.app.parts import Parts
from zapd.app.people import SignInOfPeople, people_of
from zapd.app.searching import Searching
from zapd.app.web import WebServer
from zapd.audit.journal import JournalUnavailable
from zapd.audit.sinks.sql import SqlSink
from zapd.config import Config
from zapd.errors import Unavailable
from zapd.server.recorder import ChangeRecorder, EventRecorder

log = structlog.get_logger(__name__)

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_CATCH_UP = 1.0
"""Seconds between two attempts to journal what a full disk kept out."""
_LOOK = 30.0
"""Seconds after which changes that are not journalled are looked for although nothing hints at any."""


class Deciders(Protocol):
    """Those who decide, in this process or in others, as administration asks about them."""

    def domains(self) -> Sequence[DomainInfo]:
        """The rules in force."""

    def backends(self) -> Sequence[BackendInfo]:
        """The backends and how they fare."""

    def endpoints(self) -> Sequence[Endpoint]:
        """Where agents reach them."""

    def readiness(self) -> Readiness:
        """Whether decisions are made."""

    def metrics(self) -> bytes:
        """The page that Prometheus reads."""

    async def explain(self, supposed: Supposed) -> Explanation:
        """What would be decided now, and why."""

    async def judge(self, login: Login) -> Judged:
        """Decide whether somebody who signs in is who they say; on record when it returns. Raises
        `Unavailable`."""

    def signins(self) -> Mapping[str, SignInRule]:
        """Where one may sign in."""


class Office:
    """Administers the registry that lies under ``ground``, and shows how ``deciders`` fare."""

    def __init__(self, config: Config, ground: Ground, parts: Parts) -> None:
        self._config = config
        self._ground = ground
        self._parts = parts
        self.searching: Searching
        self.admin: WebServer
        self.enrolment = Enrolment(config, parts)
        self.noting: Noting
        self._road: ChangeRoad
        self._people: SignInOfPeople | None = None
        self._owing: asyncio.Task[None] | None = None

    async def start(self, deciders: Deciders, feed: Feed) -> None:
        """Come up. ``feed`` brings changes into force wherever decisions are made."""
        config, ground = self._config, self._ground
        self.searching = Searching(config)
        self._parts.up("searching", self.searching.stop)
        if config.audit.durability != "off":
            await self.searching.start()
        recorder = ChangeRecorder(ground.journal, ground.watermark.rise)
        self._road = ChangeRoad(ground.registry.engine, recorder=recorder, feed=feed)
        self._parts.up("changes", self._road.aclose)
        if config.admin.oidc is not None:
            self._people = people_of(config.admin.oidc)
            self._parts.up("people", self._people.aclose)
            await self._people.start()

        def server_keys() -> list[bytes]:
            return [key for endpoint in deciders.endpoints() for key in endpoint.server_keys]

        self.noting = Noting(
            self._road, ground.waiting, lifetime=config.limits.pending_lifetime, server_keys=server_keys
        )
        self._parts.up("pending", self.noting.aclose)
        self.noting.start()
        context = admin_context(
            road=self._road,
            hash_pool=ground.hash_pool,
            explain=deciders.explain,
            domains=deciders.domains,
            backends=deciders.backends,
            endpoints=deciders.endpoints,
            audit=AuditService(
                self.searching.search,
                copy=self.searching if config.audit.durability != "off" else None,
                journals=Errands(config) if config.audit.durability != "off" else None,
                followers=config.limits.audit_followers,
                exports=config.limits.audit_exports,
            ),
            ready=deciders.readiness,
            metrics=lambda: (deciders.metrics(), _METRICS_TYPE),
            joins=config.limits.joins,
            people=self._people,
            trace=ground.tracing.request if ground.tracing is not None else None,
        )
        self.admin = WebServer(create_app(context), "admin", config.admin, stopping=context.stopping)
        self._parts.up("admin", self.admin.aclose)
        await self.admin.start()
        await self.enrolment.start(
            self._road,
            EventRecorder(ground.journal, ground.summaries),
            braking=lambda address, mark: ground.throttle.attempt(address, "joins", mark, here_only=True),
            judging=deciders.judge,
            offered=deciders.signins,
            server_keys=server_keys,
            registry=ground.registry,
        )
        self._owing = asyncio.create_task(self._journal_what_is_owed(), name="zapd-owed-changes")
        self._parts.up("owing", self._owe_no_more)

    @property
    def sink(self) -> SqlSink:
        """What copies the journal into SQL."""
        return self.searching.sink

    def reload_tls(self, config: Config) -> None:
        """Use what the TLS files hold now. Raises `ConfigurationError`."""
        self.admin.reload_tls(config.admin.tls_cert, config.admin.tls_key)
        self.enrolment.reload_tls(config)

    def readiness(self) -> list[tuple[str, str]]:
        """(part, ``ok`` or what is wrong); searching may lag or fail, decisions do not wait for it."""
        parts = []
        if self._config.audit.durability != "off":
            good = self.sink.healthy
            parts.append(("search copy", "ok" if good else f"not healthy, {self.sink.lag} records behind"))
        if self._people is not None:
            parts.append(("sign-in of people", self._people.problem or "ok"))
        return parts

    async def _owe_no_more(self) -> None:
        if self._owing is not None:
            self._owing.cancel()

    async def _journal_what_is_owed(self) -> None:
        """At start, whenever the journal or the database has healed, and after changes that somebody made beside
        us, such as ``zapd token create --offline``: no change stays unrecorded."""
        journal, registry = self._ground.journal, self._ground.registry
        look_at = 0.0

        def look_soon(_changes: object) -> None:
            nonlocal look_at
            look_at = 0.0

        registry.feed.subscribe(look_soon)
        while True:
            if not journal.writable:
                look_at = 0.0
            elif time.monotonic() >= look_at:
                look_at = time.monotonic() + _LOOK
                try:
                    missing = await journal_what_is_missing(self._road, journal, alone=registry.alone)
                    if missing:
                        log.info("changes made while no journal took them are journalled now", count=missing)
                except (JournalUnavailable, Unavailable):
                    look_at = 0.0
                except Exception:
                    log.exception("looking for changes that are not journalled failed")
            await asyncio.sleep(_CATCH_UP)
