"""zapd audit replay: what a new configuration would have made of the past."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog
from support.cli_server import run

from zapd.audit.event import AuditEvent
from zapd.audit.export import export
from zapd.audit.journal import Journal

OLD = """
[backend.keys]
type = "sql"
[backend.staff]
type = "passwd"
path = "staff"
[domain.orders]
mechanisms = ["CURVE", "PLAIN"]
backends = ["keys", "staff"]
[domain.lab]
mechanisms = ["NULL"]
allow = ["127.0.0.0/8"]
null_user = "lab"
"""


def event(status: int, reason: str, **members: object) -> AuditEvent:
    tag = {200: "auth.accept", 300: "auth.defer", 400: "auth.reject"}[status]
    return AuditEvent(
        tag,
        **({"domain": "orders", "mechanism": "CURVE", "agent": "edge"} | members),
        status=status,
        reason=reason,
    )  # type: ignore[arg-type]


@pytest.fixture
async def folder(tmp_path: Path) -> Path:
    """A configuration, and a journal of what happened under it."""
    (tmp_path / "zapd.toml").write_text(OLD)
    (tmp_path / "staff").touch(mode=0o600)
    (tmp_path / "data").mkdir()
    journal = await Journal.open(tmp_path / "data" / "audit")
    said, unknown = (("keys", "accept", 0.1),), (("keys", "unknown", 0.1),)
    for number in range(4):
        journal.append(event(200, "granted", principal=f"dev-{number}", address=f"10.0.0.{number}", trail=said))
    journal.append(event(400, "unknown_key", key="x\x1b[31m", address="10.0.0.9", trail=unknown))
    journal.append(
        event(
            200,
            "granted",
            mechanism="PLAIN",
            username="bob",
            principal="bob",
            address="10.0.0.8",
            trail=(("keys", "unknown", 0.1), ("staff", "accept", 30.0)),
        )
    )
    journal.append(event(200, "granted", domain="lab", mechanism="NULL", principal="lab", address="127.0.0.1"))
    journal.append(event(400, "unknown_domain", domain="shop", address="10.0.0.1"))
    journal.append(AuditEvent("auth.summary", domain="orders", count=17, status=300))
    journal.append(AuditEvent("key.add", actor="root"))
    await journal.close()
    return tmp_path


def test_what_would_be_otherwise_is_told_in_groups(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each group has its domain, what was and would be answered, why, how often, and examples; what cannot be
    known is told apart."""
    monkeypatch.chdir(folder)
    new = folder / "new.toml"
    orders = '[domain.orders]\ndeny = ["10.0.0.2/31"]\nunknown_keys = "pending"'
    shop = '[domain.shop]\nmechanisms = ["CURVE"]\nbackends = ["keys"]'
    new.write_text(
        OLD.replace('null_user = "lab"', 'null_user = "guest"')
        .replace("[domain.orders]", f"{shop}\n{orders}")
        .replace('path = "staff"', 'path = "other"')
    )
    told = json.loads(run("audit", "replay", "-c", str(new), "--json").stdout)
    assert (told["questions"], told["same"], told["otherwise"], told["undecidable"]) == (8, 2, 4, 2)
    assert (told["only_counted"], told["backends_changed"]) == (17, ["staff"])
    groups = {(each["domain"], each["then"], each["now"], each["why"]): each for each in told["groups"]}
    assert {place: each["count"] for place, each in groups.items()} == {
        ("lab", 200, 200, "granted as 'guest'"): 1,
        ("orders", 200, 400, "address_denied"): 2,
        ("orders", 400, 300, "pending_approval"): 1,
        ("orders", 200, None, "backend staff is set up otherwise now"): 1,
        ("shop", 400, None, "no backend was asked then"): 1,
    }
    examples = groups["orders", 200, 400, "address_denied"]["examples"]
    assert [each["who"] for each in examples] == ["dev-2", "dev-3"]
    printed = run("audit", "replay", "-c", str(new), "--examples", "1").stdout
    assert "address_denied" in printed
    assert "8 questions: 2 the same, 4 otherwise, 2 not to be known. 17 more" in printed
    assert "\x1b" not in printed


def test_the_same_configuration_decides_the_same(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is otherwise under the configuration in force, whichever part of the past is taken; an export will
    do as well as the journal; and a journal that is not there is said so."""
    monkeypatch.chdir(folder)
    told = json.loads(run("audit", "replay", "--json").stdout)
    assert (told["questions"], told["otherwise"]) == (8, 0)
    assert {each["why"] for each in told["groups"]} <= {"no backend was asked then"}
    assert json.loads(run("audit", "replay", "--domain", "lab", "--json").stdout)["questions"] == 1
    assert json.loads(run("audit", "replay", "--since", "2100-01-01", "--json").stdout)["questions"] == 0
    path = folder / "export.jsonl"
    path.write_bytes(b"".join(export(folder / "data" / "audit")))
    assert json.loads(run("audit", "replay", str(path), "--json").stdout) == told
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "zapd.toml").write_text(OLD)
    assert "no journal" in run("audit", "replay", "-c", str(elsewhere / "zapd.toml"), code=1).stderr
    said = run("audit", "replay", str(path), "-c", str(elsewhere / "zapd.toml")).stderr
    assert "--against" in said


def test_a_replay_silences_nobody_afterwards(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Backends are built without a word, and what the program logs is as it was."""
    monkeypatch.chdir(folder)
    before = structlog.get_config()
    run("audit", "replay", config=folder / "zapd.toml")
    assert structlog.get_config() == before
