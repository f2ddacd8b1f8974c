"""The append-only, hash-chained record: what the rest of zapd calls.

On the event loop's thread an event becomes a line, chained to the one before, and joins the open group. A helper
thread writes and syncs one group while the next collects (`strict`: as soon as the thread is free; `relaxed`:
every ``flush_interval``), so that a record before the answer costs a fraction of a millisecond and no throughput.

When a group cannot be made durable the journal is *unwritable*: whoever waits is told so, `append` raises, and
each second the thread tries to go on in a new segment. Lines that were refused this way are kept, bounded, and
written first when it works again: a record without an answer is harmless, and so no sequence number ever stands
for two events. Then one ``auth.gap`` record says how many 300s were given meanwhile.

This module knows neither file layout (`segment`, `instance`) nor line format (`chain`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

from nacl.signing import SigningKey

from zapd.audit.chain import Chain, Link
from zapd.audit.changes import changes_in, find_changes
from zapd.audit.checkpoint import CHECKPOINTS, Checkpointer, Head, newest_checkpoints, utc
from zapd.audit.commit import MOST_OCTETS, MOST_RECORDS, Full, GroupCommit, Pace
from zapd.audit.event import AuditEvent, Tag
from zapd.audit.gaps import Counts, gap_event
from zapd.audit.instance import Limits, Opened, open_instance
from zapd.audit.retention import Retention
from zapd.errors import Unavailable

Durability = Literal["strict", "relaxed", "off"]

CHECKPOINT_RECORDS = 10_000
CHECKPOINT_SECONDS = 60.0
GAP_ROWS = 256

log = logging.getLogger("zapd.audit")


class JournalUnavailable(Unavailable):
    """Nothing can be recorded now: what asked for it must be answered 300 (503 for an admin's change)."""


class Journal(GroupCommit):
    """One instance's record. All methods are for the event loop's thread; writing and fsync happen in a helper
    thread, a group at a time. Made by `Journal.open`."""

    def __init__(
        self,
        directory: Path,
        *,
        durability: Durability,
        pace: Pace,
        signing_key: bytes | None,
        heads: Sequence[Head],
        limits: Limits,
        retention: Retention | None,
        clock: Callable[[], int],
    ) -> None:
        super().__init__(pace)
        self.directory = directory
        self.durability = durability
        self.instance = ""
        """Empty until an instance could be opened."""
        self._seed = signing_key
        self._heads = tuple(heads)
        self._limits = limits
        self._retention = retention
        self._clock = clock
        self._unwritable_since = utc(clock() / 1e9)
        self._gap = Counts(GAP_ROWS)
        self._checkpointed = 0
        self._checkpoint_at = time.monotonic() + CHECKPOINT_SECONDS
        self._checkpointer = Checkpointer(
            seed=signing_key,
            heads=heads,
            clock=lambda: clock() / 1e9,
            after=self._retain if retention is not None else None,
        )
        self._checkpointer.start()

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        durability: Durability = "strict",
        flush_interval: float = 0.1,
        signing_key: bytes | None = None,
        heads: Sequence[Head] = (),
        limits: Limits | None = None,
        retention: Retention | None = None,
        max_backlog: tuple[int, int] = (MOST_RECORDS, MOST_OCTETS),
        retry_interval: float = 1.0,
        stall_timeout: float = 5.0,
        clock: Callable[[], int] = time.time_ns,
    ) -> Journal:
        """Open the journal in ``directory`` (``data_dir/audit``); returns when it is writable, or known not to be.

        Never raises for the world's trouble: a disk that is full or read-only makes a journal that is not
        `writable`, says `why`, and keeps trying each ``retry_interval`` seconds. ``max_backlog`` is in records
        and octets. ``signing_key`` is the seed of an Ed25519 key; without one, checkpoints are unsigned.
        ``clock`` gives nanoseconds since 1970.
        """
        kind = _Silent if durability == "off" else cls
        journal = kind(
            directory,
            durability=durability,
            pace=Pace(durability == "strict", flush_interval, *max_backlog, retry_interval, stall_timeout),
            signing_key=signing_key,
            heads=heads,
            limits=limits or Limits(),
            retention=retention,
            clock=clock,
        )
        await journal._begin()
        return journal

    # --- recording: the hot road ---------------------------------------------------------------------------

    def append(self, event: AuditEvent) -> int:
        """Chain one event into the open group and return its sequence number.

        Raises `JournalUnavailable` at once while the journal cannot be written, or its backlog is at its bound.
        """
        chain = self._open_chain()
        self._take(chain.line(event))
        return chain.sequence

    def append_rendered(self, events: Iterable[tuple[bytes, ...]]) -> None:
        """`append` for who has rendered events already, all or none: see `zapd.audit.chain.Chain.seal`."""
        self._take(self._open_chain().seal(events))

    def _open_chain(self) -> Chain:
        if not self._accepting or self._chain is None:
            raise JournalUnavailable(self.why)
        if self._octets >= self._enough:
            try:
                self._make_room()
            except Full:
                raise JournalUnavailable("the journal's backlog is at its bound: the disk is too slow") from None
        return self._chain

    def _take(self, lines: bytes) -> None:
        self._lines.append(lines)
        self._octets += len(lines)
        if not self._scheduled:
            self._schedule()

    async def durable(self) -> None:
        """Await `when_durable`; raises `JournalUnavailable` when it failed."""
        if self.at_once:
            return
        future: asyncio.Future[bool] = self._loop.create_future()
        self.when_durable(lambda good: None if future.done() else future.set_result(good))
        if not await future:
            raise JournalUnavailable(self.why)

    def note_gap(self, domain: str | None, source: str, reason: str = "", count: int = 1) -> None:
        """Count a 300 that could not be recorded; one ``auth.gap`` record tells of all of them later."""
        self._gap.add(domain, source, reason, count)

    # --- state, for readiness and metrics ------------------------------------------------------------------

    @property
    def writable(self) -> bool:
        return self._accepting

    @property
    def sequence(self) -> int:
        """Of the last record appended."""
        return self._chain.sequence if self._chain is not None else 0

    @property
    def durable_sequence(self) -> int:
        """Of the last record on disk."""
        return self._durable.sequence

    @property
    def checkpointed_sequence(self) -> int:
        """Of the last record that a checkpoint covers."""
        return self._checkpointer.sequence

    @property
    def failing_heads(self) -> tuple[str, ...]:
        """Names of the heads that did not take the newest checkpoint."""
        return self._checkpointer.failing

    @property
    def backlog(self) -> int:
        """Records that are not on disk yet."""
        return self.sequence - self._durable.sequence

    async def recorded_changes(self, numbers: Iterable[int], *, since: float = 0.0) -> set[int]:
        """Which of these change-log rows this folder's journals hold, or will hold by themselves.

        ``since`` (seconds since 1970) spares reading segments that were last written before it.
        """
        wanted = set(numbers)
        group = self._inflight
        waiting = [*self._retained, *(group.lines if group is not None else ()), *self._lines]
        found = changes_in(waiting, wanted)
        if wanted - found:
            found |= await asyncio.to_thread(find_changes, self.directory, wanted - found, since)
        return found

    # --- beginning, trouble, end ---------------------------------------------------------------------------

    def _open_instance(self) -> Opened:
        """In the thread."""
        public_key = None if self._seed is None else bytes(SigningKey(self._seed).verify_key)

        def remembered(instance: str, folder: Path) -> list[Link]:
            links = newest_checkpoints(folder / CHECKPOINTS, instance, public_key)
            for head in self._heads:
                links += head.remembered(instance, public_key)
            return links

        return open_instance(self.directory, limits=self._limits, remembered=remembered)

    def _instance_opened(self, opened: Opened) -> None:
        self._chain = Chain(opened.instance, opened.link, self._clock)
        self.instance = opened.instance
        self._checkpointed = opened.link.sequence
        self._accepting = True
        cause, self.why = self.why, ""
        tag = Tag.JOURNAL_RESUME if opened.resumed else Tag.JOURNAL_BEGIN
        self.append(AuditEvent(event=tag, detail=opened.detail or None))
        self._writable_again(cause)
        self._callbacks.append(self._set_ready)
        self._dispatch()

    def _refusing(self, error: BaseException) -> None:
        self._unwritable_since = utc(self._clock() / 1e9)

    def _writable_again(self, cause: str) -> None:
        if not self._gap:
            return
        rows = self._gap.take()
        try:
            self.append(gap_event(rows, since=self._unwritable_since, cause=cause))
        except JournalUnavailable:  # the backlog is full already: next time
            for (domain, source, reason), count in rows.items():
                self._gap.add(domain, source, reason, count)

    def _group_written(self, now: float | None) -> None:
        if now is None:
            due = self._durable.sequence - self._checkpointed >= CHECKPOINT_RECORDS
        else:
            due = now >= self._checkpoint_at
        if due:
            self._checkpoint()

    def _checkpoint(self) -> None:
        self._checkpoint_at = time.monotonic() + CHECKPOINT_SECONDS
        if self._held is not None and self._durable.sequence > self._checkpointed:
            self._checkpointed = self._durable.sequence
            self._checkpointer.submit(self._held.folder, self._durable)

    def _retain(self, folder: Path, covered: Link) -> None:
        """In the checkpoints' thread, after each."""
        if self._retention is not None and (gone := self._retention.after_checkpoint(folder, covered)):
            names = [f"{path.parent.name}/{path.name}" for path in gone]
            with contextlib.suppress(RuntimeError):  # the loop may be closed by now
                self._loop.call_soon_threadsafe(self._retired, names)

    def _retired(self, names: list[str]) -> None:
        if self._accepting:
            detail: dict[str, object] = {"segments": names[:100], "count": len(names)}
            with contextlib.suppress(JournalUnavailable):  # the stub tells it too
                self.append(AuditEvent(event=Tag.JOURNAL_RETIRE, detail=detail))

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - a bound on work that goes on in threads
        """Write what is waiting, sign a last checkpoint, let go of the instance. At most ``timeout`` seconds for
        each."""
        if self._closed:
            return
        await self._finish(timeout)
        if self._gap:
            log.error("%d answers of 300 were given and could not be recorded", self._gap.total)
        self._checkpoint()
        await asyncio.to_thread(self._checkpointer.close, timeout)
        await self._release()


class _Silent(Journal):
    """``durability = "off"``: nothing is kept, and nothing can be in the way."""

    _count = 0

    def append(self, event: AuditEvent) -> int:
        self._count += 1
        return self._count

    def append_rendered(self, events: Iterable[tuple[bytes, ...]]) -> None:
        self._count += sum(1 for _ in events)

    @property
    def sequence(self) -> int:
        return self._count

    @property
    def backlog(self) -> int:
        return 0

    def note_gap(self, domain: str | None, source: str, reason: str = "", count: int = 1) -> None:
        pass

    def _tick(self) -> None:
        pass

    async def _begin(self) -> None:
        self._ticker.cancel()
        self._accepting = True
        self.why = ""
