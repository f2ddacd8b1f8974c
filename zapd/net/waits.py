"""Many that wait equally long, with one timer.

A timer of the loop's for each connection's deadline costs as much as reading the connection does. Where all are
given the same time, whoever came first is due first, so the order of coming is all that must be kept.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Waits(Generic[T]):
    """What is due so many seconds after it was added, unless it is discarded before. Oldest first."""

    def __init__(self, seconds: float, due: Callable[[T], object]) -> None:
        self.seconds = seconds
        """For whatever is added from now on. Where it is made shorter, nothing is due before what came earlier."""
        self._due = due
        self._items: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def __contains__(self, item: T) -> bool:
        return item in self._items

    def add(self, item: T) -> None:
        """Begin to wait, in the running loop."""
        loop = asyncio.get_running_loop()
        self._items[item] = due = loop.time() + self.seconds
        if self._timer is None:
            self._timer = loop.call_at(due, self._look)

    def discard(self, item: T) -> bool:
        """Wait for it no more; whether it was waited for."""
        return self._items.pop(item, None) is not None

    def clear(self) -> None:
        """Wait for nothing."""
        self._items.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = None
        now = loop.time()
        while self._items:
            item, due = next(iter(self._items.items()))
            if due > now:
                self._timer = loop.call_at(due, self._look)
                return
            del self._items[item]
            self._due(item)
