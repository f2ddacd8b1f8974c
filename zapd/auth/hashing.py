"""Password hashes: bounded work off the event loop.

A hash is dear on purpose, so strangers must not be able to order many (limits.md R17): as many workers as cores, a
bounded number waiting, one at a time for an (address, name), and beyond that `HashPoolFull`, which is answered
300. Which kinds there are and what they cost is in `zapd.auth.hash_kinds`.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from zapd.auth import hash_kinds

T = TypeVar("T")


class HashPoolFull(Exception):
    """As many hashes wait as may wait, or this (address, name) has one at work: answer 300."""


class HashPool:
    """As many workers as cores, 64 waiting, one at a time for an (address, name).

    It belongs to no event loop. A caller that gives up leaves the queue at once; work that has begun goes on to
    its end, and keeps its slot until then.
    """

    def __init__(self, workers: int | None = None, waiting: int = 64) -> None:
        workers = workers or _cores()
        self._room = workers + waiting
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix="zapd-hash")
        self._decoy = hash_kinds.decoy()
        self._lock = threading.Lock()
        self._slots: set[tuple[str, str]] = set()
        self._open = 0
        self._closed = False
        self.dearest = hash_kinds.cost_of(self._decoy).seconds
        """What the dearest hash known to be in use costs, in seconds: no refusal may leave sooner."""
        self.refused = 0
        """How often there was no room."""

    async def verify(self, stored: str | None, password: bytes, *, slot: tuple[str, str]) -> bool:
        """Whether ``password`` fits the ``stored`` hash.

        ``None`` does the work of a current hash and says False, so that an unknown name costs what a wrong
        password costs. ``slot`` is (address, name). Raises `HashPoolFull`, and `zapd.errors.InvalidInput` for a
        hash that `check_hash` would not take.
        """
        chosen = self._decoy if stored is None else stored
        self.note(chosen)
        verify = hash_kinds.kind_of(chosen).verify
        # C libraries stop reading at NUL: "right\0wrong" must not pass for "right". It costs what others cost.
        usable = b"\0" not in password
        fits = await self._run(lambda: verify(chosen, password if usable else b""), slot)
        return fits and usable and stored is not None

    async def hash(self, password: bytes) -> str:
        """A new argon2id hash with the current parameters. Raises `HashPoolFull`."""
        return await self._run(lambda: hash_kinds.new_hash(password), None)

    def note(self, stored: str) -> None:
        """Tell that this hash is in use. Raises `zapd.errors.InvalidInput` as `check_hash` does."""
        self.dearest = max(self.dearest, hash_kinds.cost_of(stored).seconds)

    @property
    def waiting(self) -> int:
        """Hashes at work or waiting now."""
        return self._open

    async def aclose(self) -> None:
        """Drop what waits, and let what is at work finish (a quarter of a second at most)."""
        self._closed = True
        await asyncio.to_thread(self._executor.shutdown, wait=True, cancel_futures=True)

    async def _run(self, work: Callable[[], T], slot: tuple[str, str] | None) -> T:
        with self._lock:
            if self._closed or self._open >= self._room or slot in self._slots:
                self.refused += 1
                raise HashPoolFull
            self._open += 1
            if slot is not None:
                self._slots.add(slot)

        def release(_: Future[T]) -> None:
            # In the worker's thread, or in the caller's when it gave up while waiting.
            with self._lock:
                self._open -= 1
                if slot is not None:
                    self._slots.discard(slot)

        try:
            job = self._executor.submit(work)
        except RuntimeError:  # closed between the question above and here
            release(Future())
            raise HashPoolFull from None
        job.add_done_callback(release)
        return await asyncio.wrap_future(job)


def check_hash(stored: str) -> None:
    """Raise `zapd.errors.InvalidInput` for a hash that is unreadable, of an unknown kind, or too dear (over 250 ms
    or 64 MiB). The message says which, and never quotes the hash."""
    hash_kinds.cost_of(stored)


def _cores() -> int:
    """Those that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
