"""Use cases about keys that wait: who knocks, who is let in, who is turned away.

Two kinds wait. A key that an operator registered to be held has a row in the registry. A stranger that knocked at
a domain with ``unknown_keys = "pending"`` has only been seen there (`zapd.store.sightings`); approving or
rejecting it makes a row of the registry like any other, in one transaction with its audit event, and takes it off
the list. What an actor's domains do not touch does not exist for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

import msgspec
from sqlalchemy import Connection

from zapd.admin.roles import Actor, Operation
from zapd.admin.services.changes import Change, ChangeRoad
from zapd.admin.services.common import (
    ConfiguredDomains,
    PageOf,
    check_limit,
    check_times,
    check_version,
    resolve_domains,
)
from zapd.admin.services.key_checks import (
    ServerKeys,
    refuse_agents_key,
    refuse_known_key,
    refuse_server_key,
)
from zapd.admin.services.keys import KeyChange, changed, checked, event
from zapd.admin.services.rotation import GONE
from zapd.audit.event import AuditEvent, Tag
from zapd.auth.address import AddressSet, read_again
from zapd.errors import ConfigurationError, Conflict, InvalidInput, NotFound
from zapd.store import rules, tables
from zapd.store.agents import AgentRegistry
from zapd.store.filters import collect, granted_in, granted_within, in_state
from zapd.store.keys import KeyRecord, KeyRegistry, KeyState
from zapd.store.sightings import Sighting, SightingRegistry
from zapd.zmtp.keys import fingerprint_id as fingerprint_of

NOBODY: Final = "rejected"
"""Who holds a stranger's key that was rejected: the registry wants a name."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A key that waits."""

    record: KeyRecord
    """Of a stranger what it would be: nobody's yet, at version 0, for the domains that it knocked at."""
    sightings: tuple[Sighting, ...] = ()
    """Where it was seen; empty for a key that an operator registered to be held."""


@dataclass(frozen=True, slots=True)
class Approval:
    """What `ApprovalService.approve` wants to know."""

    change: KeyChange
    """Of a key that is registered what is absent stays. A stranger's needs a user; its domains are those that it
    knocked at, unless named."""
    public_key: bytes | None = None
    """For a stranger that is not listed any more."""


class ApprovalService:
    """Keys that wait, for those who may."""

    def __init__(self, road: ChangeRoad, *, domains: ConfiguredDomains, server_keys: ServerKeys = tuple) -> None:
        self._road = road
        self._domains = domains
        self._server_keys = server_keys
        self._keys = KeyRegistry()
        self._agents = AgentRegistry()
        self._sightings = SightingRegistry()

    async def list(
        self,
        actor: Actor,
        *,
        user: str | None = None,
        domain: str | None = None,
        address: str | None = None,
        agent: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> PageOf[Candidate]:
        """Keys that wait, in the order of their fingerprints. ``domain``: granted in it, or seen at it.
        ``address`` (an address or network, ``ipc``, ``ipc:uid=N``) and ``agent``: only strangers seen from there.
        """
        actor.require(Operation.READ_KEYS)
        check_limit(limit)
        networks = None if address is None else _networks(address)
        where = [
            in_state(tables.keys.c.state, KeyState.PENDING),
            granted_within(tables.keys.c.domains, actor.domains),
        ]
        if user is not None:
            where.append(tables.keys.c.user == user)
        if domain is not None:
            where.append(granted_in(tables.keys.c.domains, domain))
        seen = [] if domain is None else [tables.sightings.c.domain == domain]
        if agent is not None:
            seen.append(tables.sightings.c.agent == agent)
        strangers_only = networks is not None or agent is not None

        def fetch(connection: Connection, start: str, count: int) -> Sequence[Candidate]:
            found: dict[str, Candidate] = {}
            if not strangers_only:
                for record in self._keys.page(connection, after=start, limit=count, where=where):
                    found[record.fingerprint] = Candidate(record)
            if user is None:
                page = self._sightings.page(connection, after=start, limit=count, where=seen)
                for mark, sightings in page.items():
                    found[mark] = Candidate(_nobodys(mark, sightings), tuple(sightings))
            return [found[mark] for mark in sorted(found)[:count]]

        def keep(candidate: Candidate) -> bool:
            if not candidate.sightings:
                return actor.sees_in(candidate.record.domains, domain)
            return any(_is_seen(actor, each, networks) for each in candidate.sightings)

        def ask(connection: Connection) -> PageOf[Candidate]:
            items, more = collect(
                lambda start, count: fetch(connection, start, count),
                keep,
                lambda candidate: candidate.record.fingerprint,
                after=after,
                limit=limit,
            )
            return PageOf([_shown(actor, each, networks) for each in items], more)

        return await self._road.read(ask)

    async def show(self, actor: Actor, fingerprint_id: str) -> Candidate:
        """A stranger's key. Raises `NotFound`, also for what the actor may not see."""
        actor.require(Operation.READ_KEYS)

        def ask(connection: Connection) -> Candidate:
            seen = self._seen(connection, actor, fingerprint_id)
            if not seen or self._is_somebodys(connection, fingerprint_id, seen[0].public_key):
                raise NotFound(f"There is no key {fingerprint_id}.")
            return Candidate(_nobodys(fingerprint_id, seen), seen)

        return await self._road.read(ask)

    async def approve(
        self, actor: Actor, fingerprint_id: str, approval: Approval | None = None, *, version: int | None = None
    ) -> KeyRecord:
        """Let a key in from its next try on. Raises `Conflict` for one that is decided already."""
        actor.require(Operation.CHANGE_KEYS)
        approval = approval or Approval(KeyChange())
        change = approval.change
        moment = self._road.clock()
        _check_mark(fingerprint_id, approval.public_key)

        def work(connection: Connection) -> Change[KeyRecord]:
            before = self._held(connection, actor, fingerprint_id, approval.public_key, version)
            if before is not None:
                if before.state is KeyState.REVOKED:
                    raise Conflict(GONE)
                if before.state is KeyState.ACTIVE:
                    refuse_known_key(actor, before)
                after = checked(replace(changed(before, change), state=KeyState.ACTIVE))
                actor.require_all(after.domains)
                check_times(after.not_before, after.expires, None if after.expires == before.expires else moment)
                saved = self._keys.save(connection, after, moment)
                return Change(saved, event(Tag.KEY_CHANGE, actor, before, saved))
            seen, public_key = self._stranger(connection, actor, fingerprint_id, approval.public_key)
            if "user" not in change:
                raise InvalidInput("Say who holds this key: name a user.")
            new = _nobodys(fingerprint_id, seen, public_key, moment)
            domains = change.get("domains") or _knocked_at(seen) or resolve_domains(None, self._domains)
            new = replace(
                changed(new, KeyChange(**{**change, "domains": domains})), state=KeyState.ACTIVE, version=1
            )
            check_times(new.not_before, new.expires, moment)
            return self._register(connection, actor, checked(new), seen, Tag.KEY_ADD)

        return await self._road.change(work, opens=True)

    async def reject(
        self,
        actor: Actor,
        fingerprint_id: str,
        reason: str = "",
        *,
        public_key: bytes | None = None,
        version: int | None = None,
    ) -> KeyRecord:
        """Turn a key away for good: from its next try on it hears 400. Raises `Conflict` for one that is decided
        already."""
        actor.require(Operation.CHANGE_KEYS)
        rules.check_text(reason, "reason")
        _check_mark(fingerprint_id, public_key)

        def work(connection: Connection) -> Change[KeyRecord]:
            moment = self._road.clock()
            before = self._held(connection, actor, fingerprint_id, public_key, version)
            if before is not None:
                if before.state is not KeyState.PENDING:
                    raise Conflict(f"The key is {before.state}, not pending. To shut it out, revoke it.")
                after = replace(before, state=KeyState.REVOKED, reason=reason or "rejected")
                saved = self._keys.save(connection, after, moment)
                return Change(saved, event(Tag.KEY_REVOKE, actor, before, saved))
            seen, key = self._stranger(connection, actor, fingerprint_id, public_key)
            record = replace(
                _nobodys(fingerprint_id, seen, key, moment),
                user=NOBODY,
                state=KeyState.REVOKED,
                reason=reason or "rejected",
                version=1,
            )
            if not seen:
                record = replace(record, domains=resolve_domains(None, self._domains))
            return self._register(connection, actor, checked(record), seen, Tag.KEY_REVOKE)

        return await self._road.change(work, opens=False)

    def _held(
        self,
        connection: Connection,
        actor: Actor,
        fingerprint_id: str,
        public_key: bytes | None,
        version: int | None,
    ) -> KeyRecord | None:
        """The registered key, if there is one and the actor may change it."""
        record = self._keys.find(connection, fingerprint_id)
        if record is None:
            check_version(0, version)
            return None
        if not actor.sees(record.domains):
            if public_key is not None:  # whoever has the key may know that somebody else has it, as with `add`
                refuse_known_key(actor, record)
            raise NotFound(f"There is no key {fingerprint_id}.")
        actor.require_all(record.domains)
        check_version(record.version, version)
        return record

    def _stranger(
        self, connection: Connection, actor: Actor, fingerprint_id: str, public_key: bytes | None
    ) -> tuple[tuple[Sighting, ...], bytes]:
        """Where a key that is not registered was seen, and its octets. Raises `NotFound` with the mend."""
        seen = self._seen(connection, actor, fingerprint_id)
        if seen:
            return seen, seen[0].public_key
        if public_key is None:
            raise NotFound(
                f"No key {fingerprint_id} waits: it never came, or others have taken its place in the list. "
                "Wait for its next try, or give the whole public key."
            )
        return (), public_key

    def _seen(self, connection: Connection, actor: Actor, fingerprint_id: str) -> tuple[Sighting, ...]:
        found = self._sightings.find(connection, fingerprint_id)
        return tuple(each for each in found if actor.sees((each.domain,)))

    def _is_somebodys(self, connection: Connection, fingerprint_id: str, public_key: bytes) -> bool:
        """Whether it was registered, or became an agent's, since it was seen."""
        if self._keys.find(connection, fingerprint_id) is not None:
            return True
        return self._agents.find_key(connection, public_key) is not None

    def _register(
        self,
        connection: Connection,
        actor: Actor,
        record: KeyRecord,
        seen: Sequence[Sighting],
        tag: Tag,
    ) -> Change[KeyRecord]:
        actor.require_all(record.domains)
        refuse_server_key(record.public_key, self._server_keys, "a client")
        refuse_agents_key(record.public_key, self._agents.find_keys(connection, [record.public_key]))
        self._keys.add(connection, record)
        self._sightings.forget(connection, record.fingerprint)
        return Change(record, _seen_there(event(tag, actor, None, record), seen))


def _check_mark(fingerprint_id: str, public_key: bytes | None) -> None:
    if public_key is not None and fingerprint_of(public_key) != fingerprint_id:
        raise InvalidInput("The public key is not the one of this fingerprint.")


def _knocked_at(seen: Sequence[Sighting]) -> tuple[str, ...]:
    """The domains, as what is granted. Applications choose their domains' names: one that would be read as a
    pattern must not become a grant by itself."""
    if any(each.domain.endswith("*") for each in seen):
        raise InvalidInput("It knocked at a domain whose name ends with *. Say which domains it shall be granted.")
    return rules.check_domains([each.domain for each in seen]) if seen else ()


def _nobodys(
    mark: str, seen: Sequence[Sighting], public_key: bytes = b"", moment: datetime | None = None
) -> KeyRecord:
    """What a stranger's key is before anything is decided; made at ``moment``, else when it was seen."""
    first = moment or min(each.first_seen for each in seen)
    return KeyRecord(
        fingerprint=mark,
        public_key=public_key or seen[0].public_key,
        user="",
        state=KeyState.PENDING,
        domains=tuple(sorted({each.domain for each in seen})),
        groups=(),
        attributes=(),
        label="",
        not_before=None,
        expires=None,
        reason="",
        created=first,
        updated=moment or max(each.last_seen for each in seen),
        version=0,
    )


def _seen_there(told: AuditEvent, seen: Sequence[Sighting]) -> AuditEvent:
    """The event, and where the key was seen last."""
    if not seen:
        return told
    last = max(seen, key=lambda each: each.last_seen)
    return msgspec.structs.replace(told, address=last.address, agent=last.agent)


def _networks(text: str) -> AddressSet:
    """An address rule; a single address, and a network with bits beyond its length, are taken too."""
    try:
        found: IPv4Network | IPv6Network = ip_network(text, strict=False)
        text = str(found)
    except ValueError:
        pass
    try:
        return AddressSet([text])
    except ConfigurationError as fault:
        raise InvalidInput(f"{fault}.") from None


def _is_seen(actor: Actor, sighting: Sighting, networks: AddressSet | None) -> bool:
    if not actor.sees((sighting.domain,)):
        return False
    if networks is None:
        return True
    address = read_again(sighting.address)
    return address is not None and address in networks


def _shown(actor: Actor, candidate: Candidate, networks: AddressSet | None) -> Candidate:
    """As this actor may see it."""
    if not candidate.sightings:
        domains = actor.visible(candidate.record.domains)
        return replace(candidate, record=replace(candidate.record, domains=domains))
    seen = tuple(each for each in candidate.sightings if _is_seen(actor, each, networks))
    return Candidate(_nobodys(candidate.record.fingerprint, seen), seen)
