"""Join tokens exchanged for keys, over HTTP and over a real registry on SQLite and PostgreSQL."""

import asyncio
from datetime import timedelta

import httpx
import pytest
from support.enrolling import *  # noqa: F403
from support.enrolling import Entrance, Pause, new_key
from support.store_admin import *  # noqa: F403
from support.store_admin import ADMIN, OPERATOR, SERVER_KEY, make_admin
from support.store_fixtures import *  # noqa: F403

from zapd.admin.api.errors import MEDIA_TYPE
from zapd.admin.api.guards import HEADERS
from zapd.admin.services import pausing
from zapd.admin.services.agents import NewAgent
from zapd.admin.services.enrolling import EnrolService, Exchange, Refused
from zapd.admin.services.joins import NewJoin
from zapd.admin.services.keys import NewKey
from zapd.store.engine import reading
from zapd.store.joins import JoinRegistry
from zapd.store.keys import KeyRegistry, KeyState
from zapd.zmtp.keys import decode_public_key, encode_key, fingerprint_id

ROBOT = NewJoin(
    user="robot",
    domains=["orders"],
    groups=["fleet"],
    attributes={"Desk": "7"},
    label="hall 3",
    uses=2,
    hints={"server": "tcp://10.0.0.1:5555"},
)


def problem(answer: httpx.Response, status: int, code: str) -> str:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == MEDIA_TYPE
    assert answer.json()["code"] == code
    return str(answer.json()["detail"])


def used(entrance: Entrance, join_id: str) -> int:
    with reading(entrance.admin.engine) as connection:
        return JoinRegistry().get(connection, join_id).used


async def test_a_token_is_exchanged_for_a_key_with_what_it_grants(entrance: Entrance):
    """User, domains, groups, attributes and label are the token's; the record has both changes, from where and by
    which request."""
    join, token = await entrance.admin.joins.create(OPERATOR, ROBOT)
    key = new_key()
    answer = await entrance.http.post(
        "/v1/enroll", json={"token": token, "public_key": key}, headers={"X-Request-Id": "r7"}
    )
    assert answer.status_code == 201, answer.text
    assert (
        answer.json().items()
        >= {
            "public_key": key,
            "user": "robot",
            "domains": ["orders"],
            "groups": ["fleet"],
            "attributes": {"Desk": "7"},
            "label": "hall 3",
            "expires": None,
            "hints": {"server": "tcp://10.0.0.1:5555"},
        }.items()
    )
    mark = fingerprint_id(decode_public_key(key))
    record = await entrance.admin.keys.show(OPERATOR, mark)
    assert (record.origin, record.state, record.user) == (f"join:{join.id}", KeyState.ACTIVE, "robot")
    added, counted = entrance.admin.journal.events[-2:]
    assert (added.event, counted.event) == ("key.add", "join.use")
    for event in (added, counted):
        assert (event.address, event.actor, event.key) == (
            "192.0.2.7",
            f"join:{join.id}",
            answer.json()["fingerprint"],
        )
        assert event.detail == {"request": "r7"}
    assert (counted.before["used"], counted.after["used"]) == (0, 1)
    assert token not in repr(entrance.admin.journal.events)
    assert entrance.enrol.results == {"enrolled": 1}
    assert entrance.brake.passed == 1


async def test_the_same_exchange_again_spends_nothing(entrance: Entrance):
    """Also when the last use is gone; the answer is the same, and the script may name another label in vain."""
    join, token = await entrance.admin.joins.create(OPERATOR, NewJoin(user="robot"))
    key = new_key()
    first = await entrance.join(token, key, label="one")
    again = await entrance.join(token, key, label="two")
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert used(entrance, join.id) == 1
    assert [event.reason for event in entrance.record.events] == ["repeated"]
    problem(await entrance.join(token, new_key()), 403, "refused")


async def test_two_who_race_for_the_last_use_do_not_both_have_it(entrance: Entrance):
    """Through two roads of changes, as two processes have them: so many keys as uses, not one more."""
    join, token = await entrance.admin.joins.create(OPERATOR, NewJoin(uses=3))
    other = make_admin(entrance.admin.engine)
    services = [
        entrance.enrol,
        EnrolService(other.road, entrance.record, braking=entrance.brake, pause=Pause(0.01)),
    ]

    async def one(number: int) -> bool:
        key = decode_public_key(new_key())
        try:
            return (await services[number % 2].exchange(Exchange(token, key, address="192.0.2.7"))).new
        except Refused as refused:
            assert refused.reason == "join_spent"
            return False

    won = await asyncio.gather(*(one(number) for number in range(10)))
    await other.road.aclose()
    assert won.count(True) == 3
    assert used(entrance, join.id) == 3
    assert len((await entrance.admin.keys.list(ADMIN)).items) == 3


async def test_the_same_key_raced_with_itself_is_one_key_and_one_use(entrance: Entrance):
    """A script that was impatient and asked several times at once spent one use."""
    join, token = await entrance.admin.joins.create(OPERATOR, NewJoin(uses=5))
    key = new_key()
    answers = await asyncio.gather(*(entrance.join(token, key) for _ in range(6)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 200, 201]
    assert used(entrance, join.id) == 1


async def test_all_that_is_wrong_with_a_token_sounds_alike(entrance: Entrance):
    """Unknown, malformed, revoked, expired, spent, from elsewhere: one answer; the record tells them apart, and
    each is a wrong try."""
    moment = entrance.admin.road.clock()
    tokens = {"unknown_join": "zapdj_" + "A" * 43}
    made = {}
    for name, new in {
        "join_revoked": NewJoin(),
        "join_expired": NewJoin(expires=moment + timedelta(seconds=1)),
        "join_spent": NewJoin(),
        "join_address": NewJoin(addresses=["10.0.0.0/8", "2001:db8::/32"]),
    }.items():
        made[name], tokens[name] = await entrance.admin.joins.create(OPERATOR, new)
    await entrance.admin.joins.revoke(OPERATOR, made["join_revoked"].id)
    assert (await entrance.join(tokens["join_spent"], new_key())).status_code == 201
    entrance.set_clock(moment + timedelta(seconds=2))
    words = set()
    for reason, token in tokens.items():
        words.add(problem(await entrance.join(token, new_key()), 403, "refused"))
        event = entrance.record.events[-1]
        assert (event.event, event.reason, event.status, event.address) == (
            "join.refuse",
            reason,
            400,
            "192.0.2.7",
        )
        assert event.subject == (made[reason].id if reason in made else "")
        assert token not in repr(event)
    words.add(problem(await entrance.join("no such form", new_key()), 403, "refused"))
    assert len(words) == 1
    assert entrance.brake.failed == 6
    assert entrance.enrol.results["refused"] == 6


async def test_refusals_leave_on_a_tick_whatever_is_wrong(entrance: Entrance, monkeypatch: pytest.MonkeyPatch):
    """Unknown at once or spent after a look at the database: each is held until a multiple of the tick, a tick or
    more after its question."""
    loop, tick = asyncio.get_running_loop(), 8.0
    ends: list[float] = []

    async def until(seconds: float) -> None:
        ends.append(loop.time() + seconds)

    _, spent = await entrance.admin.joins.create(OPERATOR, NewJoin())
    await entrance.join(spent, new_key())
    entrance.enrol._pause = Pause(tick)
    monkeypatch.setattr(pausing, "sleep", until)
    for token in (spent, "zapdj_" + "A" * 43, "no such form"):
        began = loop.time()
        problem(await entrance.join(token, new_key()), 403, "refused")
        assert began + tick <= ends[-1] <= loop.time() + 2 * tick
        assert ends[-1] % tick == pytest.approx(0, abs=0.05) or ends[-1] % tick == pytest.approx(tick, abs=0.05)
    assert len(ends) == 3


async def test_an_address_range_is_judged_on_where_the_request_comes_from(entrance: Entrance):
    """IPv4 within IPv6 is IPv4; a proxy that does not say whose request it carries is nobody's address."""
    _, token = await entrance.admin.joins.create(
        OPERATOR, NewJoin(uses=9, addresses=["10.0.0.0/8", "2001:db8::/32"])
    )
    for address, status in {
        "10.1.2.3": 201,
        "::ffff:10.9.9.9": 201,
        "2001:db8::7": 201,
        "11.0.0.1": 403,
        "2001:db9::7": 403,
        "127.9.0.1": 503,
        "somewhere": 503,
    }.items():
        answer = await entrance.at(address).join(token, new_key())
        assert answer.status_code == status, (address, answer.text)


async def test_a_key_lives_as_long_as_the_token_says(entrance: Entrance):
    """From its exchange on; once it has ended, the same exchange does not bring it back."""
    moment = entrance.admin.road.clock()
    _, token = await entrance.admin.joins.create(OPERATOR, NewJoin(uses=2, key_lifetime=3600))
    key = new_key()
    assert (await entrance.join(token, key)).json()["expires"] is not None
    entrance.set_clock(moment + timedelta(hours=2))
    problem(await entrance.join(token, key), 409, "conflict")


async def test_keys_are_refused_as_an_operators_would_be(entrance: Entrance):
    """The server's, an agent's, somebody's, one that is no point: told with the mend, nobody is named, nothing is
    spent; and only to who has a good token."""
    join, token = await entrance.admin.joins.create(OPERATOR, NewJoin(uses=9))
    taken, agents, gone = new_key(), new_key(), new_key()
    await entrance.admin.keys.add(OPERATOR, NewKey(decode_public_key(taken), "a-holder-with-a-name"))
    await entrance.admin.agents.enroll(OPERATOR, NewAgent("an-agent", decode_public_key(agents)))
    assert (await entrance.join(token, gone)).status_code == 201
    await entrance.admin.keys.revoke(OPERATOR, fingerprint_id(decode_public_key(gone)))
    for key, status, code, words in [
        (encode_key(SERVER_KEY), 422, "invalid_input", "public key of a zapd server"),
        (agents, 422, "invalid_input", "agent's public key"),
        (taken, 409, "conflict", "registered already"),
        (gone, 409, "conflict", "registered already"),
    ]:
        said = problem(await entrance.join(token, key), status, code)
        assert words in said
        assert "a-holder-with-a-name" not in said
        assert entrance.record.events[-1].reason == code
        problem(await entrance.join("zapdj_" + "B" * 43, key), 403, "refused")
    for key in (encode_key(bytes(32)), "short", "x" * 41):
        problem(await entrance.join(token, key), 422, "invalid_input")
    assert used(entrance, join.id) == 1


async def test_while_the_journal_cannot_be_written_there_is_no_key(entrance: Entrance):
    """503, and nothing is spent; a refusal that cannot be recorded is 503 too."""
    join, token = await entrance.admin.joins.create(OPERATOR, NewJoin())
    key = new_key()
    entrance.admin.journal.writable = False
    problem(await entrance.join(token, key), 503, "unavailable")
    assert used(entrance, join.id) == 0
    with reading(entrance.admin.engine) as connection:
        assert KeyRegistry().find(connection, fingerprint_id(decode_public_key(key))) is None
    entrance.record.writable = False
    problem(await entrance.join("zapdj_" + "C" * 43, key), 503, "unavailable")
    entrance.admin.journal.writable = True
    assert (await entrance.join(token, key)).status_code == 201


async def test_an_older_registry_gives_no_key(entrance: Entrance):
    """While it is not known to be current a token that was spent or revoked since might be good in it."""
    join, token = await entrance.admin.joins.create(OPERATOR, NewJoin())
    entrance.enrol._is_current = lambda: False
    problem(await entrance.join(token, new_key()), 503, "unavailable")
    assert used(entrance, join.id) == 0


async def test_who_guesses_is_not_even_looked_at(entrance: Entrance):
    """A good token neither; it is counted, not recorded one by one, and says when to come back."""
    _, token = await entrance.admin.joins.create(OPERATOR, NewJoin())
    entrance.brake.held = "penalty_address"
    problem(await entrance.join(token, new_key()), 429, "too_many_attempts")
    assert entrance.record.events == []
    assert entrance.record.counted == [("192.0.2.7", "penalty_address")]
    assert entrance.enrol.results == {"throttled": 1}


async def test_the_listener_has_two_routes_and_nothing_else(entrance: Entrance):
    """No document, no page, no metrics, no admin API; every answer has the headers and an id."""
    for path in ("/", "/openapi.json", "/docs", "/metrics", "/healthz", "/readyz", "/v1/keys", "/v1/joins"):
        answer = await entrance.http.get(path)
        problem(answer, 404, "not_found")
        assert all(answer.headers[name.decode()] == value.decode() for name, value in HEADERS)
        assert answer.headers["x-request-id"]
    for path in ("/v1/enroll", "/v1/signin"):
        problem(await entrance.http.get(path), 405, "method_not_allowed")
        problem(await entrance.http.post(path, content=b"x" * 20_000), 413, "too_large")
        broken = await entrance.http.post(path, content=b"{", headers={"Content-Type": "application/json"})
        problem(broken, 400, "bad_request")
        problem(await entrance.http.post(path, json={"zzz": 1}), 422, "invalid_input")


@pytest.mark.parametrize(
    "body", [{"token": ["canary-7"]}, {"token": "canary-7" * 99}, {"canary-7": 1}, "canary-7"]
)
async def test_a_problem_repeats_nothing_that_was_offered(entrance: Entrance, body: object):
    """Whatever is wrong with the body's shape."""
    answer = await entrance.http.post("/v1/enroll", json=body)
    assert answer.status_code == 422
    assert "canary-7" not in answer.text.replace('"body.canary-7"', "")
