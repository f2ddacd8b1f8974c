"""Tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import machine
from bench.options import Options


def table(rows: Sequence[Sequence[str]]) -> str:
    """Columns under their heads: the first to the left, the others to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [row[0].ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """The same for docs/performance.md."""
    head, *others = rows
    lines = [head, ["---", *("---:" for _ in head[1:])], *others]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def show(
    options: Options, name: str, title: str, rows: Sequence[Sequence[str]], notes: Sequence[str] = ()
) -> None:
    """Print one result."""
    drawn = markdown(rows) if options.markdown else table(rows)
    print("\n".join(["", f"== {name} ==", title, "", drawn, *(["", *notes] if notes else []), ""]), flush=True)


def save(name: str, options: Options, data: dict[str, Any]) -> Path:
    """Keep a result as ``NAME.json`` (in ``bench/out`` unless told otherwise), with what it was measured on."""
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / f"{name}.json"
    text = json.dumps({**machine.describe(options.cores), **data}, indent=2, default=str)
    path.write_text(text + "\n")
    return path


def span(low: float, high: float) -> str:
    return f"{low:,.0f} to {high:,.0f}"


def milliseconds(microseconds: float) -> str:
    return f"{microseconds / 1000:.2f} ms"
