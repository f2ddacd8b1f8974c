"""Penalties by a clock of the test's own, and three addresses."""

from __future__ import annotations

from zapd.auth.terms import Terms
from zapd.auth.throttle import Throttle

HERE, ELSEWHERE, THIRD = "192.0.2.1", "198.51.100.7", "203.0.113.9"


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def throttle(clock: Clock, **terms: object) -> Throttle:
    return Throttle(Terms(**terms), clock=clock)  # type: ignore[arg-type]
