"""Use cases about join tokens: what an operator hands to a script that shall have a key of its own.

A join token is ``zapdj_`` and 256 random bits in URL-safe base64: shown once, stored as its SHA-256. It says what
the keys that are had for it may do, how many there may be, until when and from where. What it grants its maker
must be able to grant. Exchanging it is `zapd.admin.services.enrolling`'s.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection

from zapd.admin.roles import Actor, Operation
from zapd.admin.services.changes import Change, ChangeRoad
from zapd.admin.services.common import (
    ConfiguredDomains,
    PageOf,
    check_limit,
    check_times,
    iso,
    resolve_domains,
    utc,
)
from zapd.audit.event import AuditEvent, Tag
from zapd.errors import Conflict, InvalidInput, NotFound
from zapd.store import rules, tables
from zapd.store.filters import collect, granted_within
from zapd.store.joins import JoinRecord, JoinRegistry

PREFIX: Final = "zapdj_"
"""Tells a leaked join token from an admin token."""

FORM: Final = re.compile(r"zapdj_[A-Za-z0-9_-]{43}", re.ASCII)

LIFETIME: Final = timedelta(days=1)
"""Of a token whose maker names no end."""
LONGEST: Final = timedelta(days=366)
REMEMBERED: Final = timedelta(days=90)
"""How long an expired token is listed."""
MOST: Final = 10_000
MAX_HINTS: Final = 4096
"""Octets of all hints together."""


@dataclass(frozen=True, slots=True)
class NewJoin:
    """What `JoinService.create` wants to know."""

    user: str | None = None
    """Who holds the keys; None: ``join:`` and the token's id."""
    domains: Sequence[str] | None = None
    """None: the configuration's only domain."""
    groups: Sequence[str] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    addresses: Sequence[str] = ()
    uses: int = 1
    expires: datetime | None = None
    """None: `LIFETIME` from now."""
    key_lifetime: int | None = None
    """Seconds; None: keys do not expire."""
    hints: Mapping[str, str] = field(default_factory=dict)


class JoinService:
    """Join tokens, for operators. One whose domains are limited makes and sees none beyond them."""

    def __init__(self, road: ChangeRoad, *, domains: ConfiguredDomains, most: int = MOST) -> None:
        """``most`` bounds those that may still be exchanged."""
        self._road = road
        self._domains = domains
        self._most = most
        self._joins = JoinRegistry()

    async def create(self, actor: Actor, new: NewJoin) -> tuple[JoinRecord, str]:
        """Make a token; the second value is the token itself, which nothing will ever show again."""
        actor.require(Operation.CHANGE_JOINS)
        moment = self._road.clock()
        expires = moment + LIFETIME if new.expires is None else new.expires
        check_times(None, expires, moment)
        if expires > moment + LONGEST:
            raise InvalidInput(f"A join token lives at most {LONGEST.days} days.")
        if new.uses < 1 or (new.key_lifetime is not None and new.key_lifetime < 1):
            raise InvalidInput("Uses and lifetimes are more than 0.")
        domains = resolve_domains(new.domains, self._domains)
        actor.require_all(domains)
        token = PREFIX + secrets.token_urlsafe(32)
        join_id = secrets.token_hex(8)
        record = JoinRecord(
            id=join_id,
            hash=digest(token),
            user=rules.check_name(f"join:{join_id}" if new.user is None else new.user, "user name"),
            domains=domains,
            groups=rules.check_groups(new.groups),
            attributes=rules.check_attributes(new.attributes),
            label=rules.check_text(new.label, "label"),
            addresses=rules.check_networks(new.addresses),
            hints=_checked_hints(new.hints),
            uses=new.uses,
            used=0,
            key_lifetime=new.key_lifetime,
            expires=utc(expires) or expires,
            created=moment,
            created_by=actor.name,
        )
        rules.check_metadata(record.groups, record.attributes)

        def work(connection: Connection) -> Change[JoinRecord]:
            self._joins.forget(connection, moment - REMEMBERED)
            if self._joins.good(connection, moment) >= self._most:
                raise Conflict(f"There are {self._most} join tokens that may still be exchanged: revoke some.")
            self._joins.add(connection, record)
            return Change(record, event(Tag.JOIN_CREATE, actor.name, None, record))

        return await self._road.change(work, opens=True), token

    async def list(self, actor: Actor, *, after: str = "", limit: int = 100) -> PageOf[JoinRecord]:
        """Tokens in the order of their ids; those that are spent, revoked or expired too."""
        actor.require(Operation.READ_JOINS)
        check_limit(limit)
        where = [granted_within(tables.joins.c.domains, actor.domains)]

        def ask(connection: Connection) -> PageOf[JoinRecord]:
            items, more = collect(
                lambda start, count: self._joins.page(connection, after=start, limit=count, where=where),
                lambda record: actor.sees(record.domains),
                lambda record: record.id,
                after=after,
                limit=limit,
            )
            return PageOf([replace(record, domains=actor.visible(record.domains)) for record in items], more)

        return await self._road.read(ask)

    async def revoke(self, actor: Actor, join_id: str) -> JoinRecord:
        """Make a token worthless; keys that were had for it stay. Once more changes nothing."""
        actor.require(Operation.CHANGE_JOINS)

        def work(connection: Connection) -> Change[JoinRecord]:
            before = self._joins.get(connection, join_id)
            if not actor.sees(before.domains):
                raise NotFound(f"There is no join token {join_id!r}.")
            actor.require_all(before.domains)
            if before.revoked is not None:
                return Change(before)
            moment = self._road.clock()
            self._joins.revoke(connection, join_id, moment)
            after = replace(before, revoked=moment)
            return Change(after, event(Tag.JOIN_REVOKE, actor.name, before, after))

        return await self._road.change(work, opens=False)


def digest(token: str) -> bytes:
    """What is stored of a token."""
    return hashlib.sha256(token.encode("ascii", "replace")).digest()


def event(tag: Tag, actor: str, before: JoinRecord | None, after: JoinRecord) -> AuditEvent:
    """What the record says of a change of a join token."""
    return AuditEvent(
        event=tag.value,
        actor=actor,
        subject=after.id,
        principal=after.user,
        before=None if before is None else _picture(before),
        after=_picture(after),
    )


def _checked_hints(hints: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    for name, text in hints.items():
        rules.check_name(name, "hint's name")
        rules.check_text(text, "hint")
    if sum(len(name.encode()) + len(text.encode()) for name, text in hints.items()) > MAX_HINTS:
        raise InvalidInput(f"All hints together have at most {MAX_HINTS} octets.")
    return tuple(sorted(hints.items()))


def _picture(record: JoinRecord) -> dict[str, object]:
    """All but the hash. Hints are told to whoever exchanges the token, so that they are no secret here."""
    return {
        "user": record.user,
        "domains": list(record.domains),
        "groups": list(record.groups),
        "attributes": dict(record.attributes),
        "label": record.label,
        "addresses": list(record.addresses),
        "hints": dict(record.hints),
        "uses": record.uses,
        "used": record.used,
        "key_lifetime": record.key_lifetime,
        "expires": iso(record.expires),
        "revoked": iso(record.revoked),
    }
