"""The running program on a real PostgreSQL: beside others, without it for a while, and before it is there."""

# ruff: noqa: F811 - fixtures come in by import
from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from psycopg import sql
from sqlalchemy import make_url
from support.app_scene import ALICE, BOB, CONFIGURATION, STRANGER, Asking, parts, ready, wait_for, z85
from support.postgres import PostgresServer, postgres_server, postgres_url  # noqa: F401 - fixtures
from support.serving import Zapd

from zapd.admin.roles import OFFLINE
from zapd.admin.services.changes import ChangeRoad
from zapd.admin.services.keys import KeyService, NewKey
from zapd.store.engine import open_engine

SHORT = '[database]\nurl = "file:data/database.url"\nmax_staleness = "2s"\n'
LONG = '[database]\nurl = "file:data/database.url"\n'


@pytest.fixture
def zapd(tmp_path: Path, postgres_url: str) -> Iterator[Zapd]:
    """Not started yet."""
    made = Zapd(tmp_path, configuration=SHORT + CONFIGURATION, database=postgres_url)
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def away(server: PostgresServer, url: str) -> Iterator[None]:
    """The database takes nobody in, and has sent everybody away."""
    name = str(make_url(url).database)
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    with server.connect() as connection:
        connection.execute(allow.format(sql.Identifier(name), sql.SQL("false")))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
    try:
        yield
    finally:
        with server.connect() as connection:
            connection.execute(allow.format(sql.Identifier(name), sql.SQL("true")))


def test_changes_by_this_process_and_by_others_are_in_force_at_once(
    zapd: Zapd,
    postgres_url: str,
) -> None:
    """Keys through the API, a token by a second program, a key by another process: all of them count."""
    zapd.start()
    with Asking(zapd) as asking:
        assert asking.ask(ALICE) == 400
        name = zapd.add_key(z85(ALICE), "alice", domains=["orders"])
        assert asking.whole(ALICE) == (200, "alice")
        zapd.ask("POST", f"/v1/keys/{name}/revoke", {"reason": "left"})
        assert asking.ask(ALICE) == 400

        made = zapd.run("token", "create", "--offline", "--role", "viewer", "--json")
        assert made.returncode == 0, made.stderr
        token = made.stdout.split('"token":')[1].split('"')[1]
        assert zapd.call("GET", "/v1/keys", token=token).status_code == 200

        engine = open_engine(postgres_url, zapd.folder)
        keys = KeyService(ChangeRoad(engine), domains=lambda: ["orders"], server_keys=list)

        async def beside() -> None:
            await keys.add(OFFLINE, NewKey(BOB, "bob", ["orders"]))

        asyncio.run(beside())
        assert wait_for(lambda: asking.ask(BOB) == 200)
        engine.dispose()
        assert wait_for(lambda: zapd.journal().count('"event":"key.add"') == 2), "theirs is journalled by us, soon"


def test_memory_answers_while_the_database_is_away_and_then_nothing_does(
    zapd: Zapd,
    postgres_server: PostgresServer,
    postgres_url: str,
) -> None:
    """Within max_staleness yes as ever and no for now; after it 300 for everybody, not ready; healed by itself."""
    zapd.start()
    zapd.add_key(z85(ALICE), "alice", domains=["orders"])
    with Asking(zapd) as asking:
        assert asking.ask(ALICE) == 200
        with away(postgres_server, postgres_url):
            assert asking.ask(ALICE) == 200
            assert asking.ask(STRANGER) == 300, "another zapd may have registered it"
            assert wait_for(lambda: asking.ask(ALICE) == 300)
            assert asking.ask(STRANGER) == 300
            assert not ready(zapd)
            assert parts(zapd)["registry"] != "ok"
            refused = zapd.call("POST", "/v1/keys", {"public_key": z85(BOB).decode(), "user": "bob"})
            assert refused.status_code == 503, refused.text
        assert wait_for(lambda: asking.ask(ALICE) == 200)
        assert wait_for(lambda: ready(zapd))
        assert asking.ask(STRANGER) == 400


def test_a_registry_that_cannot_be_read_back_is_said_truly(
    zapd: Zapd,
    postgres_server: PostgresServer,
    postgres_url: str,
) -> None:
    """The table of keys goes away with a change's own commit: whoever made it hears that it is made and not yet in
    force, and finds it on record; it is in force once the table is back, by itself. A revocation is told alike."""
    zapd.start()
    name = str(make_url(postgres_url).database)
    with postgres_server.connect(name) as connection, Asking(zapd) as asking:
        connection.execute(
            "CREATE FUNCTION lose_keys() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN ALTER TABLE keys RENAME TO lost_keys; RETURN NULL; END $$"
        )
        connection.execute(
            "CREATE CONSTRAINT TRIGGER lose_keys AFTER INSERT ON change_log DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION lose_keys()"
        )

        def loses(verb: str, path: str, body: dict[str, object]) -> None:
            answer = zapd.call(verb, path, body)
            assert answer.status_code == 503, answer.text
            assert "is made, but not yet in force everywhere" in answer.json()["detail"], answer.text

        loses("POST", "/v1/keys", {"public_key": z85(ALICE).decode(), "user": "alice", "domains": ["orders"]})
        assert '"event":"key.add"' in zapd.journal()
        connection.execute("ALTER TABLE lost_keys RENAME TO keys")
        assert wait_for(lambda: asking.ask(ALICE) == 200)
        [key] = zapd.ask("GET", "/v1/keys")["items"]
        loses("POST", f"/v1/keys/{key['id']}/revoke", {"reason": "lost"})
        assert '"event":"key.revoke"' in zapd.journal()
        connection.execute("ALTER TABLE lost_keys RENAME TO keys")
        assert wait_for(lambda: asking.ask(ALICE) == 400)


def test_a_database_that_hangs_holds_up_no_answer_and_no_stop(
    zapd: Zapd,
    postgres_server: PostgresServer,
) -> None:
    """PostgreSQL hangs: answers go on, then turn to 300, and SIGTERM still ends the service with 0."""
    zapd.start()
    zapd.add_key(z85(ALICE), "alice", domains=["orders"])
    with Asking(zapd) as asking:
        assert asking.ask(ALICE) == 200
        postgres_server.pause()
        try:
            assert asking.ask(ALICE) == 200
            assert wait_for(lambda: asking.ask(ALICE) == 300)
            assert not ready(zapd)
            postgres_server.resume()
            assert wait_for(lambda: asking.ask(ALICE) == 200, 30)
            postgres_server.pause()
            assert zapd.stop() == 0
        finally:
            postgres_server.resume()


def test_a_database_that_is_away_at_start_is_waited_for(
    zapd: Zapd,
    postgres_server: PostgresServer,
    postgres_url: str,
) -> None:
    """zapd starts, answers 300, says that the registry is missing, and is ready when the database comes."""
    with away(postgres_server, postgres_url):
        zapd.start()
        with Asking(zapd) as asking:
            assert asking.ask(ALICE) == 300
            assert asking.ask(domain="lab", mechanism="NULL") == 300
        assert not ready(zapd)
        assert parts(zapd)["registry"] != "ok"
    assert wait_for(lambda: ready(zapd))
    zapd.add_key(z85(ALICE), "alice", domains=["orders"])
    with Asking(zapd) as asking:
        assert asking.ask(ALICE) == 200


def test_a_change_log_that_went_back_is_not_believed(
    zapd: Zapd,
    postgres_url: str,
) -> None:
    """An older database in the place of ours: memory may say more than it, so 300 after max_staleness."""
    zapd.start()
    zapd.add_key(z85(ALICE), "alice", domains=["orders"])
    engine = open_engine(postgres_url, zapd.folder)
    with engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM change_log")
    engine.dispose()
    with Asking(zapd) as asking:
        assert wait_for(lambda: asking.ask(ALICE) == 300)
    assert "an older database was put in place" in zapd.logged()
