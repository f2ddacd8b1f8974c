"""What a replay found: which questions other rules decide otherwise, in groups with examples. Bounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from zapd.auth.replay import Anew, Asked

MOST_GROUPS: Final = 10_000
"""Domains are strangers' words: what would be more groups than that is counted under the domain ``…``."""

Group = tuple[str, int, int, str]
"""(domain, the status of then, that of now, why). The status of now is 0 where it cannot be known."""


@dataclass(slots=True)
class Found:
    """One group of questions."""

    count: int = 0
    examples: list[Mapping[str, object]] = field(default_factory=list)
    """The first of them."""


@dataclass(slots=True)
class Differences:
    """Counts what is the same, what is otherwise, and what nobody can know."""

    examples: int = 3
    """Kept of each group."""
    questions: int = 0
    same: int = 0
    uncounted: int = 0
    """Answers of 300 that the record only counts: nothing is known of each."""
    groups: dict[Group, Found] = field(default_factory=dict)

    def add(self, past: Asked, anew: Anew, example: Mapping[str, object]) -> None:
        """Take in one question, and what it came to."""
        self.questions += 1
        reason = anew.reason
        if anew.status == past.status == 200 and past.mechanism == "NULL" and anew.principal != past.principal:
            reason = f"granted as {anew.principal!r}"
        elif anew.status == past.status:
            self.same += 1
            return
        group = (past.domain or "", past.status, anew.status, reason)
        if group not in self.groups and len(self.groups) >= MOST_GROUPS:
            group = ("…", *group[1:])
        found = self.groups.setdefault(group, Found())
        found.count += 1
        if len(found.examples) < self.examples:
            found.examples.append(example)

    def count(self, *, decidable: bool) -> int:
        """How many are otherwise; or, not decidable, how many nobody can know."""
        return sum(found.count for group, found in self.groups.items() if (group[2] != 0) is decidable)

    def ordered(self) -> list[tuple[Group, Found]]:
        """New admissions first, then new refusals, then the rest; within each the most frequent first."""

        def rank(each: tuple[Group, Found]) -> tuple[int, int]:
            (_, then, now, _), found = each
            kind = 3 if now == 0 else 0 if now == 200 else 1 if then == 200 else 2
            return kind, -found.count

        return sorted(self.groups.items(), key=rank)
