"""Answers that have no end yet: sent as they come, as fast as they are taken, until the caller is gone.

Nothing is gathered here: the next piece is asked for when the one before has gone to the connection, whose own
buffer is bounded; a caller that takes nothing is dropped there (`zapd.app.http`). What was opened for the answer
is closed in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from zapd.errors import ZapdError


class BrokenOff(Exception):
    """An answer under way that cannot go on: the connection breaks off, since nothing else would tell the caller
    that this was not all."""


class Streamed(Response):
    """The pieces of ``pieces``; ``close`` is called at the end, however it comes."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        media_type: str,
        headers: Mapping[str, str] | None = None,
        close: Callable[[], None] = lambda: None,
        stopping: asyncio.Event | None = None,
    ) -> None:
        """``stopping`` ends the answer in order: the server goes down, and the caller may come back."""
        super().__init__(b"", 200, headers, media_type)
        del self.headers["content-length"]
        self._pieces = pieces
        self._close = close
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            if await self._until_over(receive, send):
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._close()

    async def _until_over(self, receive: Receive, send: Send) -> bool:
        """Send; whether anybody is left to be told that this is all. Raises what ``pieces`` raises: then the
        connection breaks off, and the caller does not take a part for the whole."""
        sending = asyncio.create_task(self._send(send), name="zapd-streamed")
        gone = asyncio.create_task(_gone(receive))
        tasks = [sending, gone]
        if self._stopping is not None:
            tasks.append(asyncio.create_task(_set(self._stopping)))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                try:
                    await sending
                except ZapdError as trouble:
                    raise BrokenOff(str(trouble)) from None
            return not gone.done()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _send(self, send: Send) -> None:
        async with aclosing(self._pieces) as pieces:
            async for piece in pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(0)  # to a connection that is gone one sends without ever waiting


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _set(event: asyncio.Event) -> None:
    await event.wait()
