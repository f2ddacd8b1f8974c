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
from typing import Any, Literal

from nacl.signing import SigningKey

from zapd.audit.chain import Chain, Link
from zapd.audit.changes import changes_in, find_changes
from zapd.audit.checkpoint import CHECKPOINTS, Checkpointer, Head, newest_checkpoints, utc
from zapd.audit.event import AuditEvent, Tag
from zapd.audit.gaps import Counts, gap_event
from zapd.audit.instance import Limits, Opened, open_instance
from zapd.audit.retention import Retention
from zapd.audit.writer import Held, Worker
from zapd.errors import Unavailable

Durability = Literal["strict", "relaxed", "off"]

CHECKPOINT_RECORDS = 10_000
CHECKPOINT_SECONDS = 60.0
GAP_ROWS = 256
ENOUGH = 128 * 1024
"""Octets of an open group that need not wait for more: longer ones only leave the processor's cache."""

log = logging.getLogger("zapd.audit")


class JournalUnavailable(Unavailable):
    """Nothing can be recorded now: what asked for it must be answered 300 (503 for an admin's change)."""


class _Group:
    """Lines on their way to the disk, and who waits for them."""

    __slots__ = ("callbacks", "lines", "link", "since")

    def __init__(self, lines: list[bytes], callbacks: list[Callable[[bool], None]], link: Link) -> None:
        self.lines = lines
        self.callbacks = callbacks
        self.link = link
        self.since = time.monotonic()


class Journal:
    """One instance's record. All methods are for the event loop's thread; writing and fsync happen in a helper
    thread, a group at a time. Made by `Journal.open`."""

    def __init__(
        self,
        directory: Path,
        *,
        durability: Durability,
        flush_interval: float,
        signing_key: bytes | None,
        heads: Sequence[Head],
        limits: Limits,
        retention: Retention | None,
        max_backlog: tuple[int, int],
        retry_interval: float,
        stall_timeout: float,
        clock: Callable[[], int],
    ) -> None:
        self.directory = directory
        self.durability = durability
        self.instance = ""
        """Empty until an instance could be opened."""
        self.why = "the journal is being opened"
        """Why nothing can be recorded, while `writable` is false."""
        self._strict = durability == "strict"
        self._flush_interval = flush_interval
        self._seed = signing_key
        self._heads = tuple(heads)
        self._limits = limits
        self._max_records, self._max_octets = max_backlog
        self._enough = min(self._max_octets, ENOUGH)
        self._retry_interval = retry_interval
        self._stall_timeout = stall_timeout
        self._clock = clock
        self._loop = asyncio.get_running_loop()

        self._accepting = False
        self._chain: Chain | None = None
        self._lines: list[bytes] = []
        self._octets = 0
        self._callbacks: list[Callable[[bool], None]] = []
        self._scheduled = False
        self._inflight: _Group | None = None
        self._timer: asyncio.Handle | None = None

        self._held: Held | None = None
        self._durable = Link(0, b"")
        self._retained: list[bytes] = []
        self._trying = False
        self._retry_at = 0.0
        self._unwritable_since = self._now()
        self._gap = Counts(GAP_ROWS)
        self._closed = False
        self._ready: asyncio.Future[None] | None = None
        self._waiting_close: asyncio.Future[None] | None = None

        self._retention = retention
        self._checkpointed = 0
        self._checkpoint_at = time.monotonic() + CHECKPOINT_SECONDS
        self._worker = Worker(self._loop)
        self._checkpointer = Checkpointer(
            seed=signing_key,
            heads=heads,
            clock=lambda: clock() / 1e9,
            after=self._retain if retention is not None else None,
        )
        self._checkpointer.start()
        self._ticker = self._loop.call_later(min(0.5, retry_interval), self._tick)

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
        max_backlog: tuple[int, int] = (65_536, 32 * 1024 * 1024),
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
            flush_interval=flush_interval,
            signing_key=signing_key,
            heads=heads,
            limits=limits or Limits(),
            retention=retention,
            max_backlog=max_backlog,
            retry_interval=retry_interval,
            stall_timeout=stall_timeout,
            clock=clock,
        )
        await journal._begin()
        return journal

    # --- recording: the hot road ---------------------------------------------------------------------------

    def append(self, event: AuditEvent) -> int:
        """Chain one event into the open group and return its sequence number.

        Raises `JournalUnavailable` at once while the journal cannot be written, or its backlog is at its bound.
        """
        if not self._accepting:
            raise JournalUnavailable(self.why)
        if self._octets >= self._enough:
            self._make_room()
        chain = self._chain
        line = chain.line(event)  # type: ignore[union-attr]  # there is one while we accept
        self._lines.append(line)
        self._octets += len(line)
        if not self._scheduled:
            self._schedule()
        return chain.sequence  # type: ignore[union-attr]

    def when_durable(self, callback: Callable[[bool], None]) -> None:
        """Call ``callback(True)`` on the loop once everything appended so far is as durable as the setting asks
        (``strict``: fsynced; ``relaxed`` and ``off``: at once, before this returns), ``callback(False)`` when
        that failed."""
        if not self._strict or not self._accepting:
            callback(self._accepting)
        elif self._lines:
            self._callbacks.append(callback)
        elif self._inflight is not None:
            self._inflight.callbacks.append(callback)
        else:
            callback(True)

    async def durable(self) -> None:
        """Await `when_durable`; raises `JournalUnavailable` when it failed."""
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

    # --- groups --------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Make sure that the open group is dispatched; called by the first line that finds nothing under way."""
        self._scheduled = True
        if self._inflight is None:
            if self._strict:
                # Not at once: whatever else this turn of the loop decides shares the sync.
                self._timer = self._loop.call_soon(self._dispatch)
            else:
                self._timer = self._loop.call_later(self._flush_interval, self._dispatch)

    def _dispatch(self) -> None:
        self._timer = None
        if self._inflight is not None or self._held is None or self._chain is None or self._trying:
            return
        group = _Group(self._lines, self._callbacks, self._chain.link)
        self._lines, self._callbacks, self._octets = [], [], 0
        self._inflight = group
        self._scheduled = True
        self._worker.submit(self._held.write, group.lines, done=self._written)

    def _written(self, _: Any, error: BaseException | None) -> None:
        group = self._inflight
        if group is None:  # cannot be: one group at a time
            return
        self._inflight = None
        if error is not None:
            self._retained = group.lines + self._lines
            self._lines, self._octets = [], 0
            self._callbacks, waiting = [], group.callbacks + self._callbacks
            self._scheduled = False
            if self._timer is not None:
                self._timer.cancel()
            self._refuse(error, waiting)
            self._retry_at = time.monotonic() + self._retry_interval
            self._finish_close()
            return
        self._durable = group.link
        self._scheduled = False
        if self._lines:
            self._scheduled = True
            if self._strict or self._closed:
                self._dispatch()
            else:
                self._timer = self._loop.call_later(self._flush_interval, self._dispatch)
        _tell(group.callbacks, True)
        if not self._accepting and not self._closed:  # it had been given up as stuck
            self._resume()
        if self._durable.sequence - self._checkpointed >= CHECKPOINT_RECORDS:
            self._checkpoint()
        self._finish_close()

    def _make_room(self) -> None:
        """The open group is long: send it if the thread is free, refuse at the bound of the backlog."""
        if self._inflight is None:
            if self._timer is not None:
                self._timer.cancel()
            self._dispatch()
        elif self._octets >= self._max_octets or len(self._lines) >= self._max_records:
            raise JournalUnavailable(
                "the journal's backlog is at its bound: the disk is too slow for what is asked"
            )

    # --- trouble and its end -------------------------------------------------------------------------------

    def _refuse(self, error: BaseException, waiting: list[Callable[[bool], None]]) -> None:
        if self._accepting:
            self._unwritable_since = self._now()
            log.error("the journal cannot be written, decisions become 300 until it can: %s", error)
        self._accepting = False
        self.why = f"the journal cannot be written: {error}"
        if not isinstance(error, OSError):
            log.error("a mistake of ours in the journal", exc_info=error)
        _tell(waiting, False)

    def _resume(self) -> None:
        """Writable again: say what was answered meanwhile."""
        self._accepting = True
        cause, self.why = self.why, ""
        log.warning("the journal can be written again")
        self._note_gap_given(cause)

    def _note_gap_given(self, cause: str) -> None:
        if self._gap:
            self.append(gap_event(self._gap.take(), since=self._unwritable_since, cause=cause))

    def _tick(self) -> None:
        """Twice a second: stuck disks, retries, a file that vanished while nothing was written, checkpoints."""
        self._ticker = self._loop.call_later(min(0.5, self._retry_interval), self._tick)
        now = time.monotonic()
        group = self._inflight
        if self._accepting and group is not None and now - group.since > self._stall_timeout:
            waiting = group.callbacks + self._callbacks
            group.callbacks, self._callbacks = [], []
            self._refuse(TimeoutError(f"the disk has not answered for {self._stall_timeout:g} seconds"), waiting)
        if not self._accepting and group is None and not self._trying and now >= self._retry_at:
            self._try_again()
        elif self._accepting and not self._scheduled:
            self._dispatch()  # an empty group: is the file still ours?
        if now >= self._checkpoint_at:
            self._checkpoint()

    def _try_again(self) -> None:
        self._trying = True
        if self._held is None:
            self._worker.submit(self._open_instance, done=self._opened)
        else:
            self._worker.submit(self._held.recover, self._retained, done=self._recovered)

    def _recovered(self, _: Any, error: BaseException | None) -> None:
        self._trying = False
        if error is not None:
            self._refuse(error, [])
            self._retry_at = time.monotonic() + self._retry_interval
        elif self._chain is not None:
            self._retained = []
            self._durable = self._chain.link
            if not self._closed:
                self._resume()
        self._finish_close()

    # --- beginning and end ---------------------------------------------------------------------------------

    async def _begin(self) -> None:
        self._ready = self._loop.create_future()
        self._try_again()
        # A disk that hangs is left to itself after a while; the thread's answer is taken whenever it comes.
        await asyncio.wait((self._ready,), timeout=self._stall_timeout)

    def _set_ready(self, _: bool) -> None:
        if self._ready is not None and not self._ready.done():
            self._ready.set_result(None)

    def _open_instance(self) -> Opened:
        """In the thread."""
        public_key = None if self._seed is None else bytes(SigningKey(self._seed).verify_key)

        def remembered(instance: str, folder: Path) -> list[Link]:
            links = newest_checkpoints(folder / CHECKPOINTS, instance, public_key)
            for head in self._heads:
                links += head.remembered(instance, public_key)
            return links

        return open_instance(self.directory, limits=self._limits, remembered=remembered)

    def _opened(self, opened: Opened | None, error: BaseException | None) -> None:
        self._trying = False
        if opened is None:
            self._refuse(error or OSError("unknown"), [])
            self._retry_at = time.monotonic() + self._retry_interval
            self._set_ready(False)
            self._finish_close()
            return
        self._held = Held(opened)
        self._chain = Chain(opened.instance, opened.link, self._clock)
        self.instance = opened.instance
        self._durable = opened.link
        self._checkpointed = opened.link.sequence
        if self._closed:
            self._finish_close()
            return
        self._accepting = True
        cause, self.why = self.why, ""
        tag = Tag.JOURNAL_RESUME if opened.resumed else Tag.JOURNAL_BEGIN
        self.append(AuditEvent(event=tag, detail=opened.detail or None))
        self._note_gap_given(cause)
        self._callbacks.append(self._set_ready)
        self._dispatch()

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
            self.append(AuditEvent(event=Tag.JOURNAL_RETIRE, detail=detail))

    async def close(self, timeout: float = 5.0) -> None:  # noqa: ASYNC109 - a bound on work that goes on in threads
        """Write what is waiting, sign a last checkpoint, let go of the instance. At most ``timeout`` seconds."""
        if self._closed:
            return
        self._ticker.cancel()
        self._closed = True
        self._accepting = False
        self.why = "the journal is closed"
        self._waiting_close = self._loop.create_future()
        if self._timer is not None:
            self._timer.cancel()
        if self._inflight is None and self._lines:
            self._dispatch()
        elif self._retained and not self._trying:
            self._try_again()
        self._finish_close()
        try:
            await asyncio.wait_for(self._waiting_close, timeout)
        except TimeoutError:
            log.error("the journal could not be finished within %g seconds", timeout)
        _tell(self._callbacks, False)
        if self._gap:
            log.error("%d answers of 300 were given and could not be recorded", self._gap.total)
        self._checkpoint()
        await asyncio.to_thread(self._checkpointer.close, timeout)
        if self._held is not None and self._inflight is None and not self._trying:
            released: asyncio.Future[None] = self._loop.create_future()
            self._worker.submit(self._held.release, done=lambda *_: released.set_result(None))
            await released
        self._worker.stop()

    def _finish_close(self) -> None:
        waiting = self._waiting_close
        if waiting is not None and not waiting.done() and self._inflight is None and not self._trying:
            waiting.set_result(None)

    def _now(self) -> str:
        return utc(self._clock() / 1e9)


class _Silent(Journal):
    """``durability = "off"``: nothing is kept, and nothing can be in the way."""

    _count = 0

    def append(self, event: AuditEvent) -> int:
        self._count += 1
        return self._count

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


def _tell(callbacks: list[Callable[[bool], None]], good: bool) -> None:
    for callback in callbacks:
        try:
            callback(good)
        except Exception:  # one listener's mistake must not keep the others waiting
            log.exception("a mistake of ours after a record was written")
