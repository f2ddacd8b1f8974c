"""What surrounds every request: bounds on size and time, headers that browsers heed, a brake on guessing.

Plain ASGI, before any framework code sees a byte of the body.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zapd.admin.api.errors import HEADERS, problem_response
from zapd.errors import ZapdError

MAX_BODY: Final = 1 << 20
"""Octets in a request."""

LONG: Final[Mapping[str, tuple[int, float]]] = {
    "/v1/keys/import": (64 << 20, 120.0),
    "/v1/users/import": (16 << 20, 60.0),
}
"""Paths that take more: octets, and seconds for them to arrive. What comes is handed on as it comes, so that
whoever has no token fills neither memory nor disk."""

READ_DEADLINE: Final = 10.0
"""Seconds for a whole body to arrive: total, not per read, so that a trickle gains nothing."""


class Guards:
    """Reads the body within its bounds, then lets the app work on it; adds `HEADERS` to what comes back."""

    def __init__(self, app: ASGIApp, *, max_body: int = MAX_BODY, deadline: float = READ_DEADLINE) -> None:
        self._app = app
        self._max_body = max_body
        self._deadline = deadline

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message.setdefault("headers", [])
                present = {name.lower() for name, _value in headers}
                message["headers"] = [*headers, *(pair for pair in HEADERS if pair[0] not in present)]
            await send(message)

        long = LONG.get(scope.get("path", ""))
        if long is not None:
            await self._app(scope, _Long(receive, *long).receive, guarded)
            return
        try:
            async with asyncio.timeout(self._deadline):
                body = await _read(receive, self._max_body)
        except TimeoutError:
            await _close(problem_response("request_timeout"), scope, receive, guarded)
            return
        if body is None:
            limit = f"A request has at most {self._max_body} octets."
            await _close(problem_response("too_large", limit), scope, receive, guarded)
            return
        told = False

        async def replay() -> Message:
            nonlocal told
            if told:
                return await receive()
            told = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, guarded)


class BodyTooLong(ZapdError):
    """More than the path takes."""

    code = "too_large"


class BodyTooSlow(ZapdError):
    """Not here in time."""

    code = "request_timeout"


class _Long:
    """Counts the octets and the time of a body that is read by the app itself."""

    def __init__(self, receive: Receive, limit: int, deadline: float) -> None:
        self._receive = receive
        self._limit = limit
        self._left = limit
        self._ends = asyncio.get_running_loop().time() + deadline
        self._whole = False

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._ends):
                message = await self._receive()
        except TimeoutError:
            raise BodyTooSlow("The file took too long to arrive.") from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise BodyTooLong(f"A file for an import has at most {self._limit} octets: cut it in pieces.")
        self._whole = not message.get("more_body", False)
        return message


class SignInBrake:
    """Slows down whoever offers wrong tokens, by address: too many failures in a while, and for the rest of it
    only tokens that were right before are looked at.

    A table of bounded size; the address heard of longest ago goes first.
    """

    def __init__(
        self,
        *,
        failures: int = 20,
        window: float = 60.0,
        size: int = 4096,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures = failures
        self._window = window
        self._size = size
        self._clock = clock
        self._table: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._good: OrderedDict[bytes, None] = OrderedDict()

    def wait(self, address: str, digest: bytes) -> float:
        """Seconds for which this address must wait before this token is looked at; 0 is now."""
        since, count = self._table.get(address, (0.0, 0))
        left = since + self._window - self._clock()
        if count < self._failures or left <= 0 or digest in self._good:
            return 0.0
        return left

    def failed(self, address: str, digest: bytes) -> None:
        """A token was not valid."""
        self._good.pop(digest, None)
        now = self._clock()
        since, count = self._table.pop(address, (now, 0))
        if now - since >= self._window:
            since, count = now, 0
        self._table[address] = (since, count + 1)
        if len(self._table) > self._size:
            self._table.popitem(last=False)

    def passed(self, digest: bytes) -> None:
        """A token was valid: guessers beside its owner shall not shut the owner out."""
        self._good[digest] = None
        self._good.move_to_end(digest)
        if len(self._good) > self._size:
            self._good.popitem(last=False)


async def _read(receive: Receive, limit: int) -> bytes | None:
    """The whole body; None when it is longer than ``limit``."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return bytes(body)
        body += message.get("body", b"")
        if len(body) > limit:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def _close(response: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer and ask for the connection's end: what is still on its way shall not be read."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
        await send(message)

    await response(scope, receive, closing)
