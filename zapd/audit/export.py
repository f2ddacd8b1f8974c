"""Ranges of the journal as JSONL that verifies by itself.

Each instance's part begins with a header that names the hash before its first record; the rest are the journal's
own lines, octet for octet.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from zapd.audit.chain import BadLine, genesis, head_of, split
from zapd.audit.instance import list_instances
from zapd.audit.segment import list_segments, read_lines
from zapd.audit.stub import read_stub


def export(directory: Path, *, instance: str = "", since: str = "", until: str = "") -> Iterator[bytes]:
    """Lines of all instances, or of one, from the first record at or after ``since`` up to the first at or after
    ``until``: times as records write them, ``2026-01-31T12:00:00Z`` or any beginning of it. Blocks.

    An export is a whole range: it holds every record between its ends, whoever it is about. A line that is no
    record ends its instance's part; `verify` says what is wrong with it.
    """
    for folder in list_instances(directory):
        if not instance or folder.name == instance:
            yield from _part(folder, since.rstrip("Z"), until.rstrip("Z"))


def _part(folder: Path, since: str, until: str) -> Iterator[bytes]:
    stub = read_stub(folder)
    previous = (stub.link if stub is not None else genesis(folder.name)).digest
    begun = False
    for number, path in list_segments(folder):
        if stub is not None and number < stub.first_segment:
            continue
        with path.open("rb") as file:
            for line in read_lines(file):
                try:
                    head, (_, stored) = head_of(line), split(line[:-1])
                except BadLine:
                    return
                if not line.endswith(b"\n") or (begun and until and head.time >= until):
                    return
                if not begun and head.time >= since:
                    if until and head.time >= until:
                        return
                    begun = True
                    header = {
                        "kind": "export",
                        "instance": folder.name,
                        "first": head.sequence,
                        "previous": previous.hex(),
                    }
                    yield msgspec.json.encode(header) + b"\n"
                if begun:
                    yield line
                previous = stored
