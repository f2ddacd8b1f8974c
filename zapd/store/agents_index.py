"""Enrolled agents in memory: who may ask at zapd's own door, found by public key.

Kept current by the change feed. A key that belongs to no agent and one whose agent was revoked are told apart,
so that the journal can say which; both stay outside. There is no yes while the registry was never read.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from zapd.errors import Unavailable
from zapd.store.agents import AgentRecord, AgentRegistry, AgentState
from zapd.store.engine import reading
from zapd.store.feed import Change, ChangeFeed
from zapd.zap import Asker
from zapd.zmtp.keys import fingerprint

_ROWS: Final = 1000

_LOOK: Final = 30.0
"""Seconds between two looks at whether a rotated key has ended."""

NEVER: Final = float("inf")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, eq=False)
class KnownAgent:
    """One agent. ``asker`` is the same object for as long as nothing about the agent changes."""

    name: str
    asker: Asker | None
    """None: revoked, or this key of it has ended."""
    networks: tuple[Network, ...]
    reason: str
    """Why it was revoked."""
    mark: bytes
    """This key's fingerprint, ``SHA256:…``."""
    until: float = NEVER
    """When this key of the agent's ends, seconds since 1970: a rotated one is good for a while."""
    ended: bool = False
    """That time is over; the agent itself may come with its new key."""

    def allows_address(self, address: str) -> bool:
        """Whether it may connect from here: a numeric address; anything else only where no network is named."""
        if not self.networks:
            return True
        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
            found = found.ipv4_mapped
        return any(found in network for network in self.networks)


class AgentsIndex:
    """Public key to agent. All methods but the reading are for the event loop's thread."""

    def __init__(
        self, engine: Engine, feed: ChangeFeed | None = None, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._engine = engine
        self._feed = feed
        self._clock = clock
        self._latest = 0.0
        """The wall clock at its furthest: a rotated key that has ended does not come back when it is set back."""
        self._by_key: dict[bytes, KnownAgent] | None = None
        self._keys_of: dict[str, tuple[bytes, ...]] = {}
        """Name to the agent's keys, the present one first."""
        self._ends: dict[str, asyncio.TimerHandle] = {}
        self._lock = asyncio.Lock()
        self._subscribed = False
        self._listeners: list[Callable[[Sequence[str]], None]] = []

    async def start(self) -> None:
        """Read all agents. Raises `Unavailable` when that cannot be done; call it again later."""
        if self._feed is not None:
            if not self._subscribed:
                self._feed.subscribe(self._follow)
                self._subscribed = True
            await self._feed.catch_up()
        async with self._lock:
            agents = await self._ask(self._read_all)
            self._by_key, self._keys_of = {}, {}
            self._put(agents)

    def on_change(self, callback: Callable[[Sequence[str]], None]) -> None:
        """Tell the names of agents that were enrolled, changed or revoked, once it is in force here: so that
        whoever holds their connections can cut them."""
        self._listeners.append(callback)

    @property
    def ready(self) -> bool:
        """Whether the registry was read at all."""
        return self._by_key is not None

    def lookup(self, public_key: bytes) -> KnownAgent | None:
        """The agent with this key, revoked or not; None for a stranger's key.

        Raises `Unavailable` while the registry was never read: then nobody is known, and nobody is unknown.
        """
        if self._by_key is None:
            raise Unavailable("The registry of agents has not been read yet.")
        known = self._by_key.get(public_key)
        return known if known is None or self._in_time(known) else replace(known, asker=None, ended=True)

    def by_name(self, name: str) -> KnownAgent | None:
        """The agent of this name, revoked or not; None for a name that nobody has, or before the first reading."""
        keys = self._keys_of.get(name)
        return None if keys is None or self._by_key is None else self._by_key.get(keys[0])

    def holds(self, name: str, mark: bytes) -> bool:
        """Whether the agent of this name has, now, the key with this fingerprint (``SHA256:…``); one that was
        rotated out it has until its time is over."""
        return any(
            known.mark == mark and self._in_time(known)
            for key in self._keys_of.get(name, ())
            if (known := (self._by_key or {}).get(key)) is not None
        )

    def asker(self, public_key: bytes) -> Asker | None:
        """The `Asker` of an active agent; None for anybody else. Raises as `lookup`."""
        known = self.lookup(public_key)
        return None if known is None else known.asker

    async def _follow(self, changes: Sequence[Change]) -> None:
        names = {change.subject for change in changes if change.kind == "agent"}
        if not names:
            return
        async with self._lock:
            if self._by_key is None:
                return  # start() reads it all
            agents = await self._ask(lambda: self._read_some(names))
            for name in names:
                for key in self._keys_of.pop(name, ()):
                    self._by_key.pop(key, None)
            self._put(agents)
        self._tell(sorted(names))

    def _tell(self, names: Sequence[str]) -> None:
        for tell in self._listeners:
            tell(names)

    def _put(self, agents: Sequence[AgentRecord]) -> None:
        if self._by_key is None:
            return
        for agent in agents:
            known = _known(agent)
            self._by_key[agent.public_key] = known
            self._keys_of[agent.name] = (agent.public_key,)
            if agent.previous_key is not None and agent.previous_until is not None:
                until = agent.previous_until.timestamp()
                # The same `Asker`: it is one agent, whichever of its keys it came with.
                self._by_key[agent.previous_key] = replace(known, mark=_mark(agent.previous_key), until=until)
                self._keys_of[agent.name] = (agent.public_key, agent.previous_key)
                if until > self._clock():
                    self._await_end(agent.name, until)

    def _in_time(self, known: KnownAgent) -> bool:
        self._latest = max(self._latest, self._clock())
        return known.until > self._latest

    def _await_end(self, name: str, until: float) -> None:
        """Tell when a rotated key's time is over: whoever came with it must leave, and no change says so."""
        earlier = self._ends.pop(name, None)
        if earlier is not None:
            earlier.cancel()
        left = until - self._clock()
        if left <= 0:
            self._tell([name])
            return
        # In pieces, since the wall clock may be set.
        loop = asyncio.get_running_loop()
        self._ends[name] = loop.call_later(min(left, _LOOK), self._await_end, name, until)

    async def _ask(self, question: Callable[[], Sequence[AgentRecord]]) -> Sequence[AgentRecord]:
        try:
            return await asyncio.to_thread(question)
        except SQLAlchemyError as trouble:
            raise Unavailable(f"The agents cannot be read ({type(trouble).__name__}).") from trouble

    def _read_all(self) -> Sequence[AgentRecord]:
        registry = AgentRegistry()
        found: list[AgentRecord] = []
        with reading(self._engine) as connection:
            while page := registry.page(connection, after=found[-1].name if found else "", limit=_ROWS):
                found.extend(page)
        return found

    def _read_some(self, names: set[str]) -> Sequence[AgentRecord]:
        registry = AgentRegistry()
        with reading(self._engine) as connection:
            records = [registry.find(connection, name) for name in names]
        return [record for record in records if record is not None]


def _known(agent: AgentRecord) -> KnownAgent:
    asker = None
    if agent.state is AgentState.ACTIVE:
        asker = Asker(agent.name, agent.domains, frozenset(agent.mechanisms))
    networks = tuple(ipaddress.ip_network(network) for network in agent.addresses)
    return KnownAgent(agent.name, asker, networks, agent.reason, _mark(agent.public_key))


def _mark(key: bytes) -> bytes:
    return fingerprint(key).encode("ascii")
