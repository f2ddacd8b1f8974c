"""What `python -m bench` is told."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from bench.machine import Cores, pick_cores
from bench.peers import OUT


@dataclass(frozen=True)
class Options:
    """None: the benchmark's own choice."""

    rounds: int | None
    seconds: float | None
    warmup: float
    keys: int | None
    in_flight: int
    connections: int
    mixed: bool
    rate: float | None
    only: tuple[str, ...]
    markdown: bool
    out: Path
    cores: Cores

    @classmethod
    def of(cls, read: argparse.Namespace) -> Options:
        return cls(
            read.rounds,
            read.seconds,
            read.warmup,
            read.keys,
            read.in_flight,
            read.connections,
            read.mixed,
            read.rate,
            tuple(read.only or ()),
            read.markdown,
            read.out,
            pick_cores(read.unpinned),
        )


def parser(names: list[str]) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m bench",
        description="zapd beside other ways to answer ZAP, in one run on this machine.",
    )
    made.add_argument(
        "what", nargs="*", metavar="WHAT", help=f"{', '.join(names)}, or all; questions unless named"
    )
    made.add_argument("--rounds", type=int, help="rounds for each peer, interleaved")
    made.add_argument("--seconds", type=float, help="seconds counted in a round")
    made.add_argument("--warmup", type=float, default=0.5, help="seconds before counting begins (0.5)")
    made.add_argument("--keys", type=int, help="registered keys")
    made.add_argument("--in-flight", type=int, default=128, help="questions under way, together (128)")
    made.add_argument("--connections", type=int, default=1, help="connections that they come on (1)")
    made.add_argument("--mixed", action="store_true", help="ask about several domains, from several addresses")
    made.add_argument("--rate", type=float, help="questions or HELLOs a second, where a part sets the pace")
    made.add_argument("--unpinned", action="store_true", help="let server and load use every core")
    made.add_argument("--only", action="append", metavar="NAME", help="measure this peer alone; may be repeated")
    made.add_argument("--markdown", action="store_true", help="print tables as docs/performance.md has them")
    made.add_argument("--out", type=Path, default=OUT, help="where results go as JSON (bench/out)")
    return made
