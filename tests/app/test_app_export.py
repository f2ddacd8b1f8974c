"""Exporting and verifying the record of a running zapd, as its callers do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.app_scene import ALICE, CONFIGURATION, STRANGER, Asking, z85
from support.serving import Zapd
from support.serving import serving as serve


@pytest.fixture(scope="module")
def zapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zapd]:
    """With two grants and two refusals in one domain, and a grant in another."""
    with serve(tmp_path_factory.mktemp("export"), configuration=CONFIGURATION) as running:
        running.add_key(z85(ALICE), "alice", domains=["orders"])
        with Asking(running) as asking:
            for key in (ALICE, STRANGER) * 2:
                asking.ask(key)
            assert asking.ask(mechanism="NULL", domain="lab") == 200
        yield running


def token(zapd: Zapd, name: str, **more: object) -> str:
    return str(zapd.ask("POST", "/v1/tokens", {"name": name, "role": "viewer", **more})["token"])


def test_an_export_is_the_journal_and_verifies_anywhere(zapd: Zapd, tmp_path: Path) -> None:
    """``zapd audit export`` writes the journal's own lines; `verify` finds them whole, and a change in them."""
    path = tmp_path / "all.jsonl"
    done = zapd.run("audit", "export", "-o", str(path))
    assert done.returncode == 0, done.stderr
    lines = path.read_text().splitlines(keepends=True)
    assert "".join(lines[1:]) in zapd.journal()
    assert path.stat().st_mode & 0o777 == 0o600
    verified = json.loads(zapd.run("audit", "verify", str(path), "--json").stdout)
    assert (verified["good"], verified["records"]) == (True, len(lines) - 1)
    path.write_text("".join(lines).replace('"status":400', '"status":200', 1))
    assert zapd.run("audit", "verify", str(path)).returncode == 1
    again = zapd.run("audit", "export", "-o", str(path))
    assert (again.returncode, "not overwritten" in again.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == [path]


def test_selections_and_tables(zapd: Zapd, tmp_path: Path) -> None:
    """Filters choose; a table has a line for each record; standard output will do."""
    some = zapd.run("audit", "export", "-o", "-", "--status", "400")
    kinds = [json.loads(line) for line in some.stdout.splitlines()]
    assert kinds[0]["kind"] == "selection"
    assert [each["status"] for each in kinds[1:]] == [400, 400]
    table = tmp_path / "orders.csv"
    done = zapd.run("audit", "export", "-o", str(table), "--format", "csv", "--domain", "orders", "--json")
    assert json.loads(done.stdout) == {"file": str(table), "octets": table.stat().st_size}
    assert len(table.read_text().splitlines()) == 1 + 4
    refused = zapd.run("audit", "verify", str(table))
    assert (refused.returncode, "selection" in refused.stderr) == (1, True)


def test_a_limited_token_exports_its_domains_alone(zapd: Zapd) -> None:
    """Whatever it asks for, and never as a range that would verify."""
    limited = token(zapd, "lab", domains=["lab"])
    answer = zapd.call("GET", "/v1/audit/export", token=limited)
    assert answer.status_code == 200
    first, *others = [json.loads(line) for line in answer.text.splitlines()]
    assert (first["kind"], first["sought"]["domains"]) == ("selection", ["lab"])
    assert {record["domain"] for record in others} == {"lab"}
    table = zapd.call("GET", "/v1/audit/export?format=csv&domain=orders", token=limited)
    assert len(table.text.splitlines()) == 1
    assert table.headers["content-disposition"] == 'attachment; filename="zapd-audit.csv"'
    for wrong in ("format=xml", "instance=../../etc", "since=yesterday", "key=x"):
        assert zapd.call("GET", f"/v1/audit/export?{wrong}").status_code == 422


def test_verifying_over_the_api_says_what_the_command_says(zapd: Zapd) -> None:
    """The same report; for operators of every domain; and what somebody changed in the files is found."""
    said = zapd.ask("POST", "/v1/audit/verify")
    told = json.loads(zapd.run("audit", "verify", "--json").stdout)
    assert said["good"] is True
    assert said.keys() == told.keys()
    assert said["instances"][0].keys() == told["instances"][0].keys()
    assert said["blind"][0] == told["blind"][0]
    everywhere = {"role": "operator"}
    for limits, status in (({}, 403), (everywhere, 200), (everywhere | {"domains": ["lab"]}, 403)):
        made = token(zapd, f"t{status}{len(limits)}", **limits)
        assert zapd.call("POST", "/v1/audit/verify", token=made).status_code == status
    path = next(zapd.folder.glob("data/audit/*/00000001.jsonl"))
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"status":400', b'"status":200', 1))
    found = zapd.ask("POST", "/v1/audit/verify")
    path.write_bytes(whole)
    assert (found["good"], found["problems"][0]["kind"]) == (False, "altered")
