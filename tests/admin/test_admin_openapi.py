"""The OpenAPI document against the API: its examples work, every role is tried on every route, and whatever fits
its schemas, or does not, gets an answer that it names."""

import random
import re
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from support.store_admin import *  # noqa: F403
from support.store_fixtures import *  # noqa: F403
from test_admin_api import Api, _problem, api  # noqa: F401 - a fixture

from zapd.admin.api.errors import MEDIA_TYPE, PROBLEMS
from zapd.admin.api.exports import VerifyOut
from zapd.admin.api.schemas import ImportOut
from zapd.admin.roles import ROLES, Actor, Operation, Role
from zapd.zmtp.keys import encode_key, generate_keypair

Document = dict[str, Any]

ENDLESS = {"/v1/audit/stream"}
"""Never done answering: tested elsewhere."""

OPERATORS = ("/v1/bans", "/v1/joins", "/v1/explain", "/v1/audit/verify")
"""What only operators may, whatever the verb (contract, REST)."""
ROLES_BY_STRENGTH = tuple(Role)


def _operations(document: Document) -> Iterator[tuple[str, str, Document]]:
    for path, verbs in document["paths"].items():
        for verb, operation in verbs.items():
            yield verb.upper(), path, operation


def _least_role(verb: str, path: str) -> str:
    """As the contract's table says."""
    if path.startswith("/v1/tokens"):
        return "admin"
    if verb == "GET" and not path.startswith(OPERATORS):
        return "viewer"
    return "operator"


def _resolved(schema: Document, document: Document) -> Document:
    while "$ref" in schema:
        found: Any = document
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


def _sample(schema: Document, document: Document, rng: random.Random, wrong: float) -> Any:
    """A value that fits the schema; with the chance ``wrong``, at each place, one that most likely does not."""
    schema = _resolved(schema, document)
    if rng.random() < wrong:
        return rng.choice([None, True, -1, 10**30, 1.5, "", "\0", "\u202e", "x" * 2000, [], [[]], {}, {"x": {}}])
    if "enum" in schema or "const" in schema:
        return rng.choice(schema.get("enum") or [schema["const"]])
    if "anyOf" in schema:
        return _sample(rng.choice(schema["anyOf"]), document, rng, wrong)
    match schema.get("type"):
        case "object":
            names = [*schema.get("properties", {})]
            needed = set(schema.get("required", ()))
            made = {
                name: _sample(schema["properties"][name], document, rng, wrong)
                for name in names
                if name in needed or rng.random() < 0.4
            }
            if not names and rng.random() < 0.5:
                made["Desk"] = "7"
            return made | ({"zzz": 1} if rng.random() < wrong else {})
        case "array":
            size = rng.randint(schema.get("minItems", 0), 3)
            return [_sample(schema.get("items", {}), document, rng, wrong) for _ in range(size)]
        case "integer":
            return rng.randint(int(schema.get("minimum", -5)), int(schema.get("maximum", 1000)))
        case "number":
            return rng.random()
        case "boolean":
            return rng.random() < 0.5
        case "null":
            return None
    if schema.get("format") == "date-time":
        return rng.choice(["2099-01-01T00:00:00Z", "2000-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
    words = ["orders", "*", "alice", "10.0.0.0/8", "CURVE", encode_key(generate_keypair()[0]), "é", " "]
    text = rng.choice([*words, "".join(rng.choices(string.printable, k=rng.randint(0, 20)))])
    return text[: schema.get("maxLength", 255)].ljust(schema.get("minLength", 0), "x")


def _request(path: str, operation: Document, document: Document, rng: random.Random, wrong: float) -> Any:
    """(path, what httpx takes besides)."""
    query: dict[str, Any] = {}
    headers: dict[str, str] = {}
    for parameter in operation.get("parameters", ()):
        value = _sample(parameter["schema"], document, rng, wrong)
        if parameter["in"] == "path":
            text = rng.choice([str(value), "A" * 43, "alice"]) or "x"
            path = path.replace("{" + parameter["name"] + "}", quote(text, safe="", errors="replace"))
        elif parameter.get("required") or rng.random() < 0.4:
            if parameter["in"] == "query":
                query[parameter["name"]] = value if value is not None else ""
            else:
                headers[parameter["name"]] = (
                    "".join(filter(str.isprintable, str(value))).encode("ascii", "ignore").decode()
                )
    more: dict[str, Any] = {"params": query, "headers": headers}
    content = operation.get("requestBody", {}).get("content", {})
    if content and (operation["requestBody"].get("required") or rng.random() < 0.7):
        kind = rng.choice([*content])
        value = _sample(content[kind]["schema"], document, rng, wrong)
        if kind == "application/json":
            more["json"] = value
        else:
            more["content"] = str(value).encode("utf-8", "replace")
            headers["Content-Type"] = kind
    return path, more


def _good_request(template: str, operation: Document, document: Document) -> dict[str, Any]:
    """What httpx takes besides the path: a body that has the right shape, such as the document's example."""
    content = operation.get("requestBody", {}).get("content", {})
    if "text/csv" in content:
        return {"content": content["text/csv"]["example"], "headers": {"Content-Type": "text/csv"}}
    if not content:
        return {}
    schema = _resolved(content["application/json"]["schema"], document)
    if examples := schema.get("examples"):
        return {"json": examples[0]}
    return {"json": _sample(schema, document, random.Random(7), 0) if schema.get("required") else {}}


async def test_whatever_is_asked_gets_a_documented_answer(api: Api):  # noqa: F811
    """Requests made from the document, right and wrong in every place: no 5xx, no status that the
    operation does not name, errors in their one shape."""
    document = (await api.http.get("/openapi.json")).json()
    rng = random.Random(20261124)
    operations = [each for each in _operations(document) if each[1] not in ENDLESS]
    seen: set[int] = set()
    for round_ in range(6):
        for verb, template, operation in operations:
            path, more = _request(template, operation, document, rng, wrong=0.1 * (round_ % 3))
            response = await api(verb, path, **more)
            told = f"{verb} {path} {more}: {response.status_code} {response.text[:300]}"
            assert response.status_code < 500, told
            assert str(response.status_code) in operation["responses"], told
            if response.status_code >= 400:
                assert response.headers["content-type"] == MEDIA_TYPE, told
                assert response.json()["code"] in PROBLEMS, told
            elif template.endswith("/import"):
                ImportOut.model_validate_json(response.content)
            seen.add(response.status_code)
    assert {200, 404, 422} <= seen


async def test_every_role_on_every_route(api: Api, monkeypatch: pytest.MonkeyPatch):  # noqa: F811
    """The table of `zapd.admin.roles`, route by route: each asks it for something, and whoever has that is let
    through to the thing itself, all others get 403. The contract's table says the same."""
    asked: set[Operation] = set()
    require = Actor.require

    def heard(actor: Actor, operation: Operation) -> None:
        asked.add(operation)
        require(actor, operation)

    monkeypatch.setattr(Actor, "require", heard)
    document = (await api.http.get("/openapi.json")).json()
    reached: set[Operation] = set()
    for verb, template, operation in _operations(document):
        path = re.sub(r"\{[^}]+\}", "A" * 43, template)
        rows: dict[Role, set[Operation]] = {}
        answers = {}
        for role in Role:
            asked.clear()
            if template in ENDLESS and Operation.READ_AUDIT in ROLES[role]:
                rows[role] = {Operation.READ_AUDIT}
                continue
            more = _good_request(template, operation, document)
            answers[role] = await api(verb, path, by=role.value, **more)
            rows[role] = set(asked)
        needed = set().union(*rows.values())
        assert needed, f"{verb} {template} asks the table of roles for nothing"
        reached |= needed
        least = ROLES_BY_STRENGTH.index(Role(_least_role(verb, template)))
        for number, role in enumerate(ROLES_BY_STRENGTH):
            may = needed <= ROLES[role]
            assert may == (number >= least), f"{role} {verb} {template}: {needed}"
            if role not in answers:
                continue
            told = f"{role} {verb} {path}: {answers[role].status_code} {answers[role].text[:200]}"
            assert rows[role], told
            assert (answers[role].status_code == 403) != may, told
    assert reached == set(Operation), "nothing reaches these"


async def test_the_examples_are_true(api: Api):  # noqa: F811
    """Each example of the document is taken as it stands, in the order in which one would try them."""
    document = (await api.http.get("/openapi.json")).json()
    shapes = document["components"]["schemas"]

    def example(name: str) -> Any:
        (found,) = shapes[name]["examples"]
        return found

    api.admin.domains[:] = ["orders"]
    for path in ("/v1/keys/import", "/v1/users/import"):
        text = document["paths"][path]["post"]["requestBody"]["content"]["text/csv"]["example"]
        head = {"Content-Type": "text/csv"}
        dry = await api("POST", path, content=text, headers=head, params={"dry_run": True})
        assert dry.status_code == 200, dry.text
        assert [item["action"] for item in dry.json()["items"]] == ["add"], dry.text
    key = await api("POST", "/v1/keys", json=example("KeyIn"))
    assert key.status_code == 201, key.text
    rotated = await api("POST", f"/v1/keys/{key.json()['id']}/rotate", json=example("RotateIn"))
    assert rotated.status_code == 201, rotated.text
    held = example("KeyIn") | {"public_key": encode_key(generate_keypair()[0]), "state": "pending"}
    held_id = (await api("POST", "/v1/keys", json=held)).json()["id"]
    approved = await api("POST", f"/v1/keys/{held_id}/approve", json=example("ApproveIn"))
    assert approved.status_code == 200, approved.text
    user = await api("POST", "/v1/users", json=example("UserIn"))
    assert user.status_code == 201, user.text
    join = await api("POST", "/v1/joins", json=example("JoinIn"))
    assert join.status_code == 201, join.text
    banned = await api("POST", "/v1/bans", json=example("BanIn"))
    assert banned.status_code == 201, banned.text
    for name in ("AgentIn", "AgentRotateIn"):
        assert set(example(name)) <= set(shapes[name]["properties"])
    verified = await api("POST", "/v1/audit/verify")
    assert verified.json().keys() == VerifyOut.model_validate(example("VerifyOut")).model_dump().keys()
    used = {name for name, shape in shapes.items() if "examples" in shape}
    assert used <= {
        "KeyIn",
        "RotateIn",
        "UserIn",
        "AgentIn",
        "AgentRotateIn",
        "BanIn",
        "VerifyOut",
        "JoinIn",
        "ApproveIn",
    }, "try the new one here too"


def test_every_code_is_documented():
    """docs/api.md names each code with its status."""
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text()
    rows = dict(re.findall(r"^\| (.*?) \| (\d{3}) \|$", page, re.MULTILINE))
    told = {code: int(status) for codes, status in rows.items() for code in re.findall(r"`(\w+)`", codes)}
    assert told == {code: status for code, (status, _title) in PROBLEMS.items()}
