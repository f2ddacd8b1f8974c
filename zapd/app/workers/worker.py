"""One worker: decides on what it is handed, and does what the parent tells it.

It owns no listener, answers no signal but SIGKILL, and lives as long as the channel to its parent: when that is
closed it goes down in order, and within `LAST_SECONDS` in any case, so that nobody answers from a registry that no
change reaches any more.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable
from itertools import chain

import structlog

from zapd import __version__
from zapd.app.deciding import Deciding, Prepared
from zapd.app.explaining import explain
from zapd.app.gauges import gauges_of_deciding, gauges_of_ground
from zapd.app.ground import Ground
from zapd.app.judging import judge
from zapd.app.parts import Parts
from zapd.app.restart import keeping_start_only
from zapd.app.workers import messages
from zapd.app.workers.channel import Channel
from zapd.app.workers.handing import take
from zapd.app.workers.messages import Done, Message
from zapd.app.workers.penalties import Telling
from zapd.app.workers.sharing import share
from zapd.audit.event import Tag
from zapd.config import Config, load
from zapd.errors import Unavailable
from zapd.net.loop import loop_factory
from zapd.server import lifecycle, logs

log = structlog.get_logger(__name__)

LAST_SECONDS = 20.0
"""From the end of the channel to the end of the process, whatever hangs."""
_TELL = 0.05
"""Seconds between two looks at what became of the connections."""
_TELL_SEEN = 5
"""Looks between two reports of unknown keys."""
_SEEN = 500
"""Unknown keys that are told of in one."""
_BATCH = 16
"""Connections taken at a time, between which those that are in are served."""


def main(number: int, channel: int, connections: int) -> int:
    """Run until the parent is gone or says so; the exit code."""
    # A terminal and systemd tell the whole group; the parent decides. Not SIG_IGN: backends' processes inherit it.
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, lambda _number, _frame: None)
    logs.configure(worker=number)
    lifecycle.keep_secrets_in()
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(Worker(socket.socket(fileno=connections)).run(socket.socket(fileno=channel)))
    return 0


class Worker:
    """One process of those that answer."""

    def __init__(self, handed: socket.socket) -> None:
        """``handed``: where connections come."""
        self._handed = handed
        self._handed.setblocking(False)
        self._channel = Channel(self._respond, self._hear)
        self._parts = Parts()
        self._stopping = asyncio.Event()
        self._started: Config
        self._workers = 1
        self._ground: Ground
        self._deciding: Deciding
        self._takers: list[Callable[[socket.socket], None]] = []
        self._prepared: Prepared | None = None
        self._received = 0
        self._told = messages.Load(0, 0, 0)

    async def run(self, channel: socket.socket) -> None:
        """Serve until the channel ends."""
        await self._channel.open(channel)
        carrying = asyncio.create_task(self._channel.run(), name="zapd-channel")
        stopping = asyncio.create_task(self._stopping.wait())
        telling = asyncio.create_task(self._tell_load(), name="zapd-load")
        await asyncio.wait([carrying, stopping], return_when=asyncio.FIRST_COMPLETED)
        if not self._stopping.is_set():
            log.warning("the parent is gone; this worker ends")
        last = threading.Timer(LAST_SECONDS, os._exit, [1])
        last.daemon = True
        last.start()
        telling.cancel()
        stopping.cancel()
        asyncio.get_running_loop().remove_reader(self._handed)
        self._channel.answer_no_more()
        await self._parts.down()
        self._channel.close()
        await carrying
        last.cancel()

    # -- what the parent asks --------------------------------------------------------------------------------

    async def _respond(self, question: Message) -> Message:
        match question:
            case messages.Begin():
                await self._begin(question)
            case messages.Look():
                return self._report()
            case messages.CatchUp(sequence=sequence):
                await self._ground.registry.reach(sequence)
            case messages.Prepare(text=text):
                self._prepared = self._deciding.prepare(await asyncio.to_thread(self._load, text))
            case messages.Adopt() if self._prepared is not None:
                await self._deciding.adopt(self._prepared)
                self._prepared = None
            case messages.Forget():
                self._prepared = None
            case messages.Explain(supposed=supposed):
                return messages.Explained(await explain(self._deciding.authority, supposed))
            case messages.Judge(login=login):
                return messages.Told(await judge(self._deciding, login))
            case messages.Drain(seconds=seconds):
                await self._deciding.drain(seconds)
            case _:
                raise Unavailable(f"{question!r} makes no sense now")
        return Done()

    def _hear(self, message: Message) -> None:
        match message:
            case messages.Stop():
                self._stopping.set()
            case messages.Traces(traces=traces):
                self._ground.throttle.take(traces)
            case messages.Penalties(remembered=remembered):
                self._ground.throttle.remember(remembered)
            case messages.Release(count=count):
                self._deciding.doors.release(count)
            case _:
                log.error("the parent says what a worker does not know", message=repr(message))

    async def _begin(self, begin: messages.Begin) -> None:
        if begin.version != __version__:
            raise Unavailable(f"zapd {__version__} was installed while {begin.version} runs: restart zapd")
        self._workers = begin.workers
        self._started = await asyncio.to_thread(load, begin.path, text=begin.started, check_files=False)
        config = await asyncio.to_thread(self._load, begin.text)
        self._ground = Ground(config, self._parts, begin.penalty_key)
        await self._ground.start()
        Telling(self._ground.throttle, self._channel.tell)
        self._deciding = Deciding(config, self._ground, self._parts)
        await self._deciding.start()
        self._takers = self._deciding.doors.receive(begin.server_key)
        asyncio.get_running_loop().add_reader(self._handed, self._take)
        self._ground.note(Tag.SERVICE_START, {"version": __version__, "worker": begin.number})
        lifecycle.settle()

    def _load(self, text: str) -> Config:
        """What such a text brings into force here."""
        config = load(self._started.path, text=text)
        return share(keeping_start_only(self._started, config), self._workers)

    def _report(self) -> messages.Report:
        parts = self._ground.readiness()
        counted = self._deciding.metrics
        gauges = chain(gauges_of_deciding(self._deciding), gauges_of_ground(self._ground))
        return messages.Report(
            parts=tuple(parts),
            backends=tuple(self._deciding.backends()),
            decisions=tuple((*key, number) for key, number in counted.decisions.items()),
            malformed=counted.malformed,
            bugs=counted.bugs,
            buckets=tuple(counted.buckets),
            seconds=counted.seconds,
            gauges=tuple((name, text, dict(values)) for name, text, values in gauges),
        )

    # -- connections -----------------------------------------------------------------------------------------

    def _take(self) -> None:
        for _ in range(_BATCH):
            try:
                taken = take(self._handed)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                taken = None
            if taken is None:  # the parent is gone, and the channel says so too
                asyncio.get_running_loop().remove_reader(self._handed)
                return
            endpoint, connection = taken
            self._received += 1
            if connection is not None:
                self._takers[endpoint](connection)

    async def _tell_load(self) -> None:
        looks = 0
        while True:
            await asyncio.sleep(_TELL)
            looks += 1
            if self._takers:
                if looks % _TELL_SEEN == 0 and self._ground.waiting:
                    self._channel.tell(messages.Seen(tuple(self._ground.waiting.take(_SEEN))))
                router = self._deciding.doors.router
                load_now = messages.Load(self._received, router.connections, len(router.peers))
                if load_now != self._told:
                    self._told = load_now
                    self._channel.tell(load_now)
