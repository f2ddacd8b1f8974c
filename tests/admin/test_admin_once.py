"""Requests that are sent again, and people who edit the same thing: nothing happens twice, and nothing is lost."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from support.store_admin import *  # noqa: F403
from support.store_admin import ADMIN, OPERATOR, Admin, FakeJournal, make_admin
from support.store_fixtures import *  # noqa: F403
from test_admin_api import Api, _problem, api  # noqa: F401 - a fixture

from zapd.admin.services.keys import NewKey
from zapd.admin.services.once import Once
from zapd.admin.services.users import NewUser
from zapd.errors import PreconditionFailed
from zapd.store import idempotency as kept
from zapd.store import tables
from zapd.store.engine import reading, writing
from zapd.store.idempotency import Idempotency
from zapd.store.types import now
from zapd.zmtp.keys import encode_key, generate_keypair


def _z85() -> str:
    return encode_key(generate_keypair()[0])


def _named(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


async def test_a_request_that_is_sent_again_is_answered_as_the_first_time(api: Api):  # noqa: F811
    """Same status, body, ETag and Location, marked as repeated; one key, one event. Another key does it anew."""
    body = {"public_key": _z85(), "user": "alice"}
    first = await api("POST", "/v1/keys", json=body, headers=_named("one"))
    assert first.status_code == 201
    events = len(api.admin.journal.events)
    again = await api("POST", "/v1/keys", json=body, headers=_named("one"))
    assert (again.status_code, again.content) == (201, first.content)
    for name in ("etag", "location", "content-type"):
        assert again.headers[name] == first.headers[name]
    assert again.headers["idempotency-replayed"] == "true"
    assert "idempotency-replayed" not in first.headers
    assert len(api.admin.journal.events) == events
    _problem(await api("POST", "/v1/keys", json=body, headers=_named("two")), 409, "conflict")
    # A failure is not remembered: under the same key it may be tried again.
    _problem(await api("POST", "/v1/keys", json=body, headers=_named("two")), 409, "conflict")
    key = first.json()["id"]
    for _ in range(2):
        revoked = await api("POST", f"/v1/keys/{key}/revoke", json={"reason": "lost"}, headers=_named("three"))
        assert revoked.json()["state"] == "revoked"
    assert len(api.admin.journal.events) == events + 1


async def test_a_key_belongs_to_its_request_and_its_caller(api: Api):  # noqa: F811
    """Another body, path or If-Match under the same key is refused; another caller's same key is another."""
    body = {"public_key": _z85(), "user": "alice"}
    made = await api("POST", "/v1/keys", json=body, headers=_named("mine"))
    path = f"/v1/keys/{made.json()['id']}/revoke"
    attempts: list[tuple[str, dict[str, Any]]] = [
        ("/v1/keys", {"json": body | {"user": "bob"}}),
        ("/v1/keys?x=1", {"json": body}),
        (path, {"json": {}}),
    ]
    for where, more in attempts:
        _problem(await api("POST", where, headers=_named("mine"), **more), 422, "idempotency_mismatch")
    headers = _named("mine") | {"If-Match": '"1"'}
    _problem(await api("POST", "/v1/keys", json=body, headers=headers), 422, "idempotency_mismatch")
    theirs = await api(
        "POST", "/v1/keys", by="operator", json=body | {"public_key": _z85()}, headers=_named("mine")
    )
    assert theirs.status_code == 201
    _problem(await api("POST", "/v1/keys", by="viewer", json=body, headers=_named("mine")), 403, "forbidden")
    for wrong in ("", "x" * 256):
        _problem(await api("POST", "/v1/keys", json=body, headers=_named(wrong)), 422, "invalid_input")


async def test_secrets_are_not_kept(api: Api):  # noqa: F811
    """A token is shown once although it is asked for twice, and no password or token stands in the table."""
    body = {"name": "ci", "role": "viewer"}
    made = await api("POST", "/v1/tokens", json=body, headers=_named("t"))
    assert made.status_code == 201
    told = _problem(await api("POST", "/v1/tokens", json=body, headers=_named("t")), 409, "idempotency_conflict")
    assert "carried out" in told["detail"]
    await api("POST", "/v1/users", json={"name": "bob", "password": "canary"}, headers=_named("u"))
    with reading(api.admin.engine) as connection:
        rows = connection.execute(select(tables.idempotency)).all()
    assert len(rows) == 2
    assert made.json()["token"] not in str(rows)
    assert "canary" not in str(rows)


async def test_an_answer_that_was_lost_is_not_done_again(api: Api, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    """When the process dies between the change and its answer, or the journal fails, a retry is told so."""
    body = {"public_key": _z85(), "user": "alice"}
    api.admin.journal.broken = True
    _problem(await api("POST", "/v1/keys", json=body, headers=_named("k")), 503, "unavailable")
    api.admin.journal.broken = False
    _problem(await api("POST", "/v1/keys", json=body, headers=_named("k")), 409, "idempotency_conflict")
    assert len((await api("GET", "/v1/keys")).json()["items"]) == 1


async def test_the_same_request_twice_at_once_is_carried_out_once(api: Api):  # noqa: F811
    """One makes it; the others hear its answer or that it was made."""
    body = {"name": "bob", "password": "x"}
    asked = [api("POST", "/v1/users", json=body, headers=_named("k")) for _ in range(6)]
    answers: list[httpx.Response] = await asyncio.gather(*asked)
    codes = {answer.status_code for answer in answers}
    assert 201 in codes
    assert codes <= {201, 409}
    assert len({answer.content for answer in answers if answer.status_code == 201}) == 1
    assert [event.event for event in api.admin.journal.events].count("user.add") == 1


async def test_what_is_remembered_is_bounded(admin: Admin, monkeypatch: pytest.MonkeyPatch):
    """A day old is forgotten, and so is the oldest of too many."""
    monkeypatch.setattr(kept, "MOST", 5)
    store, moment = Idempotency(), now()
    with writing(admin.engine) as connection:
        store.begin(connection, "t", "old", b"r" * 32, moment - timedelta(hours=25))
        assert store.find(connection, "t", "old", moment) is None
        for number in range(9):
            store.begin(connection, "t", str(number), b"r" * 32, moment)
        count = connection.execute(select(func.count()).select_from(tables.idempotency)).scalar_one()
        assert count <= 5
        assert store.find(connection, "t", "8", moment) is not None
        assert store.find(connection, "other", "8", moment) is None
    assert Once.of("t", "a", "k", b"x").request != Once.of("t", "b", "k", b"x").request


async def test_of_many_editors_one_wins_and_the_others_hear_of_it(admin: Admin):
    """Two processes, eight people, one version: each change is made once and no update is lost."""
    other = make_admin(admin.engine, FakeJournal(instance="two"))
    await other.feed.catch_up()
    key = await admin.keys.add(ADMIN, NewKey(generate_keypair()[0], "alice"))
    await admin.users.add(ADMIN, NewUser("bob", b"x"))

    async def edit(number: int) -> int:
        where = (admin, other)[number % 2]
        won = 0
        for _ in range(200):
            found = await where.keys.show(OPERATOR, key.fingerprint)
            try:
                await where.keys.change(
                    OPERATOR, key.fingerprint, {"groups": [*found.groups, f"g{number}"]}, version=found.version
                )
            except PreconditionFailed:
                continue
            won += 1
            break
        return won

    assert await asyncio.gather(*(edit(number) for number in range(8))) == [1] * 8
    last = await admin.keys.show(OPERATOR, key.fingerprint)
    assert (sorted(last.groups), last.version) == ([f"g{number}" for number in range(8)], 9)

    async def once(number: int) -> bool:
        where = (admin, other)[number % 2]
        try:
            await where.users.change(OPERATOR, "bob", {"groups": [f"g{number}"]}, version=1)
        except PreconditionFailed:
            return False
        return True

    assert sum(await asyncio.gather(*(once(number) for number in range(8)))) == 1
    assert (await admin.users.show(OPERATOR, "bob")).version == 2
    await other.road.aclose()


async def test_if_match_holds_everywhere(api: Api):  # noqa: F811
    """Each way to change a key, a user or an agent takes the version that was read, and refuses an older one."""
    key = (await api("POST", "/v1/keys", json={"public_key": _z85(), "user": "a", "state": "pending"})).json()[
        "id"
    ]
    await api("POST", "/v1/users", json={"name": "bob", "password": "x"})
    await api("POST", "/v1/agents", json={"name": "edge", "public_key": _z85()})
    stale, new = {"If-Match": '"7"'}, {"public_key": _z85()}
    ways: list[tuple[str, str, Any]] = [
        ("PATCH", f"/v1/keys/{key}", {"label": "x"}),
        ("POST", f"/v1/keys/{key}/approve", None),
        ("POST", f"/v1/keys/{key}/reject", None),
        ("POST", f"/v1/keys/{key}/revoke", None),
        ("POST", f"/v1/keys/{key}/rotate", new),
        ("PATCH", "/v1/users/bob", {"state": "disabled"}),
        ("PUT", "/v1/users/bob/password", {"password": "y"}),
        ("DELETE", "/v1/users/bob", None),
        ("POST", "/v1/agents/edge/rotate", new),
        ("DELETE", "/v1/agents/edge", None),
    ]
    for verb, path, body in ways:
        _problem(await api(verb, path, json=body, headers=stale), 412, "precondition_failed")
    for path in (f"/v1/keys/{key}", "/v1/users/bob", "/v1/agents/edge"):
        shown = await api("GET", path)
        assert shown.headers["etag"] == f'"{shown.json()["version"]}"' == '"1"'
    for verb, path, body in (ways[1], ways[4], ways[6], ways[8]):
        shown = await api("GET", "/".join(path.split("/")[:4]))
        done = await api(verb, path, json=body, headers={"If-Match": shown.headers["etag"]})
        assert done.is_success, done.text
        assert "etag" in done.headers
        if "agents" in path:
            break
        new["public_key"] = _z85()
