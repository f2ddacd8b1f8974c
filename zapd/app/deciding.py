"""What answers questions, in one process: backends, the authority over them, the endpoint and its doors."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from zapd.admin.services.topology import BackendInfo
from zapd.app.backends import Backends
from zapd.app.doors import Doors
from zapd.app.ground import Ground
from zapd.app.parts import Parts
from zapd.app.translate import backend_info
from zapd.audit.journal import JournalUnavailable
from zapd.auth.authority import Authority
from zapd.auth.backend import BackendContext
from zapd.auth.bans import Bans
from zapd.auth.catalog import BackendHandle
from zapd.auth.policy import Policy
from zapd.config import Config
from zapd.server.door import AgentDirectory
from zapd.server.endpoint import Endpoint
from zapd.server.express import Express
from zapd.server.metrics import DecisionMetrics
from zapd.server.recorder import Recorder
from zapd.server.repeats import Repeats

_CONFIRM = 0.5
"""Seconds in which a ban's no is to be compared with the database, where another zapd may have taken it back."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A configuration that can come into force, and what was built for it."""

    config: Config
    policy: Policy
    backends: dict[str, BackendHandle]


class Deciding:
    """Decides, records and answers, on the ground it is given."""

    def __init__(self, config: Config, ground: Ground, parts: Parts) -> None:
        self._config = config
        self._parts = parts
        self.ground = ground
        self.metrics = DecisionMetrics()
        self.authority: Authority
        self.recorder: Recorder
        self.endpoint: Endpoint
        self.doors: Doors
        self._backends: Backends

    async def start(self) -> None:
        """Come up, doors still shut. Raises `ConfigurationError`."""
        config, ground = self._config, self.ground
        context = BackendContext(
            base_dir=config.base_dir,
            hash_pool=ground.hash_pool,
            database=ground.registry.engine,
            feed=ground.registry.feed,
            wall_clock=time.time,
            forget=lambda: self.authority.forget(),
        )
        self._backends = Backends(context)
        wanted = self._backends.plan(config)
        self.authority = Authority(
            Policy(config.rules()),
            wanted,
            agents=AgentDirectory(ground.registry.agents),
            hash_pool=ground.hash_pool,
            throttle=ground.throttle,
            is_current=ground.registry.is_current,
            as_of_now=None if ground.registry.alone else partial(ground.registry.feed.as_of_now, _CONFIRM),
            on_pending=ground.waiting.note,
        )
        ground.registry.bans.on_change(lambda bans: self.authority.bar(Bans(bans)))
        self._parts.up("backends", self._backends.aclose)
        await self._backends.adopt(wanted, config, hurry=True)
        limits = config.limits
        repeats = Repeats(limits.refusals_per_source, limits.refusals_per_agent)
        self.recorder = Recorder(ground.journal, ground.summaries, repeats)
        self.endpoint = Endpoint(
            self.authority.decide,
            self.recorder,
            self.metrics,
            express=Express(self.authority, self.recorder, self.metrics),
            in_flight=config.limits.max_in_flight_per_agent,
            in_flight_total=config.limits.max_in_flight,
            trace=ground.tracing.question if ground.tracing is not None else None,
        )
        self.doors = Doors(config, self.authority, self.endpoint, self.recorder, ground.registry.agents)
        self._parts.up("doors", self.doors.close)
        self._parts.up("questions", self._cut_short)

    # -- what others ask -------------------------------------------------------------------------------------

    def backend_handles(self) -> Sequence[BackendHandle]:
        """The backends in force."""
        return list(self._backends.handles.values())

    def backends(self) -> Sequence[BackendInfo]:
        """The backends and how they fare."""
        return [backend_info(handle.health(), handle.mechanisms) for handle in self.backend_handles()]

    # -- anew ------------------------------------------------------------------------------------------------

    def prepare(self, config: Config) -> Prepared:
        """Build what ``config`` needs, and change nothing. Raises `ConfigurationError`."""
        return Prepared(config, Policy(config.rules()), self._backends.plan(config))

    async def adopt(self, prepared: Prepared) -> None:
        """Bring it into force, whole."""
        gone = await self._backends.adopt(prepared.backends, prepared.config)
        self.authority.reload(prepared.policy, prepared.backends)
        for handle in gone:
            await handle.aclose()
        self.ground.throttle.reload(prepared.config.terms())
        limits = prepared.config.limits
        self.recorder.repeats = Repeats(limits.refusals_per_source, limits.refusals_per_agent)
        self.ground.waiting.bounds = prepared.config.pending_bounds()
        self.doors.set_limits(prepared.config.limits)

    # -- down ------------------------------------------------------------------------------------------------

    async def drain(self, seconds: float) -> None:
        """300 to newcomers, and so long for what is open; then 300 to that too."""
        self.doors.draining = True
        await self._drain(seconds)

    async def _cut_short(self) -> None:
        """300 to whatever is still open, in a hurry."""
        await self._drain(0)

    async def _drain(self, seconds: float) -> None:
        await self.endpoint.drain(seconds)
        with suppress(JournalUnavailable):
            await self.ground.journal.durable()  # until then the last answers wait for their records
