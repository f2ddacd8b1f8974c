"""Starting an agent, and the value an application holds afterwards.

`start` checks what it was given, has the bridge bound, and remembers for `guard` which context has an agent. What
the agent does then is in `zapd.agent.bridge`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import zmq

from zapd.agent import contexts
from zapd.agent.bridge import Bridge
from zapd.agent.contexts import AgentError
from zapd.agent.keyfile import AgentKeys, Endpoint, read_keys


class Agent:
    """A started agent. There is no way to stop it but to terminate its context."""

    def __init__(self, bridge: Bridge, name: str, deadline: float) -> None:
        self._bridge = bridge
        self.name = name
        """The name it is enrolled under; empty without a key file."""
        self.deadline = deadline
        """Seconds after which a question is answered with 300."""
        self.pid = os.getpid()
        """The process it works in. A forked child has no agent: nothing answers there, and nobody gets in."""

    def __repr__(self) -> str:
        return f"<Agent {self.name!r} for {', '.join(self.endpoints)}>"

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Addresses of the zapds it asks."""
        return tuple(upstream.endpoint.address for upstream in self._bridge.upstreams)

    @property
    def alive(self) -> bool:
        """Whether its thread answers libzmq in this process."""
        return self.pid == os.getpid() and self._bridge.thread.is_alive()

    @property
    def connected(self) -> bool:
        """Whether a zapd can be asked at this moment."""
        return any(upstream.ready for upstream in self._bridge.upstreams)

    @property
    def counters(self) -> dict[str, int]:
        """What has happened so far, by the names in `zapd.agent.bridge.COUNTERS`; a copy."""
        return dict(self._bridge.counters)

    def wait_connected(self, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for a zapd; say whether there is one.

        Nothing depends on calling this: questions asked earlier wait for their deadline by themselves.
        """
        end = time.monotonic() + timeout
        while not self.connected and self.alive and time.monotonic() < end:
            time.sleep(0.01)
        return self.connected


def start(
    context: zmq.Context[Any],
    keys: str | os.PathLike[str] | AgentKeys | None = "agent.key",
    *,
    endpoints: Sequence[Endpoint | str] | None = None,
    deadline: float = 2.0,
    max_questions: int = 4096,
) -> Agent:
    """Bind libzmq's ZAP endpoint in ``context`` and begin to answer. Call it before any server socket is bound.

    ``keys`` is the path of the file that ``zapd agent enroll`` wrote, or what `read_keys` made of it; None for an
    application that asks only local zapds without keys (ipc, loopback), named in ``endpoints``. ``endpoints``
    takes the place of the file's list. ``deadline`` is in seconds, less than the sockets' handshake time.

    Returns when the endpoint is bound, whether or not a zapd can be reached. Raises `AgentError` when something
    else is bound there or the context has ended, `zapd.errors.ConfigurationError` for a bad file or endpoint.
    """
    if not isinstance(context, zmq.Context):
        raise AgentError("start() takes the application's zmq.Context")
    if context.closed:
        raise AgentError("this context is terminated")
    if not 0.05 <= deadline <= 30:
        raise AgentError("deadline: 0.05 to 30 seconds")
    if max_questions < 1:
        raise AgentError("max_questions: at least 1")
    who = read_keys(keys) if isinstance(keys, str | os.PathLike) else keys
    if endpoints is None:
        asked: Sequence[Endpoint] = who.endpoints if who is not None else ()
    else:
        asked = [Endpoint(each) if isinstance(each, str) else each for each in endpoints]
    if not asked:
        raise AgentError("no endpoints: the agent must know at least one zapd")
    if who is None and any(endpoint.secured for endpoint in asked):
        raise AgentError("an endpoint with server_keys needs the agent's own keys: pass keys=")
    if contexts.agent_of(int(context.underlying)) is not None:
        raise AgentError("this context has an agent already: start one for each context, once")
    address = int(context.underlying)
    agent = Agent(
        Bridge(address, who, asked, deadline, max_questions), who.name if who is not None else "", deadline
    )
    contexts.remember(address, agent)
    agent._bridge.thread.start()
    return agent
