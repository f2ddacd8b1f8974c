"""The flood: HELLOs that never go on, ten thousand a second from thousands of addresses, and honest ones beside.

Honest clients come from one address, as an agent that comes again does, or each time from one that was never
seen before. Their time runs from the first attempt until they are in; turned away, one comes back after 10 ms,
and after 10 s it gives up.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping, Sequence
from itertools import product
from statistics import median

from bench import machine, report
from bench.asking import chosen
from bench.handshakes import engine_peer, libzmq_peer
from bench.options import Options
from bench.peers import compile_c
from bench.running import Running, Scene

NAME = "flood"
RATE = 10_000
SOURCES = 4096
HONEST = 8
"""Honest clients at a time."""
SETTLE = 1.0
"""Seconds of flood before honest clients come."""
_WHENCE: Mapping[str, Sequence[str]] = {
    "again": (),
    "for the first time": ("--source", "127.88.0.0", "--sources", "1000000"),
}
LONGEST = 60.0
"""Seconds after which a flood that nobody stopped ends by itself."""


def run(options: Options) -> None:
    rounds, seconds = options.rounds or 2, options.seconds or 3.0
    rate = options.rate or RATE
    peers = [libzmq_peer("CURVE"), *(engine_peer("CURVE", each) for each in ("relaxed", "strict"))]
    head = ["", "honest come", "alone/s", "p50", "p99", "beside it/s", "p50", "p99", "longest"]
    rows = [[*head, "attempts each", "gave up", "HELLOs/s opened", "welcomed"]]
    data = {}
    with Scene(options.cores) as scene:
        running = scene.start(chosen(peers, options))
        beside: dict[tuple[str, str], list[dict[str, float]]] = {}

        def measure(each: Running) -> dict[str, float]:
            quiet = _shake(scene, each, seconds, options.warmup)
            for whence, words in _WHENCE.items():
                beside.setdefault((each.name, whence), []).append(_shake_beside(scene, each, seconds, rate, words))
            return quiet

        scene.interleave(running, rounds, measure)
        for each, whence in product(running, _WHENCE):
            found = beside[each.name, whence]

            def of(name: str, found: list[dict[str, float]] = found) -> float:
                return median(one[name] for one in found)

            rows.append(
                [
                    each.name,
                    whence,
                    f"{each.median('rate'):,.0f}",
                    *(report.milliseconds(each.median(name)) for name in ("p50_us", "p99_us")),
                    f"{of('rate'):,.0f}",
                    *(report.milliseconds(of(name)) for name in ("p50_us", "p99_us")),
                    report.milliseconds(max(one["max_us"] for one in found)),
                    f"{of('tries'):.2f}",
                    f"{sum(one['gave_up'] for one in found):,.0f}",
                    f"{of('flood_rate'):,.0f}",
                    f"{of('flood_welcomed'):.0%}",
                ]
            )
            data[f"{each.name}, {whence}"] = {"alone": each.rounds, "beside": found}
    title = (
        f"CURVE handshakes of {HONEST} honest clients, alone and beside {rate:,.0f} HELLOs a second asked for "
        f"from {SOURCES:,} addresses; medians of {rounds} rounds of {seconds:g} s."
    )
    report.show(options, NAME, title, rows, scene.notes())
    report.save(NAME, options, {"rounds": rounds, "seconds": seconds, "flood": rate, "peers": data})


def _shake(
    scene: Scene, one: Running, seconds: float, warmup: float, whence: Sequence[str] = ()
) -> dict[str, float]:
    words = [
        compile_c("shakes"),
        "--again",
        "--threads",
        HONEST,
        "--warmup",
        warmup,
        "--seconds",
        seconds,
        *whence,
    ]
    return scene.load_on(one, [str(word) for word in (*words, one.site.port, "curve", one.site.clients)], seconds)


def _shake_beside(
    scene: Scene, one: Running, seconds: float, rate: float, whence: Sequence[str]
) -> dict[str, float]:
    """The same, beside the flood; with what became of that."""
    words = [compile_c("flood"), "--rate", rate, "--sources", SOURCES, "--seconds", LONGEST]
    command = machine.pinned(scene.cores.load, [str(word) for word in (*words, one.site.port, one.site.clients)])
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as flood:
        time.sleep(min(SETTLE, seconds))
        result = _shake(scene, one, seconds, 0, whence)
        flood.terminate()
        told, _ = flood.communicate(timeout=60)
    found = json.loads(told)
    result["tries"] = result["attempts"] / max(1, result["attempts"] - result["closed"] - result["silent"])
    result["flood_rate"] = found["rate"]
    result["flood_welcomed"] = found["welcomed"] / found["opened"]
    return result
