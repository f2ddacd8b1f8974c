"""Run the benchmark: ``python -m bench [WHAT]… [--rounds 5] [--seconds 3] [--unpinned] [--only NAME]…``.

What is printed is medians over interleaved rounds, and ratios of medians within the run; figures of different runs
are not comparable. The server, with all its threads and processes, has the first core, the load the second.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence

from bench import (
    bulkhead,
    flame,
    flat,
    flood,
    handshakes,
    latency,
    link,
    machine,
    plain,
    questions,
    shapes,
    workers,
)
from bench.options import Options, parser

PARTS = (questions, shapes, plain, flat, latency, bulkhead, link, handshakes, flood, workers, flame)
ALL = {each.NAME: each for each in PARTS}
"""In the order in which ``all`` runs them."""


def main(arguments: Sequence[str] | None = None) -> int:
    read = parser(list(ALL)).parse_args(arguments)
    wanted = list(ALL) if "all" in read.what else read.what or ["questions"]
    unknown = [name for name in wanted if name not in ALL]
    if unknown:
        print(f"no such benchmark: {', '.join(unknown)}; there are {', '.join(ALL)}, all", file=sys.stderr)
        return 2
    # As an error would: whatever was started is stopped, and the folder goes.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    options = Options.of(read)
    for name, text in machine.describe(options.cores).items():
        print(f"{name}: {text}")
    for name in wanted:
        ALL[name].run(options)
    return 0


if __name__ == "__main__":
    sys.exit(main())
