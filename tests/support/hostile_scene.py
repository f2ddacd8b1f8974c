"""A zapd worth attacking: every mechanism on its own listener, and somebody to let in through each."""

from __future__ import annotations

import copy
import os
import re
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from support.hostile_wire import PATIENCE, Ended, Message, Stranger, question
from support.serving import Zapd

from zapd.agent.keyfile import read_keys
from zapd.config import read_curve_pair
from zapd.zmtp.keys import encode_key, generate_keypair
from zapd.zmtp.mechanisms.curve import CurveClient

CONFIGURATION = """
[server]
data_dir = "data"
drain = "1s"
[[zap]]
listen = "tcp://127.0.0.1:0"
mechanism = "NULL"
domains = ["*"]
[[zap]]
listen = "tcp://127.0.0.1:0"
mechanism = "CURVE"
[[zap]]
listen = "tcp://127.0.0.1:0"
mechanism = "PLAIN"
domains = ["staff"]
[admin]
listen = "127.0.0.1:0"
[backend.keys]
type = "sql"
[domain.orders]
mechanisms = ["CURVE"]
backends = ["keys"]
[domain.staff]
mechanisms = ["PLAIN"]
backends = ["keys"]
[domain.lab]
mechanisms = ["NULL"]
allow = ["127.0.0.0/8"]
null_user = "lab"
[penalties]
trusted = ["0.0.0.0/0", "::/0", "ipc"]
[limits]
refusals_per_source = 1000000
refusals_per_agent = 1000000
"""
"""Ends with the limits, so that a test can add its own. Attackers of every kind come from few addresses here, and
each shall get the answer that it asks for: that there are too many of them is shown elsewhere."""

PASSWORD = b"correct horse"


@dataclass
class Scene:
    """A running zapd and what it was told."""

    zapd: Zapd
    alice: bytes = b""
    """A registered key, 32 octets."""
    ids: dict[bytes, str] = field(default_factory=dict)
    """Registered keys to their ids in URLs."""

    @classmethod
    def prepare(cls, folder: Path, more: str = "", *, database: str | None = None) -> Self:
        """Start it with alice (CURVE) and bob (PLAIN) registered. ``database``: a PostgreSQL, to be shared."""
        shared = "" if database is None else '[database]\nurl = "file:data/database.url"\n'
        scene = cls(Zapd(folder, configuration=shared + CONFIGURATION + more, database=database))
        scene.zapd.start()
        try:
            scene.alice = scene.add_key("alice")
            scene.zapd.ask(
                "POST", "/v1/users", {"name": "bob", "password": PASSWORD.decode(), "domains": ["staff"]}
            )
        except BaseException:
            scene.zapd.stop()
            raise
        return scene

    @property
    def null(self) -> str:
        return self.zapd.zap[0]

    @property
    def curve(self) -> str:
        return self.zapd.zap[1]

    @property
    def plain(self) -> str:
        return self.zapd.zap[2]

    def add_key(self, user: str) -> bytes:
        """Register a new key for ``orders``."""
        public, _secret = generate_keypair()
        self.ids[public] = self.zapd.add_key(encode_key(public).encode(), user, domains=["orders"])
        return public

    def agent(self, name: str, domains: tuple[str, ...] = ("*",)) -> CurveClient:
        """Enrol an agent: the mechanism with which it may connect to `curve`."""
        keys = read_keys(self.zapd.enroll(name, domains=list(domains)))
        (endpoint,) = (endpoint for endpoint in keys.endpoints if endpoint.secured)
        return CurveClient(endpoint.server_keys[0], keys.secret_key)

    def server_key(self) -> bytes:
        """The public key of `curve`."""
        return read_curve_pair(self.zapd.folder / "data" / "server.key")[0]

    def beside(self) -> Zapd:
        """A second process that decides from the same database, which must be a PostgreSQL, and has the same key;
        started."""
        second = copy.copy(self.zapd)
        second.process = None
        second.config = self.zapd.folder / "second.toml"
        data = self.zapd.folder / "data"
        text = self.zapd.config.read_text()
        second.configure(
            text.replace('data_dir = "data"', f'data_dir = "second"\ncurve_key = "{data}/server.key"', 1)
        )
        second.start()
        return second

    def stranger(self) -> Stranger:
        """A local asker over NULL; sent away in a crowd, it comes back, as an honest client does."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return Stranger(self.null)
            except Ended:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def valid(self, request_id: bytes) -> Message:
        """A question that is granted."""
        return question(request_id, b"orders", b"CURVE", (self.alice,))

    # What the process holds

    @property
    def pid(self) -> int:
        assert self.zapd.process is not None
        return self.zapd.process.pid

    def descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def open_files(self) -> Counter[str]:
        """What its descriptors stand for, sockets and pipes each as one kind."""
        found: Counter[str] = Counter()
        for each in Path(f"/proc/{self.pid}/fd").iterdir():
            with suppress(OSError):  # closed meanwhile
                found[re.sub(r":\[.*", "", os.readlink(each))] += 1
        return found

    def resident(self) -> int:
        """Octets of memory in use."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def threads(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/task"))

    def metric(self, name: str) -> float:
        """One number of the metrics page; ``name`` with its labels, as it stands there."""
        for line in self.zapd.call("GET", "/metrics").text.splitlines():
            if line.startswith(f"{name} "):
                return float(line.rpartition(" ")[2])
        raise AssertionError(f"there is no metric {name}")

    def is_settled(self) -> bool:
        """Nobody is connected, nothing waits."""
        return all(
            self.metric(name) == 0
            for name in (
                "zapd_connections",
                "zapd_peers",
                "zapd_slow_questions",
                "zapd_hashes",
                "zapd_journal_backlog",
            )
        )

    def is_well(self) -> None:
        """It lives, decides, and has no traceback in its log."""
        assert self.zapd.process is not None
        assert self.zapd.process.poll() is None
        with self.stranger() as asking:
            assert asking.ask(self.valid(b"well?"))[1:4] == [b"1.0", b"well?", b"200"]
        logged = self.zapd.logged()
        assert "Traceback" not in logged, logged
        assert "bug" not in logged, logged
        assert self.metric("zapd_internal_errors_total") == 0


def status_of(reply: Message) -> bytes:
    """The status of a reply whose envelope is a bare delimiter."""
    return reply[3]
