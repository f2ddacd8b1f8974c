"""A neighbour that asks all the time, from a process of its own: what it hears, and how long that takes.

It keeps its pace whatever it waits for, so that one slow moment is seen by every question that falls into it, and
counts from when a question was sent, so that a machine that stood still for everybody is held against nobody.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from statistics import median, quantiles
from struct import Struct
from types import TracebackType
from typing import Final, Self

import zmq

_BEAT: Final = Struct("=ddi")
"""Monotonic time of sending, seconds until the answer, its status."""
_PATIENCE: Final = 15.0


@dataclass(frozen=True)
class Heard:
    """Of the questions of a while."""

    statuses: frozenset[int]
    seconds: Sequence[float]

    def __str__(self) -> str:
        """Median and 99th percentile in milliseconds, which fewer than a hundred do not have."""
        if len(self.seconds) < 100:
            return f"{'–':>7} {'–':>7}"
        return f"{median(self.seconds) * 1000:7.2f} {quantiles(self.seconds, n=100)[-1] * 1000:7.2f}"


class Pulse:
    """Asks ``socket`` about ``key`` in ``domain`` every ``pace`` seconds, while in the block."""

    def __init__(self, folder: Path, socket: Path, domain: str, key: bytes, pace: float) -> None:
        self._file = folder / "pulse"
        self._command = [sys.executable, __file__, str(self._file), str(socket), domain, key.hex(), str(pace)]

    def __enter__(self) -> Self:
        self._file.touch()
        self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()

    def heard(self, begin: float, end: float) -> Heard:
        """Of all that was sent between two monotonic times; waits until each is answered."""
        deadline = time.monotonic() + _PATIENCE
        while not (beats := self._beats()) or beats[-1][0] < end:
            assert self._process.poll() is None, "the neighbour asks no more"
            assert time.monotonic() < deadline, "a neighbour waits for an answer"
            time.sleep(0.01)
        between = [(seconds, status) for sent, seconds, status in beats if begin <= sent <= end]
        return Heard(frozenset(status for _, status in between), [seconds for seconds, _ in between])

    def _beats(self) -> list[tuple[float, float, int]]:
        octets = self._file.read_bytes()
        return list(_BEAT.iter_unpack(octets[: len(octets) // _BEAT.size * _BEAT.size]))


def main(file: str, socket: str, domain: str, key: str, pace: str) -> None:
    """The process: writes beats in the order in which they were sent."""
    dealer = zmq.Context().socket(zmq.DEALER)
    dealer.connect(f"ipc://{socket}")
    waiting: deque[int] = deque()
    sent: dict[int, float] = {}
    answers: dict[int, tuple[float, int]] = {}
    number, due = 0, time.monotonic()
    with open(file, "ab", buffering=0) as out:
        while True:
            now = time.monotonic()
            if now >= due:
                number += 1
                due = max(due + float(pace), now)
                sent[number] = now
                waiting.append(number)
                head = [b"", b"1.0", b"%d" % number, domain.encode(), b"192.0.2.99", b"", b"CURVE"]
                dealer.send_multipart([*head, bytes.fromhex(key)])
            if dealer.poll(max(0, ceil((due - time.monotonic()) * 1000))):
                parts = dealer.recv_multipart()
                answers[int(parts[2])] = time.monotonic(), int(parts[3])
            while waiting and waiting[0] in answers:
                first = waiting.popleft()
                begun, (ended, status) = sent.pop(first), answers.pop(first)
                out.write(_BEAT.pack(begun, ended - begun, status))


if __name__ == "__main__":
    main(*sys.argv[1:])
