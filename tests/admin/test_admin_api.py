"""The REST API as its callers meet it, over a real registry on SQLite and PostgreSQL."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio
from support.audit_quiet import QuietCopy, QuietJournals
from support.store_admin import *  # noqa: F403
from support.store_admin import ADMIN, SERVER_KEY, Admin, knock
from support.store_fixtures import *  # noqa: F403
from zmq.utils import z85

from zapd.admin.api.app import create_app
from zapd.admin.api.context import AdminContext, Endpoint, Readiness
from zapd.admin.api.errors import HEADERS, MEDIA_TYPE, PROBLEMS
from zapd.admin.api.guards import MAX_BODY, Guards, SignInBrake
from zapd.admin.roles import Role
from zapd.admin.services.audit import AuditFilter, AuditService
from zapd.admin.services.explain import ExplainService, Explanation, Step, Supposed
from zapd.admin.services.topology import BackendInfo, BackendService, DomainInfo, DomainService
from zapd.zmtp.keys import encode_key, fingerprint_id, generate_keypair

DOMAIN = DomainInfo("orders", ("CURVE",), ("keys",), allow=("10.0.0.0/8",))
BACKEND = BackendInfo("keys", "sql", ("CURVE", "PLAIN"), "disabled", "the database is away")
RECORD = {
    "time": "2026-01-02T03:04:05.678901Z",
    "instance": "one",
    "sequence": 7,
    "event": "auth.accept",
    "domain": "orders",
    "status": 200,
    "trail": [["keys", "accept", 0.1]],
}


@dataclass
class Api:
    """A caller for each role, and what the app was asked."""

    http: httpx.AsyncClient
    admin: Admin
    context: AdminContext
    tokens: dict[str, str] = field(default_factory=dict)
    searched: list[tuple[AuditFilter, int, str | None]] = field(default_factory=list)
    supposed: list[Supposed] = field(default_factory=list)
    ready: Readiness = field(default_factory=lambda: Readiness(True, (("journal", "ok"),)))

    async def __call__(self, method: str, path: str, *, by: str = "admin", **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[by]}"} | more.pop("headers", {})
        return await self.http.request(method, path, headers=headers, **more)


@pytest_asyncio.fixture
async def api(admin: Admin) -> AsyncIterator[Api]:
    async def search(wanted: AuditFilter, limit: int, cursor: str | None) -> tuple[list[dict], str | None]:
        made.searched.append((wanted, limit, cursor))
        return [RECORD], "more"

    async def explain(question: Supposed) -> Explanation:
        made.supposed.append(question)
        return Explanation(200, "granted", "alice", ("g",), (("A", "b"),), (Step("domain", "orders"),))

    context = AdminContext(
        keys=admin.keys,
        users=admin.users,
        agents=admin.agents,
        tokens=admin.tokens,
        joins=admin.joins,
        bans=admin.bans,
        approvals=admin.approvals,
        audit=AuditService(search, copy=QuietCopy(), journals=QuietJournals()),
        explain=ExplainService(explain),
        domains=DomainService(lambda: [DOMAIN]),
        backends=BackendService(lambda: [BACKEND], lambda: [DOMAIN]),
        imports=admin.imports,
        road=admin.road,
        endpoints=lambda: [Endpoint("tcp://127.0.0.1:9027", "CURVE", (SERVER_KEY,))],
        ready=lambda: made.ready,
        metrics=lambda: (b"zapd_up 1\n", "text/plain; version=0.0.4"),
    )
    transport = httpx.ASGITransport(create_app(context), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://zapd") as http:
        made = Api(http, admin, context)
        for role in Role:
            _record, made.tokens[role.value] = await admin.tokens.create(ADMIN, role.value, role)
        _record, made.tokens["limited"] = await admin.tokens.create(
            ADMIN, "limited", Role.OPERATOR, domains=["orders"]
        )
        yield made


def _z85() -> str:
    return encode_key(generate_keypair()[0])


def _problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Every error has this one shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    body = response.json()
    assert body.keys() == {"type", "title", "status", "code", "detail", "errors", "request"}
    assert body["request"] == response.headers["x-request-id"]
    assert (body["status"], body["code"], body["title"]) == (status, code, PROBLEMS[code][1])
    assert PROBLEMS[code][0] == status
    return body


async def test_a_bug_of_ours_is_a_problem_like_any_other(api: Api, monkeypatch: pytest.MonkeyPatch):
    """500 in the one shape, with every header that the other answers have, and no word of what went wrong."""

    async def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret")

    monkeypatch.setattr(type(api.context.keys), "list", broken)
    response = await api("GET", "/v1/keys")
    _problem(response, 500, "error")
    assert "secret" not in response.text
    for name, value in HEADERS:
        assert response.headers.get_list(name.decode()) == [value.decode()]


async def test_a_keys_life_over_http(api: Api):
    """Add, list, show, change, revoke: each says what the registry then holds, with its ETag."""
    public_key = _z85()
    added = await api(
        "POST",
        "/v1/keys",
        json={"public_key": public_key, "user": "alice", "groups": ["g"], "expires": "2099-01-01T00:00:00+02:00"},
    )
    assert added.status_code == 201, added.text
    key = added.json()
    assert (key["public_key"], key["state"], key["domains"]) == (public_key, "active", ["orders"])
    assert key["expires"] == "2098-12-31T22:00:00Z"
    assert added.headers["location"] == f"/v1/keys/{key['id']}"
    assert key["fingerprint"].startswith("SHA256:")
    listed = (await api("GET", "/v1/keys", params={"user": "alice", "state": "active", "domain": "orders"})).json()
    assert listed == {"items": [key], "next_cursor": None}
    shown = await api("GET", f"/v1/keys/{key['id']}")
    assert shown.json()["usage"]["last_used"] == RECORD["time"]
    assert (shown.json() | {"usage": None}, shown.headers["etag"]) == (key, '"1"')
    changed = await api(
        "PATCH", f"/v1/keys/{key['id']}", json={"expires": None, "label": "x"}, headers={"If-Match": '"1"'}
    )
    assert (changed.json()["expires"], changed.json()["label"], changed.headers["etag"]) == (None, "x", '"2"')
    stale = await api("PATCH", f"/v1/keys/{key['id']}", json={"label": "y"}, headers={"If-Match": '"1"'})
    _problem(stale, 412, "precondition_failed")
    revoked = await api("POST", f"/v1/keys/{key['id']}/revoke", json={"reason": "lost"})
    assert (revoked.json()["state"], revoked.json()["reason"]) == ("revoked", "lost")
    assert (await api("POST", f"/v1/keys/{key['id']}/revoke")).status_code == 200
    _problem(await api("POST", "/v1/keys", json={"public_key": public_key, "user": "b"}), 409, "conflict")


async def test_strangers_over_http(api: Api) -> None:
    """Listed with where they were seen, for a token's own domains; shown, approved and rejected by fingerprint or
    with the whole key; filters that make no sense and bodies that fit nothing are refused."""
    one, two, three = (generate_keypair()[0] for _ in range(3))
    names = [knock(api.admin, one), knock(api.admin, two, "lab")]
    found = (await api("GET", "/v1/keys?state=pending")).json()["items"]
    assert sorted(each["id"] for each in found) == sorted(names)
    limited = (await api("GET", "/v1/keys?state=pending", by="limited")).json()["items"]
    assert [each["id"] for each in limited] == [names[0]]
    [seen] = limited[0]["sightings"]
    assert (seen["domain"], seen["address"], seen["agent"], seen["tries"]) == ("orders", "192.0.2.1", "edge", 7)
    shown = await api("GET", f"/v1/keys/{names[1]}", by="viewer")
    assert (shown.headers["etag"], shown.json()["public_key"]) == ('"0"', encode_key(two))
    first = (await api("GET", "/v1/keys?state=pending&limit=1")).json()
    rest = await api("GET", f"/v1/keys?state=pending&cursor={first['next_cursor']}&limit=1")
    assert sorted([first["items"][0]["id"], rest.json()["items"][0]["id"]]) == sorted(names)
    assert (await api("GET", "/v1/keys")).json()["items"] == []
    for query in ("address=10.0.0.0/8", "agent=edge", "state=pending&address=nowhere", "state=pending&agent=%00"):
        assert (await api("GET", f"/v1/keys?{query}")).status_code == 422, query
    path = f"/v1/keys/{names[0]}"
    assert (await api("POST", f"{path}/approve", by="viewer", json={"user": "a"})).status_code == 403
    assert (await api("POST", f"{path}/approve")).status_code == 422
    made = await api("POST", f"{path}/approve", json={"user": "a"}, by="limited", headers={"If-Match": '"0"'})
    assert (made.status_code, made.json()["state"], made.headers["etag"]) == (200, "active", '"1"')
    assert (await api("POST", f"{path}/approve", json={"user": "a"})).status_code == 409
    stale = await api("POST", f"{path}/approve", json={"user": "a"}, headers={"If-Match": '"0"'})
    assert stale.status_code == 412
    assert (await api("POST", f"/v1/keys/{names[1]}/reject", by="limited")).status_code == 404
    assert (await api("POST", f"/v1/keys/{names[1]}/reject", json={"reason": "no"})).json()["reason"] == "no"
    gone = f"/v1/keys/{fingerprint_id(three)}/approve"
    assert (await api("POST", gone, json={"user": "a"})).status_code == 404
    assert (await api("POST", gone, json={"user": "a", "public_key": encode_key(three)})).status_code == 200


async def test_pending_keys_over_http(api: Api):
    """A pending key is approved or rejected by name."""
    ids = []
    for _ in range(2):
        body = {"public_key": _z85(), "user": "alice", "state": "pending"}
        ids.append((await api("POST", "/v1/keys", json=body)).json()["id"])
    assert (await api("POST", f"/v1/keys/{ids[0]}/approve")).json()["state"] == "active"
    assert (await api("POST", f"/v1/keys/{ids[1]}/reject", json={"reason": "who?"})).json()["reason"] == "who?"
    _problem(await api("POST", f"/v1/keys/{ids[1]}/approve"), 409, "conflict")


async def test_a_users_life_over_http(api: Api):
    """Users too, also with a name that holds slashes and letters beyond ASCII; no answer shows a hash."""
    name, path = "a/b ü", "/v1/users/a%2Fb%20%C3%BC"
    added = await api("POST", "/v1/users", json={"name": name, "password": "canary"})
    assert added.status_code == 201, added.text
    texts = [added.text]
    for method, where, body in [
        ("GET", path, None),
        ("PATCH", path, {"state": "disabled"}),
        ("PATCH", path, {"state": "enabled", "groups": ["g"]}),
        ("PUT", path + "/password", {"password": "canary2"}),
        ("GET", "/v1/users", None),
    ]:
        response = await api(method, where, json=body)
        assert response.status_code == 200, response.text
        texts.append(response.text)
    assert (await api("DELETE", path)).status_code == 204
    _problem(await api("GET", path), 404, "not_found")
    assert "canary" not in "".join(texts)
    assert "hash" not in "".join(texts)


async def test_agents_and_tokens_over_http(api: Api):
    """Enrolling tells where to connect and which server key to accept; a token is shown once."""
    agent = {"name": "edge/1", "public_key": _z85(), "addresses": ["10.0.0.0/8"]}
    enrolled = await api("POST", "/v1/agents", json=agent)
    assert enrolled.status_code == 201, enrolled.text
    assert enrolled.json()["endpoints"] == [
        {
            "address": "tcp://127.0.0.1:9027",
            "mechanism": "CURVE",
            "server_keys": [z85.encode(SERVER_KEY).decode()],
        }
    ]
    assert (await api("DELETE", "/v1/agents/edge%2F1")).status_code == 204
    assert (await api("GET", "/v1/agents/edge%2F1")).json()["state"] == "revoked"
    assert len((await api("GET", "/v1/agents")).json()["items"]) == 1
    created = (await api("POST", "/v1/tokens", json={"name": "ci", "role": "viewer"})).json()
    api.tokens["ci"] = created["token"]
    assert (await api("GET", "/v1/keys", by="ci")).status_code == 200
    listed = await api("GET", "/v1/tokens")
    assert created["token"] not in listed.text
    assert (await api("DELETE", f"/v1/tokens/{created['id']}")).status_code == 204
    _problem(await api("GET", "/v1/keys", by="ci"), 401, "unauthenticated")


async def test_configuration_record_and_explaining_over_http(api: Api):
    """Domains and backends are listed, the record searched, a question explained."""
    assert (await api("GET", "/v1/domains")).json()["items"][0]["allow"] == ["10.0.0.0/8"]
    assert (await api("GET", "/v1/backends")).json()["items"][0]["reason"] == "the database is away"
    since = "2026-01-01T00:00:00Z"
    asked = {"user": "alice", "since": since, "limit": 5}
    found = await api("GET", "/v1/audit", params=asked)
    assert found.json()["items"][0]["trail"] == [{"backend": "keys", "outcome": "accept", "milliseconds": 0.1}]
    wanted, limit, cursor = api.searched[0]
    assert (wanted.user, wanted.domains, limit, cursor) == ("alice", None, 5, None)
    following = asked | {"cursor": found.json()["next_cursor"]}
    await api("GET", "/v1/audit", params=following)
    assert api.searched[1] == (wanted, 5, "more")
    _problem(await api("GET", "/v1/audit", by="operator", params=following), 400, "invalid_cursor")
    _problem(await api("GET", "/v1/audit", params=asked | {"cursor": "more"}), 400, "invalid_cursor")
    await api("GET", "/v1/audit", by="limited", params={"key": "-_" + "x" * 41})
    assert (api.searched[2][0].domains, api.searched[2][0].key) == (("orders",), "SHA256:+/" + "x" * 41)
    question = {"domain": "orders", "mechanism": "CURVE", "address": "10.0.0.1", "key": _z85()}
    explained = await api("POST", "/v1/explain", json=question)
    assert explained.json()["attributes"] == {"A": "b"}
    assert len(api.supposed[0].key) == 32


async def test_pages_follow_one_another(api: Api):
    """Every key comes on exactly one page, in order; cursors that nobody gave out are refused."""
    for number in range(7):
        await api("POST", "/v1/keys", json={"public_key": _z85(), "user": str(number)})
    found, cursor, pages = [], None, 0
    while pages == 0 or cursor is not None:
        params = {"limit": 3} | ({"cursor": cursor} if cursor else {})
        page = (await api("GET", "/v1/keys", params=params)).json()
        found += [key["id"] for key in page["items"]]
        cursor, pages = page["next_cursor"], pages + 1
    assert (pages, found) == (3, sorted(set(found)))
    assert len(found) == 7
    for wrong in ("%%%", "ä", "", base64.urlsafe_b64encode(b"\0").decode(), "A" * 22, "A" * 1000):
        _problem(await api("GET", "/v1/keys", params={"cursor": wrong}), 400, "invalid_cursor")
    mine = (await api("GET", "/v1/keys", params={"limit": 3})).json()["next_cursor"]
    assert (await api("GET", "/v1/keys", params={"cursor": mine})).status_code == 200
    for by, path, cursor in (
        ("operator", "/v1/keys", mine),
        ("admin", "/v1/users", mine),
        ("admin", "/v1/keys", mine[:-1]),
        ("admin", "/v1/keys", "A" + mine[1:]),
    ):
        _problem(await api("GET", path, by=by, params={"cursor": cursor}), 400, "invalid_cursor")


_JSON = {"Content-Type": "application/json"}

WRONG: list[tuple[str, str, dict[str, Any], int, str]] = [
    ("GET", "/v1/nothing", {}, 404, "not_found"),
    ("GET", "/", {}, 404, "not_found"),
    ("PUT", "/v1/keys", {}, 405, "method_not_allowed"),
    ("GET", "/v1/keys/short", {}, 422, "invalid_input"),
    ("GET", "/v1/keys/" + "x" * 43, {}, 404, "not_found"),
    ("GET", "/v1/keys?limit=0", {}, 422, "invalid_input"),
    ("GET", "/v1/keys?limit=x", {}, 422, "invalid_input"),
    ("GET", "/v1/keys?state=odd", {}, 422, "invalid_input"),
    ("GET", "/v1/keys?user=%00", {}, 422, "invalid_input"),
    ("GET", "/v1/users/%00", {}, 422, "invalid_input"),
    ("GET", "/v1/users/nobody", {}, 404, "not_found"),
    ("DELETE", "/v1/tokens/%00", {}, 422, "invalid_input"),
    ("POST", "/v1/keys", {"content": b"{", "headers": _JSON}, 400, "bad_request"),
    ("POST", "/v1/keys", {"content": b"\xff\xfe", "headers": _JSON}, 400, "bad_request"),
    ("POST", "/v1/keys", {"content": b"{}", "headers": {"Content-Type": "text/plain"}}, 422, "invalid_input"),
    ("POST", "/v1/keys", {"json": {}}, 422, "invalid_input"),
    ("POST", "/v1/keys", {"json": []}, 422, "invalid_input"),
    (
        "POST",
        "/v1/keys",
        {"json": {"public_key": "x" * 40, "user": "a", "role": "admin"}},
        422,
        "invalid_input",
    ),
    ("POST", "/v1/keys", {"json": {"public_key": "x" * 39, "user": "a"}}, 422, "invalid_input"),
    ("POST", "/v1/keys", {"json": {"public_key": "~" * 40, "user": "a"}}, 422, "invalid_input"),
    ("POST", "/v1/keys", {"json": {"public_key": "0" * 40, "user": "a"}}, 422, "invalid_input"),
    ("PATCH", "/v1/keys/" + "x" * 43, {"json": {"user": None}}, 422, "invalid_input"),
    ("PATCH", "/v1/keys/" + "x" * 43, {"json": {"state": "active"}}, 422, "invalid_input"),
    ("PATCH", "/v1/keys/" + "x" * 43, {"json": {}, "headers": {"If-Match": "x"}}, 422, "invalid_input"),
    ("POST", "/v1/explain", {"json": {"domain": "d", "mechanism": "X", "address": ""}}, 422, "invalid_input"),
    ("POST", "/v1/keys", {"content": b" " * (MAX_BODY + 1)}, 413, "too_large"),
]


async def test_every_error_has_one_shape(api: Api):
    """Whatever is wrong and whoever notices, the answer is a problem document with a stable code."""
    for method, path, more, status, code in WRONG:
        _problem(await api(method, path, **more), status, code)


async def test_without_a_token_nothing_is_told(api: Api):
    """No token, a wrong scheme, a token in the URL or a wrong one: 401 on every path of /v1, saying how."""
    document = (await api.http.get("/openapi.json")).json()
    assert len(document["paths"]) > 15
    for path, verbs in document["paths"].items():
        for verb in verbs:
            for headers in ({}, {"Authorization": "Basic x"}, {"Authorization": "Bearer "}):
                response = await api.http.request(
                    verb, path, headers=headers, params={"token": api.tokens["admin"]}
                )
                _problem(response, 401, "unauthenticated")
                assert response.headers["www-authenticate"].startswith("Bearer")


async def test_roles_hold_over_http(api: Api):
    """A viewer reads and changes nothing; an operator makes no tokens."""
    assert (await api("GET", "/v1/keys", by="viewer")).status_code == 200
    body = {"public_key": _z85(), "user": "a"}
    _problem(await api("POST", "/v1/keys", by="viewer", json=body), 403, "forbidden")
    _problem(await api("GET", "/v1/tokens", by="operator"), 403, "forbidden")
    _problem(await api("POST", "/v1/keys", by="limited", json=body | {"domains": ["*"]}), 403, "forbidden")


async def test_an_unwritable_journal_is_503(api: Api):
    """Opening access without a journal is refused as a thing that may heal."""
    api.admin.journal.writable = False
    response = await api("POST", "/v1/keys", json={"public_key": _z85(), "user": "a"})
    _problem(response, 503, "unavailable")
    assert "retry-after" in response.headers


async def test_every_answer_carries_the_security_headers(api: Api):
    """Also errors and the process's own pages; and no other origin is invited."""
    for path in ("/v1/keys", "/nothing", "/healthz", "/metrics", "/openapi.json"):
        response = await api("GET", path, headers={"Origin": "https://evil.example"})
        for name, value in HEADERS:
            assert response.headers[name.decode()] == value.decode()
        assert not [name for name in response.headers if name.startswith("access-control")]


async def test_the_processs_own_pages(api: Api):
    """Health and metrics need no token; readiness is 503 and names the part that is missing."""
    assert (await api.http.get("/healthz")).status_code == 200
    assert (await api.http.get("/readyz")).json() == {"status": "ready", "parts": {"journal": "ok"}}
    api.ready = Readiness(False, (("journal", "disk full"),))
    response = await api.http.get("/readyz")
    assert (response.status_code, response.json()["parts"]) == (503, {"journal": "disk full"})
    assert (await api.http.get("/metrics")).text == "zapd_up 1\n"


async def test_guessing_tokens_is_slowed_and_owners_are_not(api: Api):
    """After too many wrong tokens from an address only tokens that were right before are looked at there."""
    assert (await api("GET", "/v1/keys")).status_code == 200
    wrong = {"Authorization": "Bearer zapd_" + "x" * 43}
    for _ in range(20):
        _problem(await api.http.get("/v1/keys", headers=wrong), 401, "unauthenticated")
    refused = await api.http.get("/v1/keys", headers=wrong)
    _problem(refused, 429, "too_many_attempts")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    _problem(await api("GET", "/v1/keys", by="viewer"), 429, "too_many_attempts")
    assert (await api("GET", "/v1/keys")).status_code == 200


def test_the_brake_forgets_and_stays_small():
    """A window later the address is free again; the table never outgrows its bound."""
    now = [0.0]
    brake = SignInBrake(failures=2, window=60, size=10, clock=lambda: now[0])
    for _ in range(2):
        brake.failed("a", b"x")
    assert brake.wait("a", b"x") == 60
    assert brake.wait("b", b"x") == 0
    now[0] = 61
    assert brake.wait("a", b"x") == 0
    for number in range(1000):
        brake.failed(str(number), b"x")
        brake.passed(str(number).encode())
    assert len(brake._table) == len(brake._good) == 10


async def test_a_bug_is_a_problem_without_words(api: Api, monkeypatch: pytest.MonkeyPatch, caplog):
    """An exception nobody foresaw is 500 in the one shape; what it said goes to the log, not to the caller."""

    async def broken(*_args: object, **_more: object) -> None:
        raise RuntimeError("canary")

    monkeypatch.setattr(type(api.context.keys), "list", broken)
    response = await api("GET", "/v1/keys")
    _problem(response, 500, "error")
    assert "canary" not in response.text
    assert "a bug in GET" in caplog.text


async def test_what_was_sent_is_never_repeated(api: Api):
    """Problems about a body with a password in the wrong place do not quote it."""
    for body in (
        {"name": "bob", "password": ["canary"]},
        {"name": "bob", "password": "canary" * 60},
        {"name": "bob", "canary": "canary"},
        {"name": "bob", "password": "canary\0"},
    ):
        response = await api("POST", "/v1/users", json=body)
        _problem(response, 422, "invalid_input")
        assert "canary" not in response.text.replace("body.canary", "")


PAYLOADS = [
    "<script>alert(1)</script>",
    "=cmd|' /C calc'!A0",
    "'; DROP TABLE keys; --",
    '"} , {"',
    "*)(uid=*))(|(uid=*",
    "../../etc/passwd",
    "%s%n{0}${jndi:ldap://x}",
    "\\",
    "名前",
    "e\u0301",
    "a\0b",
    "a\r\nSet-Cookie: x=1",
    "\x1b[31mred",
    "\u202egnp.exe",
    "\u2028",
    "\ud800",
    "\x7f",
    "x" * 256,
    " ",
    "",
]


async def test_hostile_text_comes_back_as_it_was_or_is_refused(api: Api):
    """Whatever stands in a text field is stored octet for octet or refused with 422; never 500, never altered."""
    for payload in PAYLOADS:
        for field_name in ("user", "label", "groups", "attributes", "domains", "name"):
            value: Any = {"groups": [payload], "attributes": {"A": payload}, "domains": [payload]}.get(
                field_name, payload
            )
            kind, body = ("keys", {"public_key": _z85(), "user": "a"}) if field_name != "name" else ("users", {})
            content = json.dumps(
                {"password": "x"} | body | {field_name: value} if kind == "users" else body | {field_name: value}
            )
            added = await api("POST", f"/v1/{kind}", content=content, headers=_JSON)
            if added.status_code != 201:
                _problem(added, 422, "invalid_input")
                continue
            assert added.json()[field_name] == value
            path = added.json().get("id") or quote(payload, safe="")
            assert (await api("GET", f"/v1/{kind}/{path}")).json()[field_name] == value


async def test_times_at_the_ends_of_the_calendar(api: Api):
    """A time that has no place in UTC is refused, and the last one that has comes back."""
    for moment, status in [("9999-12-31T23:59:59-05:00", 422), ("9999-12-31T23:59:59.999999Z", 201)]:
        body = {"public_key": _z85(), "user": "a", "expires": moment}
        assert (await api("POST", "/v1/keys", json=body)).status_code == status
    body = {"public_key": _z85(), "user": "a", "not_before": "0001-01-01T00:00:00+05:00"}
    _problem(await api("POST", "/v1/keys", json=body), 422, "invalid_input")


async def test_a_body_that_trickles_is_given_up():
    """The deadline is for the whole body: one octet now and then gains nothing."""
    sent: list[dict[str, Any]] = []

    async def app(_scope: object, _receive: object, _send: object) -> None:
        raise AssertionError("the app was reached")

    async def trickle() -> dict[str, Any]:
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await Guards(app, deadline=0.1)({"type": "http", "method": "POST", "headers": []}, trickle, send)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]


async def test_the_openapi_document_tells_the_truth(api: Api):
    """Every operation can answer with a problem, none names a shape that is not there, the token is the way in."""
    document = (await api.http.get("/openapi.json")).json()
    shapes = document["components"]["schemas"]
    assert "Problem" in shapes
    assert "HTTPValidationError" not in str(document)
    for verbs in document["paths"].values():
        for operation in verbs.values():
            assert {"401", "403", "422", "503"} <= operation["responses"].keys()
    assert document["security"] == [{"token": []}]
