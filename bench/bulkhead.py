"""The bulkhead: while one backend answers just under its deadline and is asked at its bound, how do others fare?

Two generators ask the same zapd: one asks at a steady pace about keys in memory, the other keeps as many questions
under way in a domain of its own as that domain's backend may work on (`slow_backend.py`), begun at random moments.
The first one's latencies are compared with what they were a moment ago.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from statistics import median

from bench import machine, report
from bench.asking import ask, chosen
from bench.options import Options
from bench.peer_zapd import zapd_peer
from bench.peers import Peer, Site, compile_c
from bench.running import Running, Scene
from bench.slow_backend import SECONDS, install

NAME = "bulkhead"
BOUND = 256
"""`max_in_flight` of a backend, unless it is set."""
RATE = 20_000
"""Questions a second whose latency is watched."""
LATE_RATE = 1.2 * BOUND / SECONDS
"""More than the late backend can answer, so that it is kept at its bound."""
LEAD = 1.0
"""Seconds until the late backend has all its questions under way and gives its first answers."""
_SLOW = """
[backend.late]
type = "slow"
cache_good = "0s"
[domain.slow]
mechanisms = ["CURVE"]
backends = ["late"]
"""


def slow_peer(durability: str) -> Peer:
    def environment(site: Site) -> dict[str, str]:
        known = os.environ.get("PYTHONPATH", "")
        return {"PYTHONPATH": os.pathsep.join(filter(None, (str(site.folder / "plugins"), known)))}

    return zapd_peer(
        durability,
        domains=("slow",),
        extra=_SLOW,
        more=lambda site: install(site.folder / "plugins"),
        environment=environment,
    )


def run(options: Options) -> None:
    rounds, seconds, keys = options.rounds or 5, options.seconds or 2.0, options.keys or 100_000
    rate = options.rate or RATE
    rows = [["", "p50", "p99", "p99.9", "p50 beside it", "p99", "p99.9", "× p99", "p50 of the late", "deferred"]]
    data = {}
    with Scene(options.cores, keys) as scene:
        running = scene.start(chosen([slow_peer(each) for each in ("off", "relaxed", "strict")], options))
        beside: dict[str, list[dict[str, float]]] = {each.name: [] for each in running}

        def measure(each: Running) -> dict[str, float]:
            quiet = ask(scene, each, options, seconds, in_flight=4096, rate=rate)
            beside[each.name].append(_ask_beside(scene, each, options, seconds, rate))
            return quiet

        scene.interleave(running, rounds, measure, "p99_us")
        for each in running:
            found = beside[each.name]
            names = ("p50_us", "p99_us", "p999_us")
            rows.append(
                [
                    each.name,
                    *(report.milliseconds(each.median(name)) for name in names),
                    *(report.milliseconds(median(one[name] for one in found)) for name in names),
                    f"{median(one['p99_us'] for one in found) / each.median('p99_us'):.2f}",
                    report.milliseconds(median(one["slow_p50_us"] for one in found)),
                    f"{median(one['slow_deferred'] for one in found):.1%}",
                ]
            )
            data[each.name] = {"alone": each.rounds, "beside": found}
    title = (
        f"{rate:,.0f} CURVE questions/s from {keys:,} keys at random moments, alone and beside {BOUND} questions "
        f"under way at a backend that answers after {SECONDS:g} s of the 0.8 s it has; medians of {rounds} rounds "
        f"of {seconds:g} s."
    )
    report.show(options, NAME, title, rows, scene.notes())
    report.save(NAME, options, {"rounds": rounds, "seconds": seconds, "rate": rate, "peers": data})


def _ask_beside(scene: Scene, one: Running, options: Options, seconds: float, rate: float) -> dict[str, float]:
    """`ask`, while the late backend is asked at its bound; with what became of those questions."""
    words = [
        compile_c("loadgen"),
        "--domain",
        "slow",
        "--in-flight",
        BOUND,
        "--warmup",
        1,
        "--seconds",
        seconds + 1,
    ]
    command = machine.pinned(scene.cores.load, [str(word) for word in (*words, one.site.port, one.site.keys)])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as late:
        time.sleep(LEAD)
        result = ask(scene, one, options, seconds, in_flight=4096, rate=rate)
        words_of_late, _ = late.communicate(timeout=seconds + 30)
    found = json.loads(words_of_late)
    if found["granted"] + found["deferred"] != found["answers"] or not found["granted"]:
        raise SystemExit(f"{one.name}: wrong answers about the slow domain: {found}")
    result["slow_p50_us"] = found["p50_us"]
    result["slow_deferred"] = found["deferred"] / found["answers"]
    return result
