"""Stands between a backend and its server, and breaks what passes: see `support.faults` for who uses it."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self

from zapd.auth.backend import Backend, BackendContext

CHUNK = 65536
GARBAGE = random.Random(4).randbytes(300) + b"\r\n\r\n"


class FaultProxy:
    """A TCP proxy in a thread of its own. Its port is held all the time, also while nobody may connect."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        """Forwards to ``host``:``port`` until it is told otherwise."""
        self._upstream = (host, port)
        self._holder = _bound(0)
        self.port: int = self._holder.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        """The task of each is held here: the loop alone would let it go while it waits."""
        self._mode = "pass"
        self._delay = 0.0
        self._tls: ssl.SSLContext | None = None
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.heal()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.refuse()
        self._do(self._end_tasks)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._holder.close()

    def heal(self) -> None:
        """Forward again; whatever was open under a fault is cut."""
        self._set("pass")

    def refuse(self) -> None:
        """Nobody can connect, and who was connected is cut."""
        self._set("refuse")

    def hang(self) -> None:
        """Take connections and questions, and never answer."""
        self._set("hang")

    def answer_garbage(self) -> None:
        """Answer the first octets with nonsense, then hang up."""
        self._set("garbage")

    def delay(self, seconds: float) -> None:
        """Every answer comes so much later."""
        self._delay = seconds
        self._set("delay")

    def die_mid_answer(self) -> None:
        """Let half of the first answer through, then reset the connection."""
        self._set("die")

    def fail_tls(self, context: ssl.SSLContext) -> None:
        """Speak TLS itself, with a certificate that the client must not take."""
        self._tls = context
        self._set("tls")

    def _set(self, mode: str) -> None:
        async def change() -> None:
            self._mode = mode
            for writer in list(self._open):
                _reset(writer)
            if mode == "refuse" and self._server is not None:
                self._server.close()
                self._server = None
            elif mode != "refuse" and self._server is None:
                listening = _bound(self.port)
                listening.listen(256)
                self._server = await asyncio.start_server(self._serve, sock=listening)

        self._do(change)

    def _do(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        asyncio.run_coroutine_threadsafe(work(), self._loop).result(30)

    async def _end_tasks(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open[writer] = asyncio.current_task()
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):  # which comes at the end alone
                await self._talk(reader, writer)
        finally:
            self._open.pop(writer, None)
            writer.transport.abort()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mode = self._mode
        if mode == "tls":
            assert self._tls is not None
            await writer.start_tls(self._tls)
            mode = "hang"  # a client that took the certificate would now tell its secret to nobody
        if mode == "garbage":
            await reader.read(CHUNK)
            writer.write(GARBAGE)
            await writer.drain()
            writer.close()
        elif mode == "hang":
            while await reader.read(CHUNK):
                pass
        else:
            far_reader, far_writer = await asyncio.open_connection(*self._upstream)
            try:
                forth = asyncio.ensure_future(_pump(reader, far_writer))
                await self._answer(mode, far_reader, writer)
                forth.cancel()
            finally:
                far_writer.transport.abort()

    async def _answer(self, mode: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            if mode == "delay":
                await asyncio.sleep(self._delay)
            if mode == "die":
                writer.write(data[: len(data) // 2])
                await writer.drain()
                _reset(writer)
                return
            writer.write(data)
            await writer.drain()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class BehindProxy:
    """For a backend's contract tests: its source is behind ``proxy``, which breaks it and mends it."""

    proxy: FaultProxy

    async def break_source(self, context: BackendContext, backend: Backend) -> bool:
        await asyncio.to_thread(self.proxy.refuse)
        return True

    async def mend_source(self, context: BackendContext, backend: Backend) -> bool:
        await asyncio.to_thread(self.proxy.heal)
        return True

    async def hang_source(self, context: BackendContext, backend: Backend) -> bool:
        await asyncio.to_thread(self.proxy.hang)
        return True
