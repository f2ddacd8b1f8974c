"""Changes that a crash kept out of the journal, or somebody made beside the server: each is journalled once."""

# ruff: noqa: F811 - fixtures come in by import
from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from support.app_scene import ALICE, BOB, CONFIGURATION, wait_for, z85
from support.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures
from support.serving import Zapd

from zapd.audit.instance import list_instances
from zapd.store.engine import open_engine

POSTGRES = '[database]\nurl = "file:data/database.url"\n' + CONFIGURATION


@pytest.fixture
def zapd(tmp_path: Path) -> Iterator[Zapd]:
    """Running, with one key that was added through it."""
    made = Zapd(tmp_path, configuration=CONFIGURATION)
    made.start()
    try:
        made.add_key(z85(ALICE), "alice", domains=["orders"])
        yield made
    finally:
        made.stop()


def recorded(zapd: Zapd, event: str) -> list[int]:
    """The numbers of the changes of this kind in every journal there is."""
    lines = [json.loads(line) for line in zapd.journal().splitlines()]
    return [line["change"] for line in lines if line["event"] == event]


def forget(zapd: Zapd, url: str = "sqlite:///data/zapd.db", *, instance: str | None = None) -> None:
    """As if the process had died before it marked its changes as journalled."""
    engine = open_engine(url, zapd.folder)
    with engine.begin() as connection:
        connection.execute(text("UPDATE change_log SET journalled = false"))
        if instance is not None:
            connection.execute(text("UPDATE change_log SET instance = :instance"), {"instance": instance})
    engine.dispose()


def settled(zapd: Zapd, url: str = "sqlite:///data/zapd.db") -> bool:
    """Whether the change log says that every change is in a journal."""
    engine = open_engine(url, zapd.folder)
    with engine.connect() as connection:
        waiting = connection.execute(text("SELECT count(*) FROM change_log WHERE NOT journalled")).scalar()
    engine.dispose()
    return waiting == 0


def test_a_change_that_was_journalled_and_not_marked_before_a_kill_is_not_journalled_again(zapd: Zapd) -> None:
    """The journal itself knows the last changes before a crash."""
    zapd.stop(signal.SIGKILL)
    before = recorded(zapd, "key.add")
    forget(zapd)
    zapd.start()
    assert wait_for(lambda: settled(zapd))
    assert recorded(zapd, "key.add") == before
    assert len(before) == 1


def test_a_change_that_was_committed_and_not_journalled_before_a_kill_is_journalled_once(zapd: Zapd) -> None:
    """The journal's last records are cut off, as if the process had died before it wrote them."""
    zapd.stop(signal.SIGKILL)
    [segment] = zapd.folder.glob("data/audit/*/[0-9]*.jsonl")
    lines = segment.read_text().splitlines(keepends=True)
    end = next(number for number, line in enumerate(lines) if '"event":"key.add"' in line)
    segment.write_text("".join(lines[:end]))
    forget(zapd)
    zapd.start()
    assert wait_for(lambda: settled(zapd))
    assert len(recorded(zapd, "key.add")) == 1
    assert zapd.run("audit", "verify").returncode == 0


def test_an_offline_change_is_journalled_once_whether_the_server_runs_or_not(zapd: Zapd) -> None:
    """Beside a stopped server by the next start; beside a running one soon."""
    words = ("token", "create", "--offline", "--role", "viewer", "--name", "beside")
    assert zapd.run(*words).returncode == 0
    assert wait_for(lambda: zapd.journal().count('"actor":"offline"') == 2), "init's own token is the first"
    zapd.stop()
    assert zapd.run(*words).returncode == 0
    zapd.start()
    assert wait_for(lambda: settled(zapd))
    assert len(recorded(zapd, "token.create")) == 3
    assert len(set(recorded(zapd, "token.create"))) == 3


def test_what_waited_for_a_lost_journal_comes_to_the_next(zapd: Zapd) -> None:
    """The journal's folder is gone: a new instance begins, and the changes that only the database has go there."""
    zapd.stop(signal.SIGKILL)
    shutil.rmtree(zapd.folder / "data" / "audit")
    forget(zapd)
    zapd.start()
    assert wait_for(lambda: settled(zapd))
    assert len(recorded(zapd, "key.add")) == 1
    zapd.ask("POST", "/v1/keys", {"public_key": z85(BOB).decode(), "user": "bob", "domains": ["orders"]})
    assert len(recorded(zapd, "key.add")) == 2


def test_on_postgresql_another_machines_changes_are_left_to_it(
    tmp_path: Path,
    postgres_url: str,
) -> None:
    """What waits for a journal of this folder that was given up comes to the next; what waits for others stays."""
    zapd = Zapd(tmp_path, configuration=POSTGRES, database=postgres_url)
    with zapd:
        zapd.add_key(z85(ALICE), "alice", domains=["orders"])
    forget(zapd, postgres_url, instance="0123456789abcdef")
    with zapd:
        assert not wait_for(lambda: settled(zapd, postgres_url), 1.5)
    [old] = list_instances(tmp_path / "data" / "audit")
    (old / "closed").write_text("given up\n")
    for segment in old.glob("*.jsonl"):
        segment.unlink()
    forget(zapd, postgres_url, instance=old.name)
    with zapd:
        assert wait_for(lambda: settled(zapd, postgres_url))
        assert len(recorded(zapd, "key.add")) == 1
