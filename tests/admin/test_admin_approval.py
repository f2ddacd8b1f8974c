"""Keys that wait: listed, approved and rejected, by those who may, on each database."""

# ruff: noqa: F811 - fixtures come in by import
from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from support.postgres import postgres_server  # noqa: F401 - a fixture
from support.store_admin import ADMIN, LIMITED, SERVER_KEY, Admin, admin, knock  # noqa: F401 - fixtures
from support.store_fixtures import MOMENT, engine, shared_postgres  # noqa: F401 - fixtures

from zapd.admin.roles import Actor, Role
from zapd.admin.services.agents import NewAgent
from zapd.admin.services.approval import Approval
from zapd.admin.services.keys import KeyChange, NewKey
from zapd.errors import Conflict, Forbidden, InvalidInput, NotFound, PreconditionFailed
from zapd.store.keys import KeyState
from zapd.zmtp.keys import fingerprint_id, generate_keypair


def new_key() -> bytes:
    return generate_keypair()[0]


def for_user(user: str, **more: object) -> Approval:
    return Approval(KeyChange(user=user, **more))  # type: ignore[typeddict-item]


async def waiting(admin: Admin, actor: Actor = ADMIN, **asked: object) -> Sequence[str]:
    page = await admin.approvals.list(actor, **asked)  # type: ignore[arg-type]
    return [candidate.record.fingerprint for candidate in page.items]


async def test_a_stranger_is_approved(admin: Admin) -> None:
    """With everything that a key can have; where it knocked is the default; the event is that of `key add` and
    says where it came from; and it waits no more."""
    key = new_key()
    name = knock(admin, key)
    shown = await admin.approvals.show(ADMIN, name)
    assert (shown.record.user, shown.record.state, shown.record.domains) == ("", KeyState.PENDING, ("orders",))
    assert [(seen.tries, seen.agent) for seen in shown.sightings] == [(7, "edge")]
    given = for_user("robot", groups=["fleet"], attributes={"Line": "2"}, label="left arm")
    record = await admin.approvals.approve(ADMIN, name, given, version=0)
    assert (record.user, record.state, record.domains, record.version) == (
        "robot",
        KeyState.ACTIVE,
        ("orders",),
        1,
    )
    assert (record.groups, record.attributes, record.label) == (("fleet",), (("Line", "2"),), "left arm")
    assert await admin.keys.show(ADMIN, name) == record
    event = admin.journal.events[-1]
    assert (event.event, event.before, event.address, event.agent) == ("key.add", None, "192.0.2.1", "edge")
    assert await waiting(admin) == []
    with pytest.raises(NotFound):
        await admin.approvals.show(ADMIN, name)


async def test_a_stranger_is_rejected(admin: Admin) -> None:
    """It becomes a revoked key with the reason, never waits again, and cannot be approved."""
    key = new_key()
    name = knock(admin, key)
    record = await admin.approvals.reject(ADMIN, name, "not ours")
    assert (record.user, record.state, record.reason) == ("rejected", KeyState.REVOKED, "not ours")
    assert admin.journal.events[-1].event == "key.revoke"
    knock(admin, key)
    assert await waiting(admin) == []
    for attempt in (admin.approvals.approve(ADMIN, name, for_user("x")), admin.approvals.reject(ADMIN, name)):
        with pytest.raises(Conflict):
            await attempt


async def test_of_two_editors_one_wins(admin: Admin) -> None:
    """Approving twice is 409, against an old version 412, whether one after the other or together."""
    name = knock(admin, new_key())
    tries = [admin.approvals.approve(ADMIN, name, for_user(user), version=0) for user in ("a", "b")]
    tries += [admin.approvals.reject(ADMIN, name, version=0)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["KeyRecord", *["PreconditionFailed"] * 2]
    other = knock(admin, new_key())
    await admin.approvals.approve(ADMIN, other, for_user("a"))
    with pytest.raises(Conflict, match="'a'"):
        await admin.approvals.approve(ADMIN, other, for_user("b"))
    with pytest.raises(PreconditionFailed):
        await admin.approvals.approve(ADMIN, other, for_user("b"), version=0)


async def test_a_key_that_is_not_listed_needs_to_be_whole(admin: Admin) -> None:
    """Evicted or never seen: the fingerprint alone says the mend; the whole key is approved or rejected."""
    one, two = new_key(), new_key()
    name = fingerprint_id(one)
    for attempt in (admin.approvals.approve(ADMIN, name, for_user("a")), admin.approvals.reject(ADMIN, name)):
        with pytest.raises(NotFound, match="whole public key"):
            await attempt
    with pytest.raises(InvalidInput, match="not the one of this fingerprint"):
        await admin.approvals.approve(ADMIN, name, Approval(KeyChange(user="a"), two))
    record = await admin.approvals.approve(ADMIN, name, Approval(KeyChange(user="a"), one))
    assert (record.domains, record.state) == (("orders",), KeyState.ACTIVE)
    rejected = await admin.approvals.reject(ADMIN, fingerprint_id(two), public_key=two)
    assert rejected.state is KeyState.REVOKED


async def test_who_may_not_be_a_client_is_not_approved(admin: Admin) -> None:
    """Neither the server's key nor an agent's, which knocked before it was the agent's and is shown no more."""
    with pytest.raises(InvalidInput, match="zapd server"):
        whole = Approval(KeyChange(user="a"), SERVER_KEY)
        await admin.approvals.approve(ADMIN, fingerprint_id(SERVER_KEY), whole)
    key = new_key()
    name = knock(admin, key)
    await admin.agents.enroll(ADMIN, NewAgent("edge", key))
    assert await waiting(admin) == []
    with pytest.raises(NotFound):
        await admin.approvals.show(ADMIN, name)
    for attempt in (admin.approvals.approve(ADMIN, name, for_user("a")), admin.approvals.reject(ADMIN, name)):
        with pytest.raises(InvalidInput, match="agent"):
            await attempt


async def test_a_holder_must_be_named_and_a_pattern_is_never_granted_by_itself(admin: Admin) -> None:
    """Without a user it is refused; an application whose domain is called * gives strangers nothing by that."""
    name = knock(admin, new_key())
    with pytest.raises(InvalidInput, match="user"):
        await admin.approvals.approve(ADMIN, name)
    odd = knock(admin, new_key(), "*")
    with pytest.raises(InvalidInput, match="Say which domains"):
        await admin.approvals.approve(ADMIN, odd, for_user("a"))
    assert (await admin.approvals.approve(ADMIN, odd, for_user("a", domains=["lab"]))).domains == ("lab",)


async def test_domains_limit_who_sees_and_decides(admin: Admin) -> None:
    """What knocks elsewhere does not exist; what knocks here and there is seen and granted here alone."""
    here, there, both = (knock(admin, new_key(), *domains) for domains in (["orders"], ["lab"], ["lab", "orders"]))
    assert set(await waiting(admin, LIMITED)) == {here, both}
    assert set(await waiting(admin)) == {here, there, both}
    assert (await admin.approvals.show(LIMITED, both)).record.domains == ("orders",)
    for attempt in (
        admin.approvals.show(LIMITED, there),
        admin.approvals.approve(LIMITED, there, for_user("a")),
        admin.approvals.reject(LIMITED, there),
    ):
        with pytest.raises(NotFound):
            await attempt
    with pytest.raises(Forbidden):
        await admin.approvals.approve(LIMITED, here, for_user("a", domains=["orders", "lab"]))
    assert (await admin.approvals.approve(LIMITED, both, for_user("a"))).domains == ("orders",)
    for attempt in (admin.approvals.list(Actor("eye", Role.VIEWER)), admin.approvals.show(ADMIN, here)):
        await attempt
    with pytest.raises(Forbidden):
        await admin.approvals.approve(Actor("eye", Role.VIEWER), here, for_user("a"))


async def test_the_list_is_filtered_and_paged(admin: Admin) -> None:
    """Strangers and keys that are held stand in one list, in the order of their fingerprints, page by page."""
    near = [knock(admin, new_key(), address=f"10.0.0.{number}") for number in range(5)]
    far = [knock(admin, new_key(), "lab", address="2001:db8::7", agent="other") for _ in range(4)]
    local = knock(admin, new_key(), address="ipc:uid=7,gid=8,pid=9")
    held = (await admin.keys.add(ADMIN, NewKey(new_key(), "bob", pending=True))).fingerprint
    everybody = sorted([*near, *far, local, held])
    assert await waiting(admin) == everybody
    paged, after = [], ""
    while True:
        page = await admin.approvals.list(ADMIN, after=after, limit=3)
        paged += [candidate.record.fingerprint for candidate in page.items]
        if page.after is None:
            break
        after = page.after
    assert paged == everybody
    assert await waiting(admin, address="10.0.0.0/8") == sorted(near)
    assert await waiting(admin, address="10.0.0.3") == [near[3]]
    assert await waiting(admin, address="::ffff:10.0.0.3") == [near[3]]
    assert await waiting(admin, address="2001:db8::/32", limit=3) == sorted(far)[:3]
    assert await waiting(admin, address="ipc:uid=7") == [local]
    assert await waiting(admin, agent="other") == sorted(far)
    assert await waiting(admin, domain="lab") == sorted(far)
    assert await waiting(admin, user="bob") == [held]
    with pytest.raises(InvalidInput):
        await waiting(admin, address="nowhere")


async def test_a_key_that_is_held_is_approved_with_what_is_named(admin: Admin) -> None:
    """What is not named stays; an expiry in the past is refused."""
    made = await admin.keys.add(ADMIN, NewKey(new_key(), "bob", groups=["g"], label="old", pending=True))
    with pytest.raises(InvalidInput, match="past"):
        await admin.approvals.approve(ADMIN, made.fingerprint, Approval(KeyChange(expires=MOMENT)))
    record = await admin.approvals.approve(ADMIN, made.fingerprint, Approval(KeyChange(label="new")), version=1)
    assert (record.user, record.groups, record.label, record.state) == ("bob", ("g",), "new", KeyState.ACTIVE)
