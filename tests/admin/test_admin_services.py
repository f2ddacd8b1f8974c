"""The use cases: who may what, and the road from a change to its answer."""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text
from support.audit_quiet import QuietCopy, QuietJournals
from support.store_admin import *  # noqa: F403
from support.store_admin import (
    ADMIN,
    LIMITED,
    OPERATOR,
    SERVER_KEY,
    VIEWER,
    Admin,
    FakeJournal,
    make_admin,
    rename_table,
)
from support.store_fixtures import *  # noqa: F403

from zapd.admin.roles import OFFLINE, ROLES, Actor, Operation, Role
from zapd.admin.services.agents import NewAgent
from zapd.admin.services.audit import AuditFilter, AuditService
from zapd.admin.services.bans import NewBan
from zapd.admin.services.changes import ChangeRoad
from zapd.admin.services.explain import ExplainService, Explanation, Supposed
from zapd.admin.services.joins import NewJoin
from zapd.admin.services.keys import NewKey
from zapd.admin.services.tokens import TokenService
from zapd.admin.services.topology import BackendInfo, BackendService, DomainInfo, DomainService, as_one
from zapd.admin.services.users import NewUser
from zapd.audit.event import AuditEvent
from zapd.errors import (
    Conflict,
    Forbidden,
    InvalidInput,
    NotFound,
    PreconditionFailed,
    Unauthenticated,
    Unavailable,
)
from zapd.store.bans import BanKind
from zapd.store.changes import ChangeLog
from zapd.store.engine import reading
from zapd.store.keys import KeyState
from zapd.store.types import now
from zapd.store.users import UserState
from zapd.zmtp.keys import generate_keypair


def _key(user: str = "alice", **more: object) -> NewKey:
    return NewKey(public_key=generate_keypair()[0], user=user, **more)  # type: ignore[arg-type]


async def test_a_change_is_journalled_and_in_force_before_the_answer(admin: Admin):
    """Opening access is journalled first; closing it takes force first; both before the caller hears."""
    record = await admin.keys.add(ADMIN, _key())
    assert admin.journal.story == ["journal key.add", "in force key"]
    await admin.keys.revoke(ADMIN, record.fingerprint, "lost")
    assert admin.journal.story[2:] == ["in force key", "journal key.revoke"]
    added, revoked = admin.journal.events
    assert (added.actor, added.subject, added.principal) == ("root", record.fingerprint, "alice")
    assert added.before is None
    assert revoked.before is not None
    assert revoked.after is not None
    assert (revoked.before["state"], revoked.after["state"], revoked.reason) == ("active", "revoked", "lost")
    with reading(admin.engine) as connection:
        assert ChangeLog().unjournalled(connection) == []


async def test_what_changes_nothing_leaves_no_trace(admin: Admin):
    """Revoking twice, or a patch that says what is so already, writes neither row nor event."""
    record = await admin.keys.add(ADMIN, _key())
    assert await admin.keys.change(ADMIN, record.fingerprint, {"user": "alice"}) == record
    first = await admin.keys.revoke(ADMIN, record.fingerprint)
    assert await admin.keys.revoke(ADMIN, record.fingerprint) == first
    assert len(admin.journal.events) == 2


async def test_without_a_journal_access_is_closed_and_never_opened(admin: Admin):
    """While the journal cannot be written, revoking, disabling and removing work; all else is 503 and undone."""
    key = await admin.keys.add(ADMIN, _key())
    pending = await admin.keys.add(ADMIN, _key(pending=True))
    await admin.users.add(ADMIN, NewUser("bob", b"x"))
    await admin.users.add(ADMIN, NewUser("eve", b"x"))
    await admin.agents.enroll(ADMIN, NewAgent("edge", generate_keypair()[0]))
    token, _secret = await admin.tokens.create(ADMIN, "ci", Role.VIEWER)
    admin.journal.writable = False
    opening: list[Callable[[], Awaitable[object]]] = [
        lambda: admin.keys.add(ADMIN, _key()),
        lambda: admin.keys.change(ADMIN, key.fingerprint, {"user": "bob"}),
        lambda: admin.approvals.approve(ADMIN, pending.fingerprint),
        lambda: admin.users.add(ADMIN, NewUser("new", b"x")),
        lambda: admin.users.change(ADMIN, "bob", {"domains": ["*"]}),
        lambda: admin.users.change(ADMIN, "bob", {"state": UserState.DISABLED, "domains": ["*"]}),
        lambda: admin.users.enable(ADMIN, "bob"),
        lambda: admin.users.set_password(ADMIN, "bob", b"y"),
        lambda: admin.agents.enroll(ADMIN, NewAgent("edge2", generate_keypair()[0])),
        lambda: admin.tokens.create(ADMIN, "x", Role.ADMIN),
    ]
    with reading(admin.engine) as connection:
        before = ChangeLog().last(connection)
    for attempt in opening:
        with pytest.raises(Unavailable):
            await attempt()
    with reading(admin.engine) as connection:
        assert ChangeLog().last(connection) == before
    await admin.keys.revoke(ADMIN, key.fingerprint)
    await admin.approvals.reject(ADMIN, pending.fingerprint)
    await admin.users.disable(ADMIN, "bob")
    await admin.users.remove(ADMIN, "eve")
    await admin.agents.revoke(ADMIN, "edge")
    await admin.tokens.revoke(ADMIN, token.id)
    assert [step for step in admin.journal.story[-6:] if step.startswith("in force")] == admin.journal.story[-6:]
    admin.journal.writable = True
    assert await admin.road.journal_missing() == 6
    closed = [event.event for event in admin.journal.events[-6:]]
    assert closed == [
        "key.revoke",
        "key.revoke",
        "user.disable",
        "user.remove",
        "agent.revoke",
        "token.revoke",
    ]
    assert await admin.road.journal_missing() == 0


async def test_a_crash_between_commit_and_journal_is_made_good_once(engine: Engine):
    """What the journal had taken is only marked, what it had not is appended, and other instances' rows stay."""
    journal = FakeJournal()
    admin = make_admin(engine, journal)
    journal.broken = True  # as if the process died right after the commit
    for _ in range(2):
        with pytest.raises(Unavailable, match="is made"):
            await admin.keys.add(ADMIN, _key())
    other = make_admin(engine, FakeJournal(instance="two"))
    other.journal.broken = True
    with pytest.raises(Unavailable):
        await other.keys.add(ADMIN, _key())
    reborn = make_admin(engine, FakeJournal())
    with reading(engine) as connection:
        first = ChangeLog().unjournalled(connection, "one")[0].sequence
    assert await reborn.road.journal_missing(in_journal=lambda sequence: sequence == first) == 1
    assert [event.change for event in reborn.journal.events] == [first + 1]
    with reading(engine) as connection:
        assert [row.instance for row in ChangeLog().unjournalled(connection)] == ["two"]


async def test_a_journal_that_breaks_behind_the_commit_is_said_truly(admin: Admin):
    """The caller hears that the change is made and in force, and that its record follows: both are so. The record
    comes once."""
    admin.journal.broken = True
    with pytest.raises(Unavailable, match=r"is made and in force.*record.*follows"):
        await admin.keys.add(ADMIN, NewKey(generate_keypair()[0], "alice"))
    assert admin.journal.story == ["in force key"]
    assert [key.user for key in (await admin.keys.list(ADMIN)).items] == ["alice"]
    admin.journal.broken = False
    assert await admin.road.journal_missing() == 1
    assert admin.journal.story == ["in force key", "journal key.add"]
    assert await admin.road.journal_missing() == 0


async def test_a_registry_that_is_gone_behind_the_commit_is_said_truly(own_engine: Engine):
    """Whoever opens access hears that the change is made, why it is not in force, and that both force and record
    come by themselves: so it is, once."""
    admin = make_admin(own_engine)
    await admin.feed.catch_up()
    record = admin.journal.record_changes

    async def records_and_loses(batch: Sequence[tuple[int, AuditEvent]]) -> None:
        try:
            await record(batch)
        finally:
            rename_table(admin.engine, "change_log", "lost_log")

    admin.journal.record_changes = records_and_loses  # type: ignore[method-assign]
    said = "is made, but not yet in force everywhere.*once the registry can be read: .*log cannot be read"
    for broken in (False, True):
        admin.journal.broken = broken
        with pytest.raises(Unavailable, match=said) as told:
            await admin.keys.add(ADMIN, _key(f"late-{broken}"))
        assert ("Its record follows" in str(told.value)) == broken
        rename_table(admin.engine, "lost_log", "change_log")
        assert admin.journal.story == ["journal key.add"]
    admin.journal.record_changes = record  # type: ignore[method-assign]
    admin.journal.broken = False
    await admin.feed.catch_up()
    assert await admin.road.journal_missing() == 1
    assert admin.journal.story == ["journal key.add", "in force key", "in force key", "journal key.add"]
    assert {key.user for key in (await admin.keys.list(ADMIN)).items} == {"late-False", "late-True"}
    await admin.road.aclose()


@pytest.mark.parametrize(
    ("trouble", "told"), [(Unavailable("The keys cannot be read."), "keys cannot"), (OSError("canary"), "OSError")]
)
async def test_a_revocation_that_is_not_in_force_yet_is_said_truly(admin: Admin, trouble: Exception, told: str):
    """It is made and on record, and whoever closes access must know that it is still open; it is closed soon."""
    key = await admin.keys.add(ADMIN, _key())
    gone = [True]

    def fails(_changes: object) -> None:
        if gone[0]:
            raise trouble

    admin.feed.subscribe(fails)
    with pytest.raises(Unavailable, match=f"is made, but not yet in force everywhere.*{told}"):
        await admin.keys.revoke(ADMIN, key.fingerprint)
    assert admin.journal.events[-1].event == "key.revoke"
    assert (await admin.keys.show(ADMIN, key.fingerprint)).state is KeyState.REVOKED
    before = admin.feed.position
    gone[0] = False
    assert await admin.feed.catch_up() == before + 1


async def test_an_offline_change_is_journalled_by_the_next_server(engine: Engine):
    """A token made beside a stopped server works, and its event waits for whoever starts first."""
    tokens = TokenService(ChangeRoad(engine))
    _record, token = await tokens.create(OFFLINE, "way back", Role.ADMIN)
    admin = make_admin(engine)
    assert (await admin.tokens.authenticate(token)).name == "way back"
    assert await admin.road.journal_missing() == 1
    assert admin.journal.events[0].actor == "offline"
    assert await make_admin(engine, FakeJournal(instance="two")).road.journal_missing() == 0


async def test_a_change_whose_caller_left_goes_on_to_its_end(admin: Admin):
    """A cancelled request leaves no change that is committed and neither journalled nor in force."""
    call = asyncio.create_task(admin.keys.add(ADMIN, _key()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await admin.road.aclose()
    assert admin.journal.story == ["journal key.add", "in force key"]


async def test_changes_are_journalled_in_the_order_of_the_log(admin: Admin):
    """Many at once come into the journal with rising sequences, each once."""
    await asyncio.gather(*(admin.keys.add(ADMIN, _key(str(number))) for number in range(10)))
    changes = [event.change for event in admin.journal.events]
    assert len(changes) == 10
    assert changes == sorted(set(changes))


async def test_no_secret_is_in_any_event(admin: Admin):
    """Neither hashes nor tokens nor passwords stand in the change log or the journal."""
    await admin.users.add(ADMIN, NewUser("bob", b"canary-password"))
    await admin.users.set_password(ADMIN, "bob", b"canary-password2")
    record, token = await admin.tokens.create(ADMIN, "ci", Role.VIEWER)
    with admin.engine.connect() as connection:
        logged = "".join(connection.execute(text("SELECT event FROM change_log")).scalars())
    said = logged + repr(admin.journal.events) + repr(record) + repr(NewUser("bob", b"canary-password"))
    for secret in ("canary", token, "hash-of", record.hash.hex()):
        assert secret not in said


# -- who may what -------------------------------------------------------------------------------------------


def _operations(admin: Admin) -> dict[Operation, list[Callable[[Actor], Awaitable[object]]]]:
    explain = ExplainService(_explained)
    audit = AuditService(_nothing_found, copy=QuietCopy(), journals=QuietJournals())

    async def nobody() -> Actor:
        raise Unauthenticated("gone")

    return {
        Operation.READ_KEYS: [
            lambda a: admin.keys.list(a),
            lambda a: admin.keys.show(a, "x" * 43),
            lambda a: admin.approvals.list(a),
            lambda a: admin.approvals.show(a, "x" * 43),
        ],
        Operation.CHANGE_KEYS: [
            lambda a: admin.keys.add(a, _key()),
            lambda a: admin.keys.change(a, "x" * 43, {}),
            lambda a: admin.approvals.approve(a, "x" * 43),
            lambda a: admin.approvals.reject(a, "x" * 43),
            lambda a: admin.keys.revoke(a, "x" * 43),
        ],
        Operation.READ_USERS: [lambda a: admin.users.list(a), lambda a: admin.users.show(a, "x")],
        Operation.CHANGE_USERS: [
            lambda a: admin.users.add(a, NewUser(f"u{os.urandom(4).hex()}", b"x")),
            lambda a: admin.users.change(a, "x", {}),
            lambda a: admin.users.disable(a, "x"),
            lambda a: admin.users.enable(a, "x"),
            lambda a: admin.users.set_password(a, "x", b"x"),
            lambda a: admin.users.remove(a, "x"),
        ],
        Operation.READ_AGENTS: [lambda a: admin.agents.list(a), lambda a: admin.agents.show(a, "x")],
        Operation.CHANGE_AGENTS: [
            lambda a: admin.agents.enroll(a, NewAgent(os.urandom(4).hex(), generate_keypair()[0])),
            lambda a: admin.agents.revoke(a, "x"),
        ],
        Operation.READ_BANS: [lambda a: admin.bans.list(a), lambda a: admin.bans.show(a, "x")],
        Operation.CHANGE_BANS: [
            lambda a: admin.bans.add(a, NewBan(BanKind.USER, os.urandom(4).hex())),
            lambda a: admin.bans.remove(a, "x"),
        ],
        Operation.READ_TOKENS: [lambda a: admin.tokens.list(a)],
        Operation.CHANGE_TOKENS: [
            lambda a: admin.tokens.create(a, "t", Role.VIEWER),
            lambda a: admin.tokens.revoke(a, "x"),
        ],
        Operation.READ_JOINS: [lambda a: admin.joins.list(a)],
        Operation.CHANGE_JOINS: [lambda a: admin.joins.create(a, NewJoin()), lambda a: admin.joins.revoke(a, "x")],
        Operation.READ_DOMAINS: [lambda a: DomainService(list).list(a)],
        Operation.READ_BACKENDS: [lambda a: BackendService(list, list).list(a)],
        Operation.READ_AUDIT: [
            lambda a: audit.search(a, AuditFilter()),
            lambda a: audit.follow(a, AuditFilter(), nobody),
            lambda a: audit.export(a, AuditFilter(), nobody),
        ],
        Operation.VERIFY_AUDIT: [lambda a: audit.verify(a)],
        Operation.EXPLAIN: [lambda a: explain.explain(a, Supposed("d", "NULL", "10.0.0.1"))],
    }


async def _explained(_question: Supposed) -> Explanation:
    return Explanation(200, "granted")


async def _nothing_found(_filter: AuditFilter, _limit: int, _cursor: str | None) -> tuple[list[dict], None]:
    return [], None


@pytest.mark.parametrize("role", list(Role))
async def test_the_table_of_roles_is_what_is_allowed(admin: Admin, role: Role):
    """Every operation of every service is refused to exactly those roles that the table does not give it to."""
    operations = _operations(admin)
    assert operations.keys() == set(Operation)
    for operation, calls in operations.items():
        for call in calls:
            if operation in ROLES[role]:
                with contextlib.suppress(NotFound):
                    await call(Actor("x", role))
            else:
                with pytest.raises(Forbidden):
                    await call(Actor("x", role))


async def test_roles_only_grow(admin: Admin):
    """An operator may all that a viewer may, an admin all that there is."""
    assert ROLES[Role.VIEWER] < ROLES[Role.OPERATOR] < ROLES[Role.ADMIN] == set(Operation)


async def test_domains_limit_what_is_seen_and_changed(admin: Admin):
    """What lies elsewhere does not exist; what lies partly elsewhere is seen in part and cannot be changed."""
    mine = await admin.keys.add(ADMIN, _key("mine", domains=["orders"]))
    part = await admin.keys.add(ADMIN, _key("part", domains=["metrics.cpu", "secret"]))
    theirs = await admin.keys.add(ADMIN, _key("theirs", domains=["secret"]))
    everywhere = await admin.keys.add(ADMIN, _key("everywhere", domains=["*"]))
    listed = (await admin.keys.list(LIMITED)).items
    assert {record.user: record.domains for record in listed} == {"mine": ("orders",), "part": ("metrics.cpu",)}
    assert (await admin.keys.list(LIMITED, domain="secret")).items == []
    assert (await admin.keys.show(LIMITED, part.fingerprint)).domains == ("metrics.cpu",)
    for hidden in (theirs, everywhere):
        for call in (admin.keys.show, admin.keys.revoke, admin.approvals.approve):
            with pytest.raises(NotFound):
                await call(LIMITED, hidden.fingerprint)
    with pytest.raises(Forbidden):
        await admin.keys.revoke(LIMITED, part.fingerprint)
    with pytest.raises(Forbidden):
        await admin.keys.change(LIMITED, mine.fingerprint, {"domains": ["orders", "secret"]})
    with pytest.raises(Forbidden):
        await admin.keys.add(LIMITED, _key(domains=["*"]))
    assert (await admin.keys.change(LIMITED, mine.fingerprint, {"domains": ["metrics.*"]})).domains
    await admin.keys.revoke(LIMITED, mine.fingerprint)


async def test_domains_limit_users_agents_and_tokens_alike(admin: Admin):
    """The same holds for users, agents and tokens."""
    await admin.users.add(ADMIN, NewUser("theirs", b"x", domains=["secret"]))
    await admin.users.add(LIMITED, NewUser("mine", b"x", domains=["orders"]))
    assert [user.name for user in (await admin.users.list(LIMITED)).items] == ["mine"]
    for call in (admin.users.show, admin.users.disable, admin.users.remove):
        with pytest.raises(NotFound):
            await call(LIMITED, "theirs")
    with pytest.raises(NotFound):
        await admin.users.set_password(LIMITED, "theirs", b"y")
    await admin.agents.enroll(ADMIN, NewAgent("theirs", generate_keypair()[0], domains=["*"]))
    await admin.agents.enroll(LIMITED, NewAgent("mine", generate_keypair()[0], domains=["metrics.*"]))
    assert [agent.name for agent in (await admin.agents.list(LIMITED)).items] == ["mine"]
    with pytest.raises(NotFound):
        await admin.agents.revoke(LIMITED, "theirs")
    chief = Actor("orders-admin", Role.ADMIN, ("orders",))
    theirs, _ = await admin.tokens.create(ADMIN, "theirs", Role.VIEWER)
    with pytest.raises(Forbidden):
        await admin.tokens.create(chief, "too wide", Role.VIEWER, domains=["*"])
    mine, _ = await admin.tokens.create(chief, "mine", Role.ADMIN, domains=["orders"])
    assert [token.id for token in (await admin.tokens.list(chief)).items] == [mine.id]
    with pytest.raises(NotFound):
        await admin.tokens.revoke(chief, theirs.id)


async def test_domains_limit_configuration_record_and_explaining():
    """Backends of other domains, records of other domains and questions about them are out of reach."""
    domains = [DomainInfo("orders", ("CURVE",), ("keys",)), DomainInfo("secret", ("PLAIN",), ("staff",))]
    backends = [BackendInfo(name, "sql", ("CURVE",), "ready") for name in ("keys", "staff")]
    assert [d.pattern for d in await DomainService(lambda: domains).list(LIMITED)] == ["orders"]
    service = BackendService(lambda: backends, lambda: domains)
    assert [b.name for b in await service.list(LIMITED)] == ["keys"]
    assert len(await service.list(VIEWER)) == 2
    asked = []

    async def search(wanted: AuditFilter, _limit: int, _cursor: str | None) -> tuple[list[dict], None]:
        asked.append(wanted.domains)
        return [], None

    await AuditService(search).search(LIMITED, AuditFilter(domains=("*",)))
    await AuditService(search).search(VIEWER, AuditFilter())
    assert asked == [LIMITED.domains, None]
    with pytest.raises(Forbidden):
        await ExplainService(_explained).explain(LIMITED, Supposed("secret", "NULL", "10.0.0.1"))
    with pytest.raises(InvalidInput):
        await ExplainService(_explained).explain(OPERATOR, Supposed("d", "CURVE", "10.0.0.1"))


# -- keys, users, agents, tokens ----------------------------------------------------------------------------


async def test_a_key_belongs_to_one_holder_and_one_kind(admin: Admin):
    """A known key is a conflict that names its holder only to those who may see; servers' and agents' keys are
    nobody's, and clients' keys no agent's."""
    theirs = await admin.keys.add(ADMIN, _key("carol", domains=["secret"]))
    again = NewKey(theirs.public_key, "x", domains=["orders"])
    with pytest.raises(Conflict, match="carol"):
        await admin.keys.add(ADMIN, again)
    with pytest.raises(Conflict) as caught:
        await admin.keys.add(LIMITED, again)
    assert "carol" not in str(caught.value)
    agent_key = generate_keypair()[0]
    await admin.agents.enroll(ADMIN, NewAgent("edge", agent_key))
    for taken in (SERVER_KEY, agent_key):
        with pytest.raises(InvalidInput):
            await admin.keys.add(ADMIN, NewKey(taken, "x"))
    for taken in (SERVER_KEY, theirs.public_key):
        with pytest.raises(InvalidInput):
            await admin.agents.enroll(ADMIN, NewAgent("edge2", taken))
    with pytest.raises(Conflict, match="edge"):
        await admin.agents.enroll(ADMIN, NewAgent("edge2", agent_key))


async def test_the_only_domain_is_taken_when_none_is_named(admin: Admin):
    """With one configured domain it is the default; with several, or none, it must be said."""
    assert (await admin.keys.add(ADMIN, _key())).domains == ("orders",)
    admin.domains.append("lab")
    with pytest.raises(InvalidInput, match="which domains"):
        await admin.keys.add(ADMIN, _key())
    assert (await admin.keys.add(ADMIN, _key(domains=["*"]))).domains == ("*",)


async def test_pending_keys_are_approved_or_rejected(admin: Admin):
    """Approving makes active, rejecting shuts out for good, and neither undoes a revocation."""
    one = await admin.keys.add(ADMIN, _key(pending=True))
    two = await admin.keys.add(ADMIN, _key(pending=True))
    assert (await admin.approvals.approve(ADMIN, one.fingerprint)).state is KeyState.ACTIVE
    rejected = await admin.approvals.reject(ADMIN, two.fingerprint)
    assert (rejected.state, rejected.reason) == (KeyState.REVOKED, "rejected")
    for attempt in (
        admin.approvals.approve(ADMIN, two.fingerprint),
        admin.approvals.reject(ADMIN, one.fingerprint),
        admin.keys.change(ADMIN, two.fingerprint, {"user": "bob"}),
    ):
        with pytest.raises(Conflict):
            await attempt


async def test_two_people_do_not_overwrite_each_other(admin: Admin):
    """A change against an older version is refused and changes nothing."""
    record = await admin.keys.add(ADMIN, _key())
    await admin.keys.change(ADMIN, record.fingerprint, {"label": "first"}, version=1)
    with pytest.raises(PreconditionFailed):
        await admin.keys.change(ADMIN, record.fingerprint, {"label": "second"}, version=1)
    assert (await admin.keys.show(ADMIN, record.fingerprint)).label == "first"


async def test_times_make_sense(admin: Admin):
    """An expiry in the past, or before the beginning, is refused; clearing it works."""
    past, soon, later = now() - timedelta(days=1), now() + timedelta(days=1), now() + timedelta(days=2)
    for wrong in ({"expires": past}, {"expires": soon, "not_before": later}):
        with pytest.raises(InvalidInput):
            await admin.keys.add(ADMIN, _key(**wrong))
    record = await admin.keys.add(ADMIN, _key(expires=soon))
    assert (await admin.keys.change(ADMIN, record.fingerprint, {"expires": None})).expires is None


async def test_users_live_and_die(admin: Admin):
    """Adding, disabling, enabling, a new password and removal each leave their own event."""
    await admin.users.add(ADMIN, NewUser("bob", b"x"))
    with pytest.raises(Conflict):
        await admin.users.add(ADMIN, NewUser("bob", b"y"))
    for wrong in (b"", b"a\0b", b"x" * 256):
        with pytest.raises(InvalidInput):
            await admin.users.set_password(ADMIN, "bob", wrong)
    await admin.users.disable(ADMIN, "bob")
    await admin.users.enable(ADMIN, "bob")
    await admin.users.change(ADMIN, "bob", {"groups": ["g"]})
    await admin.users.set_password(ADMIN, "bob", b"new")
    await admin.users.remove(ADMIN, "bob")
    with pytest.raises(NotFound):
        await admin.users.show(ADMIN, "bob")
    assert [event.event for event in admin.journal.events] == [
        "user.add",
        "user.disable",
        "user.enable",
        "user.change",
        "user.password",
        "user.remove",
    ]


async def test_nobody_is_made_whom_no_path_can_name(admin: Admin):
    """``.`` and ``..`` are steps in a URL: whoever was called so could be shut out by nobody."""
    for name in (".", ".."):
        with pytest.raises(InvalidInput, match="no URL"):
            await admin.users.add(ADMIN, NewUser(name, b"x"))
        with pytest.raises(InvalidInput, match="no URL"):
            await admin.agents.enroll(ADMIN, NewAgent(name, generate_keypair()[0]))
    await admin.users.add(ADMIN, NewUser("...", b"x"))


async def test_a_revoked_agents_name_can_be_used_again(admin: Admin):
    """After a revocation the name may be enrolled with a new key, never with the old one."""
    key = generate_keypair()[0]
    await admin.agents.enroll(ADMIN, NewAgent("edge", key, addresses=["10.0.0.0/8"]))
    with pytest.raises(Conflict):
        await admin.agents.enroll(ADMIN, NewAgent("edge", generate_keypair()[0]))
    await admin.agents.revoke(ADMIN, "edge", "stolen")
    with pytest.raises(Conflict):
        await admin.agents.enroll(ADMIN, NewAgent("edge", key))
    reborn = await admin.agents.enroll(ADMIN, NewAgent("edge", generate_keypair()[0]))
    assert (reborn.reason, reborn.version) == ("", 3)
    with pytest.raises(InvalidInput):
        await admin.agents.enroll(ADMIN, NewAgent("local:x", generate_keypair()[0]))


async def test_a_token_is_worth_something_until_it_is_not(admin: Admin):
    """A token is its actor until it expires or is revoked; near misses are nobody."""
    record, token = await admin.tokens.create(ADMIN, "ci", Role.OPERATOR, domains=["orders"])
    actor = await admin.tokens.authenticate(token)
    assert (actor.name, actor.role, actor.domains, actor.token_id) == (
        "ci",
        Role.OPERATOR,
        ("orders",),
        record.id,
    )
    listed = (await admin.tokens.list(ADMIN)).items
    assert listed[0].last_used is not None
    for wrong in ("", token[:-1], token + "x", token.swapcase(), "zapd_" + "é" * 43, record.hash.hex()):
        with pytest.raises(Unauthenticated):
            await admin.tokens.authenticate(wrong)
    await admin.tokens.revoke(ADMIN, record.id)
    with pytest.raises(Unauthenticated):
        await admin.tokens.authenticate(token)
    short, token = await admin.tokens.create(ADMIN, "short", Role.VIEWER, expires=now() + timedelta(hours=1))
    late = ChangeRoad(admin.engine, clock=lambda: short.expires or now())
    with pytest.raises(Unauthenticated):
        await TokenService(late).authenticate(token)


async def test_a_database_that_is_away_is_said_so(empty_engine: Engine):
    """Without its tables every service says that the database does not answer, and nothing else."""
    admin = make_admin(empty_engine)
    with pytest.raises(Unavailable):
        await admin.keys.list(ADMIN)
    with pytest.raises(Unavailable):
        await admin.keys.add(ADMIN, _key())
    with pytest.raises(Unavailable):
        await admin.tokens.authenticate("zapd_" + "x" * 43)


def test_a_backend_of_several_processes_is_shown_as_it_fares_worst():
    """One state, the open circuit, all that waits, the newest error; and a word for /readyz without its text."""
    early = now()
    late = early + timedelta(seconds=1)
    well = BackendInfo("staff", "ldap", ("PLAIN",), "ready", in_flight=2)
    slow = replace(well, circuit="half_open", in_flight=3, last_error="new", last_error_at=late)
    away = replace(well, circuit="open", in_flight=0, last_error="old", last_error_at=early)
    assert as_one([well]) == well
    assert as_one([well, slow, away]) == replace(away, in_flight=5, last_error="new", last_error_at=late)
    gone = replace(well, state="disabled", reason="no such file")
    assert as_one([away, gone, well]).state == "disabled"
    assert [each.word for each in (well, slow, gone)] == [
        "ok",
        "does not answer; its circuit is open",
        "no such file",
    ]
