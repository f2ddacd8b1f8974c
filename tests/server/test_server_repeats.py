"""Refusals that come too fast: bounded by source and by agent, answered 300 and counted, none of them lost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zapd.audit.gaps import OTHERS, Summaries
from zapd.audit.journal import Journal
from zapd.auth.decision import Decision
from zapd.server.recorder import Recorder
from zapd.server.repeats import SOURCES, Repeats
from zapd.zap import REFUSED, TRY_AGAIN, Asker, MalformedRequest, Status, ZapReply, ZapRequest

GRANTED = ZapReply(Status.GRANTED, user_id=b"alice")


class Clock:
    now = 50.5

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def recorder(tmp_path: Path, clock: Clock) -> AsyncIterator[Recorder]:
    journal = await Journal.open(tmp_path / "audit")
    yield Recorder(journal, Summaries(journal, interval=60.0), Repeats(clock=clock))
    await journal.close()


def request(address: str = "192.0.2.1", agent: str | None = "edge", domain: str = "orders") -> ZapRequest:
    asker = None if agent is None else Asker(agent)
    return ZapRequest(b"1", domain, address, b"", "CURVE", (b"k" * 32,), asker=asker)


async def lines(recorder: Recorder) -> list[dict]:
    recorder.summaries.flush()
    await recorder.journal.durable()
    paths = sorted(recorder.journal.directory.glob("*/*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


async def test_beyond_ten_a_second_a_source_hears_300_and_is_counted(recorder: Recorder, clock: Clock) -> None:
    """Each 400 that was given has its record; those that were not are one record with their number."""
    said = [int(recorder.record(request(), Decision(REFUSED, "unknown_key")).status) for _ in range(300)]
    assert said == [400] * 10 + [300] * 290
    clock.now += 1.0
    assert recorder.record(request(), Decision(REFUSED, "unknown_key")).status is Status.REFUSED
    found = Counter(line["event"] for line in await lines(recorder))
    assert (found["auth.reject"], found["auth.summary"]) == (11, 1)
    [summary] = [line for line in await lines(recorder) if line["event"] == "auth.summary"]
    assert (summary["reason"], summary["count"], summary["address"]) == ("too_often", 290, "192.0.2.1")
    assert (recorder.repeated, recorder.summarised) == (290, 290)


async def test_deferrals_after_asking_count_as_refusals_do(recorder: Recorder) -> None:
    """300s that somebody was asked for would fill the disk as well; those that cost nothing are counted anyhow."""
    for _ in range(30):
        recorder.record(request(), Decision(TRY_AGAIN, "pending_approval"))
        recorder.record(request(), Decision(TRY_AGAIN, "penalty_name", asked=False))
    found = Counter(line["event"] for line in await lines(recorder))
    assert (found["auth.defer"], found["auth.summary"]) == (10, 1)
    [summary] = [line for line in await lines(recorder) if line["event"] == "auth.summary"]
    assert summary["detail"] == {"reasons": {"penalty_name": 30, "too_often": 20}}


async def test_whoever_is_let_in_is_never_counted(recorder: Recorder) -> None:
    """Admissions have their records, however many there are and whatever is refused beside them."""
    for _ in range(200):
        recorder.record(request(), Decision(REFUSED, "unknown_key"))
        assert recorder.record(request(), Decision(GRANTED, "granted", "alice")) is GRANTED
    assert Counter(line["event"] for line in await lines(recorder))["auth.accept"] == 200


async def test_an_agent_has_a_bound_of_its_own(recorder: Recorder) -> None:
    """A hundred a second through one agent, from wherever; another agent's clients are not its affair."""
    said = Counter(
        int(recorder.record(request(f"10.0.{number >> 8}.{number & 255}"), Decision(REFUSED, "x")).status)
        for number in range(500)
    )
    assert said == {400: 100, 300: 400}
    assert recorder.record(request("10.9.9.9", "other"), Decision(REFUSED, "x")).status is Status.REFUSED


async def test_who_has_no_agent_is_bound_by_its_source_alone(recorder: Recorder) -> None:
    """At zapd's own door nobody asks for anybody."""
    said = [
        recorder.record(request(f"10.0.0.{number}", None), Decision(REFUSED, "x")).status for number in range(250)
    ]
    assert set(said) == {Status.REFUSED}


async def test_malformed_questions_are_bound_too(recorder: Recorder) -> None:
    """A 400 to what is no question is a refusal like any other."""
    frames = [b"1.0", b"1", b"orders", b"192.0.2.1", b"", b"CURVE", b"x"]
    fault = MalformedRequest("credentials", b"1", 400)
    said = [int(recorder.record_malformed(frames, fault, b"", Asker("edge")).status) for _ in range(50)]
    assert said == [400] * 10 + [300] * 40


@pytest.mark.parametrize(
    ("address", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("localhost:7:8:9", "ipc:uid=7"),
        ("nowhere", "nowhere"),
        ("", "(none)"),
    ],
)
def test_sources_are_prefixes(address: str, source: str) -> None:
    """So that a network full of addresses is one source."""
    assert Repeats().source(address) == source


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 0.2)), max_size=200))
def test_tables_keep_their_bound(asked: list[tuple[int, int, float]]) -> None:
    """Whatever comes; beyond the bound the others share one place and one bound."""
    clock = Clock()
    repeats = Repeats(clock=clock)
    for number in range(SOURCES):
        repeats.allows(f"source-{number}", f"agent-{number}")
    shared = 0
    for source, agent, pause in asked:
        second = int(clock.now)
        shared += repeats.allows(f"s{source}", f"a{agent}") and second == 50
        assert len(repeats._sources) <= SOURCES + 1 and len(repeats._agents) <= SOURCES + 1
        clock.now += pause
    assert shared <= 10


async def test_what_fits_no_table_is_told_all_the_same(recorder: Recorder) -> None:
    """More sources than the summary has rows: the sum is right."""
    for number in range(3000):
        address = f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        recorder.record(request(address), Decision(TRY_AGAIN, "overload", asked=False))
    found = [line for line in await lines(recorder) if line["event"] == "auth.summary"]
    assert sum(line["count"] for line in found) == 3000
    assert [line["count"] for line in found if line["address"] == OTHERS] == [3000 - 1024]
