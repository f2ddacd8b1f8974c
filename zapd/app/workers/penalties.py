"""Penalties of one process, told to the others.

What a worker sees goes to the parent, which remembers it and tells the other workers; what the parent sees (at the
listener where keys are fetched) goes to all. A quarter of a second's worth goes together, so that a flood of wrong
tries is a few frames. A worker that comes up is told what the parent remembers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from zapd.app.workers import messages
from zapd.auth.throttle import Throttle
from zapd.auth.trace import Trace

PAUSE: Final = 0.25
"""Seconds that something waits to be told."""
MOST: Final = 10_000
"""Of so many at once; more than that is felt here alone."""
MOST_DEBTS: Final = 20_000
"""Debtors that a new worker is told of, those first who owe longest: a frame holds them all."""
MOST_GOOD: Final = 65_536
"""The same for names in good standing."""


class Telling:
    """Tells what ``throttle`` sees."""

    def __init__(self, throttle: Throttle, tell: Callable[[messages.Traces], None]) -> None:
        self._tell = tell
        self._waiting: list[Trace] = []
        throttle.on_trace = self._add

    def _add(self, trace: Trace) -> None:
        if not self._waiting:
            asyncio.get_running_loop().call_later(PAUSE, self._flush)
        if len(self._waiting) < MOST:
            self._waiting.append(trace)

    def _flush(self) -> None:
        waiting, self._waiting = tuple(self._waiting), []
        self._tell(messages.Traces(waiting))
