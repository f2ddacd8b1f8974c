"""The journal under good conditions: lines, groups, restarts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.audit_tools import SEED, decision, records, segments_of, write

from zapd.audit.chain import MAX_LINE, Chain, chained, genesis, split
from zapd.audit.event import AuditEvent, Tag
from zapd.audit.gaps import OTHERS, Counts, Summaries
from zapd.audit.instance import Limits
from zapd.audit.journal import Journal, JournalUnavailable
from zapd.audit.verify import verify


async def test_first_line_begins_the_instance(tmp_path: Path) -> None:
    """A new journal's first record is ``journal.begin``, and decisions follow in order with rising numbers."""
    journal = await Journal.open(tmp_path)
    numbers = [journal.append(decision(number)) for number in range(3)]
    await journal.durable()
    found = records(tmp_path)
    await journal.close()
    assert numbers == [2, 3, 4]
    assert [record["event"] for record in found] == [Tag.JOURNAL_BEGIN, *[Tag.AUTH_ACCEPT] * 3]
    assert [record["sequence"] for record in found] == [1, 2, 3, 4]
    assert {record["instance"] for record in found} == {journal.instance}
    assert list(found[1])[:4] == ["time", "instance", "sequence", "event"]
    assert list(found[1])[-1] == "hash"


async def test_strict_tells_only_after_the_line_is_in_the_file(tmp_path: Path) -> None:
    """In strict mode the callback finds its own record on disk, and one group serves many that waited."""
    journal = await Journal.open(tmp_path)
    told: list[tuple[bool, int]] = []
    done = asyncio.get_running_loop().create_future()

    def tell(good: bool) -> None:
        told.append((good, len(records(tmp_path))))
        if len(told) == 50:
            done.set_result(None)

    for number in range(50):
        journal.append(decision(number))
        journal.when_durable(tell)
    assert told == []
    await done
    await journal.close()
    assert all(good for good, _ in told)
    assert all(seen >= 51 for _, seen in told)


async def test_relaxed_tells_at_once_and_writes_soon(tmp_path: Path) -> None:
    """In relaxed mode the callback runs before `when_durable` returns; the record follows within the interval."""
    journal = await Journal.open(tmp_path, durability="relaxed", flush_interval=0.05)
    journal.append(decision())
    told: list[bool] = []
    journal.when_durable(told.append)
    assert told == [True]
    assert len(records(tmp_path)) == 1
    while journal.backlog:
        await asyncio.sleep(0.01)
    assert len(records(tmp_path)) == 2
    await journal.close()


async def test_off_keeps_nothing(tmp_path: Path) -> None:
    """With durability off events are counted and dropped, and no file is made."""
    journal = await Journal.open(tmp_path / "audit", durability="off")
    assert [journal.append(decision()), journal.append(decision())] == [1, 2]
    await journal.durable()
    assert journal.writable
    await journal.close()
    assert not (tmp_path / "audit").exists()


async def test_when_durable_with_nothing_waiting_is_immediate(tmp_path: Path) -> None:
    """When everything is on disk already, the callback runs before `when_durable` returns."""
    journal = await Journal.open(tmp_path)
    told: list[bool] = []
    journal.when_durable(told.append)
    assert told == [True]
    await journal.close()


async def test_segments_rotate_and_the_chain_goes_on(tmp_path: Path) -> None:
    """A segment that would outgrow its limit is followed by the next, and the whole verifies."""
    await write(tmp_path, 100)
    assert len(segments_of(tmp_path)) > 5
    assert max(path.stat().st_size for path in segments_of(tmp_path)) <= 3000
    report = verify(tmp_path)
    assert report.ok, list(report.lines())
    assert report.records == 101


async def test_segments_rotate_by_age(tmp_path: Path) -> None:
    """A segment older than its limit is followed by the next."""
    journal = await Journal.open(tmp_path, limits=Limits(age=0.0))
    for number in range(3):
        journal.append(decision(number))
        await journal.durable()
    await journal.close()
    assert len(segments_of(tmp_path)) >= 3
    assert verify(tmp_path).ok


async def test_restart_continues_the_instance(tmp_path: Path) -> None:
    """A second run goes on in the same instance with the next number, and says that it resumed."""
    first = await write(tmp_path, 5)
    second = await write(tmp_path, 5)
    assert first == second
    found = records(tmp_path)
    assert [record["sequence"] for record in found] == list(range(1, 13))
    assert found[6]["event"] == Tag.JOURNAL_RESUME
    assert verify(tmp_path).ok


async def test_two_at_once_have_an_instance_each(tmp_path: Path) -> None:
    """Two processes' journals in one folder are two instances; both are continued afterwards."""
    one = await Journal.open(tmp_path)
    two = await Journal.open(tmp_path)
    assert one.instance != two.instance
    await one.close()
    await two.close()
    three = await Journal.open(tmp_path)
    four = await Journal.open(tmp_path)
    assert {three.instance, four.instance} == {one.instance, two.instance}
    await three.close()
    await four.close()
    assert verify(tmp_path).ok


async def test_unfinished_last_line_is_cut_and_told(tmp_path: Path) -> None:
    """After a crash within a line, that line alone goes, and the next record says how much was cut."""
    instance = await write(tmp_path, 5, segment=100_000)
    path = segments_of(tmp_path)[-1]
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines(keepends=True)[-1][:77])
    assert verify(tmp_path).instances[0].open
    assert await write(tmp_path, 1) == instance
    found = records(tmp_path)
    assert found[6]["event"] == Tag.JOURNAL_RESUME
    assert found[6]["detail"] == {"cut": {"segment": path.name, "octets": 77}}
    assert verify(tmp_path).ok


async def test_restored_backup_begins_a_new_instance(tmp_path: Path) -> None:
    """When a head remembers more than the files hold, a new instance names its predecessor's last hash."""
    from zapd.audit.checkpoint import FileHead

    heads = [FileHead(tmp_path / "head")]
    first = await write(tmp_path / "audit", 5, heads=heads, segment=100_000)
    backup = {path: path.read_bytes() for path in (tmp_path / "audit" / first).iterdir()}
    assert await write(tmp_path / "audit", 5, heads=heads, segment=100_000) == first
    for path, data in backup.items():
        path.write_bytes(data)
    second = await write(tmp_path / "audit", 5, heads=heads)
    assert second != first
    begin = records(tmp_path / "audit", second)[0]
    last = records(tmp_path / "audit", first)[-1]
    assert begin["event"] == Tag.JOURNAL_BEGIN
    assert begin["detail"]["predecessor"] == first
    assert (begin["detail"]["sequence"], begin["detail"]["hash"]) == (last["sequence"], last["hash"])
    assert await write(tmp_path / "audit", 1, heads=heads) == second


async def test_damaged_tail_begins_a_new_instance_and_is_left_alone(tmp_path: Path) -> None:
    """A last segment that does not chain is not written to again; the new instance says after which record."""
    first = await write(tmp_path, 5, segment=100_000)
    path = segments_of(tmp_path)[-1]
    damaged = path.read_bytes().replace(b"device-4", b"device-X")
    path.write_bytes(damaged)
    second = await write(tmp_path, 5)
    assert second != first
    assert path.read_bytes() == damaged
    assert records(tmp_path, second)[0]["detail"]["sequence"] == 5


async def test_backlog_is_bounded(tmp_path: Path) -> None:
    """More than the backlog may hold is refused at once, and nothing of what was taken is lost."""
    journal = await Journal.open(tmp_path, max_backlog=(20, 1 << 20))
    taken = 0
    with pytest.raises(JournalUnavailable):
        while True:
            journal.append(decision(taken, detail={"much": "x" * 8000}))
            taken += 1
    assert taken < 60
    await journal.durable()
    journal.append(decision())
    await journal.durable()
    await journal.close()
    assert len(records(tmp_path)) == taken + 2


async def test_closed_journal_refuses(tmp_path: Path) -> None:
    """After `close` nothing can be recorded, and whoever asks is told so."""
    journal = await Journal.open(tmp_path)
    await journal.close()
    with pytest.raises(JournalUnavailable):
        journal.append(decision())
    with pytest.raises(JournalUnavailable):
        await journal.durable()


async def test_close_writes_what_waits(tmp_path: Path) -> None:
    """Records that only waited for their interval are on disk when `close` returns, under a checkpoint."""
    journal = await Journal.open(tmp_path, durability="relaxed", flush_interval=60, signing_key=SEED)
    for number in range(10):
        journal.append(decision(number))
    await journal.close()
    assert len(records(tmp_path)) == 11
    assert verify(tmp_path).instances[0].checkpointed == 11


async def test_changes_already_recorded_are_known(tmp_path: Path) -> None:
    """After a restart the journal can say which rows of the change log it holds, whatever run wrote them."""
    await write(tmp_path, 5)
    journal = await Journal.open(tmp_path)
    journal.append(AuditEvent(event=Tag.KEY_ADD, subject="k", change=7))
    await journal.durable()
    await journal.close()
    journal = await Journal.open(tmp_path)
    journal.append(AuditEvent(event=Tag.KEY_REVOKE, subject="k", change=8))
    assert await journal.recorded_changes([6, 7, 8, 9]) == {7, 8}
    await journal.close()


async def test_summaries_count_by_domain_and_source(tmp_path: Path) -> None:
    """300s given without asking become one record for each domain and source, whatever their number."""
    journal = await Journal.open(tmp_path)
    summaries = Summaries(journal, interval=0.02, limit=3)
    for _ in range(100):
        summaries.count("orders", "10.0.0.1", "penalty")
        summaries.count("orders", "10.0.0.2", "overload")
    summaries.count("orders", "10.0.0.2", "penalty")
    for number in range(50):
        summaries.count("orders", f"10.1.0.{number}", "penalty")
    while journal.sequence == 1:
        await asyncio.sleep(0.01)
    await journal.durable()
    await journal.close()
    found = {record["address"]: record for record in records(tmp_path)[1:]}
    assert {name: record["count"] for name, record in found.items()} == {
        "10.0.0.1": 100,
        "10.0.0.2": 101,
        OTHERS: 50,
    }
    assert found["10.0.0.2"]["detail"] == {"reasons": {"overload": 100, "penalty": 1}}
    assert found["10.0.0.1"]["event"] == Tag.AUTH_SUMMARY


def test_counts_are_bounded() -> None:
    """A table of counts keeps its size, and loses no count."""
    counts = Counts(10)
    for number in range(1000):
        counts.add("d", str(number), "r")
    assert counts.total == 1000
    rows = counts.take()
    assert len(rows) == 11
    assert sum(rows.values()) == 1000
    assert not counts


texts = st.text(st.characters(), max_size=20)
hostile = st.one_of(
    texts, st.sampled_from(["\r\n", "\x1b[2J", "\x00", "\u202e", "\ud800", '"', "\\", "%s", "=1+1", "é" * 9000])
)
events = st.builds(
    AuditEvent,
    event=hostile,
    domain=st.none() | hostile,
    mechanism=hostile,
    address=hostile,
    agent=hostile,
    principal=hostile,
    key=hostile,
    username=hostile,
    status=st.integers(0, 999),
    reason=hostile,
    question_id=hostile,
    trail=st.lists(st.tuples(hostile, hostile, st.floats(allow_nan=False, allow_infinity=False)), max_size=3).map(
        tuple
    ),
    actor=hostile,
    subject=hostile,
    before=st.none()
    | st.dictionaries(hostile, st.one_of(hostile, st.integers(), st.none(), st.lists(hostile, max_size=3))),
    detail=st.none() | st.dictionaries(hostile, hostile),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events, max_size=3))
def test_every_event_is_one_line_that_chains_and_reads_back(happened: list[AuditEvent]) -> None:
    """Whatever octets an event holds, it is one line of ASCII, chained, and reads back as it was given."""
    chain = Chain("00" * 8, genesis("00" * 8))
    previous = genesis("00" * 8).digest
    for number, event in enumerate(happened, 1):
        line = chain.line(event)
        assert line.endswith(b"\n")
        assert line.isascii()
        assert min(line[:-1]) >= 32
        assert len(line) <= MAX_LINE
        body, stored = split(line[:-1])
        assert chained(previous, body) == stored
        previous = stored
        read = json.loads(line)
        assert read["sequence"] == number
        if all(len(text) < 100 for text in (event.username, event.reason)) and len(line) < 8000:
            assert read.get("username", "") == event.username.encode("utf-8", "replace").decode()
            assert read.get("reason", "") == event.reason.encode("utf-8", "replace").decode()
    assert chain.link.digest == previous


def test_endless_values_are_cut_with_a_mark() -> None:
    """Texts and tables of any size become a record of bounded length that says it was cut."""
    chain = Chain("00" * 8, genesis("00" * 8))
    long = json.loads(chain.line(AuditEvent(event="x", username="n" * (1 << 20), status=400)))
    assert long["username"].startswith("nnn")
    assert long["username"].endswith("more]")
    assert long["status"] == 400
    wide = json.loads(chain.line(AuditEvent(event="x", actor="a", detail={str(n): n for n in range(50_000)})))
    assert wide["actor"] == "a"
    assert "too many" in wide["detail"]["cut"]
    deep: dict[str, object] = {}
    for _ in range(200):
        deep = {"d": deep}
    assert json.loads(chain.line(AuditEvent(event="x", detail={"deep": deep, "big": 1 << 80, "é": b"bytes"})))


def test_time_is_utc_with_microseconds_and_may_step_back() -> None:
    """Records carry wall time as the clock gives it, also when it is set back; order is the number's."""
    moments = iter([1_700_000_000_123_456_789, 1_600_000_000_000_001_000, 1_700_000_001_000_000_000])
    chain = Chain("00" * 8, genesis("00" * 8), lambda: next(moments))
    times = [json.loads(chain.line(decision()))["time"] for _ in range(3)]
    assert times == ["2023-11-14T22:13:20.123456Z", "2020-09-13T12:26:40.000001Z", "2023-11-14T22:13:21.000000Z"]
