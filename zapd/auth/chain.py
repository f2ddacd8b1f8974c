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
better, and a valid user never hears "no" from an outage. Each backend has a deadline, a bound on its open
questions, and a circuit that leaves it alone while it cannot answer; what it raises is UNAVAILABLE. Where
``stale_if_error`` is set, its own last yes to the same question may stand in for it. Nothing here turns a verdict
into a status.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import suppress
from time import perf_counter
from typing import Any, Final

import msgspec

from zapd.auth.backend import UNKNOWN, BackendBusy, Outcome, Question, Verdict
from zapd.auth.catalog import NOT_RUNNING, BackendHandle
from zapd.auth.decision import TrailStep
from zapd.auth.gate import Gate
from zapd.auth.hashing import HashPoolFull
from zapd.auth.policy import Link, Rule
from zapd.errors import Unavailable
from zapd.zap import Suspended

BUSY: Final = Verdict(Outcome.UNAVAILABLE, reason="backend_busy")
"""Not asked: it has as many open questions as it may, or says itself that it has no room."""
POOL_FULL: Final = Verdict(Outcome.UNAVAILABLE, reason="hash_pool_full")
"""Not asked: no room for another password hash."""
CIRCUIT_OPEN: Final = Verdict(Outcome.UNAVAILABLE, reason="circuit_open")
"""Not asked: it could not answer of late, and it is not yet time to see again."""
LATE: Final = Verdict(Outcome.UNAVAILABLE, reason="deadline")
NO_TIME_LEFT: Final = Verdict(Outcome.UNAVAILABLE, reason="deadline")
"""Late, since those before it had used up the time: not its fault."""
BROKEN: Final = Verdict(Outcome.UNAVAILABLE, reason="backend_error")
AWAY: Final = Verdict(Outcome.UNAVAILABLE, reason="backend_unavailable")

OVERLOAD: Final = frozenset({BUSY.reason, POOL_FULL.reason})
"""Too much at once; that says nothing about the backend."""
NOT_ASKED: Final = OVERLOAD | {CIRCUIT_OPEN.reason}
"""Reasons by which nobody was asked."""

_NOTED: Final = (LATE, BROKEN, AWAY)
"""What was written down where it happened."""

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
    stale: bool = False
    """Whether an earlier yes stood in for a backend that is away (``stale_if_error``)."""
    cache_seconds: float = math.inf
    """How long the backends that took part let it be repeated."""


class Step:
    """One link, bound to its backend."""

    __slots__ = ("gate", "handle", "mechanism", "name", "on_reject", "on_unavailable", "on_unknown")

    def __init__(self, link: Link, handle: BackendHandle, mechanism: str) -> None:
        self.name = link.backend
        self.handle = handle
        self.mechanism = mechanism
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

    @property
    def handles(self) -> Iterator[BackendHandle]:
        """Whom it asks, in their order."""
        return (step.handle for step in self._steps)

    async def ask(self, question: Question) -> Answer:
        """Ask one backend after the other. Never raises for what a backend does; suspends only if one does."""
        trail: tuple[TrailStep, ...] = ()
        settled = UNKNOWN
        away: Verdict | None = None
        dear = False
        cache_good = cache_bad = math.inf
        started = before = perf_counter()
        for step in self._steps:
            handle = step.handle
            gate = step.gate
            last_good = handle.last_good
            generation = 0 if last_good is None else last_good.generation
            probe = False
            if gate.waits and gate.room.is_full:
                verdict = BUSY
            elif gate.circuit.is_open and not (probe := gate.circuit.probe()):
                verdict = CIRCUIT_OPEN
            else:
                try:
                    work = handle.check(question)
                    waiting_for = work.send(None)
                except StopIteration as done:
                    verdict = done.value
                except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001
                    # Nothing suspended, so nobody can have cancelled us: it is the backend's own.
                    verdict = _failed(handle, error, question)
                else:
                    dear = self.dear = gate.waits = True
                    cache_good = min(cache_good, handle.keeping.cache_good)
                    cache_bad = min(cache_bad, handle.keeping.cache_bad)
                    try:
                        verdict = await self._wait(step, question, work, waiting_for, started)
                    except BaseException:
                        gate.circuit.undecided(probe=probe)  # our asker gave up
                        raise
                outcome = verdict.outcome if verdict.__class__ is Verdict else None
                if outcome.__class__ is not Outcome or (outcome is _ACCEPT and verdict.principal is None):
                    verdict = _unsound(handle, verdict, question)
                if verdict.outcome is _UNAVAILABLE or not gate.circuit.is_clean:
                    _judge(step, verdict, question, probe=probe)
            after = perf_counter()
            elapsed = after - before
            before = after
            handle.asked += 1
            handle.seconds += elapsed
            outcome = verdict.outcome
            if last_good is not None:
                if outcome is not _UNAVAILABLE:
                    last_good.note(question, verdict, generation)
                elif _is_outage(verdict) and (earlier := last_good.recall(question)) is not None:
                    handle.unavailable += 1
                    handle.stale += 1
                    trail = (*trail, TrailStep(step.name, "stale", elapsed * 1000.0))
                    return Answer(earlier, trail, dear, doubt=True, stale=True)
            trail = (*trail, TrailStep(step.name, outcome.value, elapsed * 1000.0))
            if outcome is _ACCEPT:
                return Answer(verdict, trail, dear, away is not None, cache_seconds=cache_good)
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
                return Answer(verdict, trail, dear, away is not None, cache_seconds=cache_bad)
            else:
                handle.unavailable += 1
                away = away or verdict
                if not step.on_unavailable:
                    break
        if away is not None:
            return Answer(away, trail, dear, True)
        return Answer(settled, trail, dear, cache_seconds=cache_bad)

    async def _wait(
        self,
        step: Step,
        question: Question,
        work: Coroutine[Any, Any, Verdict],
        waiting_for: object,
        started: float,
    ) -> Verdict:
        """Give a question that cannot be answered at once a task and a deadline.

        The task is not awaited past its deadline, even if it will not be cancelled: it keeps its place among the
        backend's open questions until it ends.
        """
        handle = step.handle
        if step.gate.room.is_full:  # the first of its mechanism that has to wait
            with suppress(RuntimeError):
                work.close()
            return BUSY
        its_own = min(self._backend_deadline, handle.keeping.deadline)
        seconds = min(its_own, self._deadline - (perf_counter() - started))
        task = asyncio.get_running_loop().create_task(Suspended(work, waiting_for).finish())
        step.gate.room.enter(task)
        try:
            await asyncio.wait((task,), timeout=max(0.0, seconds))
            if not task.done():
                handle.late += 1
                if seconds < its_own / 2:
                    return NO_TIME_LEFT
                handle.note_trouble(f"no answer within {seconds:.3g} s", worth_a_line=False)
                return LATE
        finally:
            if not task.done():
                task.cancel()
        if task.cancelled():
            return _failed(handle, asyncio.CancelledError("cancelled itself"), question)
        error = task.exception()
        return task.result() if error is None else _failed(handle, error, question)


def _unsound(handle: BackendHandle, verdict: object, question: Question) -> Verdict:
    """What it means that a backend's answer does not say what a verdict must."""
    if isinstance(verdict, Verdict) and isinstance(verdict.outcome, Outcome):
        return _failed(handle, ValueError("accepted without saying whom"), question)
    odd = TypeError(f"answered with a {type(verdict).__name__}, not a sound Verdict")
    return _failed(handle, odd, question)


def _judge(step: Step, verdict: Verdict, question: Question, *, probe: bool) -> None:
    """Tell the circuit what its backend's answer says about the backend."""
    circuit = step.gate.circuit
    if verdict.outcome is not _UNAVAILABLE or verdict.principal is not None:
        if circuit.succeeded():
            step.handle.note_circuit(step.mechanism, opened=False)
        return
    if not _is_outage(verdict) or verdict is NOT_RUNNING or verdict is NO_TIME_LEFT:
        circuit.undecided(probe=probe)
        return
    if verdict not in _NOTED:
        step.handle.note_trouble(verdict.reason or "it cannot tell", question.password, worth_a_line=False)
    if circuit.failed(probe=probe):
        step.handle.note_circuit(step.mechanism, opened=True)


def _is_outage(verdict: Verdict) -> bool:
    """Whether this UNAVAILABLE says that the backend is away: not that too much was asked at once, nor that it
    cannot tell about this one alone."""
    return verdict.principal is None and verdict.reason not in OVERLOAD


def _failed(handle: BackendHandle, error: BaseException, question: Question) -> Verdict:
    """What it means that a backend raised."""
    if isinstance(error, HashPoolFull):
        return POOL_FULL
    if isinstance(error, BackendBusy):
        return BUSY
    if isinstance(error, Unavailable):
        handle.note_trouble(str(error), question.password)
        return AWAY
    handle.note_bug(error, question.password)
    return BROKEN
