"""Join tokens as operators make, see and revoke them, over a real registry on SQLite and PostgreSQL."""

from dataclasses import replace
from datetime import timedelta

import pytest
from support.store_admin import *  # noqa: F403
from support.store_admin import ADMIN, LIMITED, OPERATOR, Admin
from support.store_fixtures import *  # noqa: F403

from zapd.admin.services.joins import LIFETIME, REMEMBERED, JoinService, NewJoin, digest
from zapd.errors import Conflict, Forbidden, InvalidInput, NotFound, Unavailable
from zapd.store.engine import reading
from zapd.store.joins import JoinRegistry


async def test_a_token_is_stored_as_a_hash_and_recorded_without_itself(admin: Admin):
    """What the database, the record and the list hold does not lead to the token."""
    record, token = await admin.joins.create(OPERATOR, NewJoin(user="robot", groups=["g"], uses=2))
    assert record.hash == digest(token)
    assert record.expires - record.created == LIFETIME
    assert (record.domains, record.created_by) == (("orders",), "op")
    with reading(admin.engine) as connection:
        assert JoinRegistry().find(connection, digest(token)) == record
    (listed,) = (await admin.joins.list(OPERATOR)).items
    assert token not in repr(listed)
    assert repr(record.hash) not in repr(record)
    (event,) = admin.journal.events
    assert (event.event, event.subject, event.actor, event.principal) == ("join.create", record.id, "op", "robot")
    assert token not in repr(event)


async def test_a_token_without_a_user_has_keys_of_its_own_name(admin: Admin):
    """Nobody's name is taken by leaving it out."""
    record, _ = await admin.joins.create(OPERATOR, NewJoin())
    assert record.user == f"join:{record.id}"


async def test_revoking_holds_at_once_and_without_a_journal(admin: Admin):
    """Making a token opens access and needs the journal; revoking closes it and does not."""
    record, _ = await admin.joins.create(OPERATOR, NewJoin())
    admin.journal.writable = False
    with pytest.raises(Unavailable):
        await admin.joins.create(OPERATOR, NewJoin())
    assert (await admin.joins.revoke(OPERATOR, record.id)).revoked is not None
    again = await admin.joins.revoke(OPERATOR, record.id)
    assert again.revoked is not None
    with pytest.raises(NotFound):
        await admin.joins.revoke(OPERATOR, "0" * 16)


async def test_domains_limit_what_is_made_seen_and_revoked(admin: Admin):
    """Nobody hands out what they could not grant; a token of other domains does not exist for them."""
    with pytest.raises(Forbidden):
        await admin.joins.create(LIMITED, NewJoin(domains=["*"]))
    mine, _ = await admin.joins.create(LIMITED, NewJoin(domains=["metrics.cpu"]))
    theirs, _ = await admin.joins.create(ADMIN, NewJoin(domains=["secret"]))
    part, _ = await admin.joins.create(ADMIN, NewJoin(domains=["orders", "secret"]))
    seen = {record.id: record.domains for record in (await admin.joins.list(LIMITED)).items}
    assert seen == {mine.id: ("metrics.cpu",), part.id: ("orders",)}
    with pytest.raises(NotFound):
        await admin.joins.revoke(LIMITED, theirs.id)
    with pytest.raises(Forbidden):
        await admin.joins.revoke(LIMITED, part.id)
    assert (await admin.joins.revoke(LIMITED, mine.id)).revoked


@pytest.mark.parametrize(
    "wrong",
    [
        {"user": "a\nb"},
        {"domains": ["zapd.agents"]},
        {"groups": ["a,b"]},
        {"attributes": {"Zapd-Key": "x"}},
        {"addresses": ["10.0.0.1/8"]},
        {"uses": 0},
        {"key_lifetime": 0},
        {"label": "\x1b[31m"},
        {"hints": {"a": "x" * 5000}},
        {"hints": {"a": "\n"}},
    ],
)
async def test_what_no_key_may_have_no_token_promises(admin: Admin, wrong: dict[str, object]):
    """The registry's rules hold when the token is made, not first when a script stands there with it."""
    with pytest.raises(InvalidInput):
        await admin.joins.create(OPERATOR, replace(NewJoin(), **wrong))


async def test_tokens_end_are_bounded_and_are_forgotten(admin: Admin):
    """No token lives longer than a year; so many may be good at a time; long after its end it leaves the list."""
    moment = admin.road.clock()
    for expires in (moment - timedelta(seconds=1), moment + timedelta(days=400)):
        with pytest.raises(InvalidInput):
            await admin.joins.create(OPERATOR, NewJoin(expires=expires))
    few = JoinService(admin.road, domains=lambda: ["orders"], most=2)
    first, _ = await few.create(OPERATOR, NewJoin())
    await few.create(OPERATOR, NewJoin())
    with pytest.raises(Conflict):
        await few.create(OPERATOR, NewJoin())
    await few.revoke(OPERATOR, first.id)
    await few.create(OPERATOR, NewJoin())
    admin.road.clock = lambda: moment + LIFETIME + REMEMBERED + timedelta(minutes=1)
    last, _ = await few.create(OPERATOR, NewJoin())
    assert [record.id for record in (await few.list(OPERATOR)).items] == [last.id]


async def test_a_use_is_counted_up_to_the_last_and_no_further(admin: Admin):
    """The database itself refuses to count a use that is not there."""
    record, _ = await admin.joins.create(OPERATOR, NewJoin(uses=2))
    joins, moment = JoinRegistry(), admin.road.clock()
    with admin.engine.begin() as connection:
        assert [joins.spend(connection, record.id, moment) for _ in range(3)] == [True, True, False]
        assert joins.get(connection, record.id).used == 2
