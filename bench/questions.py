"""Questions a second, and what they cost: the first table of all.

Each peer's rate beside the others'; the CPU of all its processes, that of zapd's copy into SQL included and shown
apart; its memory; and how far the copy was behind at the end, and how long it took to catch up.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from bench import machine, peer_zapd, peers, report
from bench.asking import ask, chosen, manner
from bench.chart import write_chart
from bench.options import Options
from bench.peers import REFERENCES, ZAUTH
from bench.running import Running, Scene, as_data

NAME = "questions"
KEYS = 100_000
CATCH_UP = 20.0
"""Seconds that the copy is watched catching up; then it is told how long it would take."""


def run(options: Options) -> None:
    rounds, seconds, keys = options.rounds or 5, options.seconds or 3.0, options.keys or KEYS
    with Scene(options.cores, keys) as scene:
        running = scene.start(chosen([*peers.PEERS, *peer_zapd.PEERS], options))
        scene.interleave(running, rounds, lambda each: ask(scene, each, options, seconds, mixed=options.mixed))
        memories = {each.name: machine.memory(each.process.pid) for each in running}
        behind = {each.name: catch_up(scene, each) for each in running if each.peer.records}
    title = (
        f"CURVE questions from {keys:,} keys, {manner(options, options.mixed)}, medians of {rounds} interleaved "
        f"rounds of {seconds:g} s; every answer was 200."
    )
    name = f"{NAME}-mixed" if options.mixed else NAME
    report.show(options, name, title, speed_rows(running), scene.notes())
    report.show(
        options, f"{name}: what it costs", "All processes of a server together.", cost_rows(running, memories)
    )
    if behind:
        notes = [
            "The copy runs at the lowest priority: while the core is busy it hardly works, and does so later."
        ]
        report.show(
            options,
            f"{name}: the journal's copy in SQL",
            "After the last round.",
            behind_rows(running, behind),
            notes,
        )
    data = as_data(running)
    for each in running:
        data[each.name] |= {"memory_mib": memories[each.name]._asdict(), "copy": behind.get(each.name)}
    settings = {"rounds": rounds, "seconds": seconds, "keys": keys, "mixed": options.mixed}
    settings |= {"in_flight": options.in_flight, "connections": options.connections}
    saved = report.save(name, options, {**settings, "peers": data})
    if name == NAME and not options.only and options.cores.server is not None:
        write_chart(saved)


def speed_rows(running: Sequence[Running]) -> list[list[str]]:
    references = [each for each in running if each.name in REFERENCES]
    rows = [["", "answers/s", *(f"× {each.name}" for each in references), "p50", "p99", "p99.9", "range"]]
    for each in running:
        rate = each.median("rate")
        rows.append(
            [
                each.name,
                f"{rate:,.0f}",
                *(f"{rate / other.median('rate'):.2f}" for other in references),
                *(report.milliseconds(each.median(name)) for name in ("p50_us", "p99_us", "p999_us")),
                report.span(*each.range("rate")),
            ]
        )
    return rows


def cost_rows(running: Sequence[Running], memories: dict[str, machine.Memory]) -> list[list[str]]:
    zauth = next((each for each in running if each.name == ZAUTH), None)
    head = [
        "",
        "CPU",
        "of it the copy",
        "answers/CPU s",
        f"× {ZAUTH}",
        "resident",
        "main process",
        "listens after",
    ]
    rows = [[*head, "ready after"]]
    for each in running:
        worth = each.per_cpu_second
        rows.append(
            [
                each.name,
                f"{each.median('server_cpu'):.0%}",
                f"{each.median('copy_cpu'):.0%}" if each.peer.records else "",
                f"{worth:,.0f}",
                f"{worth / zauth.per_cpu_second:.2f}" if zauth else "",
                *(f"{each_size:,.0f} MiB" for each_size in memories[each.name]),
                f"{each.listening:.2f} s",
                f"{each.ready:.2f} s" if each.ready else "",
            ]
        )
    return rows


def catch_up(scene: Scene, one: Running) -> dict[str, Any]:
    """How far the copy is behind, and how it does when nothing else is asked of the core."""
    with scene.alone(one):
        behind = left = one.metric("zapd_audit_lag_records")
        before, began = machine.usage(one.process.pid), time.monotonic()
        while left and time.monotonic() - began < CATCH_UP:
            time.sleep(0.1)
            left = one.metric("zapd_audit_lag_records")
        took = time.monotonic() - began
        used = machine.usage(one.process.pid).since(before)
    copied = behind - left
    return {
        "behind": behind,
        "left": left,
        "seconds": took,
        "copied_per_second": copied / took if took else 0.0,
        "cpu_us_per_record": 1e6 * used.copy / copied if copied else 0.0,
    }


def behind_rows(running: Sequence[Running], behind: dict[str, dict[str, Any]]) -> list[list[str]]:
    rows = [["", "records behind", "caught up after", "records/s", "CPU a record", "answers/CPU s, all copied"]]
    for each in running:
        if each.name not in behind:
            continue
        found = behind[each.name]
        after = f"{found['seconds']:.1f} s"
        if found["left"]:
            after = f"some {found['behind'] / max(found['copied_per_second'], 1):.0f} s, by its first {after}"
        deciding = (each.median("server_cpu") - each.median("copy_cpu")) / each.median("rate")
        rows.append(
            [
                each.name,
                f"{found['behind']:,.0f}",
                after,
                f"{found['copied_per_second']:,.0f}",
                f"{found['cpu_us_per_record']:.1f} µs",
                f"{1 / max(deciding + 1e-6 * found['cpu_us_per_record'], 1e-9):,.0f}",
            ]
        )
    return rows
