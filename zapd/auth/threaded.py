"""For libraries that block: their questions are asked in threads, few enough and with a deadline.

A thread cannot be stopped from outside. So one that hangs past its deadline keeps its place until it returns by
itself, and when all places are taken questions are answered `BackendBusy` at once: hung threads never grow beyond
the bound, and nothing waits for them for long, neither a question nor the end of the process (they are daemons,
which the standard executor's are not). What is asked in them is not known here.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from functools import partial
from time import monotonic
from typing import Any, ClassVar, Final, Protocol, Self, TypeVar

import structlog

from zapd.auth.backend import BackendBusy, BackendContext, Question, Verdict
from zapd.errors import Unavailable

log = structlog.get_logger(__name__)

T = TypeVar("T")

THREADS: Final = 8
WAITING: Final = 64
DEADLINE: Final = 5.0
"""Seconds. zapd's own deadline for a backend is normally shorter, and then it is the one that counts."""
CLOSING: Final = 1.0
"""Seconds that closing waits for work under way, and again for the backend's own ``close``."""


class Threads:
    """At most ``threads`` pieces of work at a time and ``waiting`` behind them."""

    def __init__(self, name: str, threads: int = THREADS, waiting: int = WAITING) -> None:
        """``name`` is part of the threads' names. They are started when they are needed."""
        if threads < 1 or waiting < 0:
            raise ValueError("at least one thread, and no fewer than none waiting")
        self._name = name
        self._threads = threads
        self._waiting = waiting
        self._queue: deque[tuple[Callable[[], object], Future[Any]]] = deque()
        self._changed = threading.Condition()
        self._started = 0
        self._idle = 0
        self._closed = False

    @property
    def at_work(self) -> int:
        """Threads that work now, hung ones among them."""
        with self._changed:
            return self._started - self._idle

    async def run(self, work: Callable[[], T], deadline: float = DEADLINE) -> T:
        """What ``work`` returns or raises, within ``deadline`` seconds.

        Raises `BackendBusy` at once when there is no room, and `Unavailable` at the deadline. Whoever gives up
        leaves the queue; work that has begun goes on and keeps its thread.
        """
        job: Future[T] = Future()
        with self._changed:
            if self._closed:
                raise Unavailable("closed")
            busy = self._started - self._idle
            if busy + len(self._queue) >= self._threads + self._waiting:
                raise BackendBusy("all its threads are at work, and as many questions wait as may")
            if self._idle <= len(self._queue) and self._started < self._threads:
                self._start_one()
            self._queue.append((work, job))
            self._changed.notify()
        answer = asyncio.wrap_future(job)
        try:
            # Not asyncio.timeout: nothing before the first suspension may need a task (`Backend.check`).
            await asyncio.wait((answer,), timeout=deadline)
        finally:
            if not answer.done():
                answer.cancel()
                self._leave(job)
            elif not answer.cancelled():
                answer.exception()  # taken note of, else asyncio complains that nobody did
        if answer.cancelled():
            raise Unavailable(f"no answer within {deadline:g} s")
        return answer.result()

    async def aclose(self, deadline: float = CLOSING) -> int:
        """Take nothing more, drop what waits, and wait for what is under way, at most ``deadline`` seconds.

        Gives back how many threads still hang; they end with what they hang in, or with the process.
        """
        with self._changed:
            self._closed = True
            waiting = [job for _, job in self._queue]
            self._queue.clear()
            self._changed.notify_all()
        for job in waiting:
            job.cancel()
        if not self.at_work:
            return 0
        return await asyncio.to_thread(self._wait_for_end, monotonic() + deadline)

    def _start_one(self) -> None:
        thread = threading.Thread(target=self._serve, name=f"zapd-{self._name}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the system gives no more: those that run must do
            if not self._started:
                raise BackendBusy("the system gives no thread") from None
        else:
            self._started += 1
            self._idle += 1

    def _leave(self, job: Future[Any]) -> None:
        """Out of the queue, so that what nobody waits for takes no room."""
        job.cancel()
        with self._changed:
            for place in self._queue:
                if place[1] is job:
                    self._queue.remove(place)
                    return

    def _wait_for_end(self, until: float) -> int:
        with self._changed:
            self._changed.wait_for(lambda: self._started == self._idle, max(0.0, until - monotonic()))
            return self._started - self._idle

    def _serve(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if not self._queue:
                    self._started -= 1
                    self._idle -= 1
                    return
                work, job = self._queue.popleft()
                self._idle -= 1
            if job.set_running_or_notify_cancel():
                try:
                    job.set_result(work())
                except BaseException as error:  # noqa: BLE001 - it belongs to whoever asked
                    job.set_exception(error)
            del work, job  # an idle thread holds no password
            with self._changed:
                self._idle += 1
                if self._closed:
                    self._changed.notify_all()


class Blocking(Protocol):
    """A backend whose library blocks, written without asyncio; see `Threaded`. Optional beside it, on the class or
    the object: ``threads`` (how many questions at a time), ``deadline`` (seconds), ``problem``
    (`zapd.auth.backend.ReportsProblem`)."""

    mechanisms: ClassVar[frozenset[str]]

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """As `zapd.auth.backend.Backend.from_settings`."""
        ...

    def start(self) -> None:
        """As `zapd.auth.backend.Backend.start`, in a thread."""
        ...

    def check(self, question: Question) -> Verdict:
        """As `zapd.auth.backend.Backend.check`, in a thread; several at a time."""
        ...

    def close(self) -> None:
        """Give everything back, in a thread. Questions that hang may still be under way."""
        ...


class Threaded:
    """A backend made of a blocking one:

    class StaffBackend(Threaded):
        blocking = Staff
    """

    blocking: ClassVar[type[Blocking]]
    mechanisms: ClassVar[frozenset[str]] = frozenset()
    """Those of `blocking`."""

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        if "blocking" in cls.__dict__:
            cls.mechanisms = cls.blocking.mechanisms

    def __init__(self, name: str, inner: Blocking) -> None:
        self.name = name
        self.inner = inner
        self._deadline = float(getattr(inner, "deadline", DEADLINE))
        self._threads = Threads(name, int(getattr(inner, "threads", THREADS)))

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Settings are those of `blocking`. Raises `zapd.errors.ConfigurationError`."""
        return cls(name, cls.blocking.from_settings(name, settings, context))

    @property
    def problem(self) -> str:
        """What the blocking backend complains of."""
        return str(getattr(self.inner, "problem", ""))

    async def start(self) -> None:
        """Start the blocking backend. An attempt that hangs keeps its thread until it returns."""
        await self._threads.run(self.inner.start)

    async def check(self, question: Question) -> Verdict:
        """Ask it in a thread. Raises `BackendBusy` and `zapd.errors.Unavailable` beside what it raises itself."""
        return await self._threads.run(partial(self.inner.check, question), self._deadline)

    async def aclose(self) -> None:
        """Close it, even if threads hang; gives up after two seconds."""
        hung = await self._threads.aclose()
        closing = Threads(self.name, 1)
        try:
            await closing.run(self.inner.close, CLOSING)
        finally:
            await closing.aclose(0.0)
            if hung:
                log.warning("threads of a backend still hang", backend=self.name, threads=hung)
