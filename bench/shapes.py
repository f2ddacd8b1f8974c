"""Questions of other shapes: about several domains from several addresses, and on several connections.

What comes together and lies alike on the wire is answered together; so the usual run, one domain, one address, one
connection, is where zapd does best. This says what is left of that where questions differ.
"""

from __future__ import annotations

from bench import peer_zapd, report
from bench.asking import ask, chosen
from bench.options import Options
from bench.peer_zapd import ADDRESSES, DOMAINS
from bench.peers import C_ROUTER
from bench.running import Running, Scene

NAME = "shapes"
MANNERS = (
    ("alike, 1 connection", False, 1),
    ("mixed, 1 connection", True, 1),
    ("mixed, 16 connections", True, 16),
)


def run(options: Options) -> None:
    rounds, seconds, keys = options.rounds or 3, options.seconds or 1.5, options.keys or 100_000
    found: dict[tuple[str, str], Running] = {}
    with Scene(options.cores, keys) as scene:
        started = scene.start(chosen([C_ROUTER, *peer_zapd.PEERS], options))
        for each in started:
            for manner, _, _ in MANNERS:
                found[each.name, manner] = Running(each.peer, each.site, each.process)

        def measure(each: Running) -> dict[str, float]:
            for manner, mixed, connections in MANNERS:
                result = ask(scene, each, options, seconds, mixed=mixed, connections=connections)
                found[each.name, manner].rounds.append(result)
            return result

        scene.interleave(started, rounds, measure)
    rows = [["", "", "answers/s", "× alike", "× C ROUTER", "p50", "p99", "range"]]
    for (name, manner), each in found.items():
        rate, alike = each.median("rate"), found[name, MANNERS[0][0]].median("rate")
        blind = found.get((C_ROUTER.name, manner))
        rows.append(
            [
                name,
                manner,
                f"{rate:,.0f}",
                f"{rate / alike:.2f}",
                f"{rate / blind.median('rate'):.2f}" if blind else "",
                *(report.milliseconds(each.median(what)) for what in ("p50_us", "p99_us")),
                report.span(*each.range("rate")),
            ]
        )
    title = (
        f"CURVE questions from {keys:,} keys, {options.in_flight} in flight together, medians of {rounds} rounds "
        f"of {seconds:g} s. Mixed: about {len(DOMAINS)} domains, {len(ADDRESSES)} addresses of several lengths."
    )
    report.show(options, NAME, title, rows, scene.notes())
    data = {f"{name}; {manner}": each.rounds for (name, manner), each in found.items()}
    report.save(NAME, options, {"rounds": rounds, "seconds": seconds, "peers": data})
