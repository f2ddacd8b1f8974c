"""Latency: one question at a time, and half of what a server can carry at most."""

from __future__ import annotations

from bench import peer_zapd, report
from bench.asking import ask, chosen
from bench.options import Options
from bench.peers import C_ROUTER, ROUTER
from bench.running import Scene, as_data

NAME = "latency"


def run(options: Options) -> None:
    rounds, seconds, keys = options.rounds or 5, options.seconds or 2.0, options.keys or 100_000
    with Scene(options.cores, keys) as scene:
        running = scene.start(chosen([C_ROUTER, *peer_zapd.PEERS], options))
        scene.interleave(
            running, rounds, lambda each: ask(scene, each, options, seconds, in_flight=1, connections=1), "p50_us"
        )
        alone = {each.name: each.rounds for each in running}
        blind = next((each.median("p50_us") for each in running if each.name == ROUTER), None)
        rows = [["", "p50", f"× {ROUTER}", "p99", "p99.9", "range of p50"]]
        for each in running:
            low, high = each.range("p50_us")
            rows.append(
                [
                    each.name,
                    f"{each.median('p50_us'):.1f} µs",
                    f"{each.median('p50_us') / blind:.2f}" if blind else "",
                    *(f"{each.median(name):.1f} µs" for name in ("p99_us", "p999_us")),
                    f"{low:.1f} to {high:.1f} µs",
                ]
            )
        title = f"CURVE questions from {keys:,} keys, one at a time, medians of {rounds} rounds of {seconds:g} s."
        report.show(options, NAME, title, rows, scene.notes())

        for each in running:
            each.rounds = []
        scene.interleave(running, 3, lambda each: ask(scene, each, options, seconds))
        greatest = {each.name: each.median("rate") for each in running}
        full = {each.name: each.rounds for each in running}
        for each in running:
            each.rounds = []
        scene.interleave(
            running,
            rounds,
            lambda each: ask(scene, each, options, seconds, in_flight=4096, rate=greatest[each.name] / 2),
            "p99_us",
        )
        rows = [["", "greatest load", "asked and answered", "p50", "p99", "p99.9", "range of p99"]]
        for each in running:
            low, high = each.range("p99_us")
            rows.append(
                [
                    each.name,
                    f"{greatest[each.name]:,.0f}/s",
                    f"{each.median('rate'):,.0f}/s",
                    *(report.milliseconds(each.median(name)) for name in ("p50_us", "p99_us", "p999_us")),
                    f"{low / 1000:.2f} to {high / 1000:.2f} ms",
                ]
            )
        title = (
            f"Half of what each carries at {options.in_flight} in flight, asked at random moments (Poisson) "
            f"whatever the server does; medians of {rounds} rounds of {seconds:g} s, counted from when a question "
            "was due."
        )
        report.show(options, f"{NAME}: at half the greatest load", title, rows, scene.notes())
        data = as_data(running)
        for each in running:
            data[each.name] |= {"one_in_flight": alone[each.name], "full": full[each.name]}
        report.save(NAME, options, {"rounds": rounds, "seconds": seconds, "peers": data})
