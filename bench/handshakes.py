"""Handshakes a second: libzmq's server with a ZAP handler in C, against our own engine with zapd deciding.

Counted is a handshake when the client has the server's READY. Both sides meet the same client in C (`shakes.c`)
on bare sockets, because libzmq's own would be busier than the servers. libzmq's handler lets everybody in, from no
table and with no record. On our side each handshake is a question that zapd decides and journals: under CURVE
about enrolled agents at zapd's own door, under PLAIN about users of the registry whose passwords are remembered,
under NULL by the domain's address rule (`peer_gate.py`).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from bench import report
from bench.machine import free_port
from bench.material import user_names, write_clients, write_pair, write_users
from bench.options import Options
from bench.peer_zapd import USERS, write_configuration, zapd_peer
from bench.peers import HERE, Peer, Site, compile_c, program
from bench.running import Running, Scene, as_data

NAME = "handshakes"
MECHANISMS = ("NULL", "PLAIN", "CURVE")
DURABILITIES = ("relaxed", "strict")
OPEN = "open"
"""A domain that NULL may enter from loopback."""
_OPEN = f"""
[domain.{OPEN}]
mechanisms = ["NULL"]
allow = ["127.0.0.0/8"]
null_user = "somebody"
"""


def libzmq_peer(mechanism: str) -> Peer:
    def prepare(site: Site) -> None:
        write_clients(site.clients, write_pair(site.pair), 64)
        write_users(site.users, user_names(USERS))

    name = f"libzmq, C handler, {mechanism}"
    about = "a libzmq server with a ZAP handler in C in its process, which lets everybody in"
    return program("peer_handler", name, about, mechanism.lower(), "{pair}", prepare=prepare)


def engine_peer(mechanism: str, durability: str) -> Peer:
    name = f"zapd, {durability}, {mechanism}"
    if mechanism != "NULL":
        return zapd_peer(durability, name=name, link=mechanism, users=True)

    def gate(site: Site) -> None:
        beside = replace(site, port=free_port())  # where zapd's own listener goes
        write_configuration(beside, durability, "NULL", _OPEN)

    def command(site: Site) -> list[str]:
        configuration = site.folder / "zapd" / "zapd.toml"
        return [sys.executable, str(HERE / "peer_gate.py"), str(configuration), site.endpoint, OPEN]

    return zapd_peer(durability, name=name, more=gate, command=command)


def run(options: Options) -> None:
    rounds, seconds = options.rounds or 3, options.seconds or 2.0
    shakes = compile_c("shakes")
    rows = [["", "handshakes/s", "× libzmq", "for its CPU", "p50", "p99", "server CPU", "client CPU", "range"]]
    data = {}
    with Scene(options.cores) as scene:
        for mechanism in MECHANISMS:
            peers = [libzmq_peer(mechanism), *(engine_peer(mechanism, each) for each in DURABILITIES)]
            running = scene.start([peer for peer in peers if not options.only or peer.name in options.only])

            def measure(each: Running, mechanism: str = mechanism) -> dict[str, float]:
                words = [
                    shakes,
                    "--warmup",
                    options.warmup,
                    "--seconds",
                    seconds,
                    each.site.port,
                    mechanism.lower(),
                ]
                words += {"NULL": [], "PLAIN": [each.site.users], "CURVE": [each.site.clients]}[mechanism]
                return scene.load_on(each, [str(word) for word in words], seconds)

            for each in running:
                if mechanism == "PLAIN" and each.peer.is_zapd:  # passwords are hashed once, then remembered
                    with scene.alone(each):
                        words = [shakes, "--threads", "4", "--again", "--seconds", "5", each.site.port, "plain"]
                        scene.load([str(word) for word in (*words, each.site.users)], 5)
            scene.interleave(running, rounds, measure)
            rows += _rows(running)
            data |= as_data(running)
            for each in running:
                each.stop()
    title = (
        f"Handshakes from 16 client threads, medians of {rounds} rounds of {seconds:g} s; everybody was let in."
    )
    report.show(options, NAME, title, rows, scene.notes())
    report.save(NAME, options, {"rounds": rounds, "seconds": seconds, "peers": data})


def _rows(running: Sequence[Running]) -> list[list[str]]:
    blind = next((each for each in running if not each.peer.is_zapd), None)
    return [
        [
            each.name,
            f"{each.median('rate'):,.0f}",
            f"{each.median('rate') / blind.median('rate'):.2f}" if blind else "",
            f"{each.per_cpu_second / blind.per_cpu_second:.2f}" if blind else "",
            *(report.milliseconds(each.median(name)) for name in ("p50_us", "p99_us")),
            *(f"{each.median(name):.0%}" for name in ("server_cpu", "cpu")),
            report.span(*each.range("rate")),
        ]
        for each in running
    ]
