"""How much work strangers may make, and how many of them are let in to make it (R1, R2).

A CURVE HELLO costs several scalar multiplications, and anybody may send one. So strangers are served a few in each
turn of the event loop, between which established peers have theirs. Two kinds are told apart: *newcomers*, and
those who are *nearly in*, whose first command has been answered or whose address has brought a good handshake
lately. These come first: a handshake that is half done is not worth less for every newcomer behind it.

What is not served waits in the kernel, unread. While that queue grows nobody in it would be served in time, so
newcomers are then sent away at once, at random, and cheaply: a client that is sent away comes back in a moment,
one that waits behind ten thousand others does not. The share is found as active queue management finds it (PIE,
RFC 8033): it follows how long newcomers wait, and how quickly that rises.
"""

from __future__ import annotations

import asyncio
import random
import select
from collections.abc import Callable
from typing import Final

from zapd.net.transport import Watch

TARGET: Final = 0.01
"""Seconds that newcomers may wait for their first turn before some are sent away."""
SHORT: Final = 64
"""So many newcomers are no flood, however long a busy machine lets them wait."""
_STEADY: Final = 400.0
_DAMPING: Final = 40.0
"""How the share of those sent away follows the wait beyond `TARGET`, and its rise. With these a flood is met
within a tenth of a second and the share does not swing, however many times our capacity it is."""
_INTERVAL: Final = 0.01
"""Seconds between two looks at the queue."""
_LONGEST_LOOK: Final = 0.1
"""After so long without a look nobody has been waiting."""
_MOST: Final = 0.99
_READ: Final = 8 * 1024
"""Octets of one read of a stranger's; a handshake's command has at most 4 KiB."""

_random = random.SystemRandom()


class Pace:
    """Watches strangers, and serves ``steps`` of them in each turn of the loop."""

    def __init__(self, steps: int, chance: Callable[[], float] = _random.random) -> None:
        """``chance`` gives numbers from 0 to 1 for who is sent away."""
        self._steps = steps
        self._chance = chance
        self._newcomers = Watch(_READ)
        self._nearly_in = Watch(_READ)
        self._both = select.epoll()
        self._both.register(self._newcomers.fileno(), select.EPOLLIN)
        self._both.register(self._nearly_in.fileno(), select.EPOLLIN)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._share = 0.0
        self._wait = 0.0
        self._served = 0
        self._looked_at = 0.0

    @property
    def share(self) -> float:
        """Of newcomers, how many are sent away now: 0 to `_MOST`."""
        return self._share

    def open(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin, in this loop. Twice does no harm."""
        if self._loop is None:
            self._loop = loop
            self._looked_at = loop.time()
            loop.add_reader(self._both.fileno(), self._turn)

    def close(self) -> None:
        """Serve nobody any more."""
        if self._loop is not None and not self._both.closed:
            self._loop.remove_reader(self._both.fileno())
        self._both.close()
        self._newcomers.close()
        self._nearly_in.close()

    def set_steps(self, steps: int) -> None:
        """From the next turn on."""
        self._steps = steps

    def watch(self, *, nearly_in: bool) -> Watch:
        """Where a stranger is watched."""
        return self._nearly_in if nearly_in else self._newcomers

    def sends_away(self) -> bool:
        """Whether the newcomer at the door is one of those who are sent away."""
        if not self._share or self._loop is None:
            return False
        if self._loop.time() - self._looked_at > _LONGEST_LOOK:
            self._share = self._wait = 0.0
        return self._chance() < self._share

    def _turn(self) -> None:
        left = self._steps - self._nearly_in.serve(self._steps)
        self._served += self._newcomers.serve(max(left, 1))
        if self._loop is not None:
            now = self._loop.time()
            if now - self._looked_at >= _INTERVAL:
                self._look(now)

    def _look(self, now: float) -> None:
        """Judge the queue, and with it the share of newcomers that are sent away."""
        passed, self._looked_at = min(now - self._looked_at, _LONGEST_LOOK), now
        served, self._served = max(self._served, 1), 0
        wait, before = max(0, self._newcomers.waiting() - SHORT) * passed / served, self._wait
        self._wait = wait
        step = _STEADY * passed * (wait - TARGET) + _DAMPING * (wait - before)
        # Of ten times our capacity nine tenths must go, and there a step is ten times as much: it shrinks with
        # what is left.
        share = self._share + (1 - self._share) * step
        self._share = min(max(share, 0.0), _MOST)
