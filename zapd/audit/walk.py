"""Walking a chain of records up to the first that does not fit, and naming what was done there.

Works on any stream of lines that can be had twice: an instance's segments or an exported file. Memory is
constant: one record is looked ahead, and naming a problem reads the stream again instead of remembering it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from zapd.audit.chain import BadLine, Head, Link, chained, head_of, split
from zapd.audit.report import Kind, Problem
from zapd.audit.segment import LONGEST
from zapd.audit.witness import Witness


@dataclass(frozen=True, slots=True)
class Line:
    """One line as it was found."""

    segment: str
    number: int
    """In its segment, from 1."""
    octets: bytes
    """With its newline, where it has one."""
    last_segment: bool


Source = Callable[[], Iterator[Line]]


@dataclass(slots=True)
class Walk:
    """How far it went."""

    link: Link
    """The last good record, or where the walk began."""
    first: int = 0
    began: str = ""
    ended: str = ""
    open: bool = False
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class _Record:
    head: Head
    body: bytes
    stored: bytes

    def follows(self, link: Link) -> bool:
        return self.head.sequence == link.sequence + 1 and chained(link.digest, self.body) == self.stored


def walk(source: Source, instance: str, start: Link, witnesses: Sequence[Witness]) -> Walk:
    """Check every line of ``source`` from ``start`` on, and each witness against it."""
    result = Walk(start)
    lines = source()
    digest, sequence = start.digest, start.sequence
    last_head: Head | None = None
    for line in lines:
        octets = line.octets
        try:
            if not octets.endswith(b"\n"):
                raise BadLine("the line has no end")
            body, stored = split(octets[:-1])
            head = head_of(octets)
            fits = head.sequence == sequence + 1 and head.instance == instance and chained(digest, body) == stored
        except BadLine:
            fits = False
        if not fits:
            result.link = Link(sequence, digest)
            if not octets.endswith(b"\n") and line.last_segment and len(octets) < LONGEST:
                result.open = True
                break
            result.problem = _judge(source, lines, line, instance, Link(sequence, digest))
            break
        sequence, digest = head.sequence, stored
        for witness in witnesses:
            if not witness.agrees(sequence, digest):
                detail = f"the chain fits, but {witness.name} remembers another hash"
                result.problem = Problem(Kind.RESEALED, instance, line.segment, line.number, sequence, detail)
                break
        if not result.first:
            result.first, result.began = sequence, head.time
        last_head = head
        if result.problem is not None:
            break
    result.link = Link(sequence, digest)
    if last_head is not None:
        result.ended = last_head.time
    return result


def _parse(line: Line | None) -> _Record | None:
    if line is None or not line.octets.endswith(b"\n"):
        return None
    try:
        return _Record(head_of(line.octets), *split(line.octets[:-1]))
    except BadLine:
        return None


def _judge(source: Source, rest: Iterator[Line], line: Line, instance: str, link: Link) -> Problem:
    """What happened at ``line``, the first that does not follow ``link``; ``rest`` are the lines after it."""
    wanted = link.sequence + 1

    def problem(kind: Kind, detail: str, sequence: int = wanted) -> Problem:
        return Problem(kind, instance, line.segment, line.number, sequence, detail)

    if not line.octets.endswith(b"\n") and not line.last_segment:
        return problem(Kind.CUT, "the segment stops within a line")
    record = _parse(line)
    after_line = next(rest, None)
    after = _parse(after_line)
    if record is None:
        if after is not None and after.head.instance == instance and after.follows(link):
            return problem(Kind.INSERTED, "a line that is no record stands between two that fit")
        return problem(Kind.ALTERED, "the line is no record")
    if record.head.instance != instance:
        return problem(Kind.FOREIGN, f"it is record {record.head.sequence} of another instance")
    sequence = record.head.sequence
    if after is not None and after.follows(link):  # the record alone is out of place
        same = _record_at(source, sequence, line)
        if same is not None and (same.body, same.stored) == (record.body, record.stored):
            return problem(Kind.DOUBLED, "it stands there a second time", sequence)
        before = _record_at(source, sequence - 1, line)
        if sequence > wanted and before is not None and chained(before.stored, record.body) == record.stored:
            return problem(Kind.REORDERED, f"it belongs after record {sequence - 1}", sequence)
        return problem(Kind.INSERTED, "it does not belong between the records around it", sequence)
    if sequence == wanted:
        return problem(Kind.ALTERED, "its hash does not fit its octets and the record before")
    if (
        after is not None
        and after.head.sequence == wanted + 1
        and chained(record.stored, after.body) == after.stored
    ):
        return problem(Kind.ALTERED, f"its number was made {sequence}")
    if sequence < wanted:
        same = _record_at(source, sequence, line)
        if same is not None and (same.body, same.stored) == (record.body, record.stored):
            return problem(Kind.DOUBLED, "it stands there a second time", sequence)
        return problem(Kind.INSERTED, f"record {wanted} was expected", sequence)
    found = _find(after_line, rest, instance, wanted)
    if found is None:
        gone = str(wanted) if sequence == wanted + 1 else f"{wanted} to {sequence - 1}"
        return problem(Kind.MISSING, f"record {gone} should stand before record {sequence}")
    if line.number == 1 and found.number == 1 and found.segment != line.segment:
        return problem(
            Kind.SWAPPED, f"the segment holds what belongs elsewhere; record {wanted} begins {found.segment}"
        )
    return problem(Kind.REORDERED, f"record {wanted} stands at {found.segment} line {found.number}")


def _find(after: Line | None, rest: Iterator[Line], instance: str, sequence: int) -> Line | None:
    line = after
    while line is not None:
        record = _parse(line)
        if record is not None and record.head.sequence == sequence and record.head.instance == instance:
            return line
        line = next(rest, None)
    return None


def _record_at(source: Source, sequence: int, beside: Line) -> _Record | None:
    """The first record of that number, at another place than ``beside``."""
    for line in source():
        record = _parse(line)
        elsewhere = (line.segment, line.number) != (beside.segment, beside.number)
        if elsewhere and record is not None and record.head.sequence == sequence:
            return record
    return None
