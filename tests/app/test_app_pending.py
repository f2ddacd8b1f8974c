"""Approve, and it connects: the running program, a libzmq CURVE server guarded by the agent, and its clients."""

# ruff: noqa: F811 - fixtures come in by import
from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.agent_app import App
from support.agent_central import new_pair
from support.app_scene import ALICE, BOB, CONFIGURATION, Asking, wait_for, z85
from support.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures
from support.serving import Zapd
from support.workers_scene import WORKERS, metrics

from zapd.agent.keyfile import read_keys
from zapd.zmtp.keys import encode_key, fingerprint, generate_keypair

HELD = """
[[zap]]
listen = "tcp://127.0.0.1:0"
mechanism = "CURVE"
[domain.fleet]
mechanisms = ["CURVE"]
backends = ["keys"]
unknown_keys = "pending"
"""


def started(folder: Path, configuration: str, database: str | None = None) -> Zapd:
    if database is not None:
        configuration = '[database]\nurl = "file:data/database.url"\n' + configuration
    made = Zapd(folder, configuration=configuration, database=database)
    made.start()
    return made


@pytest.fixture(params=["alone", "workers", "postgresql"])
def zapd(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Zapd]:
    """Running, alone, with two workers, or on PostgreSQL; unknown keys wait in the domain fleet."""
    database = request.getfixturevalue("postgres_url") if request.param == "postgresql" else None
    base = WORKERS if request.param == "workers" else CONFIGURATION
    made = started(tmp_path, base + HELD, database)
    try:
        yield made
    finally:
        made.stop()


def pending(zapd: Zapd, query: str = "") -> list[dict[str, Any]]:
    items = zapd.ask("GET", f"/v1/keys?state=pending{query}")["items"]
    assert isinstance(items, list)
    return items


def typed(zapd: Zapd, *words: str) -> Any:
    done = zapd.run("key", *words, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_client_that_waits_is_approved_and_gets_in_by_itself(zapd: Zapd) -> None:
    """Two real clients knock and hear 300: both are listed; the one that is approved on the command line gets in
    at its next try with nobody touching it, the one that is rejected stays out, and the record has it all."""
    keys = read_keys(zapd.enroll("edge", domains=["fleet"]))
    endpoints = [each for each in keys.endpoints if each.server_keys]
    with App(endpoints, keys=keys, domain="fleet", deadline=0.5, handshake=0.8) as app:
        good, bad = new_pair(), new_pair()
        names = {each: fingerprint(each.public) for each in (good, bad)}
        app.visitor(pair=good, says=b"good")
        app.visitor(pair=bad, says=b"bad")
        assert wait_for(lambda: len(pending(zapd)) == 2), pending(zapd)
        assert wait_for(lambda: all(each["sightings"][0]["tries"] > 1 for each in pending(zapd)))
        assert app.next_in(0.1) is None

        rows = {each["fingerprint"]: each for each in typed(zapd, "list", "--state", "pending")}
        assert set(rows) == set(names.values())
        seen = rows[names[good]]["sightings"][0]
        assert (seen["domain"], seen["address"], seen["agent"]) == ("fleet", "127.0.0.1", "edge")
        assert rows[names[good]]["public_key"] == encode_key(good.public)
        table = zapd.run("key", "list", "--state", "pending", "--agent", "edge", "--address", "127.0.0.0/8").stdout
        assert "127.0.0.1" in table

        rejected = typed(zapd, "reject", names[bad], "--reason", "not ours", "--yes")
        assert (rejected["state"], rejected["reason"]) == ("revoked", "not ours")
        approved = typed(zapd, "approve", names[good], "--user", "robot", "--group", "arms", "--expires", "90d")
        assert (approved["state"], approved["user"], approved["domains"]) == ("active", "robot", ["fleet"])
        assert app.next_in(20) == b"good"
        assert app.next_in(1.0) is None
        assert pending(zapd) == []
        again = zapd.run("key", "approve", names[good], "--user", "mallory")
        assert again.returncode == 1
        assert "registered already, for 'robot'" in again.stderr
    journal = zapd.journal()
    for said in ('"reason":"pending_approval"', '"event":"key.add"', '"reason":"not ours"', '"status":200'):
        assert said in journal
    assert zapd.run("audit", "verify").returncode == 0


def test_who_is_known_never_waits(zapd: Zapd) -> None:
    """A revoked key, one of another domain, one that is not valid yet, an agent's, and an unknown key in a domain
    that refuses them: each hears what it always heard, and only a stranger in the right domain is listed."""
    revoked, elsewhere, later, stranger = (generate_keypair()[0] for _ in range(4))
    name = zapd.add_key(z85(revoked), "eve", domains=["fleet"])
    zapd.ask("POST", f"/v1/keys/{name}/revoke", {"reason": "lost"})
    zapd.add_key(z85(elsewhere), "bob", domains=["orders"])
    zapd.add_key(z85(later), "carol", domains=["fleet"], not_before="2199-01-01T00:00:00Z")
    agent = read_keys(zapd.enroll("edge", domains=["orders"])).public_key
    with Asking(zapd) as asking:
        heard = [asking.ask(key, domain="fleet") for key in (revoked, elsewhere, later, agent, stranger)]
        assert heard == [400, 400, 300, 300, 300]
        assert asking.ask(ALICE, domain="orders") == 400
        assert wait_for(lambda: pending(zapd))
        time.sleep(1.5)
        assert [each["fingerprint"] for each in pending(zapd)] == [fingerprint(stranger)]
        whole = {"user": "x", "public_key": z85(agent).decode(), "domains": ["fleet"]}
        mark = fingerprint(agent).removeprefix("SHA256:").replace("+", "-").replace("/", "_")
        refused = zapd.call("POST", f"/v1/keys/{mark}/approve", whole)
        assert (refused.status_code, "agent" in refused.json()["detail"]) == (422, True)


def test_a_flood_is_bounded_and_hides_nobody(zapd: Zapd) -> None:
    """2,000 keys from one address: 20 of them are listed, and the one from elsewhere; evictions and the length of
    the list are in the metrics; and the list outlives a restart."""
    with Asking(zapd) as asking:
        assert asking.ask(BOB, domain="fleet", address="198.51.100.7") == 300
        for number in range(20):
            for _ in range(100):
                asking.send(generate_keypair()[0], domain="fleet", address="192.0.2.66")
            assert [asking.receive()[1] for _ in range(100)] == [300] * 100, number
        assert wait_for(lambda: len(pending(zapd, "&limit=1000")) == 21)
        assert [each["fingerprint"] for each in pending(zapd, "&address=198.51.100.0/24")] == [fingerprint(BOB)]
        assert wait_for(lambda: metrics(zapd).get("zapd_pending_keys") == {"fleet": 21}, 40)
        assert metrics(zapd)["zapd_pending_evictions_total"]["source"] >= 1980
    zapd.stop()
    zapd.start()
    assert len(pending(zapd, "&limit=1000")) == 21


def test_two_on_one_database_share_the_list(tmp_path: Path, postgres_url: str) -> None:
    """What knocks at one is listed by the other, approved there, and let in here."""
    folders = [tmp_path / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    one = started(folders[0], CONFIGURATION + HELD, postgres_url)
    try:
        two = Zapd(folders[1], configuration='[database]\nurl = "file:data/database.url"\n' + CONFIGURATION + HELD)
        (folders[1] / "data" / "database.url").write_text(postgres_url)
        (folders[1] / "data" / "database.url").chmod(0o600)
        two.token = one.token
        two.start()
        try:
            with Asking(one) as asking:
                assert asking.ask(BOB, domain="fleet") == 300
                assert wait_for(lambda: pending(two))
                [found] = pending(two)
                two.ask("POST", f"/v1/keys/{found['id']}/approve", {"user": "bob"})
                assert wait_for(lambda: asking.whole(BOB, domain="fleet") == (200, "bob"))
                assert pending(one) == []
        finally:
            two.stop()
    finally:
        one.stop()
