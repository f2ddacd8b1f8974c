"""Questions and answers between two processes of ours, over a pair of connected sockets.

A frame is its length in four octets (network order) and a msgpack array: a number and a `messages.Message`.
Numbers above 0 ask, the same below 0 answers, 0 wants no answer. Everything is bounded: a frame, what is unsent,
how many questions are worked on, and how long an answer is waited for. A frame that cannot be read ends the
channel: both ends are of one program, so something is badly wrong.

Adding to what is carried is a class in `messages`, and whoever sends and takes it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import msgspec
import structlog

from zapd.app.workers import messages
from zapd.app.workers.messages import Failed, Message
from zapd.errors import ConfigurationError, Unavailable, ZapdError

log = structlog.get_logger(__name__)

LONGEST = 16 * 1024 * 1024
"""Octets in a frame: two whole configurations fit, and any number of metrics."""
MOST_UNSENT = 4 * LONGEST
MOST_QUESTIONS = 64
"""Questions of the other side that are worked on at a time."""

_LENGTH = struct.Struct("!I")

Answer = TypeVar("Answer", bound=Message)


class Closed(Unavailable):
    """The other side is gone."""


class _Frame(msgspec.Struct, array_like=True, frozen=True):
    number: int
    body: messages.Said


class Channel:
    """One end: `open`, then `run`. All of it is for one event loop."""

    def __init__(
        self,
        respond: Callable[[Message], Awaitable[Message]] | None = None,
        hear: Callable[[Message], None] | None = None,
    ) -> None:
        """``respond`` answers what the other side asks: a `ZapdError` it raises is told as `Failed`. ``hear``
        takes what wants no answer."""
        self._respond = respond
        self._hear = hear
        self._encode = msgspec.msgpack.Encoder().encode
        self._decode = msgspec.msgpack.Decoder(_Frame).decode
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter
        self._number = 0
        self._open: dict[int, asyncio.Future[Message]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def open(self, sock: socket.socket) -> None:
        """``sock``, connected, becomes ours."""
        self._reader, self._writer = await asyncio.open_unix_connection(sock=sock)

    async def run(self) -> None:
        """Carry until the other side is gone; then every open question is `Closed`."""
        try:
            while True:
                (length,) = _LENGTH.unpack(await self._reader.readexactly(_LENGTH.size))
                if length > LONGEST:
                    raise msgspec.DecodeError("a frame is too long")
                self._take(self._decode(await self._reader.readexactly(length)))
        except (asyncio.IncompleteReadError, OSError):
            pass
        except msgspec.DecodeError as error:
            log.error("the other process cannot be understood", reason=str(error))
        finally:
            self.close()

    async def call(self, question: Message, expected: type[Answer], *, within: float) -> Answer:
        """Ask, and wait ``within`` seconds. Raises `Closed`, `TimeoutError`, and what the other side failed with:
        `ConfigurationError` or `Unavailable`."""
        self._number += 1
        number = self._number
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._open[number] = future
        try:
            self._send(number, question)
            async with asyncio.timeout(within):
                answer = await future
        finally:
            del self._open[number]
        if isinstance(answer, Failed):
            raise (ConfigurationError if answer.configuration else Unavailable)(answer.text)
        if not isinstance(answer, expected):
            raise Unavailable(f"{answer!r} is no answer to {question!r}")
        return answer

    def tell(self, message: Message) -> None:
        """Say something that wants no answer. Nothing happens when the other side is gone."""
        with suppress(Closed):
            self._send(0, message)

    def close(self) -> None:
        """Hang up."""
        self._closed = True
        self._writer.close()
        for future in self._open.values():
            if not future.done():
                future.set_exception(Closed("The other process is gone."))
        self.answer_no_more()

    def answer_no_more(self) -> None:
        """Drop the questions of the other side that are worked on."""
        for task in self._tasks:
            task.cancel()

    def _send(self, number: int, message: Message) -> None:
        if self._closed:
            raise Closed("The other process is gone.")
        body = self._encode([number, message])
        if len(body) > LONGEST:
            raise Unavailable(f"{message!r} is too long to be told")
        if self._writer.transport.get_write_buffer_size() > MOST_UNSENT:
            self.close()
            raise Closed("The other process does not listen.")
        self._writer.write(_LENGTH.pack(len(body)) + body)

    def _take(self, frame: _Frame) -> None:
        if frame.number < 0:
            future = self._open.get(-frame.number)
            if future is not None and not future.done():  # else nobody waits any more
                future.set_result(frame.body)
        elif frame.number == 0:
            if self._hear is not None:
                self._hear(frame.body)
        elif len(self._tasks) >= MOST_QUESTIONS:
            self._send(-frame.number, Failed("too many questions at once"))
        else:
            task = asyncio.create_task(self._answer(frame.number, frame.body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _answer(self, number: int, question: Message) -> None:
        answer: Message = Failed("nobody answers here")
        if self._respond is not None:
            try:
                answer = await self._respond(question)
            except ZapdError as error:
                answer = Failed(str(error), isinstance(error, ConfigurationError))
            except Exception as error:
                log.exception("a question of the other process was not answered", question=repr(question))
                answer = Failed(f"{type(error).__name__}; see the log")
        with suppress(Closed):
            self._send(-number, answer)
