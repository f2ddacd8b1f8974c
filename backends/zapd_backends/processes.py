"""Worker processes: as many as may be, each with one question, killed when they do not answer in time.

A library that hangs cannot be stopped from outside, a process can. Who is killed keeps its place until it is gone,
so that not even processes that the kernel holds on to grow beyond the bound. A password travels through a pipe, in
no argument and no environment, and the worker gets no environment of zapd's that might hold a secret. What is
asked is not known here; `worker` is the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL
from typing import Final, Generic, TypeVar

import msgspec

from zapd.auth.backend import BackendBusy
from zapd.child import Child, start_child
from zapd.errors import Unavailable
from zapd_backends.worker import LENGTH, MAX_ANSWER

WAITING: Final = 64
"""Questions that may wait for a process."""
STARTING: Final = 10.0
"""Seconds that a process may take to start."""
CLOSING: Final = 1.0
"""Seconds that closing waits for killed processes to be gone."""

_ENVIRONMENT: Final = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "HOME": "/"}
"""Without ``HOME`` Python asks the name services for it as it starts, and they may hang."""
_LOADER: Final = ("LD_LIBRARY_PATH", "LD_PRELOAD")
"""Passed on: the Python that runs here may not start without."""

Told = TypeVar("Told", bound=msgspec.Struct)


class Processes(Generic[Told]):
    """Its methods are for the event loop's thread."""

    def __init__(
        self,
        what: str,
        needs: str,
        module: str,
        words: Sequence[str],
        told: type[Told],
        count: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """``count`` processes ``python -m module words…``, which answer with ``told``. For people: ``what`` they
        ask, and the library that this ``needs``."""
        self._what, self._needs = f"a process for {what}", needs
        self._words = (sys.executable, "-m", module, *words)
        self._told = told
        loader = {name: os.environ[name] for name in _LOADER if name in os.environ}
        self._environment = {**_ENVIRONMENT, **loader, **(environment or {})}
        self._free = asyncio.Semaphore(count)
        self._idle: list[Child] = []
        self._waiting = 0
        self._starting: set[asyncio.Task[Child]] = set()
        self._ending: set[asyncio.Task[None]] = set()
        self._closed = False

    async def start(self) -> None:
        """See that a process can be started. Raises `Unavailable`."""
        await self._free.acquire()
        try:
            self._idle.append(await self._spawn())
        finally:
            self._free.release()

    async def ask(self, question: msgspec.Struct) -> Told:
        """What it is told. Raises `Unavailable` when a process dies, `BackendBusy` when too many wait. Whoever
        gives up has the process killed."""
        if self._waiting >= WAITING:
            raise BackendBusy("all its processes are at work, and as many questions wait as may")
        self._waiting += 1
        try:
            await self._free.acquire()
        finally:
            self._waiting -= 1
        process: Child | None = None
        starting: asyncio.Task[Child] | None = None
        told: Told | None = None
        try:
            if self._closed:
                raise Unavailable("closed")
            process = self._kept()
            if process is None:
                # Whoever gives up while one starts leaves it to the next: slow machines get there in the end.
                starting = asyncio.get_running_loop().create_task(self._spawn())
                self._starting.add(starting)
                process = await asyncio.shield(starting)
                self._starting.discard(starting)
            told = await self._exchange(process, question)
            return told
        finally:
            if process is None and starting is not None:
                starting.add_done_callback(self._adopt)
            elif process is None:
                self._free.release()
            elif told is None or self._closed:
                self._end(process, held=True)
            else:
                self._idle.append(process)
                self._free.release()

    async def aclose(self) -> None:
        """Kill them all."""
        self._closed = True
        for starting in tuple(self._starting):
            starting.cancel()
            await asyncio.wait((starting,))
        while self._idle:
            self._end(self._idle.pop(), held=False)
        if self._ending:
            await asyncio.wait(self._ending, timeout=CLOSING)

    def _adopt(self, starting: asyncio.Task[Child]) -> None:
        """Keep a process that nobody waits for any more, and give its place back."""
        self._starting.discard(starting)
        if not starting.cancelled() and starting.exception() is None:
            if self._closed:
                self._end(starting.result(), held=False)
            else:
                self._idle.append(starting.result())
        self._free.release()

    def _kept(self) -> Child | None:
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
            self._end(process, held=False)
        return None

    async def _spawn(self) -> Child:
        try:
            process = await start_child(
                *self._words,
                stderr=DEVNULL,
                env=self._environment,
                cwd="/",
                start_new_session=True,
            )
        except OSError as error:
            raise Unavailable(f"{self._what} cannot be started: {error.strerror}") from None
        ready = False
        try:
            async with asyncio.timeout(STARTING):
                await self._receive(process)
            ready = True
        except TimeoutError:
            raise Unavailable(f"{self._what} is not ready after {STARTING:g} s") from None
        except Unavailable:
            raise Unavailable(f"{self._what} ends as soon as it starts; is {self._needs} there?") from None
        finally:
            if not ready:
                self._end(process, held=False)
        return process

    def _end(self, process: Child, *, held: bool) -> None:
        """Kill it and what it started; ``held`` gives its place back once it is gone."""
        for number in _family(process.pid) if process.returncode is None else ():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(number, signal.SIGKILL)
        task = asyncio.get_running_loop().create_task(self._bury(process, held=held))
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _bury(self, process: Child, *, held: bool) -> None:
        await process.end()
        if held:
            self._free.release()

    async def _exchange(self, process: Child, question: msgspec.Struct) -> Told:
        octets = msgspec.msgpack.encode(question)
        try:
            process.stdin.write(LENGTH.pack(len(octets)) + octets)
            await process.stdin.drain()
            return msgspec.msgpack.decode(await self._receive(process), type=self._told)
        except (OSError, msgspec.MsgspecError):
            raise Unavailable(f"{self._what} died over a question") from None

    async def _receive(self, process: Child) -> bytes:
        try:
            (size,) = LENGTH.unpack(await process.stdout.readexactly(LENGTH.size))
            if size > MAX_ANSWER:
                raise Unavailable(f"{self._what} talks too much")
            return await process.stdout.readexactly(size)
        except asyncio.IncompleteReadError:
            raise Unavailable(f"{self._what} died over a question") from None


def _family(number: int) -> list[int]:
    """A process and all that descend from it: PAM modules such as pam_exec give theirs a session of its own."""
    found = [number]
    for each in found:  # which grows meanwhile
        with contextlib.suppress(OSError):
            found += map(int, Path(f"/proc/{each}/task/{each}/children").read_text().split())
    return found
