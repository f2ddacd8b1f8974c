"""The SQL copy: filled by a process of its own, caught up after any outage, and searched."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, event, func, insert, select, text
from support.audit_tools import decision, records, segments_of, write
from support.postgres import PostgresServer, postgres_server, postgres_url  # noqa: F401 - fixtures

from zapd.audit.event import AuditEvent, Tag
from zapd.audit.instance import list_instances
from zapd.audit.journal import Journal
from zapd.audit.sinks.copying import Copier
from zapd.audit.sinks.follow import Position, read_batch
from zapd.audit.sinks.search import Filters
from zapd.audit.sinks.sql import SqlSink, copy_url, open_copy, search
from zapd.audit.sinks.table import audit_events
from zapd.errors import InvalidInput, Unavailable


async def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    """Wait for a condition, with a generous deadline."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.02)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh place for the copy, on each database."""
    if request.param == "sqlite":
        return copy_url("sqlite:///data/zapd.db", tmp_path)
    return copy_url(request.getfixturevalue("postgres_url"), tmp_path)


def copy_all(engine: Engine, directory: Path, retention: float = 0.0) -> Copier:
    """Copy everything there is, in this process."""
    copier = Copier(engine, directory, retention)
    copier.load()
    while copier.step():
        pass
    return copier


def count(engine: Engine) -> int:
    with engine.connect() as connection:
        return int(connection.execute(select(func.count()).select_from(audit_events)).scalar_one())


async def test_copy_holds_every_record_once(url: str, tmp_path: Path) -> None:
    """Every record of every instance is copied as its line, and copying again changes nothing."""
    directory = tmp_path / "audit"
    await write(directory, 50)
    await write(tmp_path / "more", 20)
    other = next((tmp_path / "more").iterdir())
    other.rename(directory / other.name)
    engine = open_copy(url, tmp_path, create=True)
    assert copy_all(engine, directory).status.copied == 72
    again = copy_all(engine, directory)
    assert (again.status.copied, again.status.conflicts, again.measure()) == (0, 0, 0)
    found, following = search(engine, filters=Filters(), limit=1000)
    assert following is None
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, records(directory)))
    await write(directory, 5)
    assert copy_all(engine, directory).status.copied == 6
    engine.dispose()


async def test_changed_past_is_counted(url: str, tmp_path: Path) -> None:
    """The same place with another hash is left alone and counted."""
    directory = tmp_path / "audit"
    await write(directory, 10, segment=100_000)
    engine = open_copy(url, tmp_path, create=True)
    copy_all(engine, directory)
    with engine.connect().execution_options(zapd_write=True) as connection, connection.begin():
        connection.execute(text("UPDATE audit_events SET hash = 'other' WHERE sequence IN (3, 4)"))
        connection.execute(text("DELETE FROM audit_positions"))
        connection.execute(text("DELETE FROM audit_events WHERE sequence = 6"))
    copier = copy_all(engine, directory)
    assert (copier.status.conflicts, copier.status.copied) == (2, 1)
    engine.dispose()


async def test_hostile_records_are_copied_too(url: str, tmp_path: Path) -> None:
    """NUL, quotes, endless names and lines that are no records stop no copying; the line comes back whole."""
    directory = tmp_path / "audit"
    journal = await Journal.open(directory)
    names = ["nul\x00nul", "'; DROP TABLE audit_events; --", "\u202e\x1b[2J", "n" * 9000, "é" * 300, ""]
    for name in names:
        event = AuditEvent(
            event=Tag.AUTH_REJECT, username=name, principal=name, address=name, domain=name, status=400
        )
        journal.append(event)
    await journal.close()
    with segments_of(directory)[-1].open("ab") as file:
        file.write(b"no record\n")
    engine = open_copy(url, tmp_path, create=True)
    copier = copy_all(engine, directory)
    assert (copier.status.copied, copier.status.unreadable) == (7, 1)
    found, _ = search(engine, filters=Filters(status=400))
    assert [record.get("username", "") for record in reversed(found)][:3] == names[:3]
    assert len(search(engine, filters=Filters(user="n" * 9000))[0]) == 1
    engine.dispose()


async def test_filters_and_pages(url: str, tmp_path: Path) -> None:
    """Each filter finds what it says, newest first, and pages neither lose nor repeat a record."""
    directory = tmp_path / "audit"
    moments = iter(range(1_700_000_000, 1_800_000_000))
    journal = await Journal.open(directory, clock=lambda: next(moments) * 1_000_000_000)
    for number in range(20):
        journal.append(decision(number % 4))
    for name, domain in (("alice", "metrics.cpu"), ("bob", "zapd.agents"), ("alice", ""), ("device-1", "orders")):
        journal.append(
            AuditEvent(
                event=Tag.AUTH_REJECT, username=name, domain=domain, status=400, address="ipc", reason="password"
            )
        )
    journal.append(AuditEvent(event=Tag.KEY_REVOKE, key="SHA256:" + "k" * 43, actor="root", subject="k"))
    await journal.close()
    engine = open_copy(url, tmp_path, create=True)
    copy_all(engine, directory)

    def found(**wanted: object) -> int:
        return len(search(engine, filters=Filters(**wanted))[0])  # type: ignore[arg-type]

    assert found() == 26
    assert found(user="alice") == 2
    assert found(user="device-1") == 6
    assert found(key="SHA256:" + "k" * 43) == 21
    assert found(address="ipc") == 4
    assert found(domain="orders") == 21
    assert found(domain="") == 1
    assert found(status=400) == 4
    assert found(status=400, domain="metrics.cpu") == 1
    assert found(event="auth.reject") == 4
    assert found(event="key.*") == 1
    assert found(domains=("orders",)) == 21
    assert found(domains=("metrics.*", "none")) == 1
    assert found(domains=("*",)) == 22
    assert found(domains=("zapd.agents",)) == 0
    assert found(domains=()) == 0
    whole = search(engine, filters=Filters())[0]
    assert [record["sequence"] for record in whole] == sorted(
        (record["sequence"] for record in whole), reverse=True
    )
    moment = datetime.fromisoformat(str(whole[10]["time"]))
    assert found(since=moment) == 11
    assert found(until=moment) == 15
    for wanted in (Filters(), Filters(user="device-1")):
        pages: list[dict[str, object]] = []
        cursor: str | None = None
        while True:
            page, cursor = search(engine, filters=wanted, limit=4, cursor=cursor)
            pages += page
            if cursor is None:
                break
            assert len(page) == 4
        assert pages == search(engine, filters=wanted)[0]
    with pytest.raises(InvalidInput):
        search(engine, filters=Filters(), cursor="1' OR 1=1")
    engine.dispose()


async def test_old_records_leave_the_search(url: str, tmp_path: Path) -> None:
    """What is older than the search reaches is neither copied nor kept, but for the newest row, whose number
    nobody else may get; the journal keeps it."""
    directory = tmp_path / "audit"
    engine = open_copy(url, tmp_path, create=True)
    old = datetime.now(UTC) - timedelta(days=40)
    await write(directory, 10, clock=lambda: int(old.timestamp() * 1e9))
    copy_all(engine, directory)
    assert count(engine) == 11
    copier = copy_all(engine, directory, retention=30 * 86_400)
    copier.purge()
    assert count(engine) == 1
    await write(directory, 5)
    assert copy_all(engine, directory, retention=30 * 86_400).status.copied == 6
    await write(directory, 3, clock=lambda: int(old.timestamp() * 1e9))
    assert copy_all(engine, directory, retention=30 * 86_400).status.copied == 0
    engine.dispose()


async def test_missed_records_are_counted(tmp_path: Path) -> None:
    """Segments gone before they were copied are counted, and what follows is copied."""
    directory = tmp_path / "audit"
    await write(directory, 40)
    folder = list_instances(directory)[0]
    start = read_batch(folder, Position(), 3).position
    for path in segments_of(directory)[1:3]:
        path.unlink()
    batch = read_batch(folder, start, 1000)
    assert batch.missed + len(batch.records) == 38
    assert batch.missed > 0


def invented(engine: Engine, count: int, **columns: Callable[[int], object]) -> None:
    """Rows that no journal wrote: the table alone matters here."""
    usual: dict[str, Callable[[int], object]] = {
        "instance": lambda _: "0123456789abcdef",
        "sequence": lambda number: number,
        "time": lambda number: number // 3,
        "event": lambda number: "auth.reject" if number % 50 == 0 else "auth.accept",
        "domain": lambda number: ("orders", "metrics.cpu", "metrics.disk", None)[number % 4],
        "status": lambda number: 400 if number % 50 == 0 else 200,
        "principal": lambda number: f"device-{number % 10}",
        "username": lambda number: f"device-{number % 7}",
        "hash": str,
        "json": lambda number: f'{{"sequence":{number}}}',
    }
    rows = [{name: value(number) for name, value in (usual | columns).items()} for number in range(1, count + 1)]
    with engine.connect().execution_options(zapd_write=True) as connection, connection.begin():
        connection.execute(insert(audit_events), rows)


def through(engine: Engine, wanted: Filters, **how: Any) -> list[int]:
    """All that a search finds, page by page, whatever a page holds."""
    found: list[int] = []
    cursor: str | None = None
    for _ in range(5000):
        page, cursor = search(engine, filters=wanted, cursor=cursor, **how)
        found += [int(str(record["sequence"])) for record in page]
        if cursor is None:
            return found
    raise AssertionError("the pages have no end")


def test_pages_that_leave_early_lose_and_repeat_nothing(url: str, tmp_path: Path) -> None:
    """Whatever roads a search takes and however little of them a page sees, together the pages hold every record
    that fits, once, newest first; records of one moment on both sides of a cut included."""
    engine = open_copy(url, tmp_path, create=True)
    invented(engine, 3000)
    fits: dict[Filters, Callable[[int], bool]] = {
        Filters(): lambda _: True,
        Filters(user="device-3"): lambda n: 3 in (n % 10, n % 7),
        Filters(user="device-3", status=400): lambda n: 3 in (n % 10, n % 7) and n % 50 == 0,
        Filters(domain="orders", event="auth.r*"): lambda n: n % 4 == 0 and n % 50 == 0,
        Filters(domains=("metrics.*", "orders"), user="device-9"): lambda n: n % 4 != 3 and n % 10 == 9,
        Filters(domains=("metrics.*",), status=400): lambda n: n % 4 in (1, 2) and n % 50 == 0,
        Filters(domains=("*",), event="auth.*", status=400): lambda n: n % 4 != 3 and n % 50 == 0,
        Filters(domains=("x.*",)): lambda _: False,
        Filters(event="key.*", status=200): lambda _: False,
    }
    for wanted, fit in fits.items():
        expected = [number for number in range(3000, 0, -1) if fit(number)]
        assert through(engine, wanted, limit=1000) == expected, wanted
        assert through(engine, wanted, limit=7, step=11, budget=0.0) == expected, wanted
    engine.dispose()


def test_a_search_that_finds_little_leaves_in_time(url: str, tmp_path: Path) -> None:
    """A page whose time is up is short or empty and says where to go on, instead of failing."""
    engine = open_copy(url, tmp_path, create=True)
    invented(engine, 3000, address=lambda number: "10.0.0.1" if number == 1 else "10.0.0.2")
    wanted = Filters(domain="metrics.cpu", status=400, address="10.0.0.2", since=datetime(1970, 1, 1, tzinfo=UTC))
    page, cursor = search(engine, filters=wanted, step=10, budget=0.0)
    assert (page, cursor is None) == ([], False)
    assert search(engine, filters=Filters(address="10.0.0.1", status=200))[0] == [{"sequence": 1}]
    engine.dispose()


def test_each_filter_goes_along_its_index(tmp_path: Path) -> None:
    """No search sorts or reads the whole table: SQLite's own plan of each names an index, newest first."""
    engine = open_copy(copy_url("sqlite:///zapd.db", tmp_path), tmp_path, create=True)
    invented(engine, 100)
    asked: list[tuple[str, Any]] = []
    event.listen(engine, "before_cursor_execute", lambda *given: asked.append((given[2], given[3])))
    searches: dict[str, Filters] = {
        "time": Filters(),
        "key": Filters(key="SHA256:x"),
        "address": Filters(address="10.0.0.1"),
        "principal": Filters(user="device-3"),
        "domain": Filters(domain="orders"),
        "status": Filters(status=400),
        "event": Filters(event="auth.accept"),
    }
    for index, wanted in searches.items():
        asked.clear()
        search(engine, filters=wanted, cursor="99-99")
        assert asked
        for statement, parameters in [each for each in asked if each[0].startswith("SELECT")]:
            with engine.connect() as connection:
                plan = [
                    row[-1] for row in connection.exec_driver_sql("EXPLAIN QUERY PLAN " + statement, parameters)
                ]
            walks = [each for each in plan if "audit_events" in each]
            assert all("USING" in each and "ix_audit_events" in each for each in walks), plan
            assert index == "time" or index in "".join(walks) or "username" in "".join(walks), plan
            assert not any("TEMP B-TREE" in each for each in plan), plan
    engine.dispose()


def test_searching_what_is_not_there_is_unavailable(tmp_path: Path) -> None:
    """A copy that was never made, or was taken away, is an outage with a sentence, not a crash."""
    engine = open_copy(copy_url("sqlite:///zapd.db", tmp_path), tmp_path)
    with pytest.raises(Unavailable):
        search(engine, filters=Filters())
    engine.dispose()


async def test_process_follows_the_journal_and_survives_being_killed(tmp_path: Path) -> None:
    """The sink's process copies while the journal is written; killed, it comes back and misses nothing; stopped,
    it is gone within a second, and no secret was on its command line."""
    directory = tmp_path / "audit"
    url = copy_url("sqlite:///zapd.db", tmp_path)
    journal = await Journal.open(directory)
    sink = SqlSink(url=url, base_dir=tmp_path, directory=directory, poll=0.02, restart_delay=0.05)
    await sink.start()
    for number in range(100):
        journal.append(decision(number))
    await until(lambda: sink.status.sequences.get(journal.instance) == 101)
    assert sink.healthy
    process = sink._process
    assert process is not None
    assert b"sqlite" not in Path(f"/proc/{process.pid}/cmdline").read_bytes()
    os.kill(process.pid, signal.SIGKILL)
    for number in range(100, 200):
        journal.append(decision(number))
    await until(lambda: sink.starts == 2 and sink.status.sequences.get(journal.instance) == 201)
    await until(lambda: sink.lag == 0 and sink.healthy)
    begin = time.monotonic()
    await sink.stop()
    assert time.monotonic() - begin < 5
    assert not sink.running
    await journal.close()
    engine = open_copy(url, tmp_path)
    assert count(engine) == 201
    engine.dispose()


async def test_process_waits_for_a_database_that_is_away(
    postgres_server: PostgresServer,  # noqa: F811 - the fixture
    postgres_url: str,  # noqa: F811 - the fixture
    tmp_path: Path,
) -> None:
    """While the database hangs the journal goes on and the sink says what is wrong; then it catches up."""
    directory = tmp_path / "audit"
    journal = await Journal.open(directory)
    sink = SqlSink(url=postgres_url, base_dir=tmp_path, directory=directory, poll=0.02)
    await sink.start()
    journal.append(decision())
    await until(lambda: sink.status.sequences.get(journal.instance) == 2)
    postgres_server.pause()
    try:
        journal.append(decision(1))
        await journal.durable()
        await until(lambda: bool(sink.status.error))
        assert not sink.healthy
        assert "pgpw" not in sink.status.error
        assert journal.writable
    finally:
        postgres_server.resume()
    await until(lambda: sink.healthy and sink.status.sequences.get(journal.instance) == 3)
    await sink.stop()
    await journal.close()


async def test_process_ends_with_its_parent(tmp_path: Path) -> None:
    """When whoever started it is gone, standard input ends, and so does the process."""
    sink = SqlSink(url=copy_url("sqlite:///z.db", tmp_path), base_dir=tmp_path, directory=tmp_path / "audit")
    await sink.start()
    await until(lambda: sink.running and sink.status.sequences == {} and (tmp_path / "audit.db").exists())
    process = sink._process
    assert process is not None
    assert process.stdin is not None
    sink._stopping = True
    process.stdin.close()
    await asyncio.wait_for(process.wait(), 10)
    await sink.stop()
