"""A flame graph of the hot road: where a zapd that records spends its time while it answers as fast as it goes.

py-spy looks into the running process from outside, so that being watched hardly slows down what is measured.
Drawn are functions, in whichever thread holds the interpreter; what the kernel and SHA-256 do without it is not.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from xml.sax.saxutils import escape

from bench import machine, report
from bench.asking import ask, manner
from bench.options import Options
from bench.peer_zapd import zapd_peer
from bench.peers import HERE
from bench.running import Scene

NAME = "flame"
PICTURE = HERE.parent / "docs" / "flame.svg"
SAMPLES = 500
"""A second."""


def run(options: Options) -> None:
    if os.geteuid():
        print("flame: only root may look into a running zapd, which keeps its secrets to itself", file=sys.stderr)
        return
    seconds, keys = options.seconds or 10.0, options.keys or 100_000
    with Scene(options.cores, keys) as scene, tempfile.TemporaryDirectory() as folder:
        (one,) = scene.start([zapd_peer("relaxed")])
        picture = Path(folder) / "flame.svg"
        words = [str(Path(sys.executable).with_name("py-spy")), "record", "--pid", str(one.process.pid)]
        words += ["--duration", f"{seconds:g}", "--rate", str(SAMPLES), "--function", "--gil"]
        words += ["--format", "flamegraph", "--output", str(picture)]
        ask(scene, one, options, 1.0)
        with subprocess.Popen(machine.pinned(options.cores.load, words), stdout=subprocess.DEVNULL) as watching:
            result = ask(scene, one, options, seconds)
            if watching.wait(60):
                raise SystemExit("py-spy could not look into zapd")
        drawn = picture.read_text()
    title = f"zapd, relaxed: {keys:,} keys, {manner(options, False)}"
    PICTURE.write_text(re.sub(r'(<text id="title"[^>]*>)[^<]*', lambda head: head[1] + escape(title), drawn))
    rows = [["", "answers/s", "samples a second"], [title, f"{result['rate']:,.0f}", str(SAMPLES)]]
    report.show(options, NAME, f"Drawn: {PICTURE.name}", rows, scene.notes())
