"""Reading a journal's files from where one stopped: what `copying` does not know about files.

Only what is surely on disk is told: the segment is synced before it is read, so that a power cut cannot leave a
copy of a record that the journal lost.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import msgspec

from zapd.audit.chain import BadLine, head_of
from zapd.audit.instance import last_line
from zapd.audit.segment import list_segments, read_lines


class Record(msgspec.Struct):
    """The members that have a column, and the line itself."""

    time: str
    instance: str
    sequence: int
    event: str
    hash: str
    domain: str | None = None
    mechanism: str = ""
    address: str = ""
    agent: str = ""
    principal: str = ""
    key: str = ""
    username: str = ""
    status: int = 0
    reason: str = ""
    question_id: str = ""


_decode = msgspec.json.Decoder(Record).decode


@dataclass(frozen=True, slots=True)
class Position:
    """After which record, and where in the files, one stopped."""

    sequence: int = 0
    segment: int = 0
    octet: int = 0


@dataclass(slots=True)
class Batch:
    records: list[tuple[Record, str]]
    """Each with its line."""
    position: Position
    """After the last of them."""
    missed: int = 0
    """Records that should have stood between and did not."""
    unreadable: int = 0
    """Lines that are no records."""


def read_batch(folder: Path, start: Position, limit: int) -> Batch:
    """The next records of an instance, at most ``limit``; none when all are told. Raises `OSError`."""
    batch = Batch([], start)
    sequence = start.sequence
    for number, path in list_segments(folder):
        if number < start.segment or len(batch.records) >= limit:
            continue
        octet = start.octet if number == start.segment else 0
        with path.open("rb") as file:
            end = os.fstat(file.fileno()).st_size
            if octet >= end:
                continue
            os.fdatasync(file.fileno())
            file.seek(octet)
            for line in read_lines(file):
                if not line.endswith(b"\n") or octet + len(line) > end:
                    break
                octet += len(line)
                try:
                    record = _decode(line)
                    text = line[:-1].decode("ascii")
                except (msgspec.DecodeError, UnicodeDecodeError):
                    batch.unreadable += 1
                    continue
                if sequence and record.sequence > sequence + 1:
                    batch.missed += record.sequence - sequence - 1
                sequence = max(sequence, record.sequence)
                batch.records.append((record, text))
                if len(batch.records) >= limit:
                    break
        batch.position = Position(sequence, number, octet)
    return batch


def last_sequence(folder: Path) -> int:
    """The number of the newest record there; 0 when there is none to be read."""
    try:
        for _, path in reversed(list_segments(folder)):
            line = last_line(path)
            if line is not None:
                return head_of(line).sequence
    except (OSError, BadLine):
        pass
    return 0
