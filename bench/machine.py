"""The machine: its cores, its versions, and what processes use of it."""

from __future__ import annotations

import os
import platform
import socket
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import zmq

COPY = b"zapd.audit.sinks.copying"
"""What stands in the command line of zapd's process that copies the journal into SQL."""


class Cores(NamedTuple):
    """Which core is whose; None where nothing is pinned."""

    server: int | None
    load: int | None

    def __str__(self) -> str:
        if self.server is None:
            return "not pinned"
        return f"server on core {self.server}, load on core {self.load}"


def pick_cores(unpinned: bool) -> Cores:
    """One for the server, another for the load; nothing is pinned where there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    return Cores(None, None) if unpinned or len(cores) < 2 else Cores(cores[0], cores[1])


def pinned(core: int | None, command: list[str]) -> list[str]:
    return command if core is None else ["taskset", "--cpu-list", str(core), *command]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def describe(cores: Cores) -> dict[str, str]:
    """What a figure is worth nothing without."""
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "machine": f"{model}, {os.cpu_count()} cores, {cores}",
        "system": f"{platform.system()} {platform.release()}",
        "versions": (
            f"Python {platform.python_version()}, zapd {version('zapd')}, PyNaCl {version('PyNaCl')}, "
            f"pyzmq {zmq.__version__} with libzmq {zmq.zmq_version()}; "
            f"C peers with libzmq {installed('libzmq5')}, czmq {installed('libczmq4')} and "
            f"libsodium {installed('libsodium23')}"
        ),
    }


def installed(package: str) -> str:
    """A Debian package's version; "?" where that cannot be told."""
    query = ["dpkg-query", "--show", "--showformat=${Version}", package]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False)
    except OSError:
        return "?"
    return done.stdout or "?"


def busy_seconds() -> float:
    """CPU seconds that all processes together have spent since the machine was started, stolen ones among them."""
    user, nice, system, _, _, _, _, steal, *_ = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:])
    return (user + nice + system + steal) / os.sysconf("SC_CLK_TCK")


class Usage(NamedTuple):
    """CPU seconds of a process and all its children since they began."""

    whole: float
    copy: float
    """Of it, the process that copies zapd's journal into SQL."""

    def since(self, before: Usage) -> Usage:
        return Usage(self.whole - before.whole, self.copy - before.copy)


class Memory(NamedTuple):
    """Resident memory in MiB. Pages that processes share are counted for each of them."""

    whole: float
    main: float
    """The first process alone."""


def usage(pid: int) -> Usage:
    whole = copy = 0.0
    for one in family(pid):
        seconds = _cpu_seconds(one)
        whole += seconds
        if COPY in _command(one):
            copy += seconds
    return Usage(whole, copy)


def memory(pid: int) -> Memory:
    sizes = [_resident(one) for one in family(pid)]
    return Memory(sum(sizes), sizes[0] if sizes else 0.0)


def sizes(pid: int) -> list[float]:
    """What a process and each of its children has resident, in MiB; without the one that copies into SQL."""
    return [_resident(one) for one in family(pid) if COPY not in _command(one)]


def family(pid: int) -> Iterator[int]:
    """A process and its living descendants, itself first."""
    yield pid
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return
    for task in tasks:
        try:
            children = (task / "children").read_text().split()
        except OSError:  # that thread has ended
            continue
        for child in children:
            yield from family(int(child))


def _cpu_seconds(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    # User and system time, its own and of children that have ended.
    return sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> float:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    for line in status.splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
