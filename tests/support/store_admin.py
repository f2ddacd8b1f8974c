"""The admin services over a real registry, with a journal that behaves: it takes events in order, or refuses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest_asyncio
from sqlalchemy import Engine, text
from support.store_fixtures import MOMENT

from zapd.admin.roles import Actor, Role
from zapd.admin.services.agents import AgentService
from zapd.admin.services.approval import ApprovalService
from zapd.admin.services.bans import BanService
from zapd.admin.services.changes import ChangeRoad
from zapd.admin.services.imports import ImportService
from zapd.admin.services.joins import JoinService
from zapd.admin.services.keys import KeyService
from zapd.admin.services.tokens import TokenService
from zapd.admin.services.users import UserService
from zapd.audit.event import AuditEvent
from zapd.audit.journal import JournalUnavailable
from zapd.store.engine import writing
from zapd.store.feed import Change, ChangeFeed
from zapd.store.sightings import Bounds, Sighting, SightingRegistry
from zapd.store.types import now
from zapd.zmtp.keys import fingerprint_id, public_of

ADMIN = Actor("root", Role.ADMIN)
OPERATOR = Actor("op", Role.OPERATOR)
VIEWER = Actor("eye", Role.VIEWER)
LIMITED = Actor("orders-op", Role.OPERATOR, ("orders", "metrics.*"))

SERVER_KEY = public_of(b"\x11" * 32)


@dataclass
class FakeJournal:
    """Takes events in order; ``writable`` and ``broken`` make it refuse, early or late."""

    instance: str = "one"
    writable: bool = True
    broken: bool = False
    events: list[AuditEvent] = field(default_factory=list)
    story: list[str] = field(default_factory=list)

    async def record_changes(self, changes: Sequence[tuple[int, AuditEvent]]) -> None:
        for sequence, event in changes:
            await self.record_change(sequence, event)

    async def record_change(self, sequence: int, event: AuditEvent) -> None:
        await asyncio.sleep(0)
        if not self.writable or self.broken:
            raise JournalUnavailable("full")
        assert event.change == sequence
        self.events.append(event)
        self.story.append(f"journal {event.event}")


class FakeHasher:
    """Hashes at once, recognisably."""

    async def hash(self, password: bytes) -> str:
        return f"hash-of-{len(password)}-octets"


@dataclass
class Admin:
    """Everything together."""

    engine: Engine
    journal: FakeJournal
    feed: ChangeFeed
    road: ChangeRoad
    keys: KeyService
    users: UserService
    agents: AgentService
    tokens: TokenService
    bans: BanService
    approvals: ApprovalService
    imports: ImportService
    joins: JoinService
    domains: list[str]
    moment: datetime = MOMENT


def make_admin(engine: Engine, journal: FakeJournal | None = None) -> Admin:
    journal = journal or FakeJournal()
    feed = ChangeFeed(engine)

    def tell(changes: list[Change]) -> None:
        journal.story.extend(f"in force {change.kind}" for change in changes)

    feed.subscribe(tell)  # type: ignore[arg-type]
    domains = ["orders"]
    road = ChangeRoad(engine, recorder=journal, feed=feed, clock=now)
    return Admin(
        engine,
        journal,
        feed,
        road,
        KeyService(road, domains=lambda: domains, server_keys=lambda: {SERVER_KEY}),
        UserService(road, domains=lambda: domains, hasher=FakeHasher()),
        AgentService(road, domains=lambda: domains, server_keys=lambda: {SERVER_KEY}),
        TokenService(road),
        BanService(road),
        ApprovalService(road, domains=lambda: domains, server_keys=lambda: {SERVER_KEY}),
        ImportService(road, domains=lambda: domains, server_keys=lambda: {SERVER_KEY}),
        JoinService(road, domains=lambda: domains),
        domains,
    )


@pytest_asyncio.fixture
async def admin(engine: Engine) -> AsyncIterator[Admin]:
    """The services over an empty registry at the newest schema."""
    made = make_admin(engine)
    await made.feed.catch_up()
    yield made
    await made.road.aclose()


def rename_table(engine: Engine, table: str, name: str) -> None:
    """Take a table away from a registry, or bring it back."""
    with engine.begin() as connection:
        connection.execute(text(f"ALTER TABLE {table} RENAME TO {name}"))


def knock(admin: Admin, public_key: bytes, *domains: str, address: str = "192.0.2.1", agent: str = "edge") -> str:
    """A stranger knocks at these domains, which hold it for approval; its fingerprint."""
    seen = [
        Sighting(public_key, domain, domain, address, address, agent, MOMENT, MOMENT + timedelta(seconds=5), 7)
        for domain in domains or ("orders",)
    ]
    with writing(admin.engine) as connection:
        SightingRegistry().note(connection, seen, Bounds(), apart={SERVER_KEY})
    return fingerprint_id(public_key)
