"""Use cases about agents: the bridges that may ask at zapd's own door."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection

from zapd.admin.roles import Actor, Operation
from zapd.admin.services.changes import Change, ChangeRoad
from zapd.admin.services.common import (
    ConfiguredDomains,
    PageOf,
    check_limit,
    check_version,
    iso,
    resolve_domains,
)
from zapd.admin.services.key_checks import ServerKeys, refuse_server_key
from zapd.audit.event import AuditEvent, Tag
from zapd.errors import Conflict, InvalidInput, NotFound
from zapd.store import rules, tables
from zapd.store.agents import AgentRecord, AgentRegistry, AgentState
from zapd.store.filters import collect, granted_within
from zapd.store.keys import KeyRegistry
from zapd.zmtp.keys import check_public_key, fingerprint, fingerprint_id

MAX_OVERLAP: Final = timedelta(days=30)
"""How long an agent's old key may work beside its new one."""


@dataclass(frozen=True, slots=True)
class NewAgent:
    """What `AgentService.enroll` wants to know."""

    name: str
    public_key: bytes
    domains: Sequence[str] | None = None
    """What it may ask about. None: the configuration's only domain."""
    mechanisms: Sequence[str] = ("NULL", "PLAIN", "CURVE")
    addresses: Sequence[str] = ()
    """Networks it may connect from; none named is anywhere."""


class AgentService:
    """Enrolled agents, for those who may. Domains limit an actor as in `KeyService`."""

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
        self._agents = AgentRegistry()
        self._keys = KeyRegistry()

    async def enroll(self, actor: Actor, new: NewAgent) -> AgentRecord:
        """Enrol a bridge. The name of a revoked agent may be used again, with another key."""
        actor.require(Operation.CHANGE_AGENTS)
        moment = self._road.clock()
        domains = resolve_domains(new.domains, self._domains)
        actor.require_all(domains)
        check_public_key(new.public_key)
        record = AgentRecord(
            name=rules.check_path_name(new.name, "agent's name"),
            fingerprint=fingerprint_id(new.public_key),
            public_key=new.public_key,
            state=AgentState.ACTIVE,
            domains=domains,
            mechanisms=rules.check_mechanisms(new.mechanisms),
            addresses=rules.check_networks(new.addresses),
            reason="",
            created=moment,
            updated=moment,
        )
        if record.name.startswith("local:"):
            raise InvalidInput("Names that begin with 'local:' are those of listeners without agents.")

        def work(connection: Connection) -> Change[AgentRecord]:
            self._refuse_known(connection, actor, record)
            before = self._agents.find(connection, record.name)
            if before is None:
                self._agents.add(connection, record)
                return Change(record, _event(Tag.AGENT_ENROLL, actor, None, record))
            if before.state is AgentState.ACTIVE:
                raise Conflict(
                    f"There is an agent {record.name!r} already. Revoke it first, or take another name."
                )
            actor.require_all(before.domains)
            saved = self._agents.save(connection, replace(record, version=before.version), moment)
            return Change(saved, _event(Tag.AGENT_ENROLL, actor, before, saved))

        return await self._road.change(work, opens=True)

    async def list(self, actor: Actor, *, after: str = "", limit: int = 100) -> PageOf[AgentRecord]:
        """Agents in the order of their names."""
        actor.require(Operation.READ_AGENTS)
        check_limit(limit)
        where = [granted_within(tables.agents.c.domains, actor.domains)]

        def ask(connection: Connection) -> PageOf[AgentRecord]:
            items, more = collect(
                lambda start, count: self._agents.page(connection, after=start, limit=count, where=where),
                lambda record: actor.sees(record.domains),
                lambda record: record.name,
                after=after,
                limit=limit,
            )
            return PageOf([_shown(actor, record) for record in items], more)

        return await self._road.read(ask)

    async def show(self, actor: Actor, name: str) -> AgentRecord:
        """One agent. Raises `NotFound`, also for what the actor may not see."""
        actor.require(Operation.READ_AGENTS)
        return _shown(actor, await self._road.read(lambda found: self._see(found, actor, name)))

    async def rotate(
        self, actor: Actor, name: str, public_key: bytes, overlap: timedelta, *, version: int | None = None
    ) -> AgentRecord:
        """Give an agent a new key; the one it has works as well until the overlap is over, then whoever came with
        it is cut off. An overlap that was under way ends at once."""
        actor.require(Operation.CHANGE_AGENTS)
        moment = self._road.clock()
        check_public_key(public_key)
        if not timedelta(0) <= overlap <= MAX_OVERLAP:
            raise InvalidInput(f"Both keys can work together for 0 s to {MAX_OVERLAP.days} days.")

        def work(connection: Connection) -> Change[AgentRecord]:
            before = self._own(connection, actor, name)
            check_version(before.version, version)
            if before.state is AgentState.REVOKED:
                raise Conflict(f"The agent {name!r} is revoked: enrol it anew.")
            after = replace(
                before,
                public_key=public_key,
                fingerprint=fingerprint_id(public_key),
                previous_key=before.public_key,
                previous_until=moment + overlap,
            )
            self._refuse_known(connection, actor, after)
            saved = self._agents.save(connection, after, moment)
            return Change(saved, _event(Tag.AGENT_ROTATE, actor, before, saved))

        return await self._road.change(work, opens=True)

    async def revoke(
        self, actor: Actor, name: str, reason: str = "", *, version: int | None = None
    ) -> AgentRecord:
        """Shut an agent out. Once more changes nothing."""
        actor.require(Operation.CHANGE_AGENTS)
        rules.check_text(reason, "reason")

        def work(connection: Connection) -> Change[AgentRecord]:
            before = self._own(connection, actor, name)
            check_version(before.version, version)
            if before.state is AgentState.REVOKED:
                return Change(before)
            after = replace(before, state=AgentState.REVOKED, reason=reason)
            saved = self._agents.save(connection, after, self._road.clock())
            return Change(saved, _event(Tag.AGENT_REVOKE, actor, before, saved))

        return await self._road.change(work, opens=False)

    def _see(self, connection: Connection, actor: Actor, name: str) -> AgentRecord:
        record = self._agents.get(connection, name)
        if not actor.sees(record.domains):
            raise NotFound(f"There is no agent {name!r}.")
        return record

    def _own(self, connection: Connection, actor: Actor, name: str) -> AgentRecord:
        record = self._see(connection, actor, name)
        actor.require_all(record.domains)
        return record

    def _refuse_known(self, connection: Connection, actor: Actor, record: AgentRecord) -> None:
        refuse_server_key(record.public_key, self._server_keys, "an agent")
        if self._keys.find(connection, record.fingerprint) is not None:
            raise InvalidInput("This key is registered as a client's. Give the agent a key of its own.")
        known = self._agents.find_key(connection, record.public_key)
        if known is not None:
            whose = f" to {known.name!r}" if actor.sees(known.domains) else ""
            raise Conflict(f"This key belongs{whose or ' to an agent'} already. Make a new pair.")


def _shown(actor: Actor, record: AgentRecord) -> AgentRecord:
    return record if actor.everywhere else replace(record, domains=actor.visible(record.domains))


def _event(tag: Tag, actor: Actor, before: AgentRecord | None, after: AgentRecord) -> AuditEvent:
    return AuditEvent(
        event=tag.value,
        actor=actor.name,
        subject=after.name,
        agent=after.name,
        key=fingerprint(after.public_key),
        reason=after.reason,
        before=None if before is None else _picture(before),
        after=_picture(after),
    )


def _picture(record: AgentRecord) -> dict[str, object]:
    return {
        "key": fingerprint(record.public_key),
        "state": record.state.value,
        "domains": list(record.domains),
        "mechanisms": list(record.mechanisms),
        "addresses": list(record.addresses),
        "reason": record.reason,
        "version": record.version,
        **({} if record.previous_key is None else {"previous_key": fingerprint(record.previous_key)}),
        **({} if record.previous_until is None else {"previous_until": iso(record.previous_until)}),
    }
