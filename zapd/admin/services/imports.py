"""Imports of keys and of users: what `zapd.admin.services.importing` needs to know of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from functools import cache

from sqlalchemy import Connection

from zapd.admin.exchange.shapes import KeyRow, UserRow
from zapd.admin.roles import Actor, Operation
from zapd.admin.services import keys as key_service
from zapd.admin.services import users as user_service
from zapd.admin.services.changes import ChangeRoad, Note
from zapd.admin.services.common import ConfiguredDomains, resolve_domains, utc
from zapd.admin.services.importing import Action, Entry, Importer, Plan, Rows, Tally
from zapd.admin.services.key_checks import (
    ServerKeys,
    refuse_agents_key,
    refuse_known_key,
    refuse_server_key,
)
from zapd.audit.event import Tag
from zapd.auth.hash_kinds import cost_of
from zapd.errors import Conflict, InvalidInput
from zapd.store import rules, tables
from zapd.store.agents import AgentRegistry
from zapd.store.keys import KeyRecord, KeyRegistry, KeyState
from zapd.store.staging import Stage
from zapd.store.users import UserRecord, UserRegistry, UserState
from zapd.zmtp.keys import decode_public_key, fingerprint_id


class ImportService:
    """Many keys or users at once, for those who may."""

    def __init__(self, road: ChangeRoad, *, domains: ConfiguredDomains, server_keys: ServerKeys = tuple) -> None:
        self._road = road
        self._domains = domains
        self._server_keys = server_keys
        self._importer = Importer(road)

    def require(self, actor: Actor, operation: Operation) -> None:
        """Raise `Forbidden` before a long body is read."""
        actor.require(operation)

    async def keys(
        self,
        actor: Actor,
        rows: Rows[KeyRow],
        *,
        domains: Sequence[str] | None = None,
        dry_run: bool = False,
        partial: bool = False,
    ) -> Tally:
        """Import keys. ``domains`` are for rows that name none; None: the configuration's only one."""
        actor.require(Operation.CHANGE_KEYS)
        plan = _Keys(actor, self._road.clock(), self._default(domains), self._server_keys)
        return await self._importer.run(rows, plan, KeyRecord, dry_run=dry_run, partial=partial)

    async def users(
        self,
        actor: Actor,
        rows: Rows[UserRow],
        *,
        domains: Sequence[str] | None = None,
        dry_run: bool = False,
        partial: bool = False,
    ) -> Tally:
        """Import users with finished hashes, as `keys`."""
        actor.require(Operation.CHANGE_USERS)
        plan = _Users(actor, self._road.clock(), self._default(domains))
        return await self._importer.run(rows, plan, UserRecord, dry_run=dry_run, partial=partial)

    def _default(self, domains: Sequence[str] | None) -> Callable[[], tuple[str, ...]]:
        return cache(lambda: resolve_domains(domains or None, self._domains))


class _Keys(Plan[KeyRow, KeyRecord]):
    table = tables.keys

    def __init__(
        self,
        actor: Actor,
        moment: datetime,
        default: Callable[[], tuple[str, ...]],
        server_keys: ServerKeys,
    ) -> None:
        self._actor = actor
        self._moment = moment
        self._default = default
        known = frozenset(server_keys())
        self._server_keys = lambda: known
        self._keys = KeyRegistry()
        self._agents = AgentRegistry()

    def read(self, row: KeyRow) -> KeyRecord:
        public_key = decode_public_key(row.public_key)
        refuse_server_key(public_key, self._server_keys, "a client")
        # An expiry may lie in the past: what an export says of old keys must come back as it was.
        _check_order(row.not_before, row.expires)
        record = key_service.checked(
            KeyRecord(
                fingerprint=fingerprint_id(public_key),
                public_key=public_key,
                user=row.user,
                state=KeyState(row.state),
                domains=self._default() if row.domains is None else rules.check_domains(row.domains),
                groups=rules.check_groups(row.groups),
                attributes=rules.check_attributes(row.attributes),
                label=row.label,
                not_before=utc(row.not_before),
                expires=utc(row.expires),
                reason=rules.check_text(row.reason, "reason"),
                created=self._moment,
                updated=self._moment,
            )
        )
        self._actor.require_all(record.domains)
        return record

    def entry(self, line: int, record: KeyRecord) -> Entry:
        return Entry(line, Action.ADD, record.fingerprint, record.user)

    def judge(self, connection: Connection, records: Sequence[KeyRecord]) -> Sequence[str | None]:
        known = self._keys.find_many(connection, [record.fingerprint for record in records])
        agents = self._agents.find_keys(connection, [record.public_key for record in records])

        def verdict(record: KeyRecord) -> str | None:
            there = known.get(record.fingerprint)
            if there is not None and self._actor.sees(there.domains) and _same_key(there, record):
                return ""
            try:
                refuse_agents_key(record.public_key, agents)
                refuse_known_key(self._actor, there)
            except (Conflict, InvalidInput) as error:
                return str(error)
            return None

        return [verdict(record) for record in records]

    def write(self, stage: Stage, records: Sequence[KeyRecord], note: Note) -> None:
        self._keys.stage_many(stage, records)
        for record in records:
            note(key_service.event(Tag.KEY_ADD, self._actor, None, record))

    def check(self, stage: Stage) -> None:
        if self._agents.hold_any(stage.connection, stage.waiting(tables.keys)):
            raise Conflict("An agent was enrolled meanwhile with a key of this file. Look again.")


class _Users(Plan[UserRow, UserRecord]):
    table = tables.users

    def __init__(self, actor: Actor, moment: datetime, default: Callable[[], tuple[str, ...]]) -> None:
        self._actor = actor
        self._moment = moment
        self._default = default
        self._users = UserRegistry()

    def read(self, row: UserRow) -> UserRecord:
        cost_of(row.hash)
        record = UserRecord(
            name=rules.check_path_name(row.name, "user name"),
            hash=row.hash,
            state=UserState(row.state),
            domains=self._default() if row.domains is None else rules.check_domains(row.domains),
            groups=rules.check_groups(row.groups),
            attributes=rules.check_attributes(row.attributes),
            expires=utc(row.expires),
            created=self._moment,
            updated=self._moment,
        )
        rules.check_metadata(record.groups, record.attributes)
        self._actor.require_all(record.domains)
        return record

    def entry(self, line: int, record: UserRecord) -> Entry:
        return Entry(line, Action.ADD, record.name, record.name)

    def judge(self, connection: Connection, records: Sequence[UserRecord]) -> Sequence[str | None]:
        known = self._users.find_many(connection, [record.name for record in records])

        def verdict(record: UserRecord) -> str | None:
            there = known.get(record.name)
            if there is None:
                return None
            if self._actor.sees(there.domains) and _same_user(there, record):
                return ""
            return f"There is a user {record.name!r} already."

        return [verdict(record) for record in records]

    def write(self, stage: Stage, records: Sequence[UserRecord], note: Note) -> None:
        self._users.stage_many(stage, records)
        for record in records:
            note(user_service.event(Tag.USER_ADD, self._actor, None, record))

    def check(self, stage: Stage) -> None:
        pass


def _check_order(not_before: datetime | None, expires: datetime | None) -> None:
    if not_before is not None and expires is not None and expires <= not_before:
        raise InvalidInput("It would expire before it becomes valid.")


def _same_key(there: KeyRecord, row: KeyRecord) -> bool:
    """Whether the registry says just what the row says; of itself it knows more."""
    known = replace(there, created=row.created, updated=row.updated, version=row.version)
    return replace(known, replaces=None, replaced_by=None) == row


def _same_user(there: UserRecord, row: UserRecord) -> bool:
    return replace(there, created=row.created, updated=row.updated, version=row.version) == row
