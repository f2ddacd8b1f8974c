"""What routes ask for: the context, the actor, a page's bounds, a version."""

from __future__ import annotations

import base64
import binascii
import hmac
import math
from dataclasses import dataclass, field
from typing import Annotated, Final

from fastapi import Depends, Header, Query, Request

from zapd.admin.api.context import AdminContext
from zapd.admin.roles import Actor
from zapd.admin.services.audit import Still
from zapd.admin.services.tokens import PREFIX, digest
from zapd.errors import InvalidInput, Unauthenticated, ZapdError
from zapd.zmtp.keys import identifier_of

_TAG: Final = 16
"""Octets in front of a cursor that show whose it is."""


class TooManyAttempts(ZapdError):
    """This address offered too many wrong tokens."""

    code = "too_many_attempts"

    def __init__(self, retry_after: float) -> None:
        super().__init__(f"Too many wrong tokens from your address. Try again in {math.ceil(retry_after)} s.")
        self.retry_after = retry_after
        """Seconds."""


def _context(request: Request) -> AdminContext:
    context = request.app.state.context
    assert isinstance(context, AdminContext)  # noqa: S101 - our own wiring, not what a stranger sent
    return context


Context = Annotated[AdminContext, Depends(_context)]


async def authenticated(request: Request) -> tuple[AdminContext, Actor, str]:
    """The context, the caller, and a secret of the caller's, for what works around routes."""
    context = _context(request)
    actor = await _actor(request, context)
    return context, actor, _secret(request, context, actor)


def _secret(request: Request, context: AdminContext, actor: Actor) -> str:
    """What stays the same as long as the caller does, and nobody else has."""
    if _is_static(token := _bearer(request)):
        return token
    return hmac.digest(context.secret, actor.token_id.encode(), "sha256").hex()


def _is_static(token: str) -> bool:
    return token.startswith(PREFIX)


async def _authenticate(context: AdminContext, token: str) -> Actor:
    if context.people is not None and not _is_static(token):
        return await context.people.authenticate(token)
    return await context.tokens.authenticate(token)


def _bearer(request: Request) -> str:
    return request.headers.get("authorization", "").partition(" ")[2]


async def _actor(request: Request, context: Context) -> Actor:
    """Whoever the bearer token says (RFC 6750, section 2.1): from the header alone, never from a URL."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthenticated("Send a token: Authorization: Bearer zapd_…")
    address = request.client.host if request.client is not None else ""
    sought = digest(token)
    wait = context.brake.wait(address, sought)
    if wait > 0:
        raise TooManyAttempts(wait)
    try:
        actor = await _authenticate(context, token)
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
        return await _authenticate(context, token)

    return ask


StillThere = Annotated[Still, Depends(_still)]


@dataclass(frozen=True, slots=True)
class Bounds:
    """Which page, and whose."""

    limit: int
    after: str
    seal: bytes = field(repr=False)
    """A key that only this caller has for this list: cursors of others are none here."""

    def cursor(self, after: str | None) -> str | None:
        """Where the next page begins, as the caller sees it: opaque."""
        if after is None:
            return None
        return (
            base64.urlsafe_b64encode(_tag(self.seal, after.encode()) + after.encode()).rstrip(b"=").decode("ascii")
        )


class InvalidCursor(ZapdError):
    """A cursor that this caller was not given for this list."""

    code = "invalid_cursor"


def _bounds(
    request: Request,
    context: Context,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[
        str | None, Query(max_length=1024, description="`next_cursor` of the page before, for the same token.")
    ] = None,
) -> Bounds:
    # The secret is in no table and in no answer, so nobody else can make its cursors; nothing has to be kept.
    seal = hmac.digest(
        _secret(request, context, caller).encode(), b"cursor:" + request.url.path.encode(), "sha256"
    )
    return Bounds(limit, "" if cursor is None else _opened(cursor, seal), seal)


def _tag(seal: bytes, after: bytes) -> bytes:
    return hmac.digest(seal, after, "sha256")[:_TAG]


def _opened(cursor: str, seal: bytes) -> str:
    """What `Bounds.cursor` made. Raises `InvalidCursor`."""
    try:
        octets = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        if not hmac.compare_digest(octets[:_TAG], _tag(seal, octets[_TAG:])):
            raise ValueError
        return octets[_TAG:].decode()
    except (binascii.Error, ValueError):
        raise InvalidCursor(
            "The cursor is not one that you were given for this list. Begin at its start."
        ) from None


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


def fingerprint_path(text: str) -> str:
    """A fingerprint of a URL: the 43 characters, or as OpenSSH writes it."""
    found = identifier_of(text)
    if len(found) != 43 or not found.isascii() or "\0" in found:
        raise InvalidInput("A fingerprint is the 43 characters of URL-safe base64, or SHA256: and 43 characters.")
    return found
