"""Keeps what strangers can cause from filling the log: one line a second for each thing worth a line."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class Pace:
    """True at most once in ``seconds``."""

    __slots__ = ("_clock", "_next", "_seconds")

    def __init__(self, seconds: float = 1.0, clock: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._next = float("-inf")

    def allows(self) -> bool:
        """Whether it is time again."""
        now = self._clock()
        if now < self._next:
            return False
        self._next = now + self._seconds
        return True
