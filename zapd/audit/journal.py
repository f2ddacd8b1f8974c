"""The append-only, hash-chained record. (Contract; completed by its author.)"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from zapd.audit.event import AuditEvent

Durability = Literal["strict", "relaxed", "off"]


class JournalUnavailable(Exception):
    """Nothing can be recorded now: what asked for it must be answered 300 (503 for an admin's change)."""


class Journal:
    """One instance's record. All methods are for the event loop's thread; writing and fsync happen in a helper
    thread, a group at a time."""

    def append(self, event: AuditEvent) -> int:
        """Chain one event into the open group and return its sequence number.

        Raises `JournalUnavailable` at once while the journal cannot be written, or its backlog is at its bound.
        """
        raise NotImplementedError

    def when_durable(self, callback: Callable[[bool], None]) -> None:
        """Call ``callback(True)`` on the loop once everything appended so far is as durable as the setting asks
        (``strict``: fsynced; ``relaxed`` and ``off``: at once, before this returns), ``callback(False)`` when
        that failed."""
        raise NotImplementedError

    async def durable(self) -> None:
        """Await `when_durable`; raises `JournalUnavailable` when it failed."""
        raise NotImplementedError

    @property
    def writable(self) -> bool:
        raise NotImplementedError
