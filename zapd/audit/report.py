"""What `verify` found, as values; `Report.lines` says it in sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What was done to a journal."""

    ALTERED = "altered"
    """A record's octets are not those that were chained."""
    MISSING = "missing"
    INSERTED = "inserted"
    REORDERED = "reordered"
    DOUBLED = "doubled"
    CUT = "cut"
    """Records at the end are gone, or a closed segment stops within a line."""
    SWAPPED = "swapped"
    """Whole segments stand in each other's place."""
    FOREIGN = "foreign"
    """A record of another instance."""
    RESEALED = "resealed"
    """The chain fits, but a checkpoint or a successor remembers another hash: the past was written anew."""
    FORGED = "forged"
    """A checkpoint or stub that the journal's key did not sign."""
    LOST = "lost"
    """A whole instance that a checkpoint or a successor remembers is not there."""
    UNREADABLE = "unreadable"
    """A file could not be read."""


@dataclass(frozen=True, slots=True)
class Problem:
    """The first bad record of an instance, and what is wrong with it."""

    kind: Kind
    instance: str
    segment: str
    """File name; empty when it is not about one."""
    line: int
    """From 1; 0 when it is not about one."""
    sequence: int
    """The record that is bad or should stand there; 0 when it is not about one."""
    detail: str

    def __str__(self) -> str:
        place = (
            self.instance
            + (f"/{self.segment}" if self.segment else "")
            + (f" line {self.line}" if self.line else "")
        )
        record = f", record {self.sequence}" if self.sequence else ""
        return f"{self.kind}: {place}{record}: {self.detail}"


@dataclass(frozen=True, slots=True)
class InstanceReport:
    """One instance, as far as its first bad record."""

    instance: str
    first: int
    """The oldest record there; 0 when there is none."""
    last: int
    """The last good record; 0 when there is none."""
    segments: int
    head: str
    """Hash of the last good record, hex."""
    began: str
    """Time of the oldest record there."""
    ended: str
    """Time of the last good record."""
    open: bool
    """The last line is unfinished: a write under way, or what a crash left. Not tampered with."""
    checkpointed: int
    """The last record that a checkpoint (validly signed, where a key was given) covers; 0 for none."""
    checkpoints: int
    """How many agreed."""
    outside: int
    """Like ``checkpointed``, by the heads outside the journal's folder alone."""
    problem: Problem | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The whole folder, or a whole export."""

    instances: tuple[InstanceReport, ...]
    problems: tuple[Problem, ...]
    blind: tuple[str, ...]
    """What could not be seen, in sentences."""

    @property
    def ok(self) -> bool:
        return not self.problems

    @property
    def records(self) -> int:
        """Good records, before the first bad one of each instance."""
        return sum(found.last - found.first + 1 for found in self.instances if found.last)

    def lines(self) -> Iterator[str]:
        """The report as people read it, a line at a time. Foreign octets never reach it unescaped."""
        for found in self.instances:
            reach = f"checkpoints reach {found.checkpointed}" if found.checkpointed else "no checkpoint covers it"
            if found.last:
                span = f"records {found.first} to {found.last}, {found.began} to {found.ended}"
            else:
                span = "no record"
            yield f"instance {found.instance}: {span}; {reach}{'; its last line is open' if found.open else ''}"
            for note in found.notes:
                yield f"  note: {note}"
        for problem in self.problems:
            yield f"BAD {problem}"
        for sentence in self.blind:
            yield f"cannot be seen: {sentence}"
        yield f"{'intact' if self.ok else 'TAMPERED OR DAMAGED'}: {self.records} records checked"
