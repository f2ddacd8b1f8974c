"""Bans through the services and over HTTP, on each database."""

# ruff: noqa: F811 - fixtures come in by import
from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine
from support.store_admin import *  # noqa: F403
from support.store_admin import ADMIN, LIMITED, OPERATOR, VIEWER, Admin, make_admin
from support.store_fixtures import *  # noqa: F403
from test_admin_api import Api, _problem, api  # noqa: F401 - a fixture

from zapd.admin.services.bans import NewBan
from zapd.errors import Conflict, Forbidden, InvalidInput, NotFound, PreconditionFailed, Unavailable
from zapd.store.bans import BanKind, BanRecord, BanRegistry
from zapd.store.bans_index import BansIndex
from zapd.store.engine import reading, writing
from zapd.store.feed import ChangeFeed
from zapd.store.types import now
from zapd.zmtp.keys import fingerprint, generate_keypair

USER, ADDRESS, KEY = BanKind.USER, BanKind.ADDRESS, BanKind.KEY


async def test_a_ban_is_in_force_before_it_is_journalled_and_back_behind_it(admin: Admin):
    """Banning closes: it takes force first, and while the journal cannot be written. Taking it back opens."""
    made = await admin.bans.add(OPERATOR, NewBan(USER, "eve", reason="guesses"))
    assert admin.journal.story == ["in force ban", "journal ban.add"]
    admin.journal.writable = False
    with pytest.raises(Unavailable):
        await admin.bans.remove(OPERATOR, made.id)
    second = await admin.bans.add(OPERATOR, NewBan(ADDRESS, "192.0.2.0/24"))
    admin.journal.writable = True
    await admin.bans.remove(OPERATOR, made.id)
    assert admin.journal.story[-2:] == ["journal ban.remove", "in force ban"]
    event = admin.journal.events[-1]
    assert (event.subject, event.username, event.actor, event.reason) == (made.id, "eve", "op", "guesses")
    assert event.before is not None and event.before["domains"] == ["*"] and event.after is None
    assert [ban.id for ban in (await admin.bans.list(OPERATOR)).items] == [second.id]


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        (ADDRESS, "192.0.2.1", "192.0.2.1/32"),
        (ADDRESS, "::ffff:192.0.2.0/120", "192.0.2.0/24"),
        (ADDRESS, "2001:DB8::/32", "2001:db8::/32"),
        (ADDRESS, "ipc:uid=7", "ipc:uid=7"),
        (KEY, "SHA256:" + "a" * 41 + "+/", "a" * 41 + "-_"),
        (USER, "Ada Lovelace", "Ada Lovelace"),
    ],
)
async def test_subjects_are_kept_in_one_form(admin: Admin, kind, given, kept):
    """However they were written; so the same ban is not made twice."""
    record = await admin.bans.add(ADMIN, NewBan(kind, given))
    assert record.subject == kept
    with pytest.raises(Conflict, match=record.id):
        await admin.bans.add(ADMIN, NewBan(kind, kept))
    await admin.bans.add(ADMIN, NewBan(kind, kept, ["orders"]))


@pytest.mark.parametrize(
    ("kind", "subject"),
    [
        (ADDRESS, "nowhere"),
        (ADDRESS, "192.0.2.1/24"),
        (ADDRESS, ""),
        (ADDRESS, "ipc:pid=7"),
        (KEY, "x"),
        (KEY, "é" * 43),
        (KEY, "!" * 43),
        (USER, ""),
        (USER, "a\nb"),
        (USER, "x" * 256),
    ],
)
async def test_what_cannot_be_banned_is_refused_with_the_mend(admin: Admin, kind, subject):
    """No network, no fingerprint, no name."""
    with pytest.raises(InvalidInput):
        await admin.bans.add(ADMIN, NewBan(kind, subject))


async def test_an_end_lies_ahead(admin: Admin):
    """A ban that would be over already is a mistake."""
    with pytest.raises(InvalidInput):
        await admin.bans.add(ADMIN, NewBan(USER, "eve", expires=now() - timedelta(seconds=1)))


async def test_domains_limit_who_bans_where(admin: Admin):
    """A limited actor bans, sees and takes back in its own domains alone; unasked it bans in just those."""
    everywhere = await admin.bans.add(ADMIN, NewBan(USER, "eve"))
    own = await admin.bans.add(LIMITED, NewBan(USER, "eve"))
    assert own.domains == ("metrics.*", "orders")
    with pytest.raises(Forbidden):
        await admin.bans.add(LIMITED, NewBan(USER, "bob", ["*"]))
    with pytest.raises(Forbidden):
        await admin.bans.add(LIMITED, NewBan(USER, "bob", ["lab"]))
    for ask in (admin.bans.show, admin.bans.remove):
        with pytest.raises(NotFound):
            await ask(LIMITED, everywhere.id)
    shared = await admin.bans.add(ADMIN, NewBan(USER, "bob", ["orders", "lab"]))
    assert (await admin.bans.show(LIMITED, shared.id)).domains == ("orders",)
    with pytest.raises(Forbidden):
        await admin.bans.remove(LIMITED, shared.id)
    seen = await admin.bans.list(LIMITED, domain="orders")
    assert {ban.id for ban in seen.items} == {own.id, shared.id}
    with pytest.raises(Forbidden):
        await admin.bans.list(VIEWER)


async def test_one_that_is_over_makes_room(admin: Admin):
    """The same may be banned again behind its end; one that has long been over is forgotten."""
    old = BanRecord("0", USER, "eve", ("*",), "", now() - timedelta(hours=1), now(), "op")
    ancient = replace(old, id="1", subject="bob", expires=now() - timedelta(days=30))
    with writing(admin.engine) as connection:
        BanRegistry().add(connection, old)
        BanRegistry().add(connection, ancient)
    made = await admin.bans.add(ADMIN, NewBan(USER, "eve"))
    assert [ban.id for ban in (await admin.bans.list(ADMIN)).items] == [made.id]
    assert [event.event for event in admin.journal.events] == ["ban.add", "ban.remove"]


async def test_the_index_follows_and_tells(engine: Engine):
    """What one process bans another has in memory after it caught up; one that is over is told, without a
    change."""
    admin = make_admin(engine)
    feed = ChangeFeed(engine)
    clock = [now().timestamp()]
    index = BansIndex(engine, feed, clock=lambda: clock[0])
    told: list[list[str]] = []
    index.on_change(lambda bans: told.append(sorted(ban.subject for ban in bans)))
    await index.start()
    made = await admin.bans.add(ADMIN, NewBan(USER, "eve"))
    await admin.bans.add(ADMIN, NewBan(USER, "bob", expires=now() + timedelta(seconds=60)))
    await feed.catch_up()
    assert told == [[], [], ["bob", "eve"]]
    await admin.bans.remove(ADMIN, made.id)
    await feed.catch_up()
    assert told[-1] == ["bob"]
    clock[0] += 61
    index._look(1)
    assert told[-1] == []
    clock[0] -= 61
    assert index.holding == [], "a clock that is set back brings no ban back"
    index.stop()
    await admin.road.aclose()


async def test_a_ban_that_ends_is_told_by_itself(engine: Engine):
    """A timer sees to it."""
    admin = make_admin(engine)
    index = BansIndex(engine, ChangeFeed(engine))
    await admin.bans.add(ADMIN, NewBan(USER, "eve", expires=now() + timedelta(seconds=0.3)))
    over = asyncio.Event()
    await index.start()
    assert len(index.holding) == 1
    index.on_change(lambda bans: None if bans else over.set())
    await asyncio.wait_for(over.wait(), 10)
    index.stop()
    await admin.road.aclose()


def test_rows_survive_the_database(engine: Engine):
    """Every field, to the microsecond and the octet."""
    record = BanRecord("x", KEY, "k" * 43, ("", "a.*"), "it's 名", MOMENT, MOMENT, "op", 3)  # noqa: F405
    with writing(engine) as connection:
        BanRegistry().add(connection, record)
    with reading(engine) as connection:
        assert BanRegistry().get(connection, "x") == record
        assert BanRegistry().load(connection) == BanRegistry().load(connection, ["x", "y"]) == {"x": record}


# -- over HTTP ------------------------------------------------------------------------------------------------


async def test_a_ban_lives_its_life_over_http(api: Api):
    """POST, GET, list, DELETE with the ETag; a retried POST is answered as the first time."""
    key = generate_keypair()[0]
    body = {"key": fingerprint(key), "reason": "lost", "domains": ["orders"]}
    headers = {"Idempotency-Key": "once"}
    first = await api("POST", "/v1/bans", by="operator", json=body, headers=headers)
    again = await api("POST", "/v1/bans", by="operator", json=body, headers=headers)
    assert first.status_code == again.status_code == 201
    assert first.json() == again.json()
    ban = first.json()
    assert (ban["state"], ban["key"], ban["address"], ban["user"]) == ("in_force", fingerprint(key), None, None)
    assert ban["created_by"] == "operator"
    shown = await api("GET", f"/v1/bans/{ban['id']}")
    assert shown.json() == ban
    _problem(await api("POST", "/v1/bans", json=body), 409, "conflict")
    stale = await api("DELETE", f"/v1/bans/{ban['id']}", headers={"If-Match": '"7"'})
    _problem(stale, 412, "precondition_failed")
    gone = await api("DELETE", f"/v1/bans/{ban['id']}", headers={"If-Match": shown.headers["etag"]})
    assert gone.status_code == 204
    _problem(await api("GET", f"/v1/bans/{ban['id']}"), 404, "not_found")


async def test_bans_come_in_pages(api: Api):
    """A cursor for the rest, a filter by kind, and each once."""
    for number in range(5):
        await api("POST", "/v1/bans", json={"user": f"u{number}"})
    await api("POST", "/v1/bans", json={"address": "192.0.2.1"})
    seen, cursor = [], None
    while True:
        params = {"limit": 2, "kind": "user"} | ({"cursor": cursor} if cursor else {})
        page = (await api("GET", "/v1/bans", params=params)).json()
        seen += [ban["user"] for ban in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert sorted(seen) == [f"u{number}" for number in range(5)]
    _problem(await api("GET", "/v1/bans", by="viewer"), 403, "forbidden")


@pytest.mark.parametrize("body", [{}, {"user": "a", "address": "192.0.2.1"}, {"reason": "why"}, {"users": "a"}])
async def test_a_ban_is_about_one_thing(api: Api, body):
    """None or two is a mistake that is named."""
    _problem(await api("POST", "/v1/bans", json=body), 422, "invalid_input")


async def test_versions_are_kept(admin: Admin):
    """Somebody else's ban is not taken back by mistake."""
    made = await admin.bans.add(ADMIN, NewBan(USER, "eve"))
    with pytest.raises(PreconditionFailed):
        await admin.bans.remove(ADMIN, made.id, version=2)
