"""Following the SQL copy: every record once and in order, whatever became of the copy meanwhile."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, delete, update
from support.audit_tools import SEED, decision, records, write
from support.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures

from zapd.audit.event import AuditEvent, Tag
from zapd.audit.instance import list_instances
from zapd.audit.journal import Journal
from zapd.audit.retention import Retention
from zapd.audit.sinks import following
from zapd.audit.sinks.copying import Copier
from zapd.audit.sinks.following import BEGINNING, Place, before, newest, read_after, resume
from zapd.audit.sinks.search import Filters
from zapd.audit.sinks.sql import copy_url, open_copy
from zapd.audit.sinks.table import audit_events, audit_positions
from zapd.errors import InvalidInput, Unavailable


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh place for the copy, on each database."""
    if request.param == "sqlite":
        return copy_url("sqlite:///data/zapd.db", tmp_path)
    return copy_url(request.getfixturevalue("postgres_url"), tmp_path)


def copy_all(engine: Engine, directory: Path, retention: float = 0.0) -> Copier:
    copier = Copier(engine, directory, retention)
    copier.load()
    while copier.step():
        pass
    return copier


def follow(engine: Engine, place: Place, limit: int = 7, **filters: object) -> tuple[list[int], Place]:
    """(The sequences of all that comes now, the place behind it.)"""
    found: list[int] = []
    while True:
        step = read_after(engine, place, filters=Filters(**filters), limit=limit)  # type: ignore[arg-type]
        found += [each.sequence for each, _ in step.records]
        place = step.place
        if not step.more:
            return found, place


def change(engine: Engine, *statements: object) -> None:
    with engine.connect().execution_options(zapd_write=True) as connection, connection.begin():
        for statement in statements:
            connection.execute(statement)  # type: ignore[call-overload]


async def test_what_comes_is_told_once_and_in_order(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From any place, in pages of any size, all that is behind it comes, also after segments were retired; with a
    filter what fits, and the place goes on over what does not."""
    monkeypatch.setattr(following, "WINDOW", 10)
    directory = tmp_path / "audit"
    await write(directory, 30)
    engine = open_copy(url, tmp_path, create=True)
    assert newest(engine) == BEGINNING
    assert follow(engine, BEGINNING) == ([], BEGINNING)
    copy_all(engine, directory)
    first, place = follow(engine, BEGINNING)
    assert first == list(range(1, 32))
    assert (place, str(place)) == (newest(engine), f"31-{list_instances(directory)[0].name}-31")
    await write(directory, 30)
    Retention(directory, max_size=4000, seed=SEED).enforce({})
    assert len(records(directory)) < 60
    copier = copy_all(engine, directory)
    assert copier.status.missed == 0 or copier.status.copied
    told, end = follow(engine, place, limit=1000)
    assert told == list(range(32, 63))[-len(told) :]
    assert follow(engine, resume(engine, place).place) == (told, end)
    assert follow(engine, BEGINNING, user="nobody") == ([], end)
    assert follow(engine, BEGINNING, event="journal.*")[0][0] == 1
    engine.dispose()


async def test_filters_and_domains_hold_for_followers(url: str, tmp_path: Path) -> None:
    """A follower limited to domains is told of them alone; since begins where it says."""
    directory = tmp_path / "audit"
    moments = iter(range(1_700_000_000, 1_800_000_000))
    journal = await Journal.open(directory, clock=lambda: next(moments) * 1_000_000_000)
    for number in range(10):
        journal.append(decision(number))
        journal.append(AuditEvent(event=Tag.AUTH_REJECT, domain=("metrics.cpu", "", None)[number % 3], status=400))
    await journal.close()
    engine = open_copy(url, tmp_path, create=True)
    copy_all(engine, directory)
    whole = records(directory)
    orders = [record["sequence"] for record in whole if record.get("domain") == "orders"]
    assert follow(engine, BEGINNING, domains=("orders",))[0] == orders
    assert len(follow(engine, BEGINNING, domains=("*",))[0]) == 10 + 4
    assert follow(engine, BEGINNING, domains=())[0] == []
    moment = datetime.fromisoformat(whole[8]["time"])
    start = before(engine, moment)
    assert start.sequence == 8
    assert follow(engine, start, since=moment)[0] == [record["sequence"] for record in whole[8:]]
    assert before(engine, datetime(2100, 1, 1, tzinfo=UTC)) == newest(engine)
    assert before(engine, datetime(2000, 1, 1, tzinfo=UTC)) == BEGINNING
    engine.dispose()


async def test_a_copy_made_anew_is_told_apart(url: str, tmp_path: Path) -> None:
    """After the copy was dropped and filled again, whoever comes back goes on behind the record it saw, and is
    told; a place that no copy ever had is no place to go on from."""
    directory = tmp_path / "audit"
    await write(directory, 20)
    engine = open_copy(url, tmp_path, create=True)
    copy_all(engine, directory)
    seen = read_after(engine, BEGINNING, filters=Filters(), limit=5).place
    assert resume(engine, seen) == following.Resumed(seen)
    change(engine, delete(audit_events), delete(audit_positions))
    assert "goes on with what is new" in resume(engine, seen).lost
    await write(directory, 3)
    # As a copy that was filled in another order would have it: other numbers for the same records.
    copy_all(engine, directory)
    change(engine, update(audit_events).values(id=audit_events.c.id + 1000))
    resumed = resume(engine, seen)
    assert "made anew" in resumed.lost
    assert follow(engine, resumed.place)[0] == list(range(6, 26))
    strange = resume(engine, Place(10**9, "feedfeedfeedfeed", 3))
    assert (strange.place, "goes on with what is new" in strange.lost) == (newest(engine), True)
    assert resume(engine, Place(newest(engine).row, "feedfeedfeedfeed", 3)).lost
    with pytest.raises(InvalidInput):
        Place.parse("1; DROP TABLE audit_events")
    engine.dispose()


async def test_what_left_the_search_is_said_to_be_lost(url: str, tmp_path: Path) -> None:
    """Whoever was away for longer than the search reaches is told that records may be missing; one that had seen
    all that went is not. A copy emptied by age gives no number twice."""
    directory = tmp_path / "audit"
    await write(directory, 20)
    engine = open_copy(url, tmp_path, create=True)
    copy_all(engine, directory)
    place = read_after(engine, BEGINNING, filters=Filters(), limit=5).place
    change(engine, delete(audit_events).where(audit_events.c.id <= 5))
    assert resume(engine, place).lost == ""
    assert follow(engine, resume(engine, place).place)[0] == list(range(6, 22))
    change(engine, delete(audit_events).where(audit_events.c.id <= 9))
    resumed = resume(engine, place)
    assert "no longer in the searchable copy" in resumed.lost
    assert follow(engine, resumed.place)[0] == list(range(10, 22))
    end = newest(engine)
    copier = Copier(engine, directory, retention=1e-6)
    while copier.purge():
        pass
    assert newest(engine) == end
    await write(directory, 1)
    copy_all(engine, directory)
    assert follow(engine, resume(engine, end).place)[0] == [22, 23]
    engine.dispose()


async def test_two_copiers_hide_nothing_from_a_follower(postgres_url: str, tmp_path: Path) -> None:  # noqa: F811
    """Two zapds that copy into one PostgreSQL at the same time: a follower that keeps reading misses no row, since
    rows are numbered in the order in which they are committed."""
    url = copy_url(postgres_url, tmp_path)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        await write(folder, 400, segment=1_000_000)
    engine = open_copy(url, tmp_path, create=True)
    ends: list[int] = []

    def copy(folder: Path) -> None:
        own = open_copy(url, tmp_path)
        copier = Copier(own, folder, 0.0)
        copier.load()
        import zapd.audit.sinks.copying as room

        while copier.status.copied < 401:
            copier.step()
        own.dispose()
        ends.append(room.BATCH)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("zapd.audit.sinks.copying.BATCH", 7)
        threads = [threading.Thread(target=copy, args=(folder,)) for folder in folders]
        for thread in threads:
            thread.start()
        place, told = BEGINNING, []
        while len(ends) < 2 or place != newest(engine):
            step = read_after(engine, place, filters=Filters(), limit=50)
            told += [(each.instance, each.sequence) for each, _ in step.records]
            place = step.place
        for thread in threads:
            thread.join()
    expected = {(record["instance"], record["sequence"]) for folder in folders for record in records(folder)}
    assert len(told) == len(expected) == 802
    assert set(told) == expected
    engine.dispose()


def test_a_copy_that_is_away_is_unavailable(tmp_path: Path) -> None:
    """No copy is an outage with a sentence for whoever follows."""
    engine = open_copy(copy_url("sqlite:///zapd.db", tmp_path), tmp_path)
    for ask in (lambda: newest(engine), lambda: read_after(engine, BEGINNING, filters=Filters(), limit=1)):
        with pytest.raises(Unavailable):
            ask()
    engine.dispose()
