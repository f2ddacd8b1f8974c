"""Run the benchmark: `python -m bench [--rounds 5] [--seconds 3] [--unpinned] [--only NAME]…`.

Every peer is started once and keeps running; the rounds are interleaved, so that whatever else the machine does
meets all of them alike. The server, with all its threads and processes, has the first core, the generator the
second. What is printed is medians over
the rounds, and ratios of medians within the run; figures of different runs are not comparable.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import zmq

from bench import peer_zapd
from bench.peers import DOMAIN, OUT, REFERENCES, Peer, Site, compile_c
from bench.peers import PEERS as OTHERS

PEERS = [*OTHERS, *peer_zapd.PEERS]
KEY_COUNT = 100_000
IN_FLIGHT = 128


@dataclass
class Running:
    """A peer at work, and what its rounds gave."""

    peer: Peer
    site: Site
    process: subprocess.Popen[bytes]
    rounds: list[dict[str, float]] = field(default_factory=list)

    def median(self, name: str) -> float:
        return median(each[name] for each in self.rounds)


def main(arguments: Sequence[str] | None = None) -> int:
    options = read_options(arguments)
    peers = [peer for peer in PEERS if not options.only or peer.name in options.only]
    if not peers:
        print(f"no such peer; there are: {', '.join(peer.name for peer in PEERS)}", file=sys.stderr)
        return 2
    server_core, load_core = (None, None) if options.unpinned else pick_cores()
    loadgen = compile_c("loadgen")
    with tempfile.TemporaryDirectory(prefix="zapd-bench-") as folder:
        keys = Path(folder) / "keys"
        keys.write_bytes(make_keys(options.keys))
        running: list[Running] = []
        try:
            for number, peer in enumerate(peers):
                site = Site(Path(folder) / f"peer{number}", free_port(), keys)
                site.folder.mkdir()
                print(f"starting {peer.name}: {peer.about}", file=sys.stderr)
                peer.prepare(site)
                running.append(Running(peer, site, start(peer, site, server_core)))
            for number in range(options.rounds):
                for each in running:
                    measure(each, loadgen, load_core, options)
                    rate = each.rounds[-1]["rate"]
                    print(f"round {number + 1}: {each.peer.name} {rate:,.0f}/s", file=sys.stderr)
        finally:
            for each in running:
                stop(each.process)
        machine = describe_machine(server_core, load_core)
        print(report(running, machine, options))
        OUT.mkdir(exist_ok=True)
        (OUT / "result.json").write_text(json.dumps(as_data(running, machine, options), indent=2) + "\n")
    return 0


def read_options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="CURVE questions answered a second")
    parser.add_argument("--rounds", type=int, default=5, help="rounds for each peer, interleaved (5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="seconds counted in a round (3)")
    parser.add_argument("--warmup", type=float, default=0.5, help="seconds before counting begins (0.5)")
    parser.add_argument("--in-flight", type=int, default=IN_FLIGHT, help=f"questions under way ({IN_FLIGHT})")
    parser.add_argument("--keys", type=int, default=KEY_COUNT, help=f"registered keys ({KEY_COUNT})")
    parser.add_argument("--unpinned", action="store_true", help="let server and load use every core")
    parser.add_argument("--only", action="append", metavar="NAME", help="measure this peer alone; may be repeated")
    return parser.parse_args(arguments)


def make_keys(count: int) -> bytes:
    """Public keys as a registry takes them: 32 octets, the same in every run, the top bit clear (RFC 7748)."""
    octets = bytearray(random.Random(27).randbytes(32 * count))
    octets[31::32] = bytes(octet & 0x7F for octet in octets[31::32])
    return bytes(octets)


def pick_cores() -> tuple[int | None, int | None]:
    """(for the server, for the generator); nothing is pinned where there is but one."""
    cores = sorted(os.sched_getaffinity(0))
    return (cores[0], cores[1]) if len(cores) > 1 else (None, None)


def pinned(core: int | None, command: list[str]) -> list[str]:
    return command if core is None else ["taskset", "--cpu-list", str(core), *command]


def start(peer: Peer, site: Site, core: int | None) -> subprocess.Popen[bytes]:
    log = (site.folder / "bench.log").open("wb")
    with log:
        process = subprocess.Popen(
            pinned(core, peer.command(site)),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=site.folder,
            env={**os.environ, **peer.environment},
        )
    end = time.monotonic() + peer.patience
    while time.monotonic() < end and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", site.port), 0.2).close()
            return process
        except OSError:
            time.sleep(0.02)
    stop(process)
    words = (site.folder / "bench.log").read_text(errors="replace")[-2000:]
    raise SystemExit(f"{peer.name} did not start:\n{words}")


def stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def measure(each: Running, loadgen: Path, core: int | None, options: argparse.Namespace) -> None:
    """One round: run the generator, and see how much of its core the server used meanwhile."""
    before, started = cpu_seconds(each.process.pid), time.monotonic()
    command = [
        str(loadgen),
        "127.0.0.1",
        str(each.site.port),
        str(each.site.keys),
        str(options.in_flight),
        str(options.warmup),
        str(options.seconds),
        DOMAIN,
    ]
    done = subprocess.run(
        pinned(core, command), capture_output=True, text=True, check=False, timeout=options.seconds + 60
    )
    if done.returncode:
        raise SystemExit(f"{each.peer.name}: wrong answers, or none:\n{done.stdout}{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout)
    result["server_cpu"] = (cpu_seconds(each.process.pid) - before) / (time.monotonic() - started)
    each.rounds.append(result)


def cpu_seconds(pid: int) -> float:
    """User and system time of a process and its living children."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return 0.0
    ticks = int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK") + sum(cpu_seconds(child) for child in children)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def describe_machine(server_core: int | None, load_core: int | None) -> dict[str, str]:
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    pinning = "not pinned" if server_core is None else f"server on core {server_core}, load on core {load_core}"
    return {
        "machine": f"{model}, {os.cpu_count()} cores, {pinning}",
        "system": f"{platform.system()} {platform.release()}",
        "versions": (
            f"Python {platform.python_version()}, zapd {version('zapd')}, "
            f"pyzmq {zmq.__version__} with libzmq {zmq.zmq_version()}, "
            f"C peers with libzmq {installed('libzmq5')} and czmq {installed('libczmq4')}"
        ),
    }


def installed(package: str) -> str:
    query = ["dpkg-query", "--show", "--showformat=${Version}", package]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=False)
    except OSError:
        return "?"
    return done.stdout or "?"


def report(running: list[Running], machine: dict[str, str], options: argparse.Namespace) -> str:
    references = [each for each in running if each.peer.name in REFERENCES]
    head = [
        "",
        "answers/s",
        *(f"× {each.peer.name}" for each in references),
        "p50",
        "p99",
        "p99.9",
        "server CPU",
        "range",
    ]
    rows = [head]
    for each in running:
        rate = each.median("rate")
        low, high = (pick(one["rate"] for one in each.rounds) for pick in (min, max))
        rows.append(
            [
                each.peer.name,
                f"{rate:,.0f}",
                *(f"{rate / other.median('rate'):.2f}" for other in references),
                *(f"{each.median(name) / 1000:.2f} ms" for name in ("p50_us", "p99_us", "p999_us")),
                f"{each.median('server_cpu'):.0%}",
                f"{low:,.0f} to {high:,.0f}",
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = [
        "",
        f"CURVE questions from {options.keys:,} keys, {options.in_flight} in flight on one connection, "
        f"medians of {options.rounds} interleaved rounds of {options.seconds:g} s; every answer was 200.",
        *(f"{name}: {text}" for name, text in machine.items()),
        "",
    ]
    for row in rows:
        cells = [
            row[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def as_data(running: list[Running], machine: dict[str, str], options: argparse.Namespace) -> dict[str, Any]:
    return {**machine, "options": vars(options), "peers": {each.peer.name: each.rounds for each in running}}


if __name__ == "__main__":
    sys.exit(main())
