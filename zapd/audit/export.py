"""Ranges of the journal as JSONL that verifies by itself, and the walk through the files that this needs.

Each instance's part begins with a header that names the hash before its first record; the rest are the journal's
own lines, octet for octet.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from pathlib import Path

import msgspec

from zapd.audit.chain import BadLine, Head, Link, genesis, head_of, split
from zapd.audit.instance import last_line, list_instances
from zapd.audit.segment import list_segments, read_lines
from zapd.audit.stub import read_stub


def export(directory: Path, *, instance: str = "", since: str = "", until: str = "") -> Iterator[bytes]:
    """Lines of all instances, or of one, from the first record at or after ``since`` up to the first at or after
    ``until``: times as records write them, ``2026-01-31T12:00:00Z`` or any beginning of it. Blocks.

    An export is a whole range: it holds every record between its ends, whoever it is about. A line that is no
    record ends its instance's part; `verify` says what is wrong with it. Where retention removes segments while
    they are exported, the part ends, and another begins behind what was removed.
    """
    for folder in list_instances(directory):
        if not instance or folder.name == instance:
            yield from _part(folder, since.rstrip("Z"), until.rstrip("Z"))


def _part(folder: Path, since: str, until: str) -> Iterator[bytes]:
    last = -1
    for before, head, line in walk_lines(folder, since):
        if head.time < since and last < 0:
            continue
        if until and head.time >= until:
            return
        if before.sequence != last:
            header = {
                "kind": "export",
                "instance": folder.name,
                "first": head.sequence,
                "previous": before.digest.hex(),
            }
            yield msgspec.json.encode(header) + b"\n"
        yield line
        last = head.sequence


def walk_lines(folder: Path, since: str = "") -> Iterator[tuple[Link, Head, bytes]]:
    """(the link before it, its place, the line) of an instance's records, up to the first line that is none.

    Segments that end before ``since`` are passed over unread, as far as their first records tell. Blocks.
    """
    segments, link = _beginning(folder, since)
    while segments:
        path = segments.popleft()
        try:
            file = path.open("rb")
        except FileNotFoundError:  # retention was here
            stub = read_stub(folder)
            if stub is None or stub.link.sequence <= link.sequence:
                return
            segments, link = deque(path for _, path in kept_segments(folder)), stub.link
            continue
        with file:
            for line in read_lines(file):
                try:
                    if not line.endswith(b"\n"):
                        raise BadLine("it has no end")
                    head, (_, stored) = head_of(line), split(line[:-1])
                except BadLine:
                    return
                yield link, head, line
                link = Link(head.sequence, stored)


def kept_segments(folder: Path) -> list[tuple[int, Path]]:
    """The segments of an instance without those that are on their way out."""
    stub = read_stub(folder)
    return [
        (number, path) for number, path in list_segments(folder) if stub is None or number >= stub.first_segment
    ]


def octets_since(directory: Path, since: str = "", instance: str = "") -> int:
    """Octets that an export from ``since`` on has to read, at most."""
    total = 0
    for folder in list_instances(directory):
        if not instance or folder.name == instance:
            for path in _beginning(folder, since.rstrip("Z"))[0]:
                try:
                    total += path.stat().st_size
                except FileNotFoundError:
                    continue
    return total


def _beginning(folder: Path, since: str) -> tuple[deque[Path], Link]:
    """(the segments to read, the link before the first of them)."""
    stub = read_stub(folder)
    link = stub.link if stub is not None else genesis(folder.name)
    segments = deque(path for _, path in kept_segments(folder))
    skipped: Path | None = None
    while since and len(segments) > 1 and "" < _first_time(segments[1]) < since:
        skipped = segments.popleft()
    if skipped is not None:
        try:
            line = last_line(skipped) or b""
            link = Link(head_of(line).sequence, split(line)[1])
        except (BadLine, OSError):
            return deque(path for _, path in kept_segments(folder)), link
    return segments, link


def _first_time(path: Path) -> str:
    """When a segment begins; empty when it does not say."""
    try:
        with path.open("rb") as file:
            return head_of(next(read_lines(file), b"")).time
    except (BadLine, OSError):
        return ""
