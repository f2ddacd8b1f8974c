"""What the benchmarks that ask questions over NULL share: the words of the load generator, and their peers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from bench.options import Options
from bench.peer_zapd import ADDRESSES, DOMAINS
from bench.peers import DOMAIN, Peer, compile_c
from bench.running import Running, Scene


def chosen(peers: Iterable[Peer], options: Options) -> list[Peer]:
    """Those of ``--only``; all where nothing is named. `SystemExit` where a name is nobody's."""
    peers = list(peers)
    found = [peer for peer in peers if not options.only or peer.name in options.only]
    if not found:
        raise SystemExit(f"no such peer; there are: {', '.join(peer.name for peer in peers)}")
    return found


def ask(
    scene: Scene,
    one: Running,
    options: Options,
    seconds: float,
    *,
    in_flight: int | None = None,
    rate: float = 0,
    plain: bool = False,
    mixed: bool = False,
    connections: int | None = None,
    domains: Sequence[str] = (),
) -> dict[str, float]:
    """One round of questions; what the generator printed, and the server's use of CPU."""
    credentials: Path = one.site.users if plain else one.site.keys
    words: list[object] = [compile_c("loadgen"), "--warmup", options.warmup, "--seconds", seconds]
    words += ["--connections", connections or options.connections, "--in-flight", in_flight or options.in_flight]
    for domain in domains or (DOMAINS if mixed else (DOMAIN,)):
        words += ["--domain", domain]
    for address in ADDRESSES if mixed else ADDRESSES[:1]:
        words += ["--address", address]
    if rate:
        words += ["--rate", rate]
    if plain:
        words.append("--plain")
    words += [one.site.port, credentials]
    return scene.load_on(one, [str(word) for word in words], seconds)


def manner(options: Options, mixed: bool) -> str:
    """How questions come, in words."""
    how = f"{options.in_flight} in flight on {options.connections} connection(s)"
    if mixed:
        how += f", about {len(DOMAINS)} domains from {len(ADDRESSES)} addresses"
    return how
