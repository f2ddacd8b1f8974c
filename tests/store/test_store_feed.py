"""The change feed: each change told once, in order, from whichever process it came."""

import asyncio
import contextlib
import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine, text
from support.postgres import PostgresServer
from support.store_fixtures import *  # noqa: F403
from support.store_fixtures import MOMENT

from zapd.errors import Unavailable
from zapd.store.agents import AgentRecord, AgentRegistry, AgentState
from zapd.store.agents_index import AgentsIndex
from zapd.store.changes import ChangeLog
from zapd.store.engine import open_engine, writing
from zapd.store.feed import Change, ChangeFeed
from zapd.zmtp.keys import fingerprint


def _log(engine: Engine, *subjects: str, kind: str = "key") -> None:
    with writing(engine) as connection:
        for subject in subjects:
            ChangeLog().append(connection, kind=kind, subject=subject, time=MOMENT, event="{}")


async def test_changes_are_told_in_order_each_once(engine: Engine):
    """What was there before is not told; what comes after is, in order, in batches, once."""
    _log(engine, "old")
    feed, told = ChangeFeed(engine, batch=3), []
    feed.subscribe(lambda changes: told.append([change.subject for change in changes]))
    start = await feed.catch_up()
    assert told == []
    _log(engine, *"abcdefg")
    assert await feed.catch_up() == start + 7 == feed.position
    await feed.catch_up()
    assert told == [["a", "b", "c"], ["d", "e", "f"], ["g"]]


async def test_another_process_is_heard(database_url: str, own_engine: Engine, tmp_path: Path):
    """A commit through another engine reaches a polling feed by itself, and staleness stays small."""
    feed, heard = ChangeFeed(own_engine, poll=0.01), asyncio.Event()
    feed.subscribe(lambda _changes: heard.set())
    await feed.catch_up()
    task = asyncio.create_task(feed.run())
    other = open_engine(database_url, tmp_path)
    try:
        await asyncio.to_thread(_log, other, "x")
        await asyncio.wait_for(heard.wait(), 10)
        assert feed.staleness < 10
    finally:
        other.dispose()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_a_subscriber_that_fails_hears_again(engine: Engine):
    """Who could not take a batch gets it again, the others do not, and staleness shows it meanwhile."""
    now = [0.0]
    feed, told, broken = ChangeFeed(engine, clock=lambda: now[0]), [], [True]

    async def fails(changes):
        if broken[0]:
            raise Unavailable("not now")
        told.append(("late", changes[-1].subject))

    feed.subscribe(fails)
    feed.subscribe(lambda changes: told.append(("early", changes[-1].subject)))
    await feed.catch_up()
    _log(engine, "x")
    now[0] = 100.0
    for _ in range(2):
        with pytest.raises(Unavailable):
            await feed.catch_up()
    assert told == [("early", "x")]
    assert feed.staleness == 100.0
    broken[0] = False
    await feed.catch_up()
    assert told == [("early", "x"), ("late", "x")]
    assert feed.staleness == 0.0


async def test_who_left_is_not_told(engine: Engine):
    """After unsubscribing nothing comes any more, even of a batch that was refused before."""
    feed = ChangeFeed(engine)

    async def fails(_changes):
        raise Unavailable("never")

    feed.subscribe(fails)
    await feed.catch_up()
    _log(engine, "x")
    with pytest.raises(Unavailable):
        await feed.catch_up()
    feed.unsubscribe(fails)
    await feed.catch_up()


async def test_an_older_database_in_our_place_is_noticed(engine: Engine):
    """A log that no longer holds what was told is not followed: memory may know more than it says."""
    feed = ChangeFeed(engine)
    _log(engine, "a", "b")
    await feed.catch_up()
    with engine.begin() as connection:
        connection.execute(text("DELETE FROM change_log WHERE subject = 'b'"))
    with pytest.raises(Unavailable, match="older database"):
        await feed.catch_up()


async def test_a_database_that_is_away_is_followed_again(
    postgres_server: PostgresServer, postgres_url: str, tmp_path: Path
):
    """While PostgreSQL ends every connection the feed only grows stale; then it tells what it missed."""
    from zapd.store import schema

    engine = open_engine(postgres_url, tmp_path)
    schema.upgrade(engine)
    feed, told = ChangeFeed(engine, poll=0.01), asyncio.Event()
    feed.subscribe(lambda _changes: told.set())
    await feed.catch_up()
    name = postgres_url.rsplit("/", 1)[1]
    task = asyncio.create_task(feed.run())
    try:
        with postgres_server.connect() as admin:
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
            admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [name])
            await asyncio.sleep(0.3)
            assert feed.staleness > 0.05
            admin.execute(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        await asyncio.to_thread(_log, engine, "x")
        await asyncio.wait_for(told.wait(), 10)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        engine.dispose()


def test_a_change_is_a_value():
    """Two changes that say the same are equal."""
    assert Change(1, "key", "x") == Change(1, "key", "x")


async def test_agents_are_known_by_key_and_follow_the_registry(engine: Engine):
    """Enrolling, revoking and enrolling anew under the same name show in memory with the feed."""
    registry, first, second = AgentRegistry(), os.urandom(32), os.urandom(32)
    agent = AgentRecord(
        "edge", "f" * 43, first, AgentState.ACTIVE, ("a",), ("CURVE",), ("10.0.0.0/8",), "", MOMENT, MOMENT
    )
    feed = ChangeFeed(engine)
    index, changed = AgentsIndex(engine, feed), []
    index.on_change(changed.append)
    with pytest.raises(Unavailable):
        index.lookup(first)
    await index.start()
    assert index.ready
    assert index.lookup(first) is None
    with writing(engine) as connection:
        registry.add(connection, agent)
        ChangeLog().append(connection, kind="agent", subject="edge", time=MOMENT, event="{}")
    await feed.catch_up()
    asker = index.asker(first)
    assert asker is not None
    assert (asker.name, asker.domains, asker.mechanisms) == ("edge", ("a",), frozenset({"CURVE"}))
    known = index.lookup(first)
    assert known is not None
    assert known.allows_address("::ffff:10.1.2.3")
    assert not known.allows_address("192.0.2.1")
    assert not known.allows_address("localhost:0:0:1")
    with writing(engine) as connection:
        record = registry.get(connection, "edge")
        fields = {"state": AgentState.REVOKED, "reason": "stolen"}
        registry.save(connection, type(record)(**{**_fields(record), **fields}), MOMENT)
        ChangeLog().append(connection, kind="agent", subject="edge", time=MOMENT, event="{}")
    await feed.catch_up()
    revoked = index.lookup(first)
    assert revoked is not None
    assert (revoked.asker, revoked.reason) == (None, "stolen")
    with writing(engine) as connection:
        record = registry.get(connection, "edge")
        fields = {"state": AgentState.ACTIVE, "public_key": second, "fingerprint": "g" * 43}
        registry.save(connection, type(record)(**{**_fields(record), **fields}), MOMENT)
        ChangeLog().append(connection, kind="agent", subject="edge", time=MOMENT, event="{}")
    await feed.catch_up()
    assert index.lookup(first) is None
    assert index.asker(second) is not None
    assert changed == [["edge"]] * 3


def _fields(record: AgentRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in record.__slots__}


async def test_a_rotated_agent_has_two_keys_for_a_while(engine: Engine):
    """Both lead to the same asker until the overlap is over; then the old one is known as ended, also when the
    clock is set back, and whoever listens is told."""
    registry, first, second = AgentRegistry(), os.urandom(32), os.urandom(32)
    moment = [MOMENT.timestamp()]
    feed = ChangeFeed(engine)
    index, changed = AgentsIndex(engine, feed, clock=lambda: moment[0]), []
    index.on_change(changed.append)
    agent = AgentRecord("edge", "f" * 43, second, AgentState.ACTIVE, ("a",), ("CURVE",), (), "", MOMENT, MOMENT)
    until = MOMENT + timedelta(seconds=0.2)
    with writing(engine) as connection:
        registry.add(connection, replace(agent, previous_key=first, previous_until=until))
        assert registry.find_keys(connection, [first, second, bytes(32)]).keys() == {first, second}
    await index.start()
    assert index.asker(first) is index.asker(second) is not None
    marks = [fingerprint(key).encode() for key in (first, second)]
    assert [index.holds("edge", mark) for mark in marks] == [True, True]
    moment[0] += 1
    async with asyncio.timeout(10):
        while not changed:
            await asyncio.sleep(0.01)
    assert [index.holds("edge", mark) for mark in marks] == [False, True]
    moment[0] -= 1
    ended = index.lookup(first)
    assert ended is not None
    assert (ended.asker, ended.ended) == (None, True)
    assert index.asker(second) is not None
