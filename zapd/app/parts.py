"""What is up, so that it comes down again in the opposite order, and a start that failed half-way takes down just
what it had."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)


class Parts:
    """Parts of a process, each with what takes it down."""

    def __init__(self) -> None:
        self._up: list[tuple[str, Callable[[], Awaitable[None]]]] = []

    def up(self, name: str, stop: Callable[[], Awaitable[None]]) -> None:
        """Told before a part starts; ``stop`` copes with one that did not come up whole."""
        self._up.append((name, stop))

    async def down(self) -> None:
        """Take all down; one part's trouble does not keep the others up."""
        while self._up:
            name, stop = self._up.pop()
            try:
                await stop()
            except Exception:
                log.exception("a part did not stop in order", part=name)
