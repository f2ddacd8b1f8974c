"""A process with Debian's libzmq, which speaks GSSAPI (pyzmq's wheel does not): one socket, driven line by line.

`GssapiPeer` starts this file as a program and talks to it in JSON: a list of a verb and its arguments goes in, the
result comes out. What it is to be, and in which realm, its environment and first line say.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

PATIENCE: Final = 10.0


class GssapiPeer:
    """The socket in that process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def _do(self, *words: object) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the process with libzmq is gone: {self._process.wait(PATIENCE)}"
        return json.loads(answer)

    def bind(self) -> str:
        """Bind, and say where."""
        return str(self._do("bind"))

    def connect(self, endpoint: str) -> None:
        self._do("connect", endpoint)

    def subscribe(self, topic: bytes) -> None:
        self._do("subscribe", topic.hex())

    def send(self, *parts: bytes) -> None:
        self._do("send", *(part.hex() for part in parts))

    def receive(self, within: float = PATIENCE) -> list[bytes] | None:
        """The next message; None when none comes within so many seconds."""
        parts = self._do("receive", within)
        return None if parts is None else [bytes.fromhex(part) for part in parts]

    def asked(self) -> list[list[bytes]]:
        """What its ZAP handler was asked so far: domain, address, routing id, mechanism and credentials."""
        return [[bytes.fromhex(frame) for frame in request[2:]] for request in self._do("asked")]


@contextmanager
def gssapi_peer(
    kind: str,
    environment: dict[str, str],
    *,
    plaintext: bool = False,
    service: str = "",
    zap: int = 0,
    options: dict[str, int] | None = None,
) -> Iterator[GssapiPeer]:
    """A socket of ``kind``: with ``service`` a client of it, else a server; ``zap`` is what its handler answers, 0
    for no handler. ``environment`` is of the realm (`support.kdc`) and loads Debian's libzmq."""
    settings = {"kind": kind, "plaintext": plaintext, "service": service, "zap": zap, "options": options or {}}
    process = subprocess.Popen(
        [sys.executable, __file__, json.dumps(settings)],
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield GssapiPeer(process)
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    """The program."""
    import zmq

    settings = json.loads(sys.argv[1])
    context = zmq.Context()
    asked: list[list[str]] = []
    if settings["zap"]:
        handler = context.socket(zmq.REP)
        handler.bind("inproc://zeromq.zap.01")

        def judge() -> None:
            while True:
                request = handler.recv_multipart()
                asked.append([frame.hex() for frame in request])
                handler.send_multipart([b"1.0", request[1], b"%d" % settings["zap"], b"", b"", b""])

        threading.Thread(target=judge, daemon=True).start()
    sock = context.socket(getattr(zmq, settings["kind"]))
    if settings["service"]:
        sock.setsockopt(zmq.GSSAPI_SERVICE_PRINCIPAL, settings["service"].encode())
    else:
        sock.setsockopt(zmq.GSSAPI_SERVER, 1)
        sock.setsockopt(zmq.ZAP_DOMAIN, b"lab")
    sock.setsockopt(zmq.GSSAPI_PLAINTEXT, int(settings["plaintext"]))
    for name, value in settings["options"].items():
        sock.setsockopt(getattr(zmq, name), value)

    def receive(within: float) -> list[str] | None:
        return [part.hex() for part in sock.recv_multipart()] if sock.poll(int(within * 1000)) else None

    verbs: dict[str, Callable[..., Any]] = {
        "bind": lambda: f"tcp://127.0.0.1:{sock.bind_to_random_port('tcp://127.0.0.1')}",
        "connect": lambda endpoint: sock.connect(endpoint) and None,
        "subscribe": lambda topic: sock.setsockopt(zmq.SUBSCRIBE, bytes.fromhex(topic)),
        "send": lambda *parts: sock.send_multipart([bytes.fromhex(part) for part in parts]),
        "receive": receive,
        "asked": lambda: asked,
    }
    for line in sys.stdin:
        verb, *words = json.loads(line)
        print(json.dumps(verbs[verb](*words)), flush=True)


if __name__ == "__main__":
    main()
