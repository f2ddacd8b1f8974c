"""A worker process's end of `processes`: one question at a time from standard input, answers to standard output.

Each message stands behind its length, until the input ends. What a library prints reaches nobody, what it leaves
behind in a crash no core file, and nobody but root can look into the process: passwords pass through it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from collections.abc import Callable
from typing import BinaryIO, Final

LENGTH: Final = struct.Struct("!I")
MAX_QUESTION: Final = 65536
MAX_ANSWER: Final = 1 << 20
"""Octets: whoever is in thousands of groups has an answer of some hundred thousand."""

_PDEATHSIG, _DUMPABLE = 1, 4
"""Of prctl(2)."""


def serve(answer: Callable[[bytes], bytes]) -> None:
    """Say that it is ready, and answer until the input ends."""
    libc = ctypes.CDLL(None)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    libc.prctl(_DUMPABLE, 0)
    libc.prctl(_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    with questions, answers:
        answers.write(LENGTH.pack(0))
        answers.flush()
        while (body := _read(questions)) is not None:
            octets = answer(body)
            del body
            answers.write(LENGTH.pack(len(octets)) + octets)
            answers.flush()


def _read(stream: BinaryIO) -> bytes | None:
    """One message; None at the end."""
    head = stream.read(LENGTH.size)
    if len(head) < LENGTH.size:
        return None
    (size,) = LENGTH.unpack(head)
    body = stream.read(size) if size <= MAX_QUESTION else b""
    return body if len(body) == size else None
