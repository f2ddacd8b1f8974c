"""PLAIN answered from zapd's cache, beside CURVE answered from its table: the same passwords again and again."""

from __future__ import annotations

import time

import zmq

from bench import report
from bench.asking import ask, chosen
from bench.material import PASSWORD, user_names
from bench.options import Options
from bench.peer_zapd import ADDRESSES, USERS, zapd_peer
from bench.peers import DOMAIN
from bench.running import Running, Scene, as_data

NAME = "plain"
PATIENCE = 60.0


def run(options: Options) -> None:
    rounds, seconds, keys = options.rounds or 3, options.seconds or 2.0, options.keys or 10_000
    peers = [zapd_peer(durability, users=True) for durability in ("off", "relaxed", "strict")]
    with Scene(options.cores, keys) as scene:
        running = scene.start(chosen(peers, options))
        plain: dict[str, list[dict[str, float]]] = {each.name: [] for each in running}

        def measure(each: Running) -> dict[str, float]:
            plain[each.name].append(ask(scene, each, options, seconds, plain=True))
            return ask(scene, each, options, seconds)

        for each in running:
            with scene.alone(each):
                fill_cache(each.site.endpoint)
        scene.interleave(running, rounds, measure)
    rows = [["", "CURVE answers/s", "PLAIN answers/s", "× CURVE", "p50", "p99", "range"]]
    for each in running:
        asked = Running(each.peer, each.site, each.process, rounds=plain[each.name])
        rows.append(
            [
                each.name,
                f"{each.median('rate'):,.0f}",
                f"{asked.median('rate'):,.0f}",
                f"{asked.median('rate') / each.median('rate'):.2f}",
                *(report.milliseconds(asked.median(name)) for name in ("p50_us", "p99_us")),
                report.span(*asked.range("rate")),
            ]
        )
    title = (
        f"PLAIN questions about {USERS} users whose passwords are remembered, and CURVE questions from {keys:,} "
        f"keys, {options.in_flight} in flight on {options.connections} connection(s), medians of {rounds} rounds "
        f"of {seconds:g} s."
    )
    report.show(options, NAME, title, rows, scene.notes())
    data = as_data(running)
    for name, its_rounds in plain.items():
        data[name]["plain_rounds"] = its_rounds
    report.save(NAME, options, {"rounds": rounds, "seconds": seconds, "peers": data})


def fill_cache(endpoint: str) -> None:
    """Ask about every user until each got 200 once, a few at a time: hashing has a bound of its own."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    dealer = context.socket(zmq.DEALER)
    dealer.linger = 0
    dealer.connect(endpoint)
    try:
        end = time.monotonic() + PATIENCE
        waiting, open_names = user_names(USERS), set[str]()
        while waiting or open_names:
            while waiting and len(open_names) < 4:
                name = waiting.pop()
                open_names.add(name)
                question = [b"1.0", b"1", DOMAIN, ADDRESSES[0], b"", b"PLAIN", name, PASSWORD]
                frames = [
                    name.encode(),
                    b"",
                    *(word.encode() if isinstance(word, str) else word for word in question),
                ]
                dealer.send_multipart(frames)
            if not dealer.poll(1000) and time.monotonic() > end:
                raise SystemExit("PLAIN is not answered")
            reply = dealer.recv_multipart()
            name = reply[0].decode()
            open_names.remove(name)
            if reply[4] != b"200":
                if time.monotonic() > end:
                    raise SystemExit(f"PLAIN is answered {reply[4].decode()}")
                waiting.append(name)
    finally:
        context.destroy()
