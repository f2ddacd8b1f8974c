"""Handlers that behave: quick, slow, broken, hanging."""

from __future__ import annotations

import asyncio

from zapd.zap import Status, ZapReply, ZapRequest


class Answering:
    """Answers from memory what it was told to, and remembers what it was asked."""

    def __init__(self, status: int = 200, user_id: bytes = b"", metadata: bytes = b"", delay: float = 0.0) -> None:
        self.reply = ZapReply(Status(status), user_id, metadata)
        self.delay = delay
        self.asked: list[ZapRequest] = []

    async def answer(self, request: ZapRequest) -> ZapReply:
        self.asked.append(request)
        if self.delay:
            await asyncio.sleep(self.delay)
        return self.reply


class Raising:
    """A bug, before or after the first suspension."""

    def __init__(self, late: bool = False) -> None:
        self.late = late

    async def answer(self, request: ZapRequest) -> ZapReply:
        if self.late:
            await asyncio.sleep(0)
        raise RuntimeError("a bug in the handler")


class Hanging:
    """Never answers; remembers whether it was told to stop."""

    def __init__(self) -> None:
        self.asked = 0
        self.stopped = 0

    async def answer(self, request: ZapRequest) -> ZapReply:
        self.asked += 1
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            self.stopped += 1
            raise
        raise AssertionError("nobody completes that future")
