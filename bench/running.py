"""Peers at work: started, asked in turn, stopped.

Every peer is started once and keeps running. Rounds are interleaved, so that whatever else the machine does meets
all of them alike; who is not asked is held still (SIGSTOP), so that nobody pays for another's housekeeping.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

from bench import machine
from bench.machine import Cores
from bench.material import make_keys
from bench.peers import Peer, Site

QUIET = 0.05
"""Of a core, what others may take before a result says so."""
AWAKE = 0.05
"""Seconds for a peer to come to itself after it was held."""


@dataclass
class Running:
    """A peer at work, and what its rounds gave."""

    peer: Peer
    site: Site
    process: subprocess.Popen[bytes]
    listening: float = 0.0
    """Seconds from its start until it took connections."""
    ready: float = 0.0
    """zapd: seconds from its start until ``/readyz`` said yes."""
    rounds: list[dict[str, float]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.peer.name

    def median(self, what: str) -> float:
        return median(each[what] for each in self.rounds)

    def range(self, what: str) -> tuple[float, float]:
        return min(each[what] for each in self.rounds), max(each[what] for each in self.rounds)

    @property
    def per_cpu_second(self) -> float:
        """Answers, or handshakes, for each second of CPU that all its processes spent."""
        return self.median("rate") / max(self.median("server_cpu"), 0.001)

    @property
    def log(self) -> str:
        return (self.site.folder / "bench.log").read_text(errors="replace")

    def admin(self, path: str) -> str:
        """A page of zapd's admin listener; empty while it gives none."""
        url = next((line.split()[1] for line in self.log.splitlines() if line.startswith("  admin ")), "")
        if not url:
            return ""
        try:
            with urllib.request.urlopen(url + path, timeout=10) as page:
                text: str = page.read().decode()
                return text
        except (urllib.error.URLError, OSError):
            return ""

    def metric(self, name: str) -> float:
        """A number of zapd's ``/metrics``."""
        for line in self.admin("/metrics").splitlines():
            if line.startswith(name + " "):
                return float(line.rpartition(" ")[2])
        raise SystemExit(f"{self.name}: no metric {name}:\n{self.log[-2000:]}")

    def hold(self, still: bool) -> None:
        """Hold it still with all its children, or let it go on."""
        for pid in machine.family(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP if still else signal.SIGCONT)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.hold(False)
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Scene:
    """A throw-away folder with peers running in it, and the cores that they and the load may use."""

    def __init__(self, cores: Cores, keys: int = 1000) -> None:
        """``keys``: how many public keys are registered where keys are."""
        self.cores = cores
        self.running: list[Running] = []
        self._keys = keys
        self._others: list[float] = []
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="zapd-bench-")))
        self.keys = self.folder / "keys"
        self.keys.write_bytes(make_keys(self._keys))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self.running:
            each.stop()
        self._stack.close()

    def start(self, peers: Sequence[Peer], keys: int | None = None) -> list[Running]:
        """Prepare and start these; ``keys`` registers only so many of the keys."""
        path = self.keys
        if keys is not None:
            path = self.folder / f"keys-{keys}"
            path.write_bytes(self.keys.read_bytes()[: 32 * keys])
        started = []
        for peer in peers:
            for each in self.running:
                each.hold(True)
            site = Site(self.folder / f"peer{len(self.running)}", machine.free_port(), path)
            site.folder.mkdir()
            print(f"starting {peer.name}: {peer.about}", file=sys.stderr)
            peer.prepare(site)
            started.append(self._start(peer, site))
        return started

    def _start(self, peer: Peer, site: Site) -> Running:
        began = time.monotonic()
        with (site.folder / "bench.log").open("wb") as log:
            process = subprocess.Popen(
                machine.pinned(self.cores.server, peer.command(site)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=site.folder,
                env={**os.environ, **peer.environment(site)},
            )
        made = Running(peer, site, process)
        self.running.append(made)
        try:
            self._wait(made, lambda: _listens(site.port))
            made.listening = time.monotonic() - began
            if peer.is_zapd:
                self._wait(made, lambda: bool(made.admin("/readyz")))  # 503, and so nothing, until it is ready
                made.ready = time.monotonic() - began
        except TimeoutError:
            raise SystemExit(f"{peer.name} did not start:\n{made.log[-2000:]}") from None
        return made

    def _wait(self, made: Running, until: Callable[[], bool]) -> None:
        end = time.monotonic() + made.peer.patience
        while time.monotonic() < end and made.process.poll() is None:
            if until():
                return
            time.sleep(0.01)
        raise TimeoutError

    @contextlib.contextmanager
    def alone(self, one: Running) -> Iterator[None]:
        """Let this peer run, and hold all others."""
        for each in self.running:
            each.hold(each is not one)
        time.sleep(AWAKE)
        yield

    def interleave(
        self,
        running: Sequence[Running],
        rounds: int,
        measure: Callable[[Running], dict[str, float]],
        what: str = "rate",
    ) -> None:
        """So many rounds for each, in turn. ``what`` of each round is told."""
        for number in range(rounds):
            for each in running:
                with self.alone(each):
                    each.rounds.append(measure(each))
                print(f"round {number + 1}: {each.name} {each.rounds[-1][what]:,.1f}", file=sys.stderr)

    def load(self, command: Sequence[str | Path], seconds: float) -> dict[str, float]:
        """Run a load program on its core; what it printed. A wrong answer ends the run."""
        words = machine.pinned(self.cores.load, [str(word) for word in command])
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=seconds + 90)
        if done.returncode:
            raise SystemExit(f"wrong answers, or none: {' '.join(words)}\n{done.stdout}{done.stderr}")
        result: dict[str, float] = json.loads(done.stdout)
        return result

    def load_on(self, one: Running, command: Sequence[str | Path], seconds: float) -> dict[str, float]:
        """The same, with what the server's processes used of their core meanwhile."""
        before, began = machine.usage(one.process.pid), time.monotonic()
        ours, busy = machine.usage(os.getpid()).whole, machine.busy_seconds()
        result = self.load(command, seconds)
        took = time.monotonic() - began
        used = machine.usage(one.process.pid).since(before)
        ours = machine.usage(os.getpid()).whole - ours
        result["server_cpu"], result["copy_cpu"] = used.whole / took, used.copy / took
        result["others_cpu"] = max(0.0, machine.busy_seconds() - busy - ours) / took
        self._others.append(result["others_cpu"])
        return result

    def notes(self) -> list[str]:
        """A warning to print where the machine was not ours alone."""
        others = median(self._others) if self._others else 0.0
        if others < QUIET:
            return []
        return [
            f"The machine was not quiet: other processes took {others:.0%} of a core meanwhile (median of rounds)."
        ]


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


def as_data(running: Sequence[Running]) -> dict[str, Any]:
    """All rounds, by peer."""
    return {
        each.name: {"listening_s": each.listening, "ready_s": each.ready, "rounds": each.rounds}
        for each in running
    }
