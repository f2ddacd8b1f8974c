"""The backends that can be built, and those that were.

`Catalog` finds classes by name among the entry points of the group ``zapd.backends``; only what the configuration
names is ever imported. A `BackendHandle` stands for one configured backend through its whole life: it starts it,
tries again when that fails, answers "unavailable" meanwhile, and knows how it fares. What an answer means is not
its affair.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final, cast

import structlog

from zapd.auth.backend import Admission, Backend, BackendContext, Outcome, Question, Verdict
from zapd.auth.circuit import CircuitState
from zapd.auth.gate import DEFAULT, Gate, Keeping, Room
from zapd.auth.last_good import LastGood
from zapd.auth.pace import Pace
from zapd.auth.scrub import Scrubber
from zapd.errors import ConfigurationError, ZapdError
from zapd.zap.request import CREDENTIALS

log = structlog.get_logger(__name__)

GROUP: Final = "zapd.backends"
START_DEADLINE: Final = 10.0
"""Seconds that one attempt to start may take."""
FIRST_RETRY: Final = 0.1
LAST_RETRY: Final = 1.0
"""Seconds between attempts grow from the first to the last: what has healed works again within a second."""

_Check = Callable[[Question], Coroutine[Any, Any, Verdict]]
_Recall = Callable[[Sequence[bytes], str], Sequence[Admission | None]]


class State(StrEnum):
    """Where a backend stands."""

    STARTING = "starting"
    RUNNING = "running"
    DISABLED = "disabled"
    """It failed to start, for a reason that is shown; zapd goes on trying."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class BackendHealth:
    """How one backend fares, for ``zapd backend list`` and the metrics."""

    name: str
    type: str
    state: State
    reason: str
    """Why it is disabled, or what a running one complains of; empty when all is well."""
    asked: int
    unavailable: int
    late: int
    """Questions not answered before their deadline."""
    errors: int
    """Its own bugs: any is worth an alert."""
    last_error: str
    """Why it last could not answer; empty if it always could."""
    last_error_at: float
    """When, in seconds since 1970; 0 if never."""
    circuit: CircuitState
    """Whether questions reach it; that of the mechanism that fares worst."""
    circuit_opened: int
    """How often a circuit opened."""
    open: int
    """Questions it is working on."""
    stale: int
    """Questions that an earlier yes answered while it was away."""
    mean_milliseconds: float


class BackendHandle:
    """One configured backend. Its methods are for the event loop's thread."""

    def __init__(
        self,
        name: str,
        type_name: str,
        backend: Backend | None,
        *,
        reason: str = "",
        keeping: Keeping = DEFAULT,
        last_good: LastGood | None = None,
        scrubber: Scrubber | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """``backend`` None is one that could not even be built, for ``reason``: disabled for good."""
        self.name = name
        self.type = type_name
        self.backend = backend
        self.mechanisms = backend.mechanisms if backend is not None else frozenset(CREDENTIALS)
        self.state = State.STARTING if backend is not None else State.DISABLED
        self.reason = reason
        self.check: _Check = self._unavailable
        """Asks the backend, or says UNAVAILABLE while it does not run."""
        self.recall: _Recall = _nothing
        """What the backend knows by heart, while it runs (`zapd.auth.backend.AnswersFromMemory`)."""
        self.asked = 0
        self.seconds = 0.0
        self.unavailable = 0
        self.late = 0
        self.errors = 0
        self.stale = 0
        self.last_error = ""
        self.last_error_at = 0.0
        self.keeping = keeping
        self.last_good = last_good
        """Where ``stale_if_error`` is set: what it last let in."""
        self._wall_clock = wall_clock
        self._scrub = scrubber or Scrubber()
        self._room = Room(keeping)
        self._gates: dict[str, Gate] = {}
        self._retrying: asyncio.Task[None] | None = None
        self._pace = Pace()

    def gate(self, mechanism: str) -> Gate:
        """What stands before it for this mechanism."""
        return self._gates.setdefault(mechanism, Gate(self.keeping, self._room))

    def forget(self) -> None:
        """Something changed: nothing that it once said stands in for it any more."""
        if self.last_good is not None:
            self.last_good.forget()

    async def start(self, patience: float = START_DEADLINE) -> None:
        """Start the backend; when that fails it is disabled, and tried again in the background. A start that takes
        longer than ``patience`` seconds goes on there too."""
        if self.backend is None or self._retrying is not None or self.state is State.RUNNING:
            return
        tried = asyncio.Event()
        self._retrying = asyncio.get_running_loop().create_task(self._bring_up(self.backend, tried))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(patience):
                await tried.wait()

    async def aclose(self) -> None:
        """Stop trying, and let the backend give everything back. What it raises is logged."""
        if self.state is State.CLOSED:
            return
        self.state, self.reason = State.CLOSED, "closed"
        self.check, self.recall = self._unavailable, _nothing
        if self._retrying is not None:
            self._retrying.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._retrying
        if self.backend is not None:
            try:
                async with asyncio.timeout(START_DEADLINE):
                    await self.backend.aclose()
            except Exception as error:  # noqa: BLE001 - the others are to be closed too
                log.error("a backend did not close", backend=self.name, exception=self._scrub.error(error))

    def health(self) -> BackendHealth:
        """How it fares now."""
        problem = self._problem() if self.state is State.RUNNING else self.reason
        circuits = [gate.circuit for gate in self._gates.values()]
        return BackendHealth(
            name=self.name,
            type=self.type,
            state=self.state,
            reason=self._scrub.text(problem),
            asked=self.asked,
            unavailable=self.unavailable,
            late=self.late,
            errors=self.errors,
            last_error=self.last_error,
            last_error_at=self.last_error_at,
            circuit=max((each.state for each in circuits), key=_WORST.index, default=CircuitState.CLOSED),
            circuit_opened=sum(each.opened for each in circuits),
            stale=self.stale,
            open=self._room.open,
            mean_milliseconds=self.seconds / self.asked * 1000.0 if self.asked else 0.0,
        )

    def _problem(self) -> str:
        try:
            return str(getattr(self.backend, "problem", ""))
        except Exception as error:  # noqa: BLE001 - what cannot be told must not hide all the rest
            return f"{type(error).__name__}: its own complaint cannot be read"

    def note_bug(self, error: BaseException, password: bytes = b"") -> None:
        """It raised what it must not, asked about this ``password``. The traceback goes to the log, once a second
        at most."""
        self.errors += 1
        self._note(f"{type(error).__name__}: a bug in the backend; see the log")
        if self._pace.allows():
            told = self._scrub.error(error, password)
            log.error("a backend failed", backend=self.name, errors=self.errors, exception=told)

    def note_trouble(self, text: str, password: bytes = b"", *, worth_a_line: bool = True) -> None:
        """It could not answer, for a reason in the world, asked about this ``password``."""
        text = self._scrub.text(text, password)
        self._note(text)
        if worth_a_line and self._pace.allows():
            log.warning("a backend cannot answer", backend=self.name, reason=text)

    def note_circuit(self, mechanism: str, *, opened: bool) -> None:
        """It is left alone from now on, or asked again."""
        if opened:
            reason, pause = self.last_error, self.keeping.circuit_pause
            log.warning("circuit open", backend=self.name, mechanism=mechanism, reason=reason, probe_every=pause)
        else:
            log.info("circuit closed: the backend answers again", backend=self.name, mechanism=mechanism)

    def _note(self, text: str) -> None:
        self.last_error = text
        self.last_error_at = self._wall_clock()

    async def _bring_up(self, backend: Backend, tried: asyncio.Event) -> None:
        pause = FIRST_RETRY
        while not await self._attempt(backend):
            tried.set()
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_RETRY)
        self._retrying = None
        tried.set()

    async def _attempt(self, backend: Backend) -> bool:
        try:
            async with asyncio.timeout(START_DEADLINE):
                await backend.start()
        except Exception as error:  # noqa: BLE001 - one backend's failure must not stop the daemon
            self._disable(error)
            return False
        if self.state is State.CLOSED:
            return True
        self.state, self.reason = State.RUNNING, ""
        self.check, self.recall = backend.check, getattr(backend, "recall", _nothing)
        log.info("backend runs", backend=self.name, type=self.type)
        return True

    def _disable(self, error: Exception) -> None:
        if isinstance(error, TimeoutError):
            reason = f"did not start within {START_DEADLINE:.0f} s"
        elif isinstance(error, (ZapdError, OSError)):
            reason = str(error)
        else:
            reason = f"{type(error).__name__}: {error}"
        reason = self._scrub.text(reason)
        if self.state is State.CLOSED:
            return
        if (self.state, self.reason) != (State.DISABLED, reason):
            log.warning("backend is disabled; zapd keeps trying", backend=self.name, reason=reason)
        self.state, self.reason = State.DISABLED, reason

    async def _unavailable(self, question: Question) -> Verdict:
        return NOT_RUNNING


def _nothing(keys: Sequence[bytes], _domain: str) -> Sequence[None]:
    return (None,) * len(keys)


NOT_RUNNING: Final = Verdict(Outcome.UNAVAILABLE, reason="backend_disabled")
_WORST: Final = (CircuitState.CLOSED, CircuitState.HALF_OPEN, CircuitState.OPEN)


class Catalog:
    """Backend classes by the name that ``type`` gives in the configuration."""

    def __init__(self, found: Mapping[str, EntryPoint] | None = None) -> None:
        """``found`` replaces the installed entry points."""
        if found is None:
            found = {point.name: point for point in entry_points(group=GROUP)}
        self._found = dict(found)

    def names(self) -> list[str]:
        """Every type there is. Nothing is imported."""
        return sorted(self._found)

    def build(
        self,
        name: str,
        type_name: str,
        settings: Mapping[str, object],
        context: BackendContext,
        keeping: Keeping = DEFAULT,
        secrets: Sequence[str] = (),
    ) -> BackendHandle:
        """Make the backend ``name`` from its table, zapd's own settings taken out; `BackendHandle.start` opens it.
        ``secrets`` are those of its settings: nothing that it says will show them.

        Raises `ConfigurationError` for an unknown type and for what the backend says of its settings. A
        library that is missing gives a disabled backend: the daemon lives on, and its questions hear 300.
        """
        point = self._found.get(type_name)
        if point is None:
            raise ConfigurationError(
                f"backend.{name}: there is no backend of type {type_name!r}; "
                f"installed are {', '.join(self.names())}"
            )
        try:
            made = cast(type[Backend], point.load())
        except (ImportError, AttributeError) as error:
            reason = (
                f"type {type_name!r} cannot be loaded ({error}); install what it needs, perhaps zapd[{type_name}]"
            )
            log.warning("backend is disabled", backend=name, reason=reason)
            return BackendHandle(name, type_name, None, reason=reason)
        last_good = LastGood(keeping.stale_if_error) if keeping.stale_if_error else None

        def forget() -> None:
            if last_good is not None:
                last_good.forget()
            context.forget()

        own = replace(context, forget=forget, deadline=min(context.deadline, keeping.deadline))
        scrubber = Scrubber(secrets)
        try:
            backend = made.from_settings(name, settings, own)
        except ConfigurationError as mistake:
            raise ConfigurationError(scrubber.text(str(mistake))) from None
        return BackendHandle(name, type_name, backend, keeping=keeping, last_good=last_good, scrubber=scrubber)
