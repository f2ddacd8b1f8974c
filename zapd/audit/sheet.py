"""Records as CSV for people with a spreadsheet: a record is a line, and no cell is a formula.

What is not printable is written out (``\\x1b``), and a cell that a spreadsheet would compute gets a ``'`` in front
(limits.md of the design, R26). Whoever needs a record as it is takes JSONL.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

import msgspec

from zapd.audit.selection import Selected

COLUMNS = (*(name for name in Selected.__struct_fields__ if name != "hash"), "hash")
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")
"""Some spreadsheets take the wide ones too."""


def sheet(records: Iterable[Selected | None]) -> Iterator[bytes]:
    """A line of headings and one for each record, in UTF-8; for each None an empty piece."""
    yield _line(COLUMNS)
    for record in records:
        yield b"" if record is None else _line(cell(getattr(record, name)) for name in COLUMNS)


def cell(value: object) -> str:
    """A value as a cell's text."""
    match value:
        case None:
            return ""
        case str():
            text = value
        case int():
            return str(value) if value else ""
        case list():
            text = "; ".join(f"{backend} {outcome} {spent:g} ms" for backend, outcome, spent in value)
        case _:
            text = msgspec.json.encode(value).decode()
    if not text.isprintable():
        text = "".join(
            each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text
        )
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _line(cells: Iterable[str]) -> bytes:
    out = io.StringIO()
    csv.writer(out).writerow(cells)
    return out.getvalue().encode("utf-8", "replace")
