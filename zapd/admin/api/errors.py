"""One table of errors, one shape: problem documents (RFC 9457), whatever went wrong and wherever.

A problem never repeats what was sent, since that may be a password.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from zapd.admin.api.methods import methods_of
from zapd.admin.api.numbering import template_of
from zapd.admin.api.schemas import FieldProblem, Problem
from zapd.admin.api.streaming import BrokenOff
from zapd.admin.requests import current_request, request_named
from zapd.admin.services.importing import ImportRefused
from zapd.errors import ZapdError

PROBLEMS: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(
    {
        "invalid_cursor": (400, "Not your cursor"),
        "bad_request": (400, "Malformed request"),
        "unauthenticated": (401, "A valid token is needed"),
        "refused": (403, "Not good"),
        "forbidden": (403, "Not allowed"),
        "not_found": (404, "Not found"),
        "method_not_allowed": (405, "Method not allowed"),
        "request_timeout": (408, "The request took too long to arrive"),
        "idempotency_conflict": (409, "Carried out already"),
        "conflict": (409, "Conflict"),
        "precondition_failed": (412, "Changed meanwhile"),
        "too_large": (413, "Request too large"),
        "idempotency_mismatch": (422, "Idempotency-Key of another request"),
        "import_refused": (422, "Some rows cannot go in"),
        "invalid_input": (422, "Invalid input"),
        "too_many_attempts": (429, "Too many failed attempts"),
        "error": (500, "Internal error"),
        "unavailable": (503, "Not available now"),
    }
)
"""Stable code: status and title. The codes of `zapd.errors` and some that only HTTP knows."""

_BY_STATUS: Final = {status: code for code, (status, _title) in PROBLEMS.items()}

MEDIA_TYPE: Final = "application/problem+json"

HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
"""Sent with every answer, unless the answer has its own: what browsers heed."""

RESPONSES: Final[dict[int | str, dict[str, object]]] = {
    status: {"description": title, "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}}}
    for status, title in PROBLEMS.values()
}
"""For the OpenAPI document: every operation may answer with any of them."""

_log = logging.getLogger(__name__)


def problem_response(
    code: str, detail: str = "", errors: Sequence[FieldProblem] = (), headers: Mapping[str, str] | None = None
) -> Response:
    """The answer for one code of the table; an unknown code is an internal error."""
    status, title = PROBLEMS.get(code, PROBLEMS["error"])
    problem = Problem(
        type=f"urn:zapd:problem:{code}",
        title=title,
        status=status,
        code=code,
        detail=detail,
        errors=list(errors),
        request=current_request(),
    )
    sent = dict(headers or {})
    if status == 401:
        sent["WWW-Authenticate"] = 'Bearer realm="zapd"'
    if status == 503:
        sent.setdefault("Retry-After", "1")
    return Response(problem.model_dump_json(), status, sent, MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Let every error of the app leave as a problem."""
    app.add_exception_handler(ZapdError, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _bug)


async def _known(_request: Request, error: Exception) -> Response:
    code = error.code if isinstance(error, ZapdError) else "error"
    if code not in PROBLEMS:
        return await _bug(_request, error)
    lines = error.lines if isinstance(error, ImportRefused) else ()
    seconds = getattr(error, "retry_after", 0.0)
    headers = {"Retry-After": str(math.ceil(seconds))} if seconds > 0 else None
    errors = [FieldProblem(where=where, what=what) for where, what in lines]
    return problem_response(code, str(error), errors, headers)


async def _invalid(_request: Request, error: Exception) -> Response:
    found = error.errors() if isinstance(error, RequestValidationError) else ()
    if any(each["type"] == "json_invalid" for each in found):
        return problem_response("bad_request", "The body is not JSON.")
    # Place and rule only: pydantic would add the input itself.
    errors = [FieldProblem(where=".".join(map(str, each["loc"])), what=each["msg"]) for each in found]
    return problem_response("invalid_input", "The request does not have the right shape.", errors[:50])


async def _http(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    headers = error.headers if isinstance(error, HTTPException) else None
    if status == 405 and (found := methods_of(request.app, request.url.path)):
        headers = {"Allow": ", ".join(found)}
    return problem_response(_BY_STATUS.get(status, "error" if status >= 500 else "bad_request"), headers=headers)


async def _bug(request: Request, error: Exception) -> Response:
    # Called from outside of everything else, so that the request's id is no longer in the context.
    with request_named(request.scope.get("zapd.request", "")) as name:
        # The path's template, not the path: names may stand in it. The traceback shows code, not values.
        route = template_of(request.scope)
        if isinstance(error, BrokenOff):
            _log.warning("an answer to %s %s was broken off: %s", request.method, route, error)
            return problem_response("unavailable")
        _log.error("a bug in %s %s: %s", request.method, route, type(error).__name__, exc_info=error)
        said = "This is a bug of zapd's; its log says more."
        # No guard stands around this answer.
        headers = {key.decode(): value.decode() for key, value in HEADERS}
        return problem_response("error", said, headers={**headers, "X-Request-Id": name})
