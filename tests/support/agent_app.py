"""A guarded libzmq application and its visitors, for the agent's tests: real sockets throughout."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any

import zmq
from support.agent_central import Pair, new_pair

import zapd.agent
from zapd.agent import Agent, AgentKeys, Endpoint

DEADLINE = 0.25
HANDSHAKE = 0.5
"""Short, so that a client that was told 300 comes back soon."""


class App:
    """A PULL server under guard; whoever gets a message through is in."""

    def __init__(
        self,
        endpoints: list[Endpoint],
        *,
        mechanism: Any = "CURVE",
        domain: str = "orders",
        keys: AgentKeys | None = None,
        deadline: float = DEADLINE,
        handshake: float = HANDSHAKE,
        max_questions: int = 4096,
    ) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.visitors: zmq.Context[Any] = zmq.Context()
        self._visiting: list[zmq.Socket[Any]] = []
        self.mechanism = mechanism
        self.server = new_pair()
        self.agent: Agent = zapd.agent.start(
            self.context, keys, endpoints=endpoints, deadline=deadline, max_questions=max_questions
        )
        self.socket = self.context.socket(zmq.PULL)
        self.socket.linger = 0
        zapd.agent.guard(
            self.socket,
            domain=domain,
            mechanism=mechanism,
            secret_key=self.server.secret if mechanism == "CURVE" else None,
            handshake=handshake,
        )
        self.socket.bind("tcp://127.0.0.1:*")
        self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    def __enter__(self) -> App:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for visitor in self._visiting:
            visitor.close()
        self.visitors.term()
        self.socket.close()
        started = time.monotonic()
        self.context.term()
        took = time.monotonic() - started
        assert took < 5, f"term() took {took:.1f} s"

    def visitor(self, *, pair: Pair | None = None, user: str = "", password: str = "", says: bytes = b"in") -> Any:
        """A client that keeps knocking until it is in, or is told no."""
        socket = self.visitors.socket(zmq.PUSH)
        socket.linger = 0
        socket.reconnect_ivl = 50
        if self.mechanism == "CURVE":
            pair = pair or new_pair()
            socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
            socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
            socket.setsockopt(zmq.CURVE_SERVERKEY, self.server.public)
        elif self.mechanism == "PLAIN":
            socket.plain_username = user.encode()
            socket.plain_password = password.encode()
        socket.connect(self.address)
        socket.send(says)
        self._visiting.append(socket)
        return socket

    def next_in(self, timeout: float = 8.0) -> bytes | None:
        """What the next visitor that got in said, or None."""
        return self.socket.recv() if self.socket.poll(int(timeout * 1000)) else None


def new_agent(*endpoints: Endpoint) -> AgentKeys:
    pair = new_pair()
    return AgentKeys("edge-1", pair.public, pair.secret, tuple(endpoints))
