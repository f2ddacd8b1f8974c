"""What stands before a backend: the bound on its open questions, and a circuit for each mechanism.

A place is taken only by what has to wait: slow passwords hold up no key that the backend knows by heart.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Final

from zapd.auth.backend import Verdict
from zapd.auth.circuit import Circuit

IN_FLIGHT: Final = 256


@dataclass(frozen=True, slots=True)
class Keeping:
    """How zapd keeps one backend, whatever its type. Times are seconds."""

    deadline: float = math.inf
    """How long it may take, where that is less than its domain gives it."""
    max_in_flight: int = IN_FLIGHT
    """How many questions it may be working on, of all mechanisms together."""
    circuit_failures: int = 5
    """After so many in a row it is left alone; 0 is never."""
    circuit_pause: float = 0.5
    """How long, until a question is let through to see."""
    cache_good: float = 10.0
    """How long its yes, where it was dear to get, may be repeated from memory."""
    cache_bad: float = 2.0
    """The same for its no."""
    stale_if_error: float = 0.0
    """How long its last yes to the very same question may stand in while it cannot tell; 0 is never."""


DEFAULT: Final = Keeping()


class Room:
    """Open questions of one backend."""

    __slots__ = ("limit", "open")

    def __init__(self, keeping: Keeping) -> None:
        self.limit = keeping.max_in_flight
        self.open = 0

    @property
    def is_full(self) -> bool:
        return self.open >= self.limit

    def enter(self, task: asyncio.Task[Verdict]) -> None:
        """Count this task until it ends."""
        self.open += 1
        task.add_done_callback(self._leave)

    def _leave(self, task: asyncio.Task[Verdict]) -> None:
        self.open -= 1
        if not task.cancelled():
            task.exception()  # taken note of, else asyncio complains that nobody did


class Gate:
    """One mechanism's way to a backend."""

    __slots__ = ("circuit", "room", "waits")

    def __init__(self, keeping: Keeping, room: Room) -> None:
        self.room = room
        self.waits = False
        """Whether a question of this mechanism ever had to wait: those that follow need a place to begin with."""
        self.circuit = Circuit(keeping.circuit_failures, keeping.circuit_pause)
