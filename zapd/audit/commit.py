"""Group commit: lines collect while the thread writes and syncs those before, and what happens when it cannot.

Three states. *Accepting*: lines join the open group; one group at a time is in the thread's hands; whoever waits
for a group is told when it is on disk. *Refusing*: a group failed or the disk does not answer; everybody who
waits hears no, nothing is accepted, the lines that were taken are kept, and each ``retry_interval`` the thread
tries to go on in a new segment with them. *Closed*. Lines keep their order and are given to the disk once more
only after what the disk may have of them was cut.

Knows lines and who waits for them, not what they say: that is `journal`'s.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zapd.audit.chain import Chain, Link
from zapd.audit.instance import Opened
from zapd.audit.writer import Held, Worker

ENOUGH = 1024 * 1024
"""Octets of an open group that need not wait for more: measured, a larger group saves nothing, a smaller costs."""
MOST_RECORDS, MOST_OCTETS = 131_072, 64 * 1024 * 1024
"""What may wait while a group is written: at 200,000 records a second a disk may take half a second over it."""
SHORTEST = 160
"""Octets that every line has at least, so that the octets of a group bound its records too."""

log = logging.getLogger("zapd.audit")


class Full(Exception):
    """The backlog is at its bound."""


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast, how much, how long."""

    strict: bool = True
    """Whoever waits is told after the sync, not at once."""
    flush_interval: float = 0.1
    """Seconds a line may wait where it need not be synced at once."""
    max_records: int = MOST_RECORDS
    max_octets: int = MOST_OCTETS
    """Bounds of what waits while a group is written; the group itself may be as much again."""
    retry_interval: float = 1.0
    """Seconds between two tries to get out of trouble."""
    stall_timeout: float = 5.0
    """Seconds without an answer after which the disk counts as away."""


class _Group:
    """Lines on their way to the disk, and who waits for them."""

    __slots__ = ("callbacks", "lines", "link", "since")

    def __init__(self, lines: list[bytes], callbacks: list[Callable[[bool], None]], link: Link) -> None:
        self.lines = lines
        self.callbacks = callbacks
        self.link = link
        self.since = time.monotonic()


class GroupCommit:
    """The engine of `Journal`; all of it runs on the event loop's thread."""

    def __init__(self, pace: Pace) -> None:
        self.why = "the journal is being opened"
        """Why nothing can be recorded, while `writable` is false."""
        self._pace = pace
        self._strict = pace.strict
        self._enough = min(pace.max_octets, SHORTEST * pace.max_records, ENOUGH)
        self._loop = asyncio.get_running_loop()
        self._accepting = False
        self._closed = False
        self._chain: Chain | None = None
        self._held: Held | None = None
        self._durable = Link(0, b"")
        # The open group, each entry one line or several, and whether something will take it: a timer, or the end
        # of the group before.
        self._lines: list[bytes] = []
        self._octets = 0
        self._callbacks: list[Callable[[bool], None]] = []
        self._scheduled = False
        self._timer: asyncio.Handle | None = None
        # The group in the thread's hands, and after a failure the lines that are not on disk.
        self._inflight: _Group | None = None
        self._retained: list[bytes] = []
        self._trying = False
        self._retry_at = 0.0
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._idle: asyncio.Future[None] | None = None
        self._worker = Worker(self._loop)
        self._ticker = self._loop.call_later(min(0.5, pace.retry_interval), self._tick)

    # --- what a journal adds -------------------------------------------------------------------------------

    def _open_instance(self) -> Opened:
        """Find or begin an instance. In the thread; raises `OSError`."""
        raise NotImplementedError

    def _instance_opened(self, opened: Opened) -> None:
        """An instance is held, and lines are accepted."""
        raise NotImplementedError

    def _refusing(self, error: BaseException) -> None:
        """Lines are no longer accepted."""
        raise NotImplementedError

    def _writable_again(self, cause: str) -> None:
        """Lines are accepted again."""
        raise NotImplementedError

    def _group_written(self, now: float | None) -> None:
        """More is on disk, or, with a time, half a second went by."""
        raise NotImplementedError

    # --- waiting -------------------------------------------------------------------------------------------

    @property
    def at_once(self) -> bool:
        """What was appended is as durable as the setting asks: there is nothing to wait for."""
        return self._accepting and not self._strict

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

    # --- groups --------------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        """Make sure that the open group is dispatched; called by the first line that finds nothing under way."""
        self._scheduled = True
        if self._inflight is None:
            if self._strict:
                # Not at once: whatever else this turn of the loop decides shares the sync.
                self._timer = self._loop.call_soon(self._dispatch)
            else:
                self._timer = self._loop.call_later(self._pace.flush_interval, self._dispatch)

    def _dispatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()  # whoever is quicker than it
            self._timer = None
        if self._inflight is not None or self._held is None or self._chain is None:
            return
        if self._trying or self._retained:  # first what is owed
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
            self._retry_at = time.monotonic() + self._pace.retry_interval
            self._tell_idle()
            return
        self._durable = group.link
        self._scheduled = False
        if self._lines:
            self._scheduled = True
            if self._strict or self._closed:
                self._dispatch()
            else:
                self._timer = self._loop.call_later(self._pace.flush_interval, self._dispatch)
        _tell(group.callbacks, True)
        if not self._accepting and not self._closed:  # it had been given up as stuck
            self._resume()
        self._group_written(None)
        self._tell_idle()

    def _make_room(self) -> None:
        """The open group is long: send it if the thread is free, refuse at the bound of the backlog."""
        if self._inflight is None:
            if self._timer is not None:
                self._timer.cancel()
            self._dispatch()
        elif self._octets >= self._pace.max_octets or self._waiting(self._inflight) >= self._pace.max_records:
            raise Full

    def _waiting(self, group: _Group) -> int:
        """Records behind a group."""
        return 0 if self._chain is None else self._chain.sequence - group.link.sequence

    # --- trouble and its end -------------------------------------------------------------------------------

    def _refuse(self, error: BaseException, waiting: list[Callable[[bool], None]]) -> None:
        if self._accepting:
            self._refusing(error)
            log.error("the journal cannot be written, decisions become 300 until it can: %s", error)
        self._accepting = False
        self.why = f"the journal cannot be written: {error}"
        if not isinstance(error, OSError):
            log.error("a mistake of ours in the journal", exc_info=error)
        _tell(waiting, False)

    def _resume(self) -> None:
        """Out of trouble."""
        self._accepting = True
        cause, self.why = self.why, ""
        log.warning("the journal can be written again")
        self._writable_again(cause)

    def _tick(self) -> None:
        """Twice a second: stuck disks, retries, a file that vanished while nothing was written, checkpoints."""
        self._ticker = self._loop.call_later(min(0.5, self._pace.retry_interval), self._tick)
        now = time.monotonic()
        group = self._inflight
        if self._accepting and group is not None and now - group.since > self._pace.stall_timeout:
            waiting = group.callbacks + self._callbacks
            group.callbacks, self._callbacks = [], []
            self._refuse(
                TimeoutError(f"the disk has not answered for {self._pace.stall_timeout:g} seconds"), waiting
            )
        if not self._accepting and group is None and not self._trying and now >= self._retry_at:
            self._try_again()
        elif self._accepting and not self._scheduled:
            self._dispatch()  # an empty group: is the file still ours?
        self._group_written(now)

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
            self._retry_at = time.monotonic() + self._pace.retry_interval
        elif self._chain is not None:
            self._retained = []
            self._durable = self._chain.link
            if not self._closed:
                self._resume()
        self._tell_idle()

    async def _begin(self) -> None:
        """Open an instance, and wait until its first record is on disk or the first try failed."""
        self._try_again()
        # A disk that hangs is left to itself after a while; the thread's answer is taken whenever it comes.
        await asyncio.wait((self._ready,), timeout=self._pace.stall_timeout)

    def _set_ready(self, _: bool) -> None:
        if not self._ready.done():
            self._ready.set_result(None)

    def _opened(self, opened: Opened | None, error: BaseException | None) -> None:
        self._trying = False
        if opened is None:
            self._refuse(error or OSError("unknown"), [])
            self._retry_at = time.monotonic() + self._pace.retry_interval
            self._set_ready(False)
        else:
            self._held = Held(opened)
            self._durable = opened.link
            if not self._closed:
                self._instance_opened(opened)
        self._tell_idle()

    async def _finish(self, timeout: float) -> None:  # noqa: ASYNC109 - a bound on work that goes on in a thread
        """Accept nothing more, and write what is waiting."""
        self._ticker.cancel()
        self._closed = True
        self._accepting = False
        self.why = "the journal is closed"
        self._idle = self._loop.create_future()
        if self._timer is not None:
            self._timer.cancel()
        if self._inflight is None and self._lines:
            self._dispatch()
        elif self._retained and not self._trying:
            self._try_again()
        self._tell_idle()
        try:
            await asyncio.wait_for(self._idle, timeout)
        except TimeoutError:
            log.error("the journal could not be finished within %g seconds", timeout)
        if self._inflight is not None:
            _tell(self._inflight.callbacks, False)
        _tell(self._callbacks, False)
        if self._retained:
            log.error("%d records could not be written before the end", len(self._retained))

    async def _release(self) -> None:
        """Let go of the instance and of the thread."""
        if self._held is not None and self._inflight is None and not self._trying:
            released: asyncio.Future[None] = self._loop.create_future()
            self._worker.submit(self._held.release, done=lambda *_: released.set_result(None))
            await released
        self._worker.stop()

    def _tell_idle(self) -> None:
        waiting = self._idle
        if waiting is not None and not waiting.done() and self._inflight is None and not self._trying:
            waiting.set_result(None)


def _tell(callbacks: list[Callable[[bool], None]], good: bool) -> None:
    for callback in callbacks:
        try:
            callback(good)
        except Exception:  # one listener's mistake must not keep the others waiting
            log.exception("a mistake of ours after a record was written")
