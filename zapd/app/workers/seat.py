"""A place for one worker: keeps a process in it, knows how that fares, and hands it connections.

A worker that ends, does not come up, or does not answer is replaced, soon the first time and ever later while it
goes on. Nothing of the old one is used for the new but its number.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol, TypeVar

import structlog

from zapd.app.workers import messages
from zapd.app.workers.channel import Channel, Closed
from zapd.app.workers.handing import hand_over
from zapd.app.workers.messages import Done, Message
from zapd.errors import Unavailable, ZapdError
from zapd.store.sightings import Sighting

log = structlog.get_logger(__name__)

START = 120.0
"""Seconds to come up: millions of keys are read meanwhile."""
LOOK = 1.0
"""Seconds between two questions how it fares: so old its numbers may be."""
SILENT = 15.0
"""Seconds without an answer after which it is killed."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
STEADY = 60.0
"""A worker that lived so long is replaced at once again."""
LAST_SECONDS = 3.0
"""From the end of its channel to being killed."""
STRANGERS = 8
"""So many connections in handshake weigh as much as one that is admitted. They come and go: what must be spread
evenly is those that stay, unless there is a flood of the others."""

Answer = TypeVar("Answer", bound=Message)


class Owner(Protocol):
    """Whose seat it is."""

    def begin(self, number: int) -> messages.Begin:
        """What a new worker is told first."""

    async def welcome(self, seat: Seat) -> None:
        """A worker has come up and was handed nothing yet: bring it up to date. Raises `ZapdError`."""

    def heard(self, seat: Seat, traces: messages.Traces) -> None:
        """The worker saw these."""

    def changed(self, seat: Seat) -> None:
        """`Seat.up` is another now."""

    def seen(self, sightings: Sequence[Sighting]) -> None:
        """A worker saw unknown keys that somebody may approve."""

    def lost(self, report: messages.Report) -> None:
        """A worker ended; this is the last that it said."""


class Seat:
    """One of the crew's."""

    def __init__(self, number: int, owner: Owner) -> None:
        self.number = number
        self.up = False
        """There is a worker, and it answers."""
        self.why = "starting"
        """Why not."""
        self.report: messages.Report | None = None
        """The newest, of the worker there is."""
        self.load = messages.Load(0, 0, 0)
        self.replaced = 0
        """Workers that ended although nobody told them to."""
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the first worker is up; failed, with why, when it did not come up."""
        self._owner = owner
        self._channel: Channel | None = None
        self._hand: socket.socket | None = None
        self._handed = 0
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()

    # -- connections -----------------------------------------------------------------------------------------

    @property
    def weight(self) -> tuple[int, int, int]:
        """The seat with the least takes the next connection."""
        under_way = self._handed - self.load.received
        strangers = self.load.connections - self.load.peers
        return (
            self.load.peers + under_way + strangers // STRANGERS,
            self.load.connections + under_way,
            self.number,
        )

    def hand(self, endpoint: int, connection: socket.socket) -> bool:
        """Hand a connection over; False when that cannot be."""
        if not self.up or self._hand is None or not hand_over(self._hand, endpoint, connection):
            return False
        self._handed += 1
        return True

    # -- questions -------------------------------------------------------------------------------------------

    async def ask(self, question: Message, expected: type[Answer], *, within: float) -> Answer:
        """Put a question. Raises what the worker failed with, and `Closed` when it is gone; one that does not
        answer in time is killed: nobody knows what it says to others."""
        channel = self._channel
        if channel is None:
            raise Closed(f"it is not there: {self.why}")
        try:
            return await channel.call(question, expected, within=within)
        except TimeoutError:
            why = f"it did not answer within {within:g} s"
            log.error("a worker does not answer and is killed", number=self.number, question=repr(question))
            self._set(False, why)
            self.kill()
            raise Closed(why) from None

    def tell(self, message: Message) -> None:
        """Say something that wants no answer."""
        if self._channel is not None:
            self._channel.tell(message)

    # -- up and down -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Fill the seat, and keep it filled."""
        self._task = asyncio.create_task(self._keep(), name=f"zapd-worker-{self.number}")

    async def stop(self, within: float) -> None:
        """Tell the worker to end, and see to it."""
        self._stopping.set()
        self.tell(messages.Stop())
        if self._task is not None:
            await asyncio.wait([self._task], timeout=within)
            self.kill()
            await asyncio.wait([self._task], timeout=LAST_SECONDS)
            self._task.cancel()

    def kill(self) -> None:
        """End the worker, whatever it does; another takes its place."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _keep(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            began = asyncio.get_running_loop().time()
            try:
                why = await self._fill()
            except (OSError, ZapdError) as error:
                why = str(error)
                self._first_is(error)
            except Exception as error:
                log.exception("a worker could not be kept", number=self.number)
                why = type(error).__name__
            self._first_is(Unavailable(why))
            if self._stopping.is_set():
                return
            self.replaced += 1
            self._set(False, why)
            if asyncio.get_running_loop().time() - began > STEADY:
                pause = FIRST_PAUSE
            log.error("a worker ended and is replaced", number=self.number, reason=why, seconds=pause)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    async def _fill(self) -> str:
        """One worker's life; why it ended. Raises `ZapdError` and `OSError` when it did not come up."""
        self.load, self._handed = messages.Load(0, 0, 0), 0
        ours, theirs = socket.socketpair()
        hand, handed = socket.socketpair()
        with hand, theirs, handed:
            hand.setblocking(False)
            channel = Channel(hear=self._hear)
            await channel.open(ours)
            try:
                process = self._process = await _spawn(self.number, theirs, handed)
            except OSError:
                channel.close()
                raise
            theirs.close()
            handed.close()
            carrying = asyncio.create_task(channel.run(), name=f"zapd-channel-{self.number}")
            self._channel, self._hand = channel, hand
            try:
                with suppress(Closed):
                    await self._serve(carrying)
            finally:
                self._set(False, "it ended")
                self._channel = self._hand = None
                channel.close()
                await carrying
                code = await _ended(process)
                self._process = None
                if self.report is not None:
                    self._owner.lost(self.report)
                    self.report = None
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    async def _serve(self, carrying: asyncio.Task[None]) -> None:
        await self.ask(self._owner.begin(self.number), Done, within=START)
        await self._look()
        await self._owner.welcome(self)
        # Nothing may come between these two: what is told from now on is told to this one as well.
        self._set(True, "")
        self._first_is(None)
        log.info("a worker is up", number=self.number, pid=0 if self._process is None else self._process.pid)
        while not carrying.done():
            await asyncio.wait([carrying], timeout=LOOK)
            await self._look()

    async def _look(self) -> None:
        with suppress(TimeoutError):
            if self._channel is not None:
                self.report = await self._channel.call(messages.Look(), messages.Report, within=SILENT / 2)
                return
        # The second time counts: a machine, or a parent, that slept finds every deadline past when it wakes.
        self.report = await self.ask(messages.Look(), messages.Report, within=SILENT / 2)

    def _set(self, up: bool, why: str) -> None:
        self.why = why
        if self.up is not up:
            self.up = up
            self._owner.changed(self)

    def _first_is(self, trouble: Exception | None) -> None:
        if self.first.done():
            return
        if trouble is None:
            self.first.set_result(None)
        else:
            self.first.set_exception(trouble)

    def _hear(self, message: Message) -> None:
        if isinstance(message, messages.Load):
            self.load = message
        elif isinstance(message, messages.Traces):
            self._owner.heard(self, message)
        elif isinstance(message, messages.Seen):
            self._owner.seen(message.sightings)
        else:
            log.error("a worker says what its parent does not know", number=self.number, message=repr(message))


async def _spawn(number: int, channel: socket.socket, handed: socket.socket) -> asyncio.subprocess.Process:
    descriptors = (channel.fileno(), handed.fileno())
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", "zapd.app.workers", str(number), *map(str, descriptors)),
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=descriptors,
        # Readiness is the parent's to tell.
        env={name: value for name, value in os.environ.items() if name != "NOTIFY_SOCKET"},
    )


async def _ended(process: asyncio.subprocess.Process) -> int:
    """Wait for a process whose channel is gone, and kill it when it stays; its exit code."""
    try:
        return await asyncio.wait_for(process.wait(), LAST_SECONDS)
    except TimeoutError:
        with suppress(ProcessLookupError):
            process.kill()
        return await process.wait()
