"""The very same dear question, asked by many at once, is put to the backends once.

A host whose twenty processes come back together with one name and password would else be told 300 nineteen times,
since the hash pool takes one at a time for an (address, name).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from zapd.auth.cache import remembered
from zapd.auth.decision import Decision
from zapd.zap import TRY_AGAIN

LATE: Final = Decision(TRY_AGAIN, "deadline")


class Flights:
    """Open questions by what stands for them in the cache."""

    def __init__(self) -> None:
        self._open: dict[bytes, tuple[int, asyncio.Future[Decision]]] = {}
        self.shared = 0
        """Questions answered by another's."""

    async def share(
        self, key: bytes, generation: int, patience: float, ask: Callable[[], Awaitable[Decision]]
    ) -> Decision:
        """The decision of whoever asks this already, waited for ``patience`` seconds; else that of ``ask``.

        One that began under another ``generation`` of knowledge is never joined: what it hears may be out of date.
        """
        while (flight := self._open.get(key)) is not None and flight[0] == generation:
            # Waited for at arm's length: a follower that is cancelled must not cancel the others' answer.
            await asyncio.wait((flight[1],), timeout=patience)
            if not flight[1].done():
                return LATE
            if not flight[1].cancelled():
                self.shared += 1
                return remembered(flight[1].result())
            # Its asker gave up. The first of those who waited asks now, and the others wait for that one.
        future: asyncio.Future[Decision] = asyncio.get_running_loop().create_future()
        self._open[key] = (generation, future)
        try:
            decision = await ask()
            future.set_result(decision)
            return decision
        finally:
            if not future.done():
                future.cancel()
            if self._open.get(key, (0, None))[1] is future:
                del self._open[key]

    def __len__(self) -> int:
        return len(self._open)
