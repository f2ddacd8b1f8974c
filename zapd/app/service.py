"""The running zapd in one process: every part, in the order in which they come up, change and go down.

Up: what may be missing comes first and nobody waits for it (registry, journal: decisions are 300 until they are
there), then backends, then the doors. Down: the doors first, the journal last, so that whatever was answered is
on record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence

import structlog

from zapd import __version__
from zapd.admin.api.context import Readiness
from zapd.admin.services.explain import Explanation, Supposed
from zapd.admin.services.signing_in import Judged, Login, SignInRule
from zapd.admin.services.topology import BackendInfo, DomainInfo, Endpoint
from zapd.app.deciding import Deciding
from zapd.app.explaining import explain
from zapd.app.gauges import Gauge, gauge_of_readiness, gauges_of_deciding, gauges_of_ground, gauges_of_office
from zapd.app.ground import Ground
from zapd.app.judging import judge
from zapd.app.office import Office
from zapd.app.parts import Parts
from zapd.app.restart import needs_restart, start_only
from zapd.app.starting import hold, insist_on_domains, say_not_reloaded, say_where
from zapd.app.translate import domain_infos, signin_rules
from zapd.audit.event import Tag
from zapd.config import Config, load
from zapd.errors import ConfigurationError
from zapd.server.metrics import ServiceCollector, page

log = structlog.get_logger(__name__)


class Service:
    """See `zapd.server.lifecycle.Runnable` and `zapd.app.office.Deciders`. One for each process."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self._start_only: dict[str, object] = {}
        """What the start took of the settings that no reload reads."""
        self._parts = Parts()
        self._ground = Ground(config, self._parts)
        self._deciding = Deciding(config, self._ground, self._parts)
        self._office = Office(config, self._ground, self._parts)

    # -- up --------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Come up whole, or raise."""
        insist_on_domains(self.config)
        self._start_only = start_only(self.config)
        hold(self.config, self._parts)
        await self._ground.start()
        await self._deciding.start()
        await self._deciding.doors.open()
        await self._office.start(self, self._ground.registry.feed)
        listening = self._deciding.doors.listening
        self._ground.note(Tag.SERVICE_START, {"version": __version__, "listening": listening})
        say_where(listening, self._office, self.config, self._ground.journal, self.readiness())

    # -- what administration asks ----------------------------------------------------------------------------

    def domains(self) -> Sequence[DomainInfo]:
        """The rules in force."""
        return domain_infos(self._deciding.authority.policy.rules)

    def backends(self) -> Sequence[BackendInfo]:
        """The backends and how they fare."""
        return self._deciding.backends()

    def endpoints(self) -> Sequence[Endpoint]:
        """Where agents reach us."""
        return self._deciding.doors.endpoints()

    async def explain(self, supposed: Supposed) -> Explanation:
        """What would be decided now, and why."""
        return await explain(self._deciding.authority, supposed)

    async def judge(self, login: Login) -> Judged:
        """Whether somebody who signs in is who they say."""
        return await judge(self._deciding, login)

    def signins(self) -> Mapping[str, SignInRule]:
        """Where one may sign in."""
        return signin_rules(self.config)

    def metrics(self) -> bytes:
        """The page that Prometheus reads."""
        return page(ServiceCollector(self._deciding.metrics, self._gauges))

    def _gauges(self) -> Iterator[Gauge]:
        yield gauge_of_readiness(self.readiness().ready)
        yield from gauges_of_deciding(self._deciding)
        yield from gauges_of_ground(self._ground)
        yield from gauges_of_office(self._office)

    def readiness(self) -> Readiness:
        """Ready: the registry may decide and the journal takes records. Backends are named, not counted in: one
        that is away must not take its neighbours' domains out of service."""
        parts = self._ground.readiness()
        draining = self._deciding.endpoint.draining
        ready = all(state == "ok" for _, state in parts) and not draining
        if draining:
            parts.append(("service", "draining"))
        parts += self._office.readiness()
        parts += [(f"backend {info.name}", info.word) for info in self.backends()]
        return Readiness(ready, tuple(parts))

    # -- anew ------------------------------------------------------------------------------------------------

    async def reload(self) -> None:
        """Read the configuration again: all of it or nothing. What is wrong keeps the old and says so."""
        try:
            config = insist_on_domains(await asyncio.to_thread(load, self.config.path))
            prepared = self._deciding.prepare(config)
            # The last thing that can be wrong; behind it the new comes into force whole.
            self._office.reload_tls(config)
            await self._deciding.adopt(prepared)
        except ConfigurationError as error:
            say_not_reloaded(error)
            return
        for setting in needs_restart(self._start_only, config):
            log.warning("a change needs a restart; the old value stays in force", setting=setting)
        self.config = config
        self._ground.note(Tag.SERVICE_RELOAD, {"domains": [rule.pattern for rule in prepared.policy.rules]})
        log.info(
            "the configuration was reloaded",
            domains=len(prepared.policy.rules),
            backends=len(prepared.backends),
        )

    # -- down ------------------------------------------------------------------------------------------------

    async def drain(self) -> None:
        """300 to newcomers, and ``drain`` seconds for what is open."""
        await self._deciding.drain(self.config.server.drain)

    async def stop(self) -> None:
        """Take down what came up, in the opposite order."""
        await self._parts.down()
