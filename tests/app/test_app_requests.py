"""A request's id, from its answer to zapd's log and the record."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
from support.app_scene import ALICE, BOB, CONFIGURATION, STRANGER, z85
from support.serving import PATIENCE
from support.serving import serving as serve


def test_a_request_is_found_again_wherever_it_left_a_trace(tmp_path: Path) -> None:
    """The id that a caller gives stands in the answer, in the log's one line about a change, and in the change's
    record, imports included; what is no short word gets another id; problems have theirs; reading writes none."""
    with serve(tmp_path, configuration=CONFIGURATION) as zapd:

        def ask(verb: str, path: str, name: str, **more: object) -> httpx.Response:
            headers = {"Authorization": f"Bearer {zapd.token}", "X-Request-Id": name}
            return httpx.request(verb, zapd.admin + path, headers=headers, timeout=PATIENCE, **more)  # type: ignore[arg-type]

        body = {"public_key": z85(ALICE).decode(), "user": "alice", "domains": ["orders"]}
        added = ask("POST", "/v1/keys", "deploy-7", json=body)
        assert (added.status_code, added.headers["x-request-id"]) == (201, "deploy-7")
        again = ask("POST", "/v1/keys", "deploy-8", json=body)
        assert (again.status_code, again.json()["request"]) == (409, "deploy-8")
        forged = ask("GET", "/v1/keys", 'x"} {"forged": "')
        assert len(forged.headers["x-request-id"]) == 16
        rows = "".join(f"{z85(key).decode()},{name},orders\n" for key, name in ((BOB, "bob"), (STRANGER, "carol")))
        imported = httpx.post(
            zapd.admin + "/v1/keys/import",
            content="public_key,user,domains\n" + rows,
            headers={"Authorization": f"Bearer {zapd.token}", "X-Request-Id": "many", "Content-Type": "text/csv"},
            timeout=PATIENCE,
        )
        assert imported.status_code == 200, imported.text
        records = [json.loads(line) for line in zapd.journal().splitlines()]
        changes = [
            (each["event"], each["detail"]["request"]) for each in records if "request" in each.get("detail", {})
        ]
        assert changes == [("key.add", "deploy-7"), ("key.add", "many"), ("key.add", "many")]
        lines = [json.loads(line) for line in zapd.logged().splitlines()]
        told = [line for line in lines if line["logger"].endswith("numbering")]
        assert [(line["request"], line["event"].partition(" in ")[0]) for line in told] == [
            ("deploy-7", "POST /v1/keys: 201"),
            ("many", "POST /v1/keys/import: 200"),
        ]
