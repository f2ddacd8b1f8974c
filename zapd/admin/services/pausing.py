"""Refusals leave on a tick, so that the time they take does not tell why (limits.md R15)."""

from __future__ import annotations

import asyncio
import math
from asyncio import sleep
from typing import Final

TICK: Final = 0.1
"""Seconds; as a domain's ``refusal_tick``."""


class Pause:
    """Holds a refusal back until the first tick that lies at least a tick after its question."""

    def __init__(self, tick: float = TICK) -> None:
        self._tick = tick

    def begin(self) -> float:
        """The moment at which a question came."""
        return asyncio.get_running_loop().time()

    async def until_tick(self, began: float) -> None:
        """Return on a tick, the same whatever was found between."""
        now = asyncio.get_running_loop().time()
        earliest = max(now, began + self._tick)
        await sleep(math.ceil(earliest / self._tick) * self._tick - now)
