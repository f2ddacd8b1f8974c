"""What happens to a zapd in a long day, pressed into minutes: see `tests/hostile/test_hostile_soak.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import cycle
from statistics import quantiles
from types import TracebackType
from typing import IO, Any, Self

import bcrypt
from support.hostile_attacks import ATTACKS
from support.hostile_scene import PASSWORD, Scene, status_of
from support.hostile_wire import question
from support.soak_fleet import Orders

from zapd.agent.keyfile import read_keys


class Fleet:
    """`soak_fleet` at work, until the block ends, and what it found."""

    def __init__(self, scene: Scene, keys: int) -> None:
        found = read_keys(scene.zapd.enroll("fleet", domains=["*"]))
        self._orders = Orders(
            scene.null,
            scene.curve,
            scene.plain,
            scene.server_key().hex(),
            found.secret_key.hex(),
            [scene.add_key(f"user-{number}").hex() for number in range(keys)],
            PASSWORD.hex(),
        )
        self.reports: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "support.soak_fleet"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=os.path.dirname(os.path.dirname(__file__)),
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(self._orders)) + "\n")
        self._process.stdin.flush()
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._process:
            self._process.kill()
        self._reader.join()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def since(self, first: int) -> Counted:
        """Of the reports from that one on."""
        return Counted.of(self.reports[first:])

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            self.reports.append(json.loads(line))


@dataclass
class Counted:
    """Some reports as one."""

    asked: int = 0
    connections: int = 0
    turned_away: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    p99: float = 0.0
    """Milliseconds that a batch took."""

    @classmethod
    def of(cls, reports: list[dict[str, Any]]) -> Self:
        found = cls()
        batches: list[float] = []
        for each in reports:
            found.asked += each["asked"]
            found.connections += each["connections"]
            found.turned_away += each["turned_away"]
            found.statuses.update(each["statuses"])
            found.wrong += each["wrong"]
            batches += each["batches"]
        if len(batches) >= 100:
            found.p99 = quantiles(batches, n=100)[-1] * 1000
        return found


class Day:
    """What operators and strangers do meanwhile, one thing after the other, each checked."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.done: Counter[str] = Counter()
        self._turns: Iterator[Callable[[], None]] = cycle(
            (
                self._a_key_comes_and_goes,
                self._attack,
                self._a_user_changes_the_password,
                self._attack,
                self._the_passwd_file_is_lost_and_found,
                self._attack,
                self._somebody_looks,
                self._reload,
            )
        )
        self._attacks = cycle(ATTACKS)
        self._passwd = scene.zapd.folder / "users.passwd"

    def go_on(self) -> None:
        """The next thing."""
        turn = next(self._turns)
        turn()
        self.done[turn.__name__.strip("_").replace("_", " ")] += 1

    def _attack(self) -> None:
        next(self._attacks)(self._scene)

    def _a_key_comes_and_goes(self) -> None:
        scene = self._scene
        key = scene.add_key("passer-by")
        with scene.stranger() as asking:
            mine = question(b"1", b"orders", b"CURVE", (key,))
            assert status_of(asking.ask(mine)) == b"200", "a key that was added is not let in"
            scene.zapd.ask("POST", f"/v1/keys/{scene.ids.pop(key)}/revoke", {"reason": "left"})
            assert status_of(asking.ask(mine)) == b"400", "a key that was revoked is let in"

    def _a_user_changes_the_password(self) -> None:
        name = f"user-{self.done.total()}"
        zapd = self._scene.zapd
        zapd.ask("POST", "/v1/users", {"name": name, "password": "first word", "domains": ["staff"]})
        zapd.ask("PUT", f"/v1/users/{name}/password", {"password": "second word"})
        with self._scene.stranger() as asking:
            for word, allowed in ((b"second word", {b"200", b"300"}), (b"first word", {b"400", b"300"})):
                asked = question(b"1", b"staff", b"PLAIN", (name.encode(), word), address=b"127.0.0.9")
                assert status_of(asking.ask(asked)) in allowed, word
        zapd.ask("DELETE", f"/v1/users/{name}")

    def _the_passwd_file_is_lost_and_found(self) -> None:
        ada = question(b"1", b"people", b"PLAIN", (b"ada", PASSWORD))
        self._passwd.unlink()
        with self._scene.stranger() as asking:
            assert status_of(asking.ask(ada)) in {b"200", b"300"}, "an outage is no refusal"
            write_passwd(self._scene)
            assert status_of(asking.ask(ada)) in {b"200", b"300"}

    def _somebody_looks(self) -> None:
        for path in ("/v1/audit?limit=50", "/v1/keys?limit=50", "/v1/backends", "/metrics", "/readyz"):
            assert self._scene.zapd.call("GET", path).status_code == 200, path

    def _reload(self) -> None:
        self._scene.zapd.signal(signal.SIGHUP)
        time.sleep(0.05)


def write_passwd(scene: Scene) -> None:
    """Ada's password in a file, whole at once."""
    fresh = scene.zapd.folder / "users.new"
    fresh.touch(mode=0o600)
    fresh.write_text(f"ada:{bcrypt.hashpw(PASSWORD, bcrypt.gensalt(4)).decode()}\n")
    fresh.replace(scene.zapd.folder / "users.passwd")
