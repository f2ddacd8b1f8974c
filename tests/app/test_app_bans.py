"""Bans in the running program: in force when the API has answered, in every process, on every road."""

# ruff: noqa: F811 - fixtures come in by import
from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.app_scene import ALICE, CONFIGURATION, STRANGER, Asking, wait_for, z85
from support.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures
from support.serving import Zapd, serving
from support.workers_scene import WORKERS

from zapd.zmtp.keys import fingerprint


def ban(zapd: Zapd, **body: object) -> str:
    """Ban; the id."""
    return str(zapd.ask("POST", "/v1/bans", body)["id"])


def unban(zapd: Zapd, ban_id: str) -> None:
    assert zapd.call("DELETE", f"/v1/bans/{ban_id}").status_code == 204


def ends_in(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + seconds))


@pytest.fixture
def zapd(tmp_path: Path) -> Iterator[Zapd]:
    """Running; Alice's key and Bob's password are registered."""
    with serving(tmp_path, configuration=CONFIGURATION) as made:
        made.add_key(z85(ALICE), "alice", domains=["orders"])
        made.ask("POST", "/v1/users", {"name": "bob", "password": "correct horse", "domains": ["orders"]})
        yield made


@pytest.mark.parametrize(
    "body",
    [
        {"user": "Alice"},
        {"key": fingerprint(ALICE)},
        {"address": "127.0.0.0/8"},
        {"user": "alice", "domains": ["ord*"]},
    ],
)
def test_a_key_that_takes_the_express_road_is_stopped_by_a_ban(zapd: Zapd, body: dict[str, Any]) -> None:
    """Asked about often enough to be known by heart: refused at once for good, for now, and let in again."""
    with Asking(zapd) as asking:
        assert [asking.ask(ALICE) for _ in range(5)] == [200] * 5
        name = ban(zapd, **body)
        assert [asking.ask(ALICE) for _ in range(5)] == [400] * 5
        unban(zapd, name)
        assert [asking.ask(ALICE) for _ in range(5)] == [200] * 5
        name = ban(zapd, **body, expires=ends_in(3600))
        assert [asking.ask(ALICE) for _ in range(5)] == [300] * 5
        unban(zapd, name)
        assert asking.ask(ALICE) == 200


def test_a_remembered_password_is_stopped_by_a_ban(zapd: Zapd) -> None:
    """The yes of a moment ago is forgotten; other domains and other people feel nothing."""
    with Asking(zapd) as asking:
        assert [asking.plain("bob", "correct horse") for _ in range(3)] == [200] * 3
        elsewhere = ban(zapd, user="bob", domains=["lab"])
        assert asking.plain("bob", "correct horse") == 200
        name = ban(zapd, user="bob", reason="left")
        assert [asking.plain("bob", "correct horse") for _ in range(3)] == [400] * 3
        assert asking.ask(ALICE) == 200
        unban(zapd, name)
        assert asking.plain("bob", "correct horse") == 200
        unban(zapd, elsewhere)


def test_null_is_stopped_by_a_ban_of_its_address(zapd: Zapd) -> None:
    """Where nobody is asked at all."""
    with Asking(zapd) as asking:
        assert asking.ask(domain="lab", mechanism="NULL") == 200
        name = ban(zapd, address="::ffff:127.0.0.1")
        assert asking.ask(domain="lab", mechanism="NULL") == 400
        unban(zapd, name)
        assert asking.ask(domain="lab", mechanism="NULL") == 200


def test_a_ban_ends_by_itself(zapd: Zapd) -> None:
    """Without a change and without a question: the express road is open again."""
    ban(zapd, user="alice", expires=ends_in(3))
    with Asking(zapd) as asking:
        assert asking.ask(ALICE) == 300
        assert wait_for(lambda: asking.ask(ALICE) == 200)
        assert zapd.ask("GET", "/v1/bans")["items"][0]["state"] == "over"


def test_bans_are_on_record_explained_and_counted(zapd: Zapd) -> None:
    """Who banned whom and why; each 400 by itself; a step of the explanation; a gauge."""
    name = ban(zapd, key=fingerprint(STRANGER), reason="seen in the wild")
    with Asking(zapd) as asking:
        assert asking.ask(STRANGER) == 400
    question = {"domain": "orders", "mechanism": "CURVE", "key": z85(STRANGER).decode(), "address": "127.0.0.1"}
    last = zapd.ask("POST", "/v1/explain", question)["steps"][-1]
    assert (last["step"], last["verdict"]) == ("ban", "banned_key") and name in last["text"]
    assert 'zapd_bans{name="key"} 1.0' in zapd.call("GET", "/metrics").text
    unban(zapd, name)
    records = [json.loads(line) for line in zapd.journal().splitlines()]
    made = next(each for each in records if each["event"] == "ban.add")
    assert (made["subject"], made["key"], made["reason"]) == (name, fingerprint(STRANGER), "seen in the wild")
    assert [each["reason"] for each in records if each["event"] == "auth.reject"] == ["banned_key"]
    assert next(each for each in records if each["event"] == "ban.remove")["before"]["kind"] == "key"
    assert zapd.run("audit", "verify").returncode == 0


def test_a_ban_is_there_after_a_restart(zapd: Zapd) -> None:
    """It is kept in the database, and read before anybody is answered."""
    ban(zapd, user="alice")
    zapd.stop()
    zapd.start()
    with Asking(zapd) as asking:
        assert asking.ask(ALICE) == 400


def test_a_ban_holds_in_every_worker_when_the_api_has_answered(tmp_path: Path) -> None:
    """Two workers, four connections each way."""
    with serving(tmp_path, configuration=WORKERS) as zapd:
        zapd.add_key(z85(ALICE), "alice", domains=["*"])
        with ExitStack() as stack:
            askers = [stack.enter_context(Asking(zapd)) for _ in range(4)]
            for _ in range(3):
                assert [asker.ask(ALICE) for asker in askers] == [200] * 4
            name = ban(zapd, user="alice")
            assert [asker.ask(ALICE) for asker in askers] == [400] * 4
            unban(zapd, name)
            assert [asker.ask(ALICE) for asker in askers] == [200] * 4


def test_a_ban_reaches_another_zapd_within_a_second(tmp_path: Path, postgres_url: str) -> None:
    """Two zapds on one PostgreSQL: in force at once in the one that made it, soon in the other."""
    database = '[database]\nurl = "file:data/database.url"\n'
    with ExitStack() as stack:
        one, other = (
            stack.enter_context(
                serving(tmp_path / name, configuration=database + CONFIGURATION, database=postgres_url)
            )
            for name in ("one", "other")
        )
        one.add_key(z85(ALICE), "alice", domains=["orders"])
        here, there = stack.enter_context(Asking(one)), stack.enter_context(Asking(other))
        assert wait_for(lambda: there.ask(ALICE) == 200)
        name = ban(one, user="alice")
        banned_at = time.monotonic()
        assert here.ask(ALICE) == 400
        assert wait_for(lambda: there.ask(ALICE) == 400)
        assert time.monotonic() - banned_at < 10.0
        unban(one, name)
        assert here.ask(ALICE) == 200
        assert wait_for(lambda: there.ask(ALICE) == 200)
