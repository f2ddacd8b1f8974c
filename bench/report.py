"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from bench import machine
from bench.machine import Cores
from bench.peers import OUT


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns under their heads: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def show(name: str, title: str, rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Print one result."""
    print(
        "\n".join(["", f"== {name} ==", title, "", table(rows), *(["", *notes] if notes else []), ""]), flush=True
    )


def save(name: str, cores: Cores, data: dict[str, Any]) -> None:
    """Keep a result as ``bench/out/NAME.json``, with what it was measured on."""
    OUT.mkdir(exist_ok=True)
    text = json.dumps({**machine.describe(cores), **data}, indent=2, default=str)
    (OUT / f"{name}.json").write_text(text + "\n")


def span(low: float, high: float) -> str:
    return f"{low:,.0f} to {high:,.0f}"


def milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1000:.2f} ms"
