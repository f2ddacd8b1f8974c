"""Flat in the number of keys: 1,000 against 1,000,000, with what the start and the memory come to."""

from __future__ import annotations

from dataclasses import replace

from bench import machine, report
from bench.asking import ask, chosen, manner
from bench.options import Options
from bench.peer_zapd import zapd_peer
from bench.running import Scene, as_data

NAME = "flat"
FEW, SOME, MANY = 1_000, 100_000, 1_000_000


def run(options: Options) -> None:
    rounds, seconds, many = options.rounds or 5, options.seconds or 2.0, options.keys or MANY
    counts = sorted({min(FEW, many), min(SOME, many), many})
    with Scene(options.cores, many) as scene:
        running = []
        for durability in ("off", "relaxed"):
            for count in counts:
                peer = zapd_peer(durability)
                if chosen([peer], replace(options, only=())) and (not options.only or peer.name in options.only):
                    running += scene.start([replace(peer, name=f"{peer.name}, {count:,} keys")], count)
        scene.interleave(running, rounds, lambda each: ask(scene, each, options, seconds, mixed=options.mixed))
        sizes = {each.name: machine.memory(each.process.pid) for each in running}
    rows = [
        ["", "answers/s", "× fewest", "p50", "p99", "listens after", "ready after", "main process", "resident"]
    ]
    for number, each in enumerate(running):
        fewest = running[number - number % len(counts)]
        rows.append(
            [
                each.name,
                f"{each.median('rate'):,.0f}",
                f"{each.median('rate') / fewest.median('rate'):.2f}",
                *(report.milliseconds(each.median(name)) for name in ("p50_us", "p99_us")),
                *(f"{after:.2f} s" for after in (each.listening, each.ready)),
                *(f"{size:,.0f} MiB" for size in reversed(sizes[each.name])),
            ]
        )
    title = (
        f"CURVE questions, {manner(options, options.mixed)}, medians of {rounds} rounds of {seconds:g} s; each "
        "key with domains, an expiry, a group and an attribute."
    )
    report.show(options, NAME, title, rows, scene.notes())
    data = as_data(running)
    for name, size in sizes.items():
        data[name]["memory_mib"] = size._asdict()
    report.save(NAME, options, {"rounds": rounds, "seconds": seconds, "peers": data})
