"""The circuit before a backend: after some failures in a row nobody is sent there for a while. Pure; the clock is
passed in.

    closed ──failures in a row──▶ open ──pause over, somebody asks──▶ half open, one probe
       ▲                            ▲                                     │
       └──────── it answered ───────┼──────────────── it failed ──────────┘

A real question is the probe, so a backend that has healed works again with the first question behind the pause.
The pause runs from the beginning of the probe: one that hangs until its deadline delays the next no further.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from time import monotonic


class CircuitState(StrEnum):
    """Whether questions pass."""

    CLOSED = "closed"
    OPEN = "open"
    """None does until the pause is over."""
    HALF_OPEN = "half_open"
    """One has, and decides what becomes of it."""


class Circuit:
    """Opens after ``failures`` in a row (0: never), and lets a probe through every ``pause`` seconds."""

    __slots__ = ("_clock", "_failed", "_failures", "_next", "_pause", "_probing", "is_clean", "is_open", "opened")

    def __init__(self, failures: int, pause: float, clock: Callable[[], float] = monotonic) -> None:
        self._failures = failures
        self._pause = pause
        self._clock = clock
        self._failed = 0
        self._next = 0.0
        self._probing = False
        self.is_open = False
        """Open or half open: ask `probe` before asking the backend."""
        self.is_clean = True
        """Nothing failed since something succeeded: another success changes nothing."""
        self.opened = 0
        """How often it opened."""

    @property
    def state(self) -> CircuitState:
        if not self.is_open:
            return CircuitState.CLOSED
        return CircuitState.HALF_OPEN if self._probing else CircuitState.OPEN

    def probe(self) -> bool:
        """Whether this question may pass although the circuit is open. It must then be reported with ``probe``."""
        now = self._clock()
        if self._probing or now < self._next:
            return False
        self._probing = True
        self._next = now + self._pause
        return True

    def succeeded(self) -> bool:
        """The backend answered; whether that closed the circuit."""
        self._failed = 0
        self.is_clean = True
        closed, self.is_open, self._probing = self.is_open, False, False
        return closed

    def failed(self, *, probe: bool) -> bool:
        """The backend could not answer; whether that opened the circuit, which was closed."""
        if probe:
            self._probing = False
        if self.is_open:
            return False
        self.is_clean = False
        self._failed += 1
        if not self._failures or self._failed < self._failures:
            return False
        self.is_open = True
        self.opened += 1
        self._next = self._clock() + self._pause
        return True

    def undecided(self, *, probe: bool) -> None:
        """It was not truly asked (no room, the asker gave up): that says nothing about it."""
        if probe:
            self._probing = False
            self._next = self._clock()
