"""A small, scripted ZAP central on real libzmq sockets: what the agent's tests put in zapd's place.

It runs a ROUTER in a thread, grants what it was told to grant, and can be told to misbehave in each way that
the agent must survive. It is stopped and started again on the same address to play a restart.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import zmq

ZAP = "inproc://zeromq.zap.01"


@dataclass(frozen=True)
class Pair:
    """A CURVE pair, 32 octets each half."""

    public: bytes
    secret: bytes


def new_pair() -> Pair:
    from nacl.bindings import crypto_box_keypair

    return Pair(*crypto_box_keypair())


@dataclass(frozen=True)
class Asked:
    """One question as it reached the central."""

    envelope: list[bytes]
    body: list[bytes]

    @property
    def question_id(self) -> bytes:
        return self.envelope[-2]

    @property
    def mechanism(self) -> str:
        return self.body[5].decode()

    def reply(self, status: bytes, user: bytes = b"", metadata: bytes = b"") -> list[bytes]:
        return [*self.envelope, b"1.0", self.body[1], status, b"text", user, metadata]


Script = Callable[["Central", Asked], "list[list[bytes]]"]


def honest(central: Central, asked: Asked) -> list[list[bytes]]:
    """200 for what is known, 400 for the rest."""
    credentials = tuple(asked.body[6:])
    known = credentials in central.known or (asked.mechanism == "NULL" and central.admits_null)
    return [asked.reply(b"200", b"somebody")] if known else [asked.reply(b"400")]


def silent(central: Central, asked: Asked) -> list[list[bytes]]:
    """Never an answer."""
    return []


def always(status: bytes) -> Script:
    """One status for everything."""
    return lambda central, asked: [asked.reply(status, b"somebody" if status == b"200" else b"")]


@dataclass
class Central:
    """Stands in for zapd. ``server`` makes it CURVE; ``agents`` are the keys its own door admits."""

    server: Pair | None = None
    script: Script = honest
    known: set[tuple[bytes, ...]] = field(default_factory=set)
    admits_null: bool = False
    address: str = "tcp://127.0.0.1:*"
    agents: set[bytes] | None = None
    asked: list[Asked] = field(default_factory=list)
    delay: float = 0.0
    outbox: list[list[bytes]] = field(default_factory=list)
    """Messages to send unasked."""
    _thread: threading.Thread | None = None

    def __enter__(self) -> Central:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> Central:
        bound = threading.Event()
        self._end = threading.Event()
        self._trouble: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(bound,), daemon=True)
        self._thread.start()
        assert bound.wait(5), "the central did not start"
        if self._trouble is not None:
            raise self._trouble
        return self

    def stop(self) -> None:
        if self._thread is not None:
            self._end.set()
            self._thread.join(5)
            assert not self._thread.is_alive()
            self._thread = None

    @property
    def running(self) -> bool:
        return self._thread is not None

    def _run(self, bound: threading.Event) -> None:
        context = zmq.Context()
        door = None
        try:
            if self.agents is not None:
                door = context.socket(zmq.ROUTER)
                door.bind(ZAP)
            router = context.socket(zmq.ROUTER)
            router.linger = 0
            if self.server is not None:
                router.setsockopt(zmq.CURVE_SECRETKEY, self.server.secret)
                router.setsockopt(zmq.CURVE_SERVER, 1)
            if self.agents is not None:
                router.setsockopt(zmq.ZAP_DOMAIN, b"zapd.agents")
            _bind(router, self.address)
            self.address = router.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")
        except BaseException as trouble:  # noqa: BLE001  (handed to the starter)
            self._trouble = trouble
            bound.set()
            context.destroy(linger=0)
            return
        bound.set()
        later: list[tuple[float, list[bytes]]] = []
        while not self._end.is_set():
            if door is not None and door.poll(0):
                self._open_door(door)
            if router.poll(10):
                parts = router.recv_multipart()
                cut = parts.index(b"") + 1
                asked = Asked(parts[:cut], parts[cut:])
                self.asked.append(asked)
                for reply in self.script(self, asked):
                    later.append((time.monotonic() + self.delay, reply))
            while self.outbox:
                router.send_multipart(self.outbox.pop(0))
            now = time.monotonic()
            for entry in [each for each in later if each[0] <= now]:
                later.remove(entry)
                router.send_multipart(entry[1])
        context.destroy(linger=0)

    def _open_door(self, door: zmq.Socket[bytes]) -> None:
        parts = door.recv_multipart()
        asked = Asked(parts[:2], parts[2:])
        assert self.agents is not None
        door.send_multipart(asked.reply(b"200" if asked.body[6] in self.agents else b"400"))


def _bind(socket: zmq.Socket[bytes], address: str) -> None:
    """A port that was ours a moment ago may need a moment."""
    for attempt in range(100):
        try:
            socket.bind(address)
            return
        except zmq.ZMQError as error:
            if error.errno != zmq.EADDRINUSE or attempt == 99:
                raise
            time.sleep(0.02)


def wait_until(true: Callable[[], object], timeout: float = 8.0) -> bool:
    """Poll a condition; generous, because machines are slow sometimes."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if true():
            return True
        time.sleep(0.01)
    return bool(true())


def foreign_id() -> bytes:
    return os.urandom(16)


if __name__ == "__main__":  # an honest central as a process of its own, to be stopped and killed
    import sys

    address, *keys = sys.argv[1:]
    with Central(address=address, known={(bytes.fromhex(key),) for key in keys}) as process:
        print(process.address, flush=True)
        while True:
            time.sleep(1)
