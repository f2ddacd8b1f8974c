"""Use cases about PLAIN users. One method, one transaction, one audit event; never a password in any of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol, TypedDict

from sqlalchemy import Connection

from zapd.admin.roles import Actor, Operation
from zapd.admin.services.changes import Change, ChangeRoad
from zapd.admin.services.common import (
    ConfiguredDomains,
    PageOf,
    check_limit,
    check_times,
    check_version,
    iso,
    resolve_domains,
    utc,
)
from zapd.admin.services.keys import event as key_event
from zapd.audit.event import AuditEvent, Tag
from zapd.auth.hashing import HashPoolFull
from zapd.errors import Conflict, InvalidInput, NotFound, Unavailable
from zapd.store import rules, tables
from zapd.store.domains import Grant
from zapd.store.filters import collect, granted_in, granted_within
from zapd.store.keys import SIGNED_IN, KeyRegistry, KeyState
from zapd.store.users import UserRecord, UserRegistry, UserState

MAX_PASSWORD = 255
"""Octets (RFC 27)."""


class Hasher(Protocol):
    """What makes password hashes off the event loop: `zapd.auth.hashing.HashPool`."""

    async def hash(self, password: bytes) -> str: ...


@dataclass(frozen=True, slots=True)
class NewUser:
    """What `UserService.add` wants to know."""

    name: str
    password: bytes = field(repr=False)
    domains: Sequence[str] | None = None
    """None: the configuration's only domain."""
    groups: Sequence[str] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    expires: datetime | None = None


class UserChange(TypedDict, total=False):
    """What `UserService.change` shall change: what is absent stays."""

    state: UserState
    domains: Sequence[str]
    groups: Sequence[str]
    attributes: Mapping[str, str]
    expires: datetime | None


class UserService:
    """The PLAIN users of the registry, for those who may. Domains limit an actor as in `KeyService`."""

    def __init__(self, road: ChangeRoad, *, domains: ConfiguredDomains, hasher: Hasher) -> None:
        self._road = road
        self._domains = domains
        self._hasher = hasher
        self._users = UserRegistry()
        self._keys = KeyRegistry()

    async def add(self, actor: Actor, new: NewUser) -> UserRecord:
        """Register a user. Raises `Conflict` when the name is taken."""
        actor.require(Operation.CHANGE_USERS)
        moment = self._road.clock()
        check_times(None, new.expires, moment)
        domains = resolve_domains(new.domains, self._domains)
        actor.require_all(domains)
        record = UserRecord(
            name=rules.check_path_name(new.name, "user name"),
            hash="",
            state=UserState.ENABLED,
            domains=domains,
            groups=rules.check_groups(new.groups),
            attributes=rules.check_attributes(new.attributes),
            expires=utc(new.expires),
            created=moment,
            updated=moment,
        )
        rules.check_metadata(record.groups, record.attributes)
        record = replace(record, hash=await self._hash(new.password))

        def work(connection: Connection) -> Change[UserRecord]:
            if self._users.find(connection, record.name) is not None:
                raise Conflict(f"There is a user {record.name!r} already.")
            self._users.add(connection, record)
            return Change(record, event(Tag.USER_ADD, actor, None, record))

        return await self._road.change(work, opens=True)

    async def list(
        self,
        actor: Actor,
        *,
        state: UserState | None = None,
        domain: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> PageOf[UserRecord]:
        """Users in the order of their names. ``domain``: only those that are granted in it."""
        actor.require(Operation.READ_USERS)
        check_limit(limit)
        where = [granted_within(tables.users.c.domains, actor.domains)]
        if state is not None:
            where.append(tables.users.c.state == state)
        if domain is not None:
            where.append(granted_in(tables.users.c.domains, domain))

        def ask(connection: Connection) -> PageOf[UserRecord]:
            items, more = collect(
                lambda start, count: self._users.page(connection, after=start, limit=count, where=where),
                lambda record: actor.sees_in(record.domains, domain),
                lambda record: record.name,
                after=after,
                limit=limit,
            )
            return PageOf([_shown(actor, record) for record in items], more)

        return await self._road.read(ask)

    async def show(self, actor: Actor, name: str) -> UserRecord:
        """One user. Raises `NotFound`, also for what the actor may not see."""
        actor.require(Operation.READ_USERS)
        return _shown(actor, await self._road.read(lambda found: self._see(found, actor, name)))

    async def change(
        self, actor: Actor, name: str, change: UserChange, *, version: int | None = None
    ) -> UserRecord:
        """Change what is said of a user. What only disables goes through without a journal."""
        actor.require(Operation.CHANGE_USERS)
        moment = self._road.clock()

        def work(connection: Connection) -> Change[UserRecord]:
            before = self._own(connection, actor, name)
            check_version(before.version, version)
            after = _changed(before, change)
            actor.require_all(after.domains)
            if "expires" in change:
                check_times(None, after.expires, moment)
            if after == before:
                return Change(before)
            saved = self._users.save(connection, after, moment)
            shut = before.state is UserState.ENABLED and saved.state is UserState.DISABLED
            ended = self._end_signed_in(connection, actor, before, "user disabled") if shut else ()
            return Change(saved, event(_tag(before, saved), actor, before, saved), ended)

        closes = change.get("state") is UserState.DISABLED and len(change) == 1
        return await self._road.change(work, opens=not closes)

    async def disable(self, actor: Actor, name: str) -> UserRecord:
        """Shut a user out until it is enabled again."""
        return await self.change(actor, name, {"state": UserState.DISABLED})

    async def enable(self, actor: Actor, name: str) -> UserRecord:
        """Let a disabled user in again."""
        return await self.change(actor, name, {"state": UserState.ENABLED})

    async def set_password(
        self, actor: Actor, name: str, password: bytes, *, version: int | None = None
    ) -> UserRecord:
        """Give a new password; the old one is worth nothing from then on."""
        actor.require(Operation.CHANGE_USERS)
        # Ask before hashing: nobody orders dear work for a name that is not theirs.
        await self._road.read(lambda found: self._own(found, actor, name))
        stored = await self._hash(password)

        def work(connection: Connection) -> Change[UserRecord]:
            before = self._own(connection, actor, name)
            check_version(before.version, version)
            saved = self._users.save(connection, replace(before, hash=stored), self._road.clock())
            ended = self._end_signed_in(connection, actor, before, "password changed")
            return Change(saved, event(Tag.USER_PASSWORD, actor, before, saved), ended)

        return await self._road.change(work, opens=True)

    async def remove(self, actor: Actor, name: str, *, version: int | None = None) -> None:
        """Forget a user altogether."""
        actor.require(Operation.CHANGE_USERS)

        def work(connection: Connection) -> Change[None]:
            before = self._own(connection, actor, name)
            check_version(before.version, version)
            self._users.remove(connection, name)
            ended = self._end_signed_in(connection, actor, before, "user removed")
            return Change(None, event(Tag.USER_REMOVE, actor, before, None), ended)

        await self._road.change(work, opens=False)

    def _end_signed_in(
        self, connection: Connection, actor: Actor, user: UserRecord, reason: str
    ) -> Sequence[AuditEvent]:
        """Revoke the keys that the user has signed in for in its own domains: they rest on its password, wherever
        they are granted. What the record says of each."""
        moment, grant = self._road.clock(), Grant.of(user.domains)
        events = []
        for key in self._keys.signed_in(connection, user.name, moment):
            if grant.covers((key.origin or "").removeprefix(SIGNED_IN)):
                revoked = replace(key, state=KeyState.REVOKED, reason=reason)
                saved = self._keys.save(connection, revoked, moment)
                events.append(key_event(Tag.KEY_REVOKE, actor, key, saved))
        return events

    def _see(self, connection: Connection, actor: Actor, name: str) -> UserRecord:
        record = self._users.get(connection, name)
        if not actor.sees(record.domains):
            raise NotFound(f"There is no user {name!r}.")
        return record

    def _own(self, connection: Connection, actor: Actor, name: str) -> UserRecord:
        record = self._see(connection, actor, name)
        actor.require_all(record.domains)
        return record

    async def _hash(self, password: bytes) -> str:
        if not 1 <= len(password) <= MAX_PASSWORD or b"\0" in password:
            raise InvalidInput(f"A password has 1 to {MAX_PASSWORD} octets, none of them NUL.")
        try:
            return await self._hasher.hash(password)
        except HashPoolFull:
            raise Unavailable("Too many passwords are being checked just now. Try again.") from None


def _changed(before: UserRecord, change: UserChange) -> UserRecord:
    values: dict[str, object] = dict(change)
    if "domains" in change:
        values["domains"] = rules.check_domains(change["domains"])
    if "groups" in change:
        values["groups"] = rules.check_groups(change["groups"])
    if "attributes" in change:
        values["attributes"] = rules.check_attributes(change["attributes"])
    if "expires" in change:
        values["expires"] = utc(change["expires"])
    after: UserRecord = replace(before, **values)  # type: ignore[arg-type]  # names and types are UserChange's
    rules.check_metadata(after.groups, after.attributes)
    return after


def _tag(before: UserRecord, after: UserRecord) -> Tag:
    """A change that moves the state is told by what it did to it."""
    if before.state is after.state:
        return Tag.USER_CHANGE
    return Tag.USER_DISABLE if after.state is UserState.DISABLED else Tag.USER_ENABLE


def _shown(actor: Actor, record: UserRecord) -> UserRecord:
    return record if actor.everywhere else replace(record, domains=actor.visible(record.domains))


def event(tag: Tag, actor: Actor, before: UserRecord | None, after: UserRecord | None) -> AuditEvent:
    """What the record says of a change of a user."""
    subject = after or before
    name = "" if subject is None else subject.name
    return AuditEvent(
        event=tag.value,
        actor=actor.name,
        subject=name,
        username=name,
        before=None if before is None else _picture(before),
        after=None if after is None else _picture(after),
    )


def _picture(record: UserRecord) -> dict[str, object]:
    """All but the hash."""
    return {
        "state": record.state.value,
        "domains": list(record.domains),
        "groups": list(record.groups),
        "attributes": dict(record.attributes),
        "expires": iso(record.expires),
        "version": record.version,
    }
