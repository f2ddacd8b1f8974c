"""A libzmq application that speaks GSSAPI, and its visitors: processes of their own, on Debian's libzmq.

pyzmq's wheels have no GSSAPI, and credentials come from the environment; so each of the two is this file, run with
the environment of a `support.kdc.Kdc`. `App` serves under a real agent, under the proxy that RFC 27 describes, or
under a handler that says always the same; whoever gets a message through is in.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import zmq
from support.kdc import HOST_BASED, Kdc, libzmq_with_gssapi

import zapd.agent
from zapd.agent.bridge import ZAP_ENDPOINT

PATIENCE = 30.0
DEADLINE, HANDSHAKE = 1.0, 2.0
"""Seconds; short, so that visitors come back soon."""


class App:
    """A PULL server in another process."""

    def __init__(self, kdc: Kdc, way: str, where: str, domain: str = "lab") -> None:
        """``way``: ``agent`` (``where`` is its key file, or an ipc endpoint), ``proxy`` (a zapd's endpoint),
        ``handler`` (what it says)."""
        self._kdc = kdc
        self._visitors: list[subprocess.Popen[str]] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._process = self._start(kdc.environment, ["serve", way, where, domain], stdout=subprocess.PIPE)
        threading.Thread(target=self._read, daemon=True).start()
        self.address = self._next(PATIENCE)
        assert self.address.startswith("tcp://"), self.address

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in [*self._visitors, self._process]:
            process.kill()
            process.communicate()

    def visitor(self, ticket: dict[str, str], says: str) -> None:
        """Somebody with this ticket knocks until he is in, or is told no, and sends ``says``."""
        self._visitors.append(self._start(ticket, ["visit", self.address, says]))

    def next_in(self, timeout: float = PATIENCE) -> tuple[str, str] | None:
        """(what he said, user id) of the next visitor that got in, or None."""
        line = self._next(timeout)
        return tuple(json.loads(line)) if line else None

    def counters(self) -> dict[str, int]:
        """The agent's."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return dict(json.loads(self._next(PATIENCE)))

    def _start(self, kerberos: dict[str, str], words: Sequence[str], **more: Any) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, __file__, *words],
            env={**os.environ, **kerberos, **libzmq_with_gssapi(), "PYTHONPATH": str(Path(__file__).parents[1])},
            stdin=subprocess.PIPE,
            text=True,
            **more,
        )

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line.strip())
        self._lines.put("")

    def _next(self, timeout: float) -> str:
        try:
            return self._lines.get(timeout=timeout)
        except queue.Empty:
            return ""


def serve(way: str, where: str, domain: str) -> None:
    """What the application's process does: an empty line on its input asks for the agent's counters."""
    context: zmq.Context[Any] = zmq.Context()
    socket = context.socket(zmq.PULL)
    agent = None
    if way == "agent":
        local = where.startswith("ipc:")
        agent = zapd.agent.start(
            context, None if local else where, endpoints=[where] if local else None, deadline=DEADLINE
        )
        zapd.agent.guard(socket, domain=domain, mechanism="GSSAPI", handshake=HANDSHAKE)
    else:
        _stand_in(context, way, where)
        socket.setsockopt(zmq.GSSAPI_SERVER, 1)
        socket.setsockopt_string(zmq.ZAP_DOMAIN, domain)
        socket.setsockopt(zmq.HANDSHAKE_IVL, int(HANDSHAKE * 1000))
    socket.bind("tcp://127.0.0.1:*")
    print(socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0"), flush=True)
    while True:
        happened = dict(zmq.zmq_poll([(socket, zmq.POLLIN), (sys.stdin.fileno(), zmq.POLLIN)], -1))
        if socket in happened:
            frame = socket.recv(copy=False)
            print(json.dumps([frame.bytes.decode(), frame.get("User-Id")]), flush=True)
        if sys.stdin.fileno() in happened and sys.stdin.readline() and agent is not None:
            print(json.dumps(agent.counters), flush=True)


def _stand_in(context: zmq.Context[Any], way: str, where: str) -> None:
    """Answer without an agent, in a thread."""
    front = context.socket(zmq.ROUTER)
    front.bind(ZAP_ENDPOINT)
    if way == "proxy":
        back = context.socket(zmq.DEALER)
        back.connect(where)
        threading.Thread(target=zmq.proxy, args=(front, back), daemon=True).start()
        return

    def answer() -> None:
        while True:
            parts = front.recv_multipart()
            cut = parts.index(b"") + 1
            front.send_multipart(
                [*parts[:cut], b"1.0", parts[cut + 1], where.encode(), b"Access denied", b"", b""]
            )

    threading.Thread(target=answer, daemon=True).start()


def visit(address: str, says: str) -> None:
    """What a visitor's process does, until it is killed."""
    socket = zmq.Context().socket(zmq.PUSH)
    socket.setsockopt_string(zmq.GSSAPI_SERVICE_PRINCIPAL, HOST_BASED)
    socket.reconnect_ivl = 50
    socket.connect(address)
    socket.send_string(says)
    time.sleep(3600)


if __name__ == "__main__":
    {"serve": serve, "visit": visit}[sys.argv[1]](*sys.argv[2:])
