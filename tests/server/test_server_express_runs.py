"""Questions that came together: answered and recorded as if each had come alone."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.server_fixtures import ALICE, STRANGER, Connection, House, house, question

from zapd.audit.verify import verify
from zapd.auth.admission import encode_admission
from zapd.auth.backend import Admission
from zapd.server.express import Express
from zapd.server.wire_question import WireQuestion, wire_form
from zapd.zap import Asker
from zapd.zmtp.decoding import ClearDecoder, Item
from zapd.zmtp.framing import encode_messages
from zapd.zmtp.keys import fingerprint
from zapd.zmtp.limits import DEFAULT_LIMITS
from zapd.zmtp.run import Run, shape_of

EDGE = Asker("edge-1", ("orders", "metrics"))


def by_heart() -> Callable[[Sequence[bytes], str], list[Admission | None]]:
    """What `Keys` of the fixture knows, as a backend that answers from memory."""
    mark = fingerprint(ALICE).removeprefix("SHA256:").encode()
    admission = encode_admission((b"alice", mark, ("traders",), ()))
    return lambda keys, domain: [admission if key == ALICE else None for key in keys]


def open_express(zapd: House) -> None:
    """Let the endpoint take the express road."""
    zapd.authority.backends["keys"].recall = by_heart()
    zapd.endpoint._express = Express(zapd.authority, zapd.recorder, zapd.metrics)


def items_of(messages: Sequence[list[bytes]]) -> list[Item]:
    """What the decoder makes of messages that arrive in one read."""
    items: list[Item] = []
    ClearDecoder(DEFAULT_LIMITS).feed(encode_messages(messages), items)
    return items


def told(zapd: House) -> Counter[str]:
    """The record, without what differs between any two."""
    told: Counter[str] = Counter()
    for line in zapd.lines().splitlines():
        record = json.loads(line)
        if record.get("event", "").startswith("auth."):
            for name in ("time", "instance", "sequence", "hash"):
                del record[name]
            record["trail"] = [[name, outcome] for name, outcome, _ in record.get("trail", [])]
            told[json.dumps(record)] += 1
    return told


async def both_ways(folder: Path, messages: Sequence[list[bytes]]) -> tuple[House, House, Connection, Connection]:
    """The messages answered as they came, and one by one on the whole road."""
    whole_road, express = Connection(EDGE), Connection(EDGE)
    async with house(folder / "whole", "relaxed") as slow:
        for parts in messages:
            slow.endpoint.on_messages(whole_road, [list(parts)])
    async with house(folder / "express", "relaxed") as quick:
        open_express(quick)
        for item in items_of(messages):
            assert not isinstance(item, bytes)
            quick.endpoint.on_messages(express, item)
    return slow, quick, whole_road, express


QUESTIONS = st.builds(
    lambda key, domain, address, version, mechanism, envelope: (
        [*envelope, b"", version, b"1", domain, address, b"", mechanism, key]
    ),
    st.sampled_from([ALICE, ALICE, ALICE, STRANGER]),
    st.sampled_from([b"orders", b"orders", b"metric", b"other!"]),
    st.sampled_from([b"127.0.0.1", b"127.0.0.2", b"nowhere! ", b"127.0.0.123", b"::1"]),
    st.sampled_from([b"1.0", b"1.0", b"1.0", b"1.1"]),
    st.sampled_from([b"CURVE", b"CURVE", b"PLAIN"]),
    st.sampled_from([[], [b"q" * 16], [b"\0abcd", b"r" * 16], [b"short"]]),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(QUESTIONS, st.integers(1, 12)), max_size=6))
async def test_a_run_is_answered_and_recorded_as_its_questions_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[list[bytes], int]]
) -> None:
    """The same replies, the same records, the same counts, whatever is mixed with what."""
    messages = [list(parts) for parts, times in asked for _ in range(times)]
    slow, quick, whole_road, express = await both_ways(tmp_path_factory.mktemp("journals"), messages)
    assert Counter(map(tuple, express.sent)) == Counter(map(tuple, whole_road.sent))
    assert told(quick) == told(slow)
    assert +Counter(quick.metrics.decisions) == +Counter(slow.metrics.decisions)
    assert quick.metrics.malformed == slow.metrics.malformed


async def test_many_that_lie_alike_leave_in_one_write(tmp_path: Path) -> None:
    """A hundred questions with ids of their own: one write, each reply to its question, and a chain that holds."""
    peer = Connection(EDGE)
    asked = [question(ALICE, envelope=[b"%016d" % number]) for number in range(100)]
    async with house(tmp_path, "relaxed") as zapd:
        open_express(zapd)
        *_, run = items_of(asked)
        assert isinstance(run, Run)
        zapd.endpoint.on_messages(peer, run)
        assert peer.writes == 1
        assert [parts[0] for parts in peer.sent] == [parts[0] for parts in run]
        assert {tuple(parts[1:6]) for parts in peer.sent} == {(b"", b"1.0", b"1", b"200", b"OK")}
    ids = [json.loads(line).get("question_id") for line in zapd.lines().splitlines()]
    assert [bytes.fromhex(text) for text in ids if text] == [parts[0] for parts in run]
    report = verify(tmp_path)
    assert report.ok, list(report.lines())


async def test_questions_from_addresses_of_all_lengths_are_answered_together(tmp_path: Path) -> None:
    """As a fleet asks: once a few have shown how long the parts may be, all that come are one run, one write."""
    peer = Connection(EDGE)
    addresses = [b"10.0.0.%d" % (3 * number) for number in range(80)]
    asked = [
        [b"%016d" % number, b"", b"1.0", b"1", b"orders", address, b"", b"CURVE", ALICE]
        for number, address in enumerate(addresses)
    ]
    async with house(tmp_path, "relaxed") as zapd:
        open_express(zapd)
        decoder = ClearDecoder(DEFAULT_LIMITS)
        for _ in range(2):
            items: list[Item] = []
            decoder.feed(encode_messages(asked), items)
        (run,) = items
        assert isinstance(run, Run)
        assert len(run) == 80
        zapd.endpoint.on_messages(peer, run)
        assert peer.writes == 1
    assert {parts[4] for parts in peer.sent} == {b"200"}
    records = [json.loads(line) for line in zapd.lines().splitlines()]
    assert [record["address"] for record in records if "question_id" in record] == [
        address.decode() for address in addresses
    ]


async def test_strangers_within_a_run_do_not_hold_up_the_others(tmp_path: Path) -> None:
    """Keys that are not known by heart walk the whole road; the rest is answered together."""
    peer = Connection(EDGE)
    asked = [question(STRANGER if number % 10 == 3 else ALICE) for number in range(60)]
    async with house(tmp_path, "off") as zapd:
        open_express(zapd)
        for item in items_of(asked):
            zapd.endpoint.on_messages(peer, item)
    assert Counter(parts[3] for parts in peer.sent) == {b"200": 54, b"400": 6}


@pytest.mark.parametrize("durability", ["strict", "relaxed"])
async def test_a_run_that_cannot_be_recorded_is_not_admitted(tmp_path: Path, durability: str) -> None:
    """A closed journal makes each of them 300."""
    peer = Connection(EDGE)
    async with house(tmp_path, durability) as zapd:
        open_express(zapd)
        await zapd.journal.close()
        for item in items_of([question(ALICE)] * 30):
            zapd.endpoint.on_messages(peer, item)
    assert [parts[3] for parts in peer.sent] == [b"300"] * 30


async def test_a_run_whose_group_is_lost_is_not_admitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The record was taken, and then the disk failed: each of them is 300, envelopes intact."""
    peer = Connection(EDGE)
    asked = [question(ALICE, envelope=[b"%016d" % number]) for number in range(30)]
    async with house(tmp_path, "strict") as zapd:
        open_express(zapd)

        def fail(lines: list[bytes]) -> None:
            raise OSError("the disk is gone")

        monkeypatch.setattr(zapd.journal._held, "write", fail)
        for item in items_of(asked):
            zapd.endpoint.on_messages(peer, item)
        assert not peer.sent
        with pytest.raises(Exception, match="disk is gone"):
            await zapd.journal.durable()
        monkeypatch.undo()
    assert sorted(parts[0] for parts in peer.sent) == [parts[0] for parts in asked]
    assert {tuple(parts[1:]) for parts in peer.sent} == {
        (b"", b"1.0", b"1", b"300", b"Try again later", b"", b""),
    }
    assert zapd.recorder.unrecorded == 30


@pytest.mark.parametrize(
    "sizes",
    [
        (32,),
        (3, 1, 6, 9, 0, 5, 32),
        (3, 3, 1, 6, 9, 0, 5, 32),
        (0, 0, 3, 1, 6, 9, 0, 5, 32),
        (0, 3, 1, 6, 9, 0, 5, 31),
        (0, 3, 1, 6, 9, 0, 6, 32),
        (0, 4, 1, 6, 9, 0, 5, 32),
        (0, 3, 1, 6, 9, 0, 5, 32, 1),
        (*(5,) * 32, 0, 3, 1, 6, 9, 0, 5, 32),
    ],
)
def test_shapes_that_no_question_has_are_left_alone(sizes: tuple[int, ...]) -> None:
    """Too few parts, no delimiter or two, a part of the wrong size, too many hops."""
    assert WireQuestion.of(shape_of(tuple((size,) for size in sizes))) is None


def test_a_questions_parts_stand_where_they_are_looked_for() -> None:
    """Head, middle and key together are the question; the id is the frame before the delimiter."""
    parts = question(ALICE, envelope=[b"\0abcd", b"q" * 16])
    shape = wire_form(shape_of(tuple((len(part),) for part in parts)))
    assert isinstance(shape, WireQuestion)
    octets = encode_messages([parts] * 3)
    rows = shape.cut(octets)
    assert b"".join(piece for row in rows for piece in row) == octets
    head, middle, key = rows[0]
    assert head == encode_messages([[*parts[:5], b""]])[:-2]
    assert shape.question_id is not None
    assert head[shape.question_id] == b"q" * 16
    assert shape.open_middle(middle) == (b"orders", b"127.0.0.1", b"", b"CURVE")
    assert key == ALICE
    assert shape.is_version_right([head, head])
    assert not shape.is_version_right([head, head.replace(b"1.0", b"1.1")])
