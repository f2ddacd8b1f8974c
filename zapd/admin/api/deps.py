"""What routes ask for: the context, the actor, a page's bounds, a version."""

from __future__ import annotations

import base64
import binascii
import math
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Query, Request

from zapd.admin.api.context import AdminContext
from zapd.admin.roles import Actor
from zapd.admin.services.audit import Still
from zapd.admin.services.tokens import digest
from zapd.errors import InvalidInput, Unauthenticated, ZapdError


class TooManyAttempts(ZapdError):
    """This address offered too many wrong tokens."""

    code = "too_many_attempts"


def _context(request: Request) -> AdminContext:
    context = request.app.state.context
    assert isinstance(context, AdminContext)  # noqa: S101 - our own wiring, not what a stranger sent
    return context


Context = Annotated[AdminContext, Depends(_context)]


async def _actor(request: Request, context: Context) -> Actor:
    """Whoever the bearer token says (RFC 6750, section 2.1): from the header alone, never from a URL."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("Send a token: Authorization: Bearer zapd_…")
    address = request.client.host if request.client is not None else ""
    sought = digest(token)
    wait = context.brake.wait(address, sought)
    if wait > 0:
        raise TooManyAttempts(f"Too many wrong tokens from your address. Try again in {math.ceil(wait)} s.")
    try:
        actor = await context.tokens.authenticate(token)
    except Unauthenticated:
        context.brake.failed(address, sought)
        raise
    context.brake.passed(sought)
    return actor


Caller = Annotated[Actor, Depends(_actor)]


def _still(request: Request, context: Context, caller: Caller) -> Still:
    """For answers that take long: the caller as of then. Raises `Unauthenticated` once the token is no longer
    good."""
    _, _, token = request.headers.get("authorization", "").partition(" ")

    async def ask() -> Actor:
        return await context.tokens.authenticate(token)

    return ask


StillThere = Annotated[Still, Depends(_still)]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which page."""

    limit: int
    after: str


def _bounds(
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Bounds:
    return Bounds(limit, "" if cursor is None else from_cursor(cursor))


Paging = Annotated[Bounds, Depends(_bounds)]


def _version(
    if_match: Annotated[
        str | None, Header(max_length=64, description='The ETag that was read, such as "3".')
    ] = None,
) -> int | None:
    """The version that ``If-Match`` names (RFC 9110, section 13.1.1); None where any will do."""
    if if_match is None or if_match.strip() == "*":
        return None
    text = if_match.strip().removeprefix("W/").strip('"')
    if not (text.isascii() and text.isdigit()):
        raise InvalidInput('If-Match takes the ETag as it was given, such as "3", or *.')
    return int(text)


Version = Annotated[int | None, Depends(_version)]


def to_cursor(after: str | None) -> str | None:
    """Where the next page begins, as callers see it: opaque."""
    return None if after is None else base64.urlsafe_b64encode(after.encode()).rstrip(b"=").decode("ascii")


def from_cursor(cursor: str) -> str:
    """What `to_cursor` made. Raises `InvalidInput`."""
    try:
        found = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        raise InvalidInput("The cursor is not one that was given out.") from None
    if "\0" in found:  # PostgreSQL takes no NUL in text
        raise InvalidInput("The cursor is not one that was given out.")
    return found


def fingerprint_path(text: str) -> str:
    """A fingerprint of a URL: the 43 characters, or as OpenSSH writes it."""
    found = text.removeprefix("SHA256:").replace("+", "-").replace("/", "_")
    if len(found) != 43 or not found.isascii() or "\0" in found:
        raise InvalidInput("A fingerprint is the 43 characters of URL-safe base64, or SHA256: and 43 characters.")
    return found
