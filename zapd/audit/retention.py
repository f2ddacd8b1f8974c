"""How old segments go: by age and by size, oldest first, never the newest, never without a signed stub.

Only closed segments go whose every record a checkpoint covers. First the stub is written, naming the last record
that goes and its hash, so that the rest still verifies; then the files are removed. Runs in the thread of the
checkpoints.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from nacl.signing import SigningKey

from zapd.audit.chain import BadLine, Link, head_of, split
from zapd.audit.checkpoint import CHECKPOINTS, newest_checkpoints, read_checkpoints, utc
from zapd.audit.instance import last_line, list_instances, take_lock
from zapd.audit.segment import list_segments, sync_folder, write_atomically
from zapd.audit.signing import sign
from zapd.audit.stub import STUB, stub_members

WARN_AT = 0.8

log = logging.getLogger("zapd.audit")


class Retention:
    """Keeps a journal's folder within ``max_size`` octets and ``max_age`` seconds; 0 means no such bound."""

    def __init__(
        self,
        directory: Path,
        *,
        max_size: int = 0,
        max_age: float = 0.0,
        seed: bytes | None = None,
        interval: float = 600.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._directory = directory
        self._max_size = max_size
        self._max_age = max_age
        self._seed = seed
        self._public_key = None if seed is None else bytes(SigningKey(seed).verify_key)
        self._interval = interval
        self._clock = clock
        self._next = 0.0
        self.used = 0
        """Octets of all segments, when last looked."""
        self.retired = 0
        """Segments removed by this process."""

    @property
    def nearly_full(self) -> bool:
        """At 80 % of ``max_size`` and above."""
        return bool(self._max_size) and self.used >= WARN_AT * self._max_size

    def after_checkpoint(self, folder: Path, covered: Link) -> list[Path]:
        """Called after each checkpoint of the running instance: `enforce`, but only each ``interval`` seconds."""
        now = time.monotonic()
        if now < self._next:
            return []
        self._next = now + self._interval
        return self.enforce({folder.name: covered.sequence})

    def enforce(self, running: dict[str, int]) -> list[Path]:
        """Remove what is too old or too much; the files that went. ``running`` are the instances this process
        holds, each with the last sequence that a checkpoint covers."""
        candidates: list[tuple[float, int, Path, int]] = []  # (written, number, path, size), oldest first
        self.used = 0
        for folder in list_instances(self._directory):
            segments = list_segments(folder)
            for number, path in segments:
                found = path.stat()
                self.used += found.st_size
                if path != segments[-1][1]:
                    candidates.append((found.st_mtime, number, path, found.st_size))
        if self.nearly_full:
            log.warning("the journal uses %d of its %d octets", self.used, self._max_size)
        too_old = self._clock() - self._max_age if self._max_age else float("-inf")
        going: dict[Path, int] = {}  # folder to the first segment number kept
        kept: set[Path] = set()
        left = self.used
        for written, number, path, size in sorted(candidates):
            if path.parent in kept or not (written < too_old or (self._max_size and left > self._max_size)):
                kept.add(path.parent)  # segments go in order
                continue
            going[path.parent] = number + 1
            left -= size
        removed: list[Path] = []
        for folder, first in going.items():
            reason = "size" if self._max_size and self.used > self._max_size else "age"
            removed += self._retire(folder, first, running.get(folder.name), reason)
        self.retired += len(removed)
        return removed

    def _retire(self, folder: Path, first: int, covered: int | None, reason: str) -> list[Path]:
        if covered is not None:
            return self._remove(folder, first, covered, reason)
        lock = take_lock(folder)
        if lock is None:
            return []  # another worker's: it looks after its own
        try:
            newest = newest_checkpoints(folder / CHECKPOINTS, folder.name, self._public_key)
            return self._remove(folder, first, newest[0].sequence if newest else 0, reason)
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)
            os.close(lock)

    def _remove(self, folder: Path, first: int, covered: int, reason: str) -> list[Path]:
        going: list[Path] = []
        last: Link | None = None
        kept = first
        for number, path in list_segments(folder):
            if number >= first:
                break
            line = last_line(path)
            if line is not None:
                try:
                    link = Link(head_of(line).sequence, split(line)[1])
                except BadLine:
                    log.warning("%s ends badly and is kept for verify", path)
                    kept = number
                    break
                if link.sequence > covered:
                    kept = number
                    break
                last = link
            going.append(path)
        if not going or last is None:
            return []
        stub = stub_members(folder.name, last, kept, utc(self._clock()), reason)
        write_atomically(folder / STUB, sign(stub, self._seed))
        for path in going:
            path.unlink()
        sync_folder(folder)
        self._shorten_checkpoints(folder, last.sequence)
        log.info("%d old segments of the journal went; the stub names record %d", len(going), last.sequence)
        return going

    @staticmethod
    def _shorten_checkpoints(folder: Path, through: int) -> None:
        """Checkpoints of records that are gone tell nothing any more."""
        path = folder / CHECKPOINTS
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_size > 1_000_000:
                lines = [found.line for found in read_checkpoints(path) if found.link.sequence >= through]
                write_atomically(path, b"".join(line + b"\n" for line in lines))
