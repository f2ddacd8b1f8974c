"""``Idempotency-Key`` on POST: the same request, sent again within a day, gets the answer of the first time.

A route class, so that routes know nothing of it. The key belongs to the caller's token and to the request as it
was: another body, path or ``If-Match`` under the same key is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, ClassVar, Final

from fastapi import Request
from fastapi.responses import Response
from fastapi.routing import APIRoute

from zapd.admin.api.deps import authenticated
from zapd.admin.services.once import MAX_ANSWER, Once, carrying_out

_HEADERS: Final = ("etag", "location", "content-type")
"""Of an answer that is repeated."""

_PARAMETER: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Sent again within 24 hours with the same request, it is answered as the first time"
    " (`Idempotency-Replayed: true`), and nothing is done twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}


class OnceRoute(APIRoute):
    """A route whose POST heeds the header."""

    keeps: ClassVar = True
    """Whether answers are kept; where they hold a secret they must not be."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        if "POST" in (options.get("methods") or ()):
            options["openapi_extra"] = {**(options.get("openapi_extra") or {}), "parameters": [_PARAMETER]}
        super().__init__(*arguments, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI asks for it once."""
        handle = super().get_route_handler()

        async def once(request: Request) -> Response:
            key = request.headers.get("idempotency-key")
            if key is None or request.method != "POST":
                return await handle(request)
            return await self._once(request, key, handle)

        return once

    async def _once(
        self, request: Request, key: str, handle: Callable[[Request], Coroutine[Any, Any, Response]]
    ) -> Response:
        context, actor, token = await authenticated(request)
        parts = (request.url.path, request.url.query, request.headers.get("if-match", ""))
        body = await request.body()
        once = Once.of(actor.token_id, token, key, *(part.encode() for part in parts), body)
        moment = context.road.clock()
        kept = await context.road.read(lambda found: once.answered(found, moment))
        if kept is not None and kept.status is not None:
            return Response(kept.body, kept.status, {**dict(kept.headers), "Idempotency-Replayed": "true"})
        with carrying_out(once):
            answer = await handle(request)
        octets = bytes(answer.body)
        if once.begun and self.keeps and len(octets) <= MAX_ANSWER:
            headers = {name: answer.headers[name] for name in _HEADERS if name in answer.headers}
            await context.road.note(lambda found: once.keep(found, answer.status_code, headers, octets))
        return answer


class SecretOnceRoute(OnceRoute):
    """Where an answer holds a secret that is shown once: it is not kept, and a retry is told what happened."""

    keeps = False
