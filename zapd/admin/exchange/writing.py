"""Writes keys as `reading` reads them: CSV, a JSON array, or JSON lines, a piece at a time."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from zapd.admin.exchange.cells import guard, write_list, write_map
from zapd.admin.exchange.reading import Form
from zapd.admin.exchange.shapes import LISTS, MAPS, KeyRow


def write_keys(keys: Iterable[Mapping[str, Any]], form: Form) -> Iterator[str]:
    """Keys as the REST API shows them; the file's text, piece by piece."""
    rows = ({name: key.get(name) for name in KeyRow.COLUMNS} for key in keys)
    if form == "csv":
        yield from _write_csv(rows)
    elif form == "jsonl":
        for row in rows:
            yield _json(row) + "\n"
    else:
        before = "["
        for row in rows:
            yield f"{before}\n{_json(row)}"
            before = ","
        yield "[]\n" if before == "[" else "\n]\n"


def _write_csv(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    lines = _Lines()
    writer = csv.writer(lines)  # CRLF, RFC 4180
    writer.writerow(KeyRow.COLUMNS)
    yield lines.line
    for row in rows:
        writer.writerow([guard(_cell(name, value)) for name, value in row.items()])
        yield lines.line


def _cell(name: str, value: Any) -> str:
    if value is None:
        return ""
    if name in LISTS:
        return write_list(value)
    return write_map(value) if name in MAPS else str(value)


def _json(row: Mapping[str, Any]) -> str:
    return json.dumps({name: value for name, value in row.items() if value not in (None, "", [], {})})


class _Lines:
    """The line that the CSV writer wrote last."""

    line = ""

    def write(self, line: str) -> int:
        self.line = line
        return len(line)
