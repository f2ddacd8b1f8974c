"""Counting instead of recording: 300s given without asking a backend, or while nothing could be recorded.

A stranger must not be able to fill the disk (limits.md, R28), yet nothing may go unsaid. Both tables here are
bounded; what does not fit is counted under one name for all others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from zapd.audit.event import AuditEvent, Tag

if TYPE_CHECKING:
    from zapd.audit.journal import Journal

OTHERS = "(others)"
"""Stands for every source that the table had no room for. No address looks like it."""


class Counts:
    """How often, for each domain, source and reason. At most ``limit`` rows."""

    __slots__ = ("_limit", "_rows", "total")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._rows: dict[tuple[str | None, str, str], int] = {}
        self.total = 0

    def add(self, domain: str | None, source: str, reason: str, count: int = 1) -> None:
        key = (domain, source, reason)
        rows = self._rows
        if key not in rows and len(rows) >= self._limit:
            key = (None, OTHERS, "")
        rows[key] = rows.get(key, 0) + count
        self.total += count

    def take(self) -> dict[tuple[str | None, str, str], int]:
        """Every row; the table is empty afterwards."""
        rows, self._rows, self.total = self._rows, {}, 0
        return rows

    def __bool__(self) -> bool:
        return bool(self._rows)


def gap_event(rows: Mapping[tuple[str | None, str, str], int], *, since: str, cause: str) -> AuditEvent:
    """One record for everything that was answered 300 while the journal could not be written."""
    listed = [
        {"domain": domain, "source": source, "reason": reason, "count": count}
        for (domain, source, reason), count in sorted(rows.items(), key=lambda row: -row[1])
    ]
    return AuditEvent(
        event=Tag.AUTH_GAP,
        status=300,
        reason="journal",
        count=sum(rows.values()),
        detail={"since": since, "cause": cause, "counts": listed},
    )


class Summaries:
    """One ``auth.summary`` record a second, at most, for each domain and source. On the loop's thread."""

    def __init__(self, journal: Journal, *, interval: float = 1.0, limit: int = 1024) -> None:
        self._journal = journal
        self._interval = interval
        self._counts = Counts(limit)
        self._timer: asyncio.TimerHandle | None = None

    def count(self, domain: str | None, source: str, reason: str) -> None:
        """Count one 300 given without asking. ``source`` is the address, without a port."""
        self._counts.add(domain, source, reason)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self.flush)

    def flush(self) -> None:
        """Record what was counted; what cannot be recorded joins the journal's gap."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        from zapd.audit.journal import JournalUnavailable

        by_source: dict[tuple[str | None, str], dict[str, int]] = {}
        for (domain, source, reason), count in self._counts.take().items():
            by_source.setdefault((domain, source), {})[reason] = count
        for (domain, source), reasons in by_source.items():
            event = AuditEvent(
                event=Tag.AUTH_SUMMARY,
                domain=domain,
                address=source,
                status=300,
                reason=next(iter(reasons)) if len(reasons) == 1 else "several",
                count=sum(reasons.values()),
                detail={"reasons": reasons} if len(reasons) > 1 else None,
            )
            try:
                self._journal.append(event)
            except JournalUnavailable:
                for reason, count in reasons.items():
                    self._journal.note_gap(domain, source, reason, count)
