"""Refusals that come too fast to be recorded one by one: how many a second, by source and by agent.

A stranger must not be able to fill the disk (limits.md, R28), and no 400 may go unrecorded. So what is beyond the
bound is not refused at all: it is answered 300, which may be counted. Only refusals and deferrals come here, never
whoever is let in. Bounded: where a second sees more sources than fit, the others share one place.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import Final

from zapd.auth.address import read_address, source_of
from zapd.auth.memo import Memo

SOURCES: Final = 4096
"""Sources, and agents, that are told apart in one second."""

TOO_OFTEN: Final = "too_often"
"""The reason code of what was beyond the bound."""

_OTHERS: Final = "(others)"


class Repeats:
    """Counts in whole seconds."""

    def __init__(
        self, per_source: int = 10, per_agent: int = 100, *, clock: Callable[[], float] = monotonic
    ) -> None:
        self.per_source = per_source
        self.per_agent = per_agent
        self._clock = clock
        self._second = 0
        self._sources: dict[str, int] = {}
        self._agents: dict[str, int] = {}
        self._read: Memo[str, str] = Memo(SOURCES)

    def source(self, address: str) -> str:
        """Who is behind an address, for counting: an IPv4 address, an IPv6 /48, a local user. What cannot be read
        stands for itself."""
        return self._read.get(address) or self._read.put(address, _source(address))

    def allows(self, source: str, agent: str) -> bool:
        """Whether one more refusal may be given, and recorded, to this source and through this agent (empty for
        none). Counts it if so."""
        second = int(self._clock())
        if second != self._second:
            self._second = second
            self._sources.clear()
            self._agents.clear()
        source, by_source = _count(self._sources, source)
        agent, by_agent = _count(self._agents, agent)
        if by_source >= self.per_source or (agent and by_agent >= self.per_agent):
            return False
        self._sources[source] = by_source + 1
        self._agents[agent] = by_agent + 1
        return True


def _count(table: dict[str, int], name: str) -> tuple[str, int]:
    if name not in table and len(table) >= SOURCES:
        name = _OTHERS
    return name, table.get(name, 0)


def _source(address: str) -> str:
    read = read_address(address)
    return (address or "(none)") if read is None else source_of(read)
