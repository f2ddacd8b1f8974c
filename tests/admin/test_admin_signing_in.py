"""People who sign in for a key, over HTTP and over a real registry on SQLite and PostgreSQL."""

import asyncio
from datetime import timedelta

import pytest
from support.enrolling import *  # noqa: F403
from support.enrolling import Entrance, new_key
from support.store_admin import *  # noqa: F403
from support.store_admin import ADMIN, OPERATOR, SERVER_KEY
from support.store_fixtures import *  # noqa: F403
from test_admin_enrolling import problem

from zapd.admin.services.keys import NewKey
from zapd.admin.services.signing_in import SignInRule
from zapd.admin.services.users import NewUser
from zapd.errors import Unavailable
from zapd.zmtp.keys import decode_public_key, encode_key, fingerprint, fingerprint_id

GOOD = ("alice", "correct horse")


def mark_of(key: str) -> str:
    return fingerprint_id(decode_public_key(key))


async def test_a_right_password_registers_a_key_for_some_hours(entrance: Entrance):
    """With the groups and attributes that the backend says, in the domains that the configuration says."""
    moment = entrance.admin.road.clock()
    entrance.set_clock(moment)
    entrance.signins["orders"] = SignInRule(("orders", "metrics.*"), timedelta(hours=3), (("server", "x"),))
    key = new_key()
    answer = await entrance.enter(*GOOD, key, label="laptop")
    assert answer.status_code == 201, answer.text
    shown = answer.json()
    assert (shown["user"], shown["domains"], shown["groups"]) == ("alice", ["metrics.*", "orders"], ["traders"])
    assert (shown["hints"], shown["attributes"], shown["label"]) == ({"server": "x"}, {"Desk": "7"}, "laptop")
    record = await entrance.admin.keys.show(ADMIN, mark_of(key))
    assert (record.origin, record.expires) == ("signin:orders", moment + timedelta(hours=3))
    (login,) = entrance.logins
    assert (login.domain, login.address, login.key) == ("orders", "192.0.2.7", shown["fingerprint"])
    assert login.request == answer.headers["x-request-id"]
    assert "correct horse" not in repr(login)
    event = entrance.admin.journal.events[-1]
    assert (event.event, event.principal, event.address, event.actor) == (
        "key.add",
        "alice",
        "192.0.2.7",
        "signin:orders",
    )
    assert event.detail == {"request": answer.headers["x-request-id"]}
    assert "correct horse" not in repr(entrance.admin.journal.events)
    assert entrance.sign_in.results == {"signed_in": 1}


async def test_to_sign_in_again_lengthens_with_what_holds_by_then(entrance: Entrance):
    """Also when the key had ended; groups that are gone are gone."""
    moment = entrance.admin.road.clock()
    key = new_key()
    await entrance.enter(*GOOD, key, label="laptop")
    for hours in (5, 30):
        entrance.set_clock(moment + timedelta(hours=hours))
        entrance.answer["groups"] = ()
        again = await entrance.enter(*GOOD, key)
        assert again.status_code == 200, again.text
        assert (again.json()["groups"], again.json()["label"]) == ([], "laptop")
        record = await entrance.admin.keys.show(ADMIN, mark_of(key))
        assert record.expires == moment + timedelta(hours=hours + 12)
    event = entrance.admin.journal.events[-1]
    assert (event.event, event.before["groups"], event.after["version"]) == ("key.change", [], 3)


async def test_a_no_is_a_no_and_what_cannot_be_told_is_neither(entrance: Entrance):
    """Wrong password, unknown name, a domain where nobody signs in: one answer. Outages are 503, penalties 429;
    none of them is a key."""
    words = {
        problem(await entrance.enter("alice", "wrong", new_key()), 403, "refused"),
        problem(await entrance.enter("nobody", "wrong", new_key()), 403, "refused"),
        problem(await entrance.enter(*GOOD, new_key(), domain="secret"), 403, "refused"),
    }
    assert len(words) == 1
    assert [login.domain for login in entrance.logins] == ["orders", "orders"]
    (event,) = entrance.record.events
    assert (event.event, event.reason, event.domain, event.username) == (
        "auth.reject",
        "no_signin",
        "secret",
        "alice",
    )
    for reason, status, code in [
        ("backend_unavailable", 503, "unavailable"),
        ("pending", 503, "unavailable"),
        ("penalty_name", 429, "too_many_attempts"),
    ]:
        entrance.answer.update(status=300, reason=reason)
        problem(await entrance.enter(*GOOD, new_key()), status, code)
    assert (await entrance.admin.keys.list(ADMIN)).items == []
    assert entrance.sign_in.results == {"refused": 3, "unavailable": 2, "throttled": 1}


async def test_the_domain_may_be_left_out_where_there_is_one(entrance: Entrance):
    """With several it must be named; with none nobody signs in."""
    assert (await entrance.enter(*GOOD, new_key())).status_code == 201
    entrance.signins["lab"] = SignInRule(("lab",), timedelta(hours=1))
    problem(await entrance.enter(*GOOD, new_key()), 403, "refused")
    answer = await entrance.enter(*GOOD, new_key(), domain="lab")
    assert (answer.status_code, answer.json()["domains"]) == (201, ["lab"])
    entrance.signins.clear()
    problem(await entrance.enter(*GOOD, new_key()), 403, "refused")


async def test_a_key_that_is_somebody_elses_is_refused(entrance: Entrance):
    """Another's, an operator's, a revoked one, the server's: nobody is named, nothing changes."""
    bobs, mine, revoked = new_key(), new_key(), new_key()
    assert (await entrance.enter("bob", "battery staple", bobs)).status_code == 201
    assert "bob" not in problem(await entrance.enter(*GOOD, bobs), 409, "conflict")
    await entrance.admin.keys.add(OPERATOR, NewKey(decode_public_key(mine), "alice"))
    assert "not by a sign-in" in problem(await entrance.enter(*GOOD, mine), 409, "conflict")
    assert (await entrance.enter(*GOOD, revoked)).status_code == 201
    await entrance.admin.keys.revoke(OPERATOR, mark_of(revoked))
    problem(await entrance.enter(*GOOD, revoked), 409, "conflict")
    problem(await entrance.enter(*GOOD, encode_key(SERVER_KEY)), 422, "invalid_input")
    assert (await entrance.admin.keys.show(ADMIN, mark_of(bobs))).user == "bob"
    assert (await entrance.admin.keys.show(ADMIN, mark_of(mine))).expires is None


async def test_nobody_has_more_keys_than_a_few(entrance: Entrance):
    """Counted for each user, and only those that have not ended; one that is there already may be lengthened."""
    moment = entrance.admin.road.clock()
    keys = [new_key() for _ in range(3)]
    for key in keys:
        assert (await entrance.enter(*GOOD, key)).status_code == 201
    assert "3 keys" in problem(await entrance.enter(*GOOD, new_key()), 409, "conflict")
    assert (await entrance.enter(*GOOD, keys[0])).status_code == 200
    assert (await entrance.enter("bob", "battery staple", new_key())).status_code == 201
    await entrance.admin.keys.revoke(OPERATOR, mark_of(keys[1]))
    fourth = new_key()
    assert (await entrance.enter(*GOOD, fourth)).status_code == 201
    problem(await entrance.enter(*GOOD, new_key()), 409, "conflict")
    entrance.set_clock(moment + timedelta(hours=13))
    assert (await entrance.enter(*GOOD, new_key())).status_code == 201
    assert (await entrance.enter(*GOOD, keys[0])).status_code == 200
    assert (await entrance.enter(*GOOD, keys[2])).status_code == 200
    problem(await entrance.enter(*GOOD, fourth), 409, "conflict")


async def test_the_bound_holds_for_those_who_come_at_once(entrance: Entrance):
    """Ten sign-ins in one moment are three keys."""
    answers = await asyncio.gather(*(entrance.enter(*GOOD, new_key()) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [201] * 3 + [409] * 7


async def test_a_key_does_not_outlive_what_the_backend_knows(entrance: Entrance):
    """An account, or a token in the place of a password, that ends sooner ends the key."""
    entrance.answer["until"] = entrance.admin.road.clock() + timedelta(minutes=5)
    key = new_key()
    await entrance.enter(*GOOD, key)
    assert (await entrance.admin.keys.show(ADMIN, mark_of(key))).expires == entrance.answer["until"]
    entrance.answer["until"] = None
    await entrance.enter(*GOOD, key)
    assert (await entrance.admin.keys.show(ADMIN, mark_of(key))).expires > entrance.admin.road.clock() + timedelta(
        hours=11
    )


@pytest.mark.parametrize("how", ["disable", "remove", "set_password"])
async def test_what_rests_on_a_password_ends_with_it(entrance: Entrance, how: str):
    """A user of the registry who is disabled, removed or given another password has no signed-in key any more; it
    is on record, also while the journal cannot be written. Others' keys, and operators', stay."""
    users = entrance.admin.users
    for name in ("alice", "bob"):
        await users.add(OPERATOR, NewUser(name, b"x", domains=["orders"]))
    entrance.signins["lab"] = SignInRule(("orders",), timedelta(hours=1))
    mine, elsewhere, bobs, operators = (new_key() for _ in range(4))
    await entrance.enter(*GOOD, mine, domain="orders")
    await entrance.enter(*GOOD, elsewhere, domain="lab")
    await entrance.enter("bob", "battery staple", bobs, domain="orders")
    await entrance.admin.keys.add(OPERATOR, NewKey(decode_public_key(operators), "alice"))
    await getattr(users, how)(OPERATOR, "alice", *([b"y"] if how == "set_password" else []))
    states = {record.fingerprint: record.state.value for record in (await entrance.admin.keys.list(ADMIN)).items}
    assert states.pop(mark_of(mine)) == "revoked"
    assert set(states.values()) == {"active"}
    event = entrance.admin.journal.events[-1]
    assert (event.event, event.key, event.actor) == (
        "key.revoke",
        fingerprint(decode_public_key(mine)),
        OPERATOR.name,
    )
    if how == "disable":
        problem(await entrance.enter(*GOOD, new_key(), domain="orders"), 403, "refused")
        assert (await entrance.enter(*GOOD, new_key(), domain="lab")).status_code == 201


async def test_keys_that_ended_are_forgotten_and_nothing_else(entrance: Entrance):
    """A day after their end, each on record; revoked ones, operators' and those of join tokens stay."""
    moment = entrance.admin.road.clock()
    old, young, revoked, operators = (new_key() for _ in range(4))
    for key in (old, revoked):
        await entrance.enter(*GOOD, key)
    await entrance.admin.keys.revoke(OPERATOR, mark_of(revoked))
    expires = moment + timedelta(hours=1)
    await entrance.admin.keys.add(OPERATOR, NewKey(decode_public_key(operators), "alice", expires=expires))
    assert await entrance.sign_in.forget_expired() == 0
    entrance.set_clock(moment + timedelta(hours=37))
    await entrance.enter(*GOOD, young)
    assert await entrance.sign_in.forget_expired() == 1
    left = {record.fingerprint for record in (await entrance.admin.keys.list(ADMIN)).items}
    assert left == {mark_of(key) for key in (young, revoked, operators)}
    event = entrance.admin.journal.events[-1]
    assert (event.event, event.key, event.after) == ("key.remove", fingerprint(decode_public_key(old)), None)
    assert await entrance.sign_in.forget_expired() == 0
    assert (await entrance.enter("bob", "battery staple", old)).status_code == 201


@pytest.mark.parametrize(
    "wrong",
    [
        {"user": ""},
        {"user": "a" * 256},
        {"user": "é" * 200},
        {"user": "a\nb"},
        {"password": ""},
        {"password": "é" * 200},
        {"password": "a\0b"},
        {"domain": "\N{SNOWMAN}"},
        {"domain": "a\nb"},
        {"label": "\x1b[31m"},
        {"public_key": "short"},
        {"more": 1},
    ],
)
async def test_what_nobody_can_be_called_is_asked_nobody(entrance: Entrance, wrong: dict[str, object]):
    """The rules of the wire (RFC 27) hold here too, and the answer repeats nothing."""
    body = {"user": "alice", "password": "correct horse", "public_key": new_key(), **wrong}
    answer = await entrance.http.post("/v1/signin", json=body)
    problem(answer, 422, "invalid_input")
    assert entrance.logins == []
    assert "correct horse" not in answer.text


async def test_without_a_record_there_is_no_key(entrance: Entrance):
    """A journal that cannot be written, or a decision that cannot be had, is 503."""
    entrance.admin.journal.writable = False
    problem(await entrance.enter(*GOOD, new_key()), 503, "unavailable")
    assert (await entrance.admin.keys.list(ADMIN)).items == []
    entrance.admin.journal.writable = True
    judging = entrance.sign_in._judging

    async def away(_login: object) -> None:
        raise Unavailable("No worker is there.")

    entrance.sign_in._judging = away
    problem(await entrance.enter(*GOOD, new_key()), 503, "unavailable")
    entrance.sign_in._judging = judging


async def test_so_many_are_worked_on_at_a_time(entrance: Entrance):
    """One more hears at once that it must wait."""
    gate = asyncio.Event()
    judging = entrance.sign_in._judging

    async def slow(login: object) -> object:
        await gate.wait()
        return await judging(login)

    entrance.sign_in._judging = slow
    waiting = [asyncio.create_task(entrance.enter("nobody", "x", new_key())) for _ in range(32)]
    while len(entrance.sign_in.results) == 0 and entrance.sign_in._slots.taken < 32:
        await asyncio.sleep(0.01)
    problem(await entrance.enter(*GOOD, new_key()), 503, "unavailable")
    gate.set()
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {403}
