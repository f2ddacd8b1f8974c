"""Enrolled agents in memory: who may ask at zapd's own door, found by public key.

Kept current by the change feed. A key that belongs to no agent and one whose agent was revoked are told apart,
so that the journal can say which; both stay outside. There is no yes while the registry was never read.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Sequence
from dataclasses import dataclass
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

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True, eq=False)
class KnownAgent:
    """One agent. ``asker`` is the same object for as long as nothing about the agent changes."""

    name: str
    asker: Asker | None
    """None: revoked."""
    networks: tuple[Network, ...]
    reason: str
    """Why it was revoked."""

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

    def __init__(self, engine: Engine, feed: ChangeFeed | None = None) -> None:
        self._engine = engine
        self._feed = feed
        self._by_key: dict[bytes, KnownAgent] | None = None
        self._keys_of: dict[str, bytes] = {}
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
        return self._by_key.get(public_key)

    def by_name(self, name: str) -> KnownAgent | None:
        """The agent of this name, revoked or not; None for a name that nobody has, or before the first reading."""
        key = self._keys_of.get(name)
        return None if key is None or self._by_key is None else self._by_key.get(key)

    def holds(self, name: str, mark: bytes) -> bool:
        """Whether the agent of this name has, now, the key with this fingerprint (``SHA256:…``)."""
        key = self._keys_of.get(name)
        return key is not None and fingerprint(key).encode("ascii") == mark

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
                key = self._keys_of.pop(name, None)
                if key is not None:
                    self._by_key.pop(key, None)
            self._put(agents)
        for tell in self._listeners:
            tell(sorted(names))

    def _put(self, agents: Sequence[AgentRecord]) -> None:
        if self._by_key is None:
            return
        for agent in agents:
            self._by_key[agent.public_key] = _known(agent)
            self._keys_of[agent.name] = agent.public_key

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
    return KnownAgent(
        agent.name, asker, tuple(ipaddress.ip_network(network) for network in agent.addresses), agent.reason
    )
