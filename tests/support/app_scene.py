"""The running program and a local asker: what the tests of the daemon share.

`CONFIGURATION` has a NULL endpoint over ipc that may ask about everything, so that a test asks with a plain
libzmq socket and no agent; what it says is then a matter of domains, backends, registry and journal alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import bcrypt
import zmq
from support.serving import Zapd

from zapd.zmtp.keys import encode_key, public_of

CONFIGURATION = """
[server]
data_dir = "data"
drain = "5s"
[[zap]]
listen = "ipc://data/zap.sock"
mechanism = "NULL"
domains = ["*"]
[admin]
listen = "127.0.0.1:0"
[audit]
head = ""
[backend.keys]
type = "sql"
[domain.orders]
mechanisms = ["CURVE", "PLAIN"]
backends = ["keys"]
[domain.lab]
mechanisms = ["NULL"]
allow = ["127.0.0.0/8"]
null_user = "lab"
"""

UNCOUNTED = """
[limits]
refusals_per_source = 1000000
refusals_per_agent = 1000000
"""
"""For behind `CONFIGURATION`: refusals come as fast as they like, and each is given."""

ALICE = public_of(bytes(range(32)))
BOB = public_of(bytes(range(1, 33)))
STRANGER = public_of(bytes(reversed(range(32))))
EVER = 15.0
"""Seconds after which waiting for something that must happen is given up; no measure of how fast it is."""


class Asking:
    """A DEALER on zapd's ipc endpoint."""

    def __init__(self, zapd: Zapd) -> None:
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        self._socket.reconnect_ivl = 20
        self._socket.connect(f"ipc://{zapd.folder}/data/zap.sock")
        self._number = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._context.term()

    def send(
        self, *credentials: bytes, domain: str = "orders", mechanism: str = "CURVE", address: str = "127.0.0.1"
    ) -> bytes:
        """Put a question; its request id."""
        self._number += 1
        number = b"%d" % self._number
        head = [b"", b"1.0", number, domain.encode(), address.encode(), b"", mechanism.encode()]
        self._socket.send_multipart([*head, *credentials])
        return number

    def receive(self, seconds: float = EVER) -> tuple[bytes, int, str]:
        """The next answer: (request id, status, user id)."""
        assert self._socket.poll(int(seconds * 1000)), "no answer"
        parts = self._socket.recv_multipart()
        return parts[2], int(parts[3]), parts[5].decode()

    def ask(self, *credentials: bytes, **more: str) -> int:
        """One question; its status."""
        return self.whole(*credentials, **more)[0]

    def whole(self, *credentials: bytes, **more: str) -> tuple[int, str]:
        """One question; (status, user id)."""
        sent = self.send(*credentials, **more)
        number, status, user = self.receive()
        assert number == sent
        return status, user

    def plain(self, name: str, password: str, domain: str = "orders") -> int:
        """One PLAIN question; its status."""
        return self.ask(name.encode(), password.encode(), domain=domain, mechanism="PLAIN")


def wait_for(condition: Callable[[], object], seconds: float = EVER) -> bool:
    """Whether it came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.03)
    return True


def z85(key: bytes) -> bytes:
    return encode_key(key).encode()


def ready(zapd: Zapd) -> bool:
    """What the status of ``/readyz`` says."""
    return zapd.call("GET", "/readyz").status_code == 200


def parts(zapd: Zapd) -> Mapping[str, str]:
    """What ``/readyz`` says of each part."""
    answer: dict[str, Any] = zapd.call("GET", "/readyz").json()
    found = answer.get("parts", answer)
    return found if isinstance(found, dict) else {each["name"]: each["state"] for each in found}


def plain_file(path: Path, **users: str) -> None:
    """Write an htpasswd file with cheap hashes, in place of what was there, at once."""
    lines = [f"{name}:{bcrypt.hashpw(word.encode(), bcrypt.gensalt(4)).decode()}" for name, word in users.items()]
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_text("\n".join([*lines, ""]))
    fresh.replace(path)
