"""CURVE on the link: the same questions, every frame sealed, to zapd and to a blind ROUTER in C."""

from __future__ import annotations

from bench import report
from bench.material import write_clients, write_pair
from bench.options import Options
from bench.peer_zapd import zapd_peer
from bench.peers import DOMAIN, Site, compile_c, program
from bench.running import Running, Scene, as_data

NAME = "curve-link"
ROUTER = "C ROUTER, CURVE"


def _prepare(site: Site) -> None:
    write_clients(site.clients, write_pair(site.pair), 1)


PEERS = [
    program(
        "peer_router", ROUTER, "a ROUTER in C under CURVE that says 200 to everything", "{pair}", prepare=_prepare
    ),
    *(zapd_peer(each, name=f"zapd, {each}, CURVE", link="CURVE") for each in ("off", "relaxed", "strict")),
]


def run(options: Options) -> None:
    rounds, seconds, keys = options.rounds or 3, options.seconds or 2.0, options.keys or 10_000
    loadgen = compile_c("loadgen")
    peers = [peer for peer in PEERS if not options.only or peer.name in options.only]
    with Scene(options.cores, keys) as scene:
        running = scene.start(peers)

        def measure(each: Running) -> dict[str, float]:
            words = [loadgen, "--in-flight", options.in_flight, "--connections", options.connections]
            words += ["--warmup", options.warmup, "--seconds", seconds, "--domain", DOMAIN]
            words += ["--curve", each.site.clients, each.site.port, each.site.keys]
            return scene.load_on(each, [str(word) for word in words], seconds)

        scene.interleave(running, rounds, measure)
        blind = next((each for each in running if each.name == ROUTER), None)
        rows = [["", "answers/s", f"× {ROUTER}", "for its CPU", "p50", "p99", "server CPU", "load CPU", "range"]]
        for each in running:
            rate = each.median("rate")
            rows.append(
                [
                    each.name,
                    f"{rate:,.0f}",
                    f"{rate / blind.median('rate'):.2f}" if blind else "",
                    f"{each.per_cpu_second / blind.per_cpu_second:.2f}" if blind else "",
                    *(report.milliseconds(each.median(name)) for name in ("p50_us", "p99_us")),
                    *(f"{each.median(name):.0%}" for name in ("server_cpu", "cpu")),
                    report.span(*each.range("rate")),
                ]
            )
        title = (
            f"CURVE questions from {keys:,} keys over CURVE, {options.in_flight} in flight on "
            f"{options.connections} connection(s), medians of {rounds} rounds of {seconds:g} s."
        )
        report.show(options, NAME, title, rows, scene.notes())
        report.save(NAME, options, {"rounds": rounds, "seconds": seconds, "peers": as_data(running)})
