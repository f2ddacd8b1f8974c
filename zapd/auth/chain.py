"""Asking a domain's backends in their order, until one answer ends it.

A backend says what it knows; what follows is the domain's configuration (`zapd.auth.policy.Link`):

    ===========  =====================================================================================
    ACCEPT       ends it
    LOCKED       ends it; nothing may soften it
    NOT_YET      ends it
    REJECT       ends it, unless the link says ``on_reject = "next"``
    UNKNOWN      the next backend is asked, unless the link says ``on_unknown = "stop"``
    UNAVAILABLE  ends it, unless the link says ``on_unavailable = "next"``
    ===========  =====================================================================================

A refusal counts only when every backend before it could be asked: while one is away it may be the one that knows
better, and a valid user never hears "no" from an outage. Each backend has a deadline and a bound on its open
questions; what it raises is UNAVAILABLE. Nothing here turns a verdict into a status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from time import perf_counter
from typing import Any, Final

import msgspec

from zapd.auth.backend import UNKNOWN, BackendBusy, Outcome, Question, Verdict
from zapd.auth.catalog import BackendHandle, Gate
from zapd.auth.decision import TrailStep
from zapd.auth.hashing import HashPoolFull
from zapd.auth.policy import Link, Rule
from zapd.errors import Unavailable
from zapd.zap import Suspended

BUSY: Final = Verdict(Outcome.UNAVAILABLE, reason="backend_busy")
"""Not asked: it has as many open questions as it may, or says itself that it has no room."""
POOL_FULL: Final = Verdict(Outcome.UNAVAILABLE, reason="hash_pool_full")
"""Not asked: no room for another password hash."""
LATE: Final = Verdict(Outcome.UNAVAILABLE, reason="deadline")
BROKEN: Final = Verdict(Outcome.UNAVAILABLE, reason="backend_error")
AWAY: Final = Verdict(Outcome.UNAVAILABLE, reason="backend_unavailable")

OVERLOAD: Final = frozenset({BUSY.reason, POOL_FULL.reason})
"""Reasons by which nobody was asked."""

_ACCEPT, _REJECT, _LOCKED = Outcome.ACCEPT, Outcome.REJECT, Outcome.LOCKED
_NOT_YET, _UNKNOWN, _UNAVAILABLE = Outcome.NOT_YET, Outcome.UNKNOWN, Outcome.UNAVAILABLE


class Answer(msgspec.Struct, frozen=True, gc=False):
    """What a chain came to."""

    verdict: Verdict
    trail: tuple[TrailStep, ...]
    dear: bool = False
    """Whether a backend had to wait for something: worth remembering, where nothing failed."""
    doubt: bool = False
    """Whether a backend was away and passed over: not to be remembered."""


class Step:
    """One link, bound to its backend."""

    __slots__ = ("gate", "handle", "name", "on_reject", "on_unavailable", "on_unknown")

    def __init__(self, link: Link, handle: BackendHandle, mechanism: str) -> None:
        self.name = link.backend
        self.handle = handle
        self.gate: Gate = handle.gate(mechanism)
        self.on_reject = link.on_reject == "next"
        self.on_unknown = link.on_unknown == "next"
        self.on_unavailable = link.on_unavailable == "next"


class Chain:
    """A domain's backends for one mechanism."""

    __slots__ = ("_backend_deadline", "_deadline", "_steps", "dear", "first")

    def __init__(self, rule: Rule, steps: Sequence[Step]) -> None:
        self._steps = tuple(steps)
        self.first = self._steps[0].handle if steps else None
        """Whom `Authority.recall` may ask."""
        self._deadline = rule.deadline
        self._backend_deadline = rule.backend_deadline
        self.dear = False
        """Whether it ever had to wait: then its answers are worth looking up in the cache first."""

    def __len__(self) -> int:
        return len(self._steps)

    async def ask(self, question: Question) -> Answer:
        """Ask one backend after the other. Never raises for what a backend does; suspends only if one does."""
        trail: tuple[TrailStep, ...] = ()
        settled = UNKNOWN
        away: Verdict | None = None
        dear = False
        started = before = perf_counter()
        for step in self._steps:
            handle = step.handle
            gate = step.gate
            if gate.open >= gate.limit:
                verdict = BUSY
            else:
                try:
                    work = handle.check(question)
                    waiting_for = work.send(None)
                except StopIteration as done:
                    verdict = done.value
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
                    # Nothing suspended, so nobody can have cancelled us: it is the backend's own.
                    verdict = _failed(handle, error)
                else:
                    dear = self.dear = True
                    verdict = await self._wait(step, work, waiting_for, started)
            if verdict.__class__ is not Verdict or verdict.outcome.__class__ is not Outcome:
                verdict = _failed(
                    handle, TypeError(f"answered with a {type(verdict).__name__}, not a sound Verdict")
                )
            after = perf_counter()
            elapsed = after - before
            before = after
            handle.asked += 1
            handle.seconds += elapsed
            outcome = verdict.outcome
            if outcome is _ACCEPT:
                if verdict.principal is None:
                    verdict = _failed(handle, ValueError("accepted without saying whom"))
                    outcome = _UNAVAILABLE
                else:
                    trail = (*trail, TrailStep(step.name, "accept", elapsed * 1000.0))
                    return Answer(verdict, trail, dear, away is not None)
            trail = (*trail, TrailStep(step.name, outcome.value, elapsed * 1000.0))
            if outcome is _UNKNOWN:
                if settled.outcome is not _REJECT:
                    settled = verdict
                if not step.on_unknown:
                    break
            elif outcome is _REJECT:
                settled = verdict
                if not step.on_reject:
                    break
            elif outcome is _LOCKED or outcome is _NOT_YET:
                return Answer(verdict, trail, dear, away is not None)
            else:
                handle.unavailable += 1
                away = away or verdict
                if not step.on_unavailable:
                    break
        if away is not None:
            return Answer(away, trail, dear, True)
        return Answer(settled, trail, dear)

    async def _wait(
        self, step: Step, work: Coroutine[Any, Any, Verdict], waiting_for: object, started: float
    ) -> Verdict:
        """Give a question that cannot be answered at once a task and a deadline.

        The task is not awaited past its deadline, even if it will not be cancelled: it keeps its place among the
        backend's open questions until it ends.
        """
        seconds = min(self._backend_deadline, self._deadline - (perf_counter() - started))
        task = asyncio.get_running_loop().create_task(Suspended(work, waiting_for).finish())
        step.gate.enter(task)
        try:
            await asyncio.wait((task,), timeout=max(0.0, seconds))
            if not task.done():
                step.handle.late += 1
                return LATE
        finally:
            if not task.done():
                task.cancel()
        if task.cancelled():
            return _failed(step.handle, asyncio.CancelledError("cancelled itself"))
        error = task.exception()
        return task.result() if error is None else _failed(step.handle, error)


def _failed(handle: BackendHandle, error: BaseException) -> Verdict:
    """What it means that a backend raised."""
    if isinstance(error, HashPoolFull):
        return POOL_FULL
    if isinstance(error, BackendBusy):
        return BUSY
    if isinstance(error, Unavailable):
        handle.note_trouble(str(error))
        return AWAY
    handle.note_bug(error)
    return BROKEN
