"""The chart of docs/performance.md: answers a second, and answers for each second of CPU, of every peer.

Drawn by hand as SVG. It brings its own background, and a darker one where the reader's system asks for that, so
that it can be read on any page.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any
from xml.sax.saxutils import escape

from bench.peers import HERE

CHART = HERE.parent / "docs" / "performance.svg"

_WIDTH, _MARGIN, _NAME, _FIGURE = 760, 24, 118, 78
_BAR, _STEP = 18, 26
_STYLE = """
  .ground { fill: #ffffff; stroke: #d0d7de }
  text { font: 13px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #1f2328 }
  .title { font-weight: 600 }
  .small { font-size: 11px; fill: #59636e }
  .other { fill: #8c959f }
  .zapd { fill: #0969da }
  .range { stroke: #1f2328; stroke-width: 1.5 }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #3d444d }
    text { fill: #f0f6fc }
    .small { fill: #9198a1 }
    .other { fill: #656c76 }
    .zapd { fill: #4493f8 }
    .range { stroke: #f0f6fc }
  }
"""

Bar = tuple[str, float, float, float]
"""Name, value, lowest and highest round."""


def write_chart(source: Path, target: Path = CHART) -> None:
    """Draw what a run of ``questions`` has left."""
    target.write_text(draw(json.loads(source.read_text())))


def draw(result: Mapping[str, Any]) -> str:
    peers = {name: peer["rounds"] for name, peer in result["peers"].items()}
    rates = [_bar(name, [one["rate"] for one in rounds]) for name, rounds in peers.items()]
    worth = [
        _bar(name, [one["rate"] / max(one["server_cpu"], 0.001) for one in rounds])
        for name, rounds in peers.items()
    ]
    lines, height = [], _MARGIN
    for title, bars in (("Answers a second", rates), ("Answers for each second of CPU", worth)):
        lines.append(f'<text class="title" x="{_MARGIN}" y="{height + 12}">{title}</text>')
        height += 26
        lines += _bars(bars, height)
        height += _STEP * len(bars) + 14
    seconds, rounds = result["seconds"], result["rounds"]
    feet = (
        f"CURVE questions from {result['keys']:,} keys, {result['in_flight']} in flight, {rounds} rounds of "
        f"{seconds:g} s: medians, and lines from the lowest to the highest round.",
        "zauth admits any key, REP and ROUTER look at nothing; none of the three keeps a record. "
        "zapd's CPU is that of all its processes.",
        str(result["machine"]),
    )
    for foot in feet:
        lines.append(f'<text class="small" x="{_MARGIN}" y="{height + 8}">{escape(foot)}</text>')
        height += 17
    height += _MARGIN - 8
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" width="{_WIDTH}" '
            f'height="{height}" role="img" aria-label="{escape(_words(rates), {chr(34): "&quot;"})}">',
            f"<style>{_STYLE}</style>",
            f'<rect class="ground" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="8"/>',
            *lines,
            "</svg>\n",
        ]
    )


def _bar(name: str, values: Sequence[float]) -> Bar:
    return name, median(values), min(values), max(values)


def _bars(bars: Sequence[Bar], top: float) -> list[str]:
    left = _MARGIN + _NAME
    scale = (_WIDTH - left - _FIGURE - _MARGIN) / (max(highest for *_, highest in bars) or 1)
    lines = []
    for number, (name, value, lowest, highest) in enumerate(bars):
        y = top + _STEP * number
        middle, kind = y + _BAR / 2, "zapd" if name.startswith("zapd") else "other"
        end = left + highest * scale
        lines += [
            f'<text x="{left - 10}" y="{middle + 4.5}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{left}" y="{y}" width="{value * scale:.1f}" height="{_BAR}" rx="2"/>',
            f'<path class="range" d="M{left + lowest * scale:.1f} {middle}H{end:.1f}"/>',
            f'<text x="{end + 8:.1f}" y="{middle + 4.5}">{value:,.0f}</text>',
        ]
    return lines


def _words(bars: Sequence[Bar]) -> str:
    return "Answers a second: " + ", ".join(f"{name} {value:,.0f}" for name, value, *_ in bars)
