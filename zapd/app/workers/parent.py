"""The parent: listeners, changes, administration; it decides nothing.

See `zapd.server.lifecycle.Runnable` and `zapd.app.office.Deciders`. Up: registry and journal, then every place to
listen at, then the workers, and only then connections are accepted. Down: the other way round.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

import structlog

from zapd import __version__
from zapd.admin.api.context import Readiness
from zapd.admin.services.explain import Explanation, Supposed
from zapd.admin.services.signing_in import Judged, Login, SignInRule
from zapd.admin.services.topology import BackendInfo, DomainInfo, Endpoint
from zapd.app.gauges import (
    Gauge,
    gauge_of_readiness,
    gauges_of_ground,
    gauges_of_office,
    gauges_of_workers,
)
from zapd.app.ground import Ground
from zapd.app.office import Office
from zapd.app.parts import Parts
from zapd.app.restart import needs_restart, start_only
from zapd.app.starting import hold, insist_on_domains, say_not_reloaded, say_where
from zapd.app.translate import domain_infos, signin_rules
from zapd.app.workers.crew import Crew
from zapd.app.workers.entrances import Entrances
from zapd.audit.event import Tag
from zapd.audit.journal import JournalUnavailable
from zapd.config import Config, load
from zapd.errors import ConfigurationError
from zapd.server.metrics import ServiceCollector, page

log = structlog.get_logger(__name__)


class Parent:
    """One for each zapd with several workers."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._start_only: dict[str, object] = {}
        self._parts = Parts()
        self._ground = Ground(config, self._parts)
        self._entrances = Entrances(config)
        self._office = Office(config, self._ground, self._parts)
        self._crew: Crew
        self._draining = False

    # -- up --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Come up whole, or raise."""
        insist_on_domains(self.config)
        self._start_only = start_only(self.config)
        hold(self.config, self._parts)
        await self._ground.start()
        self._parts.up("entrances", self._entrances.close)
        await self._entrances.open()
        feed = self._ground.registry.feed
        self._crew = Crew(self.config, self._entrances.server_key, self._ground.throttle, lambda: feed.position)
        self._parts.up("workers", self._crew.stop)
        await self._crew.start()
        self._crew.on_change = self._crew_changed
        self._crew.on_seen = self._ground.waiting.put
        self._crew_changed()
        await self._office.start(self, self)
        listening = self._entrances.listening
        workers = self.config.server.workers
        self._ground.note(Tag.SERVICE_START, {"version": __version__, "listening": listening, "workers": workers})
        say_where(listening, self._office, self.config, self._ground.journal, self.readiness())

    def _crew_changed(self) -> None:
        if self._crew.any_up:
            self._entrances.accept(self._crew.hand)
        else:
            self._entrances.pause()

    # -- changes ---------------------------------------------------------------------------------------------

    async def catch_up(self) -> int:
        """Return once all that is committed is in force in every worker (`zapd.admin.services.changes.Feed`)."""
        position = await self._ground.registry.feed.catch_up()
        await self._crew.catch_up(position)
        return position

    # -- what administration asks ----------------------------------------------------------------------------

    def domains(self) -> Sequence[DomainInfo]:
        """The rules in force."""
        return domain_infos(self.config.rules())

    def backends(self) -> Sequence[BackendInfo]:
        """The backends, each as it fares where it fares worst."""
        return self._crew.backends()

    def endpoints(self) -> Sequence[Endpoint]:
        """Where agents reach the workers."""
        return self._entrances.endpoints()

    async def explain(self, supposed: Supposed) -> Explanation:
        """What a worker would decide now, and why."""
        return await self._crew.explain(supposed)

    async def judge(self, login: Login) -> Judged:
        """Whether somebody who signs in is who they say, as a worker finds."""
        return await self._crew.judge(login)

    def signins(self) -> Mapping[str, SignInRule]:
        """Where one may sign in."""
        return signin_rules(self.config)

    def metrics(self) -> bytes:
        """The page that Prometheus reads; what workers count is at most a second old."""
        counts = self._crew.counted()
        counts.add_gauges(gauges_of_ground(self._ground))

        def gauges() -> Iterator[Gauge]:
            yield gauge_of_readiness(self.readiness().ready)
            yield from counts.gauges()
            yield from gauges_of_workers(self._crew.seats)
            yield from gauges_of_office(self._office)

        return page(ServiceCollector(counts.decisions, gauges))

    def readiness(self) -> Readiness:
        """Ready: changes can be made and recorded, and every worker decides."""
        parts = [*self._ground.readiness(), *self._crew.readiness()]
        ready = all(state == "ok" for _, state in parts) and not self._draining
        if self._draining:
            parts.append(("service", "draining"))
        parts += self._office.readiness()
        parts += [(f"backend {info.name}", info.word) for info in self.backends()]
        return Readiness(ready, tuple(parts))

    # -- anew ------------------------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Read the configuration again: all workers take it, or none does. What is wrong keeps the old."""
        try:
            config = insist_on_domains(await asyncio.to_thread(load, self.config.path))
            rules = config.rules()
            await self._crew.reload(
                config.text,
                lambda: self._office.reload_tls(config),
            )
        except ConfigurationError as error:
            say_not_reloaded(error)
            return
        for setting in needs_restart(self._start_only, config):
            log.warning("a change needs a restart; the old value stays in force", setting=setting)
        self._ground.throttle.reload(config.terms())
        self.config = config
        self._ground.waiting.bounds = config.pending_bounds()
        self._ground.note(Tag.SERVICE_RELOAD, {"domains": [rule.pattern for rule in rules]})
        log.info("the configuration was reloaded", domains=len(rules), backends=len(config.backend))

    # -- down ------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """300 to newcomers, and ``drain`` seconds for what is open, in every worker."""
        self._draining = True
        await self._crew.drain(self.config.server.drain)
        with suppress(JournalUnavailable):
            await self._ground.journal.durable()

    async def stop(self) -> None:
        """Take down what came up, in the opposite order."""
        await self._parts.down()
