"""What an answer costs, and what each process holds, with several workers instead of one process.

Never pinned, whatever the options say: workers are for machines with a core for each. (Two on one core take turns,
and each finds the caches full of the other's: an answer costs half as much again.)
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
DURABILITIES = ("off", "relaxed", "strict")


def run(options: Options) -> None:
    rounds, seconds, keys = options.rounds or 5, options.seconds or 2.0, options.keys or 100_000
    connections = max(options.connections, WORKERS)
    peers = [_peer(durability, workers) for durability in DURABILITIES for workers in (1, WORKERS)]
    cores = Cores(None, None)
    with Scene(cores, keys) as scene:
        running = scene.start(chosen(peers, options))
        held = {each.name: _resident(each) for each in running}
        in_flight = options.in_flight * connections

        def measure(each: Running) -> dict[str, float]:
            return ask(scene, each, options, seconds, in_flight=in_flight, connections=connections)

        scene.interleave(running, rounds, measure)
        title = (
            f"CURVE questions from {keys:,} keys, {options.in_flight} in flight on each of {connections} "
            f"connections, medians of {rounds} rounds of {seconds:g} s, nothing pinned. CPU is that of all of "
            "zapd's processes but the SQL copy's."
        )
        report.show(options, NAME, title, _rows(running))
        rows = [["", "resident"], *([name, ", ".join(sizes)] for name, sizes in held.items())]
        report.show(
            options, f"{NAME}: memory", "The first process, then its workers; without the SQL copy's.", rows
        )
        report.save(
            NAME, replace(options, cores=cores), {"rounds": rounds, "seconds": seconds, "peers": as_data(running)}
        )


def _peer(durability: str, workers: int) -> Peer:
    def more(site: Site) -> None:
        path = site.folder / "zapd" / "zapd.toml"
        path.write_text(path.read_text().replace("[server]\n", f"[server]\nworkers = {workers}\n"))

    name = f"{durability}, {'one process' if workers == 1 else f'{workers} workers'}"
    return zapd_peer(durability, name=name, more=more)


def _cost(each: Running) -> float:
    """Microseconds of CPU for an answer."""
    return 1e6 * (each.median("server_cpu") - each.median("copy_cpu")) / each.median("rate")


def _rows(running: Sequence[Running]) -> list[list[str]]:
    rows = [["", "answers/s", "range", "CPU an answer", "× one process", "p50", "p99"]]
    for each in running:
        durability = each.name.partition(",")[0]
        single = next((other for other in running if other.name == f"{durability}, one process"), each)
        rows.append(
            [
                each.name,
                f"{each.median('rate'):,.0f}",
                report.span(*each.range("rate")),
                f"{_cost(each):.2f} µs",
                f"{_cost(each) / _cost(single):.2f}",
                *(report.milliseconds(each.median(name)) for name in ("p50_us", "p99_us")),
            ]
        )
    return rows


def _resident(each: Running) -> list[str]:
    return [f"{size:,.0f} MiB" for size in machine.sizes(each.process.pid)]
