"""Penalties by a clock of the test's own, and three addresses."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from zapd.auth.terms import Terms
from zapd.auth.throttle import Throttle

HERE, ELSEWHERE, THIRD = "192.0.2.1", "198.51.100.7", "203.0.113.9"


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def waits(clock: Clock, guesses: Iterable[Callable[[], str]]) -> list[float]:
    """How long each of these guesses has to wait, one after the other: each gives the reason of its 300, or
    nothing once it is asked about."""
    found = []
    for guess in guesses:
        began = clock.now
        while guess():
            clock.now += 0.25
        found.append(clock.now - began)
    return found


def throttle(clock: Clock, **terms: object) -> Throttle:
    return Throttle(Terms(**terms), clock=clock)  # type: ignore[arg-type]
