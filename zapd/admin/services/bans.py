"""Use cases about bans. One method, one transaction, one audit event."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sqlalchemy import Connection

from zapd.admin.roles import Actor, Operation
from zapd.admin.services.changes import Change, ChangeRoad
from zapd.admin.services.common import PageOf, check_limit, check_times, check_version, iso, utc
from zapd.audit.event import AuditEvent, Tag
from zapd.auth.address import canonical_rule
from zapd.errors import ConfigurationError, Conflict, InvalidInput, NotFound
from zapd.store import rules, tables
from zapd.store.bans import BanKind, BanRecord, BanRegistry, new_id
from zapd.store.domains import EVERYWHERE
from zapd.store.filters import collect, granted_in, granted_within
from zapd.zmtp.keys import fingerprint_of, identifier_of

MARK = 43
"""Characters of a fingerprint."""


@dataclass(frozen=True, slots=True)
class NewBan:
    """What `BanService.add` wants to know."""

    kind: BanKind
    subject: str
    """An address or a network, ``ipc``, ``ipc:uid=N``, ``ipc:gid=N``; a fingerprint (43 characters of URL-safe
    base64); a user's name."""
    domains: Sequence[str] | None = None
    """Where it shall hold; None: wherever the actor has a say."""
    reason: str = ""
    expires: datetime | None = None


class BanService:
    """Bans by hand, for those who may. Domains limit an actor as in `KeyService`."""

    def __init__(self, road: ChangeRoad) -> None:
        self._road = road
        self._bans = BanRegistry()

    async def add(self, actor: Actor, new: NewBan) -> BanRecord:
        """Ban. It is in force everywhere when this returns, even while the journal cannot be written. Raises
        `Conflict` when the same is banned there already."""
        actor.require(Operation.CHANGE_BANS)
        moment = self._road.clock()
        check_times(None, new.expires, moment)
        domains = rules.check_domains(actor.domains if new.domains is None else new.domains)
        if set(EVERYWHERE) & set(domains):
            domains = EVERYWHERE  # it holds everywhere, whatever else is named
        actor.require_all(domains)
        record = BanRecord(
            id=new_id(moment),
            kind=new.kind,
            subject=_subject(new),
            domains=domains,
            reason=rules.check_text(new.reason, "reason"),
            expires=utc(new.expires),
            created=moment,
            created_by=actor.name,
        )

        def work(connection: Connection) -> Change[BanRecord]:
            self._bans.remove_over(connection, moment)
            also: list[AuditEvent] = []
            same = self._bans.same(connection, record)
            if same is not None:
                if same.expires is None or same.expires > moment:
                    raise Conflict(f"That is banned already: ban {same.id}. Remove it first.")
                self._bans.remove(connection, same.id)
                also.append(event(Tag.BAN_REMOVE, actor, same))
            self._bans.add(connection, record)
            return Change(record, event(Tag.BAN_ADD, actor, record), tuple(also))

        return await self._road.change(work, opens=False)

    async def list(
        self,
        actor: Actor,
        *,
        kind: BanKind | None = None,
        domain: str | None = None,
        after: str = "",
        limit: int = 100,
    ) -> PageOf[BanRecord]:
        """Bans in the order in which they were made. ``domain``: only those that name it, or a pattern for it."""
        actor.require(Operation.READ_BANS)
        check_limit(limit)
        where = [granted_within(tables.bans.c.domains, actor.domains)]
        if kind is not None:
            where.append(tables.bans.c.kind == kind)
        if domain is not None:
            where.append(granted_in(tables.bans.c.domains, domain))

        def ask(connection: Connection) -> PageOf[BanRecord]:
            items, more = collect(
                lambda start, count: self._bans.page(connection, after=start, limit=count, where=where),
                lambda record: actor.sees_in(record.domains, domain),
                lambda record: record.id,
                after=after,
                limit=limit,
            )
            return PageOf([_shown(actor, record) for record in items], more)

        return await self._road.read(ask)

    async def show(self, actor: Actor, ban_id: str) -> BanRecord:
        """One ban. Raises `NotFound`, also for what the actor may not see."""
        actor.require(Operation.READ_BANS)
        return _shown(actor, await self._road.read(lambda found: self._see(found, actor, ban_id)))

    async def remove(self, actor: Actor, ban_id: str, *, version: int | None = None) -> None:
        """Take a ban back."""
        actor.require(Operation.CHANGE_BANS)

        def work(connection: Connection) -> Change[None]:
            before = self._see(connection, actor, ban_id)
            actor.require_all(before.domains)
            check_version(before.version, version)
            self._bans.remove(connection, ban_id)
            return Change(None, event(Tag.BAN_REMOVE, actor, before))

        await self._road.change(work, opens=True)

    def _see(self, connection: Connection, actor: Actor, ban_id: str) -> BanRecord:
        record = self._bans.get(connection, ban_id)
        if not actor.sees(record.domains):
            raise NotFound(f"There is no ban {ban_id!r}.")
        return record


def _subject(new: NewBan) -> str:
    """As it is kept, and compared."""
    match new.kind:
        case BanKind.ADDRESS:
            try:
                return canonical_rule(new.subject)
            except ConfigurationError as error:
                raise InvalidInput(f"{error}.") from None
        case BanKind.KEY:
            mark = identifier_of(new.subject)
            if len(mark) != MARK or not mark.isascii() or not mark.replace("-", "").replace("_", "").isalnum():
                raise InvalidInput("A key is banned by its fingerprint: SHA256: and 43 characters of base64.")
            return mark
        case BanKind.USER:
            return rules.check_name(new.subject, "user name")


def _shown(actor: Actor, record: BanRecord) -> BanRecord:
    return record if actor.everywhere else replace(record, domains=actor.visible(record.domains))


def event(tag: Tag, actor: Actor, ban: BanRecord) -> AuditEvent:
    """What the record says of a ban that was made or taken back."""
    return AuditEvent(
        event=tag.value,
        actor=actor.name,
        subject=ban.id,
        reason=ban.reason,
        before=_picture(ban) if tag is Tag.BAN_REMOVE else None,
        after=_picture(ban) if tag is Tag.BAN_ADD else None,
        address=ban.subject if ban.kind is BanKind.ADDRESS else "",
        key=fingerprint_of(ban.subject) if ban.kind is BanKind.KEY else "",
        username=ban.subject if ban.kind is BanKind.USER else "",
    )


def _picture(record: BanRecord) -> dict[str, object]:
    return {
        "kind": record.kind.value,
        "subject": record.subject,
        "domains": list(record.domains),
        "reason": record.reason,
        "expires": iso(record.expires),
        "version": record.version,
    }
