"""Which libzmq contexts have an agent in this process.

`start` writes here, `guard` reads here, and the agent's thread takes itself out when its context ends. It knows
nothing of sockets or questions.
"""

from __future__ import annotations

import os
from typing import Protocol

from zapd.errors import ZapdError


class AgentError(ZapdError):
    """The agent cannot start, or a socket cannot be guarded; the message says the mend."""

    code = "agent"


class Living(Protocol):
    """As much of an agent as this table needs."""

    deadline: float
    pid: int

    @property
    def alive(self) -> bool: ...


_agents: dict[int, Living] = {}
"""By the address of libzmq's context: contexts themselves must stay free to be collected. No lock guards it: one
that is held while another thread forks stays held in the child, and only who has bound the endpoint writes."""


def remember(context: int, agent: Living) -> None:
    """Note that ``agent`` answers for this context."""
    _agents[context] = agent


def forget(context: int) -> None:
    """The context has ended; its address may come back with another one."""
    _agents.pop(context, None)


def agent_of(context: int) -> Living | None:
    """The agent at work for this context in this very process, or None: a parent's agent does not count."""
    agent = _agents.get(context)
    if agent is None or agent.pid != os.getpid() or not agent.alive:
        return None
    return agent
