"""Use cases about CURVE keys. One method, one transaction, one audit event."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypedDict

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
from zapd.admin.services.key_checks import (
    ServerKeys,
    refuse_agents_key,
    refuse_known_key,
    refuse_server_key,
)
from zapd.admin.services.rotation import GONE, Rotated, Rotation, check_overlap, ending, refuse_to_rotate
from zapd.audit.event import AuditEvent, Tag
from zapd.errors import Conflict, NotFound
from zapd.store import rules, tables
from zapd.store.agents import AgentRegistry
from zapd.store.filters import collect, granted_in, granted_within, in_state
from zapd.store.keys import KeyRecord, KeyRegistry, KeyState
from zapd.zmtp.keys import check_public_key, fingerprint
from zapd.zmtp.keys import fingerprint_id as fingerprint_of


@dataclass(frozen=True, slots=True)
class NewKey:
    """What `KeyService.add` wants to know."""

    public_key: bytes
    user: str
    domains: Sequence[str] | None = None
    """None: the configuration's only domain."""
    groups: Sequence[str] = ()
    attributes: Mapping[str, str] = field(default_factory=dict)
    label: str = ""
    not_before: datetime | None = None
    expires: datetime | None = None
    pending: bool = False


class KeyChange(TypedDict, total=False):
    """What `KeyService.change` shall change: what is absent stays."""

    user: str
    domains: Sequence[str]
    groups: Sequence[str]
    attributes: Mapping[str, str]
    label: str
    not_before: datetime | None
    expires: datetime | None


class KeyService:
    """The key registry, for those who may.

    ``server_keys`` gives this zapd's own public keys: they are nobody's. What an actor's domains do not touch
    does not exist for it; what they touch only in part it sees and cannot change.
    """

    def __init__(
        self,
        road: ChangeRoad,
        *,
        domains: ConfiguredDomains,
        server_keys: ServerKeys = tuple,
    ) -> None:
        self._road = road
        self._domains = domains
        self._server_keys = server_keys
        self._keys = KeyRegistry()
        self._agents = AgentRegistry()

    async def add(self, actor: Actor, new: NewKey) -> KeyRecord:
        """Register a key. Raises `Conflict` when it is known already, naming its holder to those who may see."""
        actor.require(Operation.CHANGE_KEYS)
        moment = self._road.clock()
        check_times(new.not_before, new.expires, moment)
        record = checked(
            KeyRecord(
                fingerprint=fingerprint_of(new.public_key),
                public_key=new.public_key,
                user=new.user,
                state=KeyState.PENDING if new.pending else KeyState.ACTIVE,
                domains=resolve_domains(new.domains, self._domains),
                groups=rules.check_groups(new.groups),
                attributes=rules.check_attributes(new.attributes),
                label=new.label,
                not_before=utc(new.not_before),
                expires=utc(new.expires),
                reason="",
                created=moment,
                updated=moment,
            )
        )
        actor.require_all(record.domains)

        def work(connection: Connection) -> Change[KeyRecord]:
            self._refuse_known(connection, actor, record)
            self._keys.add(connection, record)
            return Change(record, event(Tag.KEY_ADD, actor, None, record))

        return await self._road.change(work, opens=True)

    async def list(
        self,
        actor: Actor,
        *,
        user: str | None = None,
        state: KeyState | None = None,
        domain: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> PageOf[KeyRecord]:
        """Keys in the order of their fingerprints. ``domain``: only those that are granted in it."""
        actor.require(Operation.READ_KEYS)
        check_limit(limit)
        where = [granted_within(tables.keys.c.domains, actor.domains)]
        if user is not None:
            where.append(tables.keys.c.user == user)
        if state is not None:
            where.append(in_state(tables.keys.c.state, state))
        if domain is not None:
            where.append(granted_in(tables.keys.c.domains, domain))

        # The few of a user, or that are not active, have an index that finds them sooner.
        by_sets = user is None and state in (None, KeyState.ACTIVE)
        by_sets = by_sets and (domain is not None or not actor.everywhere)

        def ask(connection: Connection) -> PageOf[KeyRecord]:
            sets = self._keys.granted_sets(connection) if by_sets else None
            among = None if sets is None else [each for each in sets if actor.sees_in(each, domain)]
            items, more = collect(
                lambda start, count: self._keys.page(
                    connection, after=start, limit=count, where=where, among=among
                ),
                lambda record: actor.sees_in(record.domains, domain),
                lambda record: record.fingerprint,
                after=after,
                limit=limit,
            )
            return PageOf([_shown(actor, record) for record in items], more)

        return await self._road.read(ask)

    async def show(self, actor: Actor, fingerprint_id: str) -> KeyRecord:
        """One key. Raises `NotFound`, also for what the actor may not see."""
        actor.require(Operation.READ_KEYS)
        return _shown(actor, await self._road.read(lambda found: self._see(found, actor, fingerprint_id)))

    async def change(
        self, actor: Actor, fingerprint_id: str, change: KeyChange, *, version: int | None = None
    ) -> KeyRecord:
        """Change what is said of a key; its state has methods of its own."""
        actor.require(Operation.CHANGE_KEYS)
        moment = self._road.clock()

        def work(connection: Connection) -> Change[KeyRecord]:
            before = self._own(connection, actor, fingerprint_id)
            check_version(before.version, version)
            after = checked(changed(before, change))
            actor.require_all(after.domains)
            if "expires" in change or "not_before" in change:
                check_times(after.not_before, after.expires, moment)
            if after == before:
                return Change(before)
            if before.state is KeyState.REVOKED:
                raise Conflict(GONE)
            saved = self._keys.save(connection, after, moment)
            return Change(saved, event(Tag.KEY_CHANGE, actor, before, saved))

        return await self._road.change(work, opens=True)

    async def revoke(
        self, actor: Actor, fingerprint_id: str, reason: str = "", *, version: int | None = None
    ) -> KeyRecord:
        """Shut a key out for good. Once more changes nothing."""
        rules.check_text(reason, "reason")

        def revoked(before: KeyRecord) -> KeyRecord:
            if before.state is KeyState.REVOKED:
                return before
            return replace(before, state=KeyState.REVOKED, reason=reason)

        return await self._move(actor, fingerprint_id, revoked, Tag.KEY_REVOKE, version, opens=False)

    async def rotate(
        self, actor: Actor, fingerprint_id: str, rotation: Rotation, *, version: int | None = None
    ) -> Rotated:
        """Register a new key for whoever holds this one, with the same rights; both work while they overlap.

        The old key never lives longer for it. The new one expires when the old one would have, unless an expiry is
        named: a rotation alone lengthens nobody's access.
        """
        actor.require(Operation.CHANGE_KEYS)
        moment = self._road.clock()
        check_overlap(rotation.overlap)

        def work(connection: Connection) -> Change[Rotated]:
            before = self._own(connection, actor, fingerprint_id)
            check_version(before.version, version)
            refuse_to_rotate(before, moment)
            expires = before.expires if rotation.keep_expiry else rotation.expires
            check_times(None, expires, moment)
            new = checked(
                replace(
                    before,
                    fingerprint=fingerprint_of(rotation.public_key),
                    public_key=rotation.public_key,
                    label=before.label if rotation.label is None else rotation.label,
                    expires=utc(expires),
                    created=moment,
                    updated=moment,
                    version=1,
                    replaces=before.fingerprint,
                    replaced_by=None,
                )
            )
            self._refuse_known(connection, actor, new)
            self._keys.add(connection, new)
            old = self._keys.save(connection, ending(before, new.fingerprint, moment, rotation.overlap), moment)
            added = event(Tag.KEY_ADD, actor, None, new)
            return Change(Rotated(old, new), added, (event(Tag.KEY_ROTATE, actor, before, old),))

        return await self._road.change(work, opens=True)

    async def _move(
        self,
        actor: Actor,
        fingerprint_id: str,
        move: Callable[[KeyRecord], KeyRecord],
        tag: Tag,
        version: int | None,
        *,
        opens: bool,
    ) -> KeyRecord:
        actor.require(Operation.CHANGE_KEYS)

        def work(connection: Connection) -> Change[KeyRecord]:
            before = self._own(connection, actor, fingerprint_id)
            check_version(before.version, version)
            after = move(before)
            if after == before:
                return Change(before)
            saved = self._keys.save(connection, after, self._road.clock())
            return Change(saved, event(tag, actor, before, saved))

        return await self._road.change(work, opens=opens)

    def _see(self, connection: Connection, actor: Actor, fingerprint_id: str) -> KeyRecord:
        record = self._keys.get(connection, fingerprint_id)
        if not actor.sees(record.domains):
            raise NotFound(f"There is no key {fingerprint_id}.")
        return record

    def _own(self, connection: Connection, actor: Actor, fingerprint_id: str) -> KeyRecord:
        """A key that the actor may change: one it sees, all of whose domains are its own."""
        record = self._see(connection, actor, fingerprint_id)
        actor.require_all(record.domains)
        return record

    def _refuse_known(self, connection: Connection, actor: Actor, record: KeyRecord) -> None:
        refuse_server_key(record.public_key, self._server_keys, "a client")
        refuse_agents_key(record.public_key, self._agents.find_keys(connection, [record.public_key]))
        refuse_known_key(actor, self._keys.find(connection, record.fingerprint))


def changed(before: KeyRecord, change: KeyChange) -> KeyRecord:
    """The record as it shall be; what is named is checked by itself."""
    values: dict[str, object] = dict(change)
    if "domains" in change:
        values["domains"] = rules.check_domains(change["domains"])
    if "groups" in change:
        values["groups"] = rules.check_groups(change["groups"])
    if "attributes" in change:
        values["attributes"] = rules.check_attributes(change["attributes"])
    if "not_before" in change:
        values["not_before"] = utc(change["not_before"])
    if "expires" in change:
        values["expires"] = utc(change["expires"])
    return replace(before, **values)  # type: ignore[arg-type]  # names and types are KeyChange's


def checked(record: KeyRecord) -> KeyRecord:
    """The rules that concern more than one field, and the plain texts."""
    check_public_key(record.public_key)
    rules.check_name(record.user, "user name")
    rules.check_text(record.label, "label")
    rules.check_metadata(record.groups, record.attributes)
    return record


def _shown(actor: Actor, record: KeyRecord) -> KeyRecord:
    """As this actor may see it: domains that are not its affair are left out."""
    return record if actor.everywhere else replace(record, domains=actor.visible(record.domains))


def event(tag: Tag, actor: Actor, before: KeyRecord | None, after: KeyRecord) -> AuditEvent:
    """What the record says of a change of a key."""
    return AuditEvent(
        event=tag.value,
        actor=actor.name,
        subject=after.fingerprint,
        key=fingerprint(after.public_key),
        principal=after.user,
        reason=after.reason if tag is Tag.KEY_REVOKE else "",
        before=None if before is None else _picture(before),
        after=_picture(after),
    )


def _picture(record: KeyRecord) -> dict[str, object]:
    return {
        "user": record.user,
        "state": record.state.value,
        "domains": list(record.domains),
        "groups": list(record.groups),
        "attributes": dict(record.attributes),
        "label": record.label,
        "not_before": iso(record.not_before),
        "expires": iso(record.expires),
        "reason": record.reason,
        "version": record.version,
        **({"replaces": record.replaces} if record.replaces else {}),
        **({"replaced_by": record.replaced_by} if record.replaced_by else {}),
        **({"origin": record.origin} if record.origin else {}),
    }
