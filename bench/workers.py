"""What an answer costs, and what each process holds, with several workers instead of one process.

Never pinned, whatever the options say: workers are for machines with a core for each. (Two on one core take turns,
and each finds the caches full of the other's.) Asked as fast as it goes, and at a pace that one process keeps up
with: there each worker finds half as much at a time, and what is done once for all that came together, a sync for
example, is done more often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bench import machine, report
from bench.asking import ask, chosen
from bench.machine import Cores
from bench.options import Options
from bench.peer_zapd import zapd_peer
from bench.peers import Peer, Site
from bench.running import Running, Scene, as_data

NAME = "workers"
WORKERS = 2
PACES = (("off", 0), ("strict", 0), ("relaxed", 120_000), ("strict", 60_000))
"""Durability, and questions a second; 0 is as fast as it goes. (Relaxed, that is a test of the disk.)"""


def run(options: Options) -> None:
    rounds, seconds, keys = options.rounds or 5, options.seconds or 2.0, options.keys or 100_000
    connections = max(options.connections, WORKERS)
    durabilities = dict.fromkeys(durability for durability, _ in PACES)
    peers = [_peer(durability, workers) for durability in durabilities for workers in (1, WORKERS)]
    rows = [["", "answers/s", "range", "CPU an answer", "× one process", "p50", "p99"]]
    data = []
    cores = Cores(None, None)
    with Scene(cores, keys) as scene:
        running = scene.start(chosen(peers, options))
        held = [[each.name, ", ".join(f"{size:,.0f} MiB" for size in _sizes(each))] for each in running]
        for durability, pace in PACES:
            asked = [each for each in running if each.name.startswith(durability)]
            for each in asked:
                each.rounds = []
            in_flight = 4096 if pace else options.in_flight * connections

            def measure(each: Running, pace: int = pace, in_flight: int = in_flight) -> dict[str, float]:
                return ask(scene, each, options, seconds, in_flight=in_flight, rate=pace, connections=connections)

            scene.interleave(asked, rounds, measure)
            rows += _rows(asked, f"{pace:,}/s asked" if pace else "as fast as it goes")
            data.append({"durability": durability, "pace": pace, "peers": as_data(asked)})
    title = (
        f"CURVE questions from {keys:,} keys on {connections} connections, medians of {rounds} rounds of "
        f"{seconds:g} s, nothing pinned. CPU is that of all of zapd's processes but the SQL copy's."
    )
    report.show(options, NAME, title, rows, scene.notes())
    title = "The first process, then its workers; without the SQL copy's."
    report.show(options, f"{NAME}: memory", title, [["", "resident"], *held])
    found = {"rounds": rounds, "seconds": seconds, "paces": data, "resident": held}
    report.save(NAME, replace(options, cores=cores), found)


def _peer(durability: str, workers: int) -> Peer:
    def more(site: Site) -> None:
        path = site.folder / "zapd" / "zapd.toml"
        path.write_text(path.read_text().replace("[server]\n", f"[server]\nworkers = {workers}\n"))

    name = f"{durability}, {'one process' if workers == 1 else f'{workers} workers'}"
    return zapd_peer(durability, name=name, more=more)


def _cost(each: Running) -> float:
    """Microseconds of CPU for an answer."""
    return 1e6 * (each.median("server_cpu") - each.median("copy_cpu")) / each.median("rate")


def _rows(running: Sequence[Running], how: str) -> list[list[str]]:
    return [
        [
            f"{each.name}, {how}",
            f"{each.median('rate'):,.0f}",
            report.span(*each.range("rate")),
            f"{_cost(each):.2f} µs",
            f"{_cost(each) / _cost(running[0]):.2f}",
            *(report.milliseconds(each.median(name)) for name in ("p50_us", "p99_us")),
        ]
        for each in running
    ]


def _sizes(each: Running) -> list[float]:
    return machine.sizes(each.process.pid)
