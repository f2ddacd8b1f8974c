"""Gives each request its id, says it in the answer, and writes a line for each that changed something.

Plain ASGI, around everything else. A line has the path's template, never the path, in which names stand.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from zapd.admin.requests import request_named

PREFIX: Final = "/v1"
"""Before every path of the API; the process's own pages stand beside it."""
HEADER: Final = b"x-request-id"
_READS: Final = frozenset({"GET", "HEAD", "OPTIONS"})

_log = logging.getLogger(__name__)


def template_of(scope: Scope) -> str:
    """The template of the path that was asked for, ``?`` where no route was found."""
    found = getattr(scope.get("route"), "path", "?")
    # FastAPI 0.165 leaves out the prefix under which a router is included.
    whole = found.startswith(PREFIX + "/") or not scope.get("path", "").startswith(PREFIX + "/")
    return found if whole or found == "?" else PREFIX + found


class Numbering:
    """See `zapd.admin.requests`."""

    def __init__(
        self, app: ASGIApp, *, trace: Callable[[str, str, int, float, str, str], None] | None = None
    ) -> None:
        """``trace`` is `zapd.admin.api.context.AdminContext.trace`."""
        self._app = app
        self._trace = trace

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        offered = headers.get(HEADER, b"").decode("latin-1")
        status = 500
        started = time.monotonic()
        with request_named(offered) as name:
            scope["zapd.request"] = name  # for who answers from outside of this, when there is a bug within

            async def named(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    message["headers"] = [*message.get("headers", ()), (HEADER, name.encode())]
                    # Strangers change nothing, and so write no line.
                    if scope["method"] not in _READS and message["status"] < 400:
                        route = template_of(scope)
                        spent = (time.monotonic() - started) * 1000
                        _log.info("%s %s: %d in %.1f ms", scope["method"], route, message["status"], spent)
                await send(message)

            try:
                await self._app(scope, receive, named)
            finally:
                if self._trace is not None and scope["path"].startswith(PREFIX):
                    parent = headers.get(b"traceparent", b"").decode("latin-1")
                    spent = time.monotonic() - started
                    self._trace(scope["method"], template_of(scope), status, spent, name, parent)
