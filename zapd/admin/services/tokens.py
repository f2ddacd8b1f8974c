"""Use cases about admin tokens, and the one place where a token becomes an `Actor`.

A token is ``zapd_`` and 256 random bits in URL-safe base64. It is shown once, stored as its SHA-256, and found by
that: no secret is compared octet by octet. Each call asks the database, so a revoked token is out at once.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from zapd.admin.roles import Actor, Operation, Role
from zapd.admin.services.changes import Change, ChangeRoad
from zapd.admin.services.common import PageOf, check_limit, check_times, iso, utc
from zapd.audit.event import AuditEvent, Tag
from zapd.errors import NotFound, Unauthenticated
from zapd.store import rules, tables
from zapd.store.filters import collect, granted_within
from zapd.store.tokens import TokenRecord, TokenRegistry

PREFIX: Final = "zapd_"
"""Makes a leaked token easy to find for scanners."""

_FORM: Final = re.compile(r"zapd_[A-Za-z0-9_-]{43}", re.ASCII)
_NOTE_USE: Final = timedelta(minutes=1)
_NOT_VALID: Final = "The token is unknown, revoked or expired."


class TokenService:
    """Admin tokens, for admins. One whose domains are limited makes and sees none beyond them."""

    def __init__(self, road: ChangeRoad) -> None:
        self._road = road
        self._tokens = TokenRegistry()

    async def create(
        self,
        actor: Actor,
        name: str,
        role: Role,
        *,
        domains: Sequence[str] = ("*",),
        expires: datetime | None = None,
    ) -> tuple[TokenRecord, str]:
        """Make a token; the second value is the token itself, which nothing will ever show again."""
        actor.require(Operation.CHANGE_TOKENS)
        moment = self._road.clock()
        check_times(None, expires, moment)
        wanted = rules.check_domains(domains)
        actor.require_all(wanted)
        token = PREFIX + secrets.token_urlsafe(32)
        record = TokenRecord(
            id=secrets.token_hex(8),
            name=rules.check_name(name, "token's name"),
            hash=digest(token),
            role=role.value,
            domains=wanted,
            expires=utc(expires),
            created=moment,
        )

        def work(connection: Connection) -> Change[TokenRecord]:
            self._tokens.add(connection, record)
            return Change(record, _event(Tag.TOKEN_CREATE, actor, None, record))

        return await self._road.change(work, opens=True), token

    async def list(self, actor: Actor, *, after: str = "", limit: int = 100) -> PageOf[TokenRecord]:
        """Tokens in the order of their ids, revoked and expired ones too."""
        actor.require(Operation.READ_TOKENS)
        check_limit(limit)
        where = [granted_within(tables.tokens.c.domains, actor.domains)]

        def ask(connection: Connection) -> PageOf[TokenRecord]:
            items, more = collect(
                lambda start, count: self._tokens.page(connection, after=start, limit=count, where=where),
                lambda record: actor.sees(record.domains),
                lambda record: record.id,
                after=after,
                limit=limit,
            )
            shown = [replace(record, domains=actor.visible(record.domains)) for record in items]
            return PageOf(shown, more)

        return await self._road.read(ask)

    async def revoke(self, actor: Actor, token_id: str) -> TokenRecord:
        """Make a token worthless. Once more changes nothing."""
        actor.require(Operation.CHANGE_TOKENS)

        def work(connection: Connection) -> Change[TokenRecord]:
            before = self._tokens.get(connection, token_id)
            if not actor.sees(before.domains):
                raise NotFound(f"There is no token {token_id!r}.")
            actor.require_all(before.domains)
            if before.revoked is not None:
                return Change(before)
            after = replace(before, revoked=self._road.clock())
            self._tokens.revoke(connection, token_id, self._road.clock())
            return Change(after, _event(Tag.TOKEN_REVOKE, actor, before, after))

        return await self._road.change(work, opens=False)

    async def authenticate(self, token: str) -> Actor:
        """Whose token this is. Raises `Unauthenticated`, with the same words whatever is wrong with it."""
        if not _FORM.fullmatch(token):
            raise Unauthenticated(_NOT_VALID)
        sought = digest(token)
        record = await self._road.read(lambda found: self._tokens.find(found, sought))
        moment = self._road.clock()
        if record is None or record.revoked is not None:
            raise Unauthenticated(_NOT_VALID)
        if record.expires is not None and record.expires <= moment:
            raise Unauthenticated(_NOT_VALID)
        if record.last_used is None or moment - record.last_used >= _NOTE_USE:
            await self._road.note(lambda found: self._tokens.used(found, record.id, moment))
        return Actor(record.name, Role(record.role), record.domains, record.id)


def digest(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode("ascii", "replace")).digest()


def _event(tag: Tag, actor: Actor, before: TokenRecord | None, after: TokenRecord) -> AuditEvent:
    return AuditEvent(
        event=tag.value,
        actor=actor.name,
        subject=after.id,
        before=None if before is None else _picture(before),
        after=_picture(after),
    )


def _picture(record: TokenRecord) -> dict[str, object]:
    return {
        "name": record.name,
        "role": record.role,
        "domains": list(record.domains),
        "expires": iso(record.expires),
        "revoked": iso(record.revoked),
    }
