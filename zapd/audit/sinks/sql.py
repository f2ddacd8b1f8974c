"""The SQL copy as the rest of zapd meets it: `SqlSink` keeps the copying process running, `search` asks the copy.

The process is started again when it dies, and ends within a second of `SqlSink.stop`. Its state comes over its
standard output; a database that is away shows there and stops nothing else.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from pathlib import Path

import msgspec

from zapd.audit.sinks.copying import Settings, Status
from zapd.audit.sinks.search import Filters, Wanted, search
from zapd.audit.sinks.table import copy_url, open_copy
from zapd.child import Child, start_child

__all__ = ["Filters", "SqlSink", "Wanted", "copy_url", "open_copy", "search"]

STOP_SECONDS = 0.3
"""For the batch in hand. One that is cut off is copied again."""
LONGEST_DELAY = 30.0

log = logging.getLogger("zapd.audit")


class SqlSink:
    """Copies the journals under ``directory`` into the database at ``url`` by a process of its own.

    ``search_retention`` is how many seconds records stay searchable, 0 for ever.
    """

    def __init__(
        self,
        *,
        url: str,
        base_dir: Path,
        directory: Path,
        search_retention: float = 0.0,
        poll: float = 0.25,
        restart_delay: float = 0.5,
    ) -> None:
        self._settings = Settings(url, str(base_dir), str(directory), search_retention, poll)
        self._restart_delay = restart_delay
        self._process: Child | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._earlier = Status()
        """Of the processes before this one."""
        self.status = Status()
        """The newest that the process said, with the counts of those before it. ``error`` is empty while all is
        well."""
        self.starts = 0
        """How often the process was started."""

    async def start(self) -> None:
        """Start the process and watch it. Returns at once; a database that is away is waited for."""
        self._stopping = False
        self._task = asyncio.create_task(self._supervise(), name="zapd-sql-sink")

    async def stop(self) -> None:
        """End the process, with the batch it has if that is soon written: zapd's own end waits for it."""
        self._stopping = True
        process = self._process
        if process is not None:
            process.end_input()
            try:
                await asyncio.wait_for(process.wait(), STOP_SECONDS)
            except TimeoutError:
                await process.end()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def running(self) -> bool:
        """Whether there is a process now."""
        return self._process is not None and self._process.returncode is None

    @property
    def healthy(self) -> bool:
        """Whether it runs, reaches its database, and found no record that was changed."""
        return self.running and not self.status.error and not self.status.conflicts

    @property
    def lag(self) -> int:
        """Records that SQL does not hold yet, as of the newest status."""
        return self.status.lag

    @property
    def lag_seconds(self) -> float:
        """Since when SQL has not held all; 0 when it does."""
        return self.status.lag_seconds

    async def _supervise(self) -> None:
        delay = self._restart_delay
        while not self._ended():
            began = asyncio.get_running_loop().time()
            try:
                await self._run()
            except OSError as error:
                self.status = msgspec.structs.replace(self.status, error=f"it cannot be started: {error}")
            if asyncio.get_running_loop().time() - began > 10 * LONGEST_DELAY:
                delay = self._restart_delay
            if self._ended():
                return
            log.warning("the process that copies the journal into SQL ended; it is started again in %g s", delay)
            self.status = msgspec.structs.replace(self.status, error=self.status.error or "the process ended")
            await asyncio.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    def _ended(self) -> bool:
        return self._stopping

    async def _run(self) -> None:
        process = await start_child(sys.executable, "-P", "-m", "zapd.audit.sinks.copying")
        self._process = process
        self._earlier = self.status
        self.starts += 1
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                process.stdin.write(msgspec.json.encode(self._settings) + b"\n")
                await process.stdin.drain()
            if self._stopping:
                process.end_input()
            while line := await process.stdout.readline():
                self._take(line)
            await process.wait()
        finally:
            await process.end()

    def _take(self, line: bytes) -> None:
        try:
            status = msgspec.json.decode(line, type=Status)
        except msgspec.DecodeError:
            return
        for name in ("copied", "conflicts", "missed", "unreadable"):
            setattr(status, name, getattr(status, name) + getattr(self._earlier, name))
        if status.conflicts > self.status.conflicts:
            log.error("%d records in SQL differ from the journal: somebody changed the past", status.conflicts)
        if status.error and status.error != self.status.error:
            log.warning("the journal's copy in SQL waits: %s", status.error)
        elif self.status.error and not status.error:
            log.info("the journal's copy in SQL goes on")
        self.status = status
