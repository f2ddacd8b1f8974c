"""The journal's helper thread: blocking work in order, one job at a time, results back on the event loop.

Knows nothing of records. It exists instead of a thread pool because a job and its answer cost a third of it.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import queue
import threading
from collections.abc import Callable
from typing import Any

from zapd.audit.instance import LOCK, Opened, take_lock

Job = tuple[Callable[..., Any], tuple[Any, ...], Callable[[Any, BaseException | None], None]]


class Worker:
    """One thread. ``done(result, error)`` of each job runs on the loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="zapd-journal", daemon=True)
        self._thread.start()

    def submit(
        self, work: Callable[..., Any], *arguments: Any, done: Callable[[Any, BaseException | None], None]
    ) -> None:
        self._jobs.put((work, arguments, done))

    def stop(self) -> None:
        """End the thread after the jobs it has. Does not wait."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            work, arguments, done = job
            result, error = None, None
            try:
                result = work(*arguments)
            except BaseException as caught:  # noqa: BLE001 - it is handed to the journal, which fails closed
                error = caught
            try:
                self._loop.call_soon_threadsafe(done, result, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return


class Held:
    """A held instance as the thread sees it: groups go in, and after a failure it is recovered."""

    def __init__(self, opened: Opened) -> None:
        self._segments = opened.segments
        self._lock = opened.lock
        self.folder = opened.segments.folder

    def write(self, lines: list[bytes]) -> None:
        """Append a group, durably. An empty one only looks whether the file is still there."""
        self._segments.append(b"".join(lines))

    def recover(self, lines: list[bytes]) -> None:
        """Go on in a new segment, beginning with the lines that were not durable before the failure."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._keep_lock()
        self._segments.recover(b"".join(lines))

    def release(self) -> None:
        """Close the files and let go of the instance."""
        self._segments.close()
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        os.close(self._lock)

    def _keep_lock(self) -> None:
        """A lock on a file that was removed holds nothing: take the one that is there now."""
        try:
            there = (self.folder / LOCK).stat()
            mine = os.fstat(self._lock)
            if (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino):
                return
        except FileNotFoundError:
            pass
        lock = take_lock(self.folder)
        if lock is None:
            raise OSError(f"{self.folder} is held by another process")
        os.close(self._lock)
        self._lock = lock
