"""Which changes of the registry are in a journal already.

A change and its audit event are committed to SQL first and appended to the journal after. When the process dies
between the two, the next one must append what is missing, once; this finds out what is not missing.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path

import msgspec

from zapd.audit.instance import list_instances
from zapd.audit.segment import list_segments, read_lines


class _Numbered(msgspec.Struct):
    change: int = 0


_decode = msgspec.json.Decoder(_Numbered).decode


def changes_in(lines: Iterable[bytes], wanted: set[int]) -> set[int]:
    """Those of the ``wanted`` change numbers that these lines record (what is several lines holds decisions)."""
    found: set[int] = set()
    for line in lines:
        if b'"change":' in line and line.endswith(b"\n"):
            try:
                number = _decode(line).change
            except msgspec.DecodeError:
                continue  # verify's business
            if number in wanted:
                found.add(number)
    return found


def find_changes(directory: Path, wanted: set[int], since: float = 0.0) -> set[int]:
    """Those of the ``wanted`` change numbers that any instance under ``directory`` records, newest files first.

    Segments last written before ``since`` (seconds since 1970) are not read. Blocks.
    """
    missing = set(wanted)
    dated: list[tuple[float, Path]] = []
    for folder in list_instances(directory):
        for _, path in list_segments(folder):
            with contextlib.suppress(FileNotFoundError):  # retention is at work
                dated.append((path.stat().st_mtime, path))
    for modified, path in sorted(dated, reverse=True):
        if not missing or modified < since:
            break
        with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
            missing -= changes_in(read_lines(file), missing)
    return wanted - missing
