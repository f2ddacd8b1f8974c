"""Passwords that were right a moment ago: answered and recorded from memory as the whole road would."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.server_fixtures import Connection, House, house

from zapd.audit.verify import verify
from zapd.server.express import Express
from zapd.server.wire_question import WirePassword, wire_form
from zapd.zap import Asker
from zapd.zmtp.decoding import ClearDecoder, Item
from zapd.zmtp.framing import encode_messages
from zapd.zmtp.limits import DEFAULT_LIMITS
from zapd.zmtp.run import Run, shape_of

EDGE = Asker("edge-1", ("office",))
ID = b"q" * 16


def login(
    user: bytes = b"ada",
    password: bytes = b"good",
    *,
    domain: bytes = b"office",
    address: bytes = b"127.0.0.1",
    envelope: Sequence[bytes] = (),
) -> list[bytes]:
    return [*envelope, b"", b"1.0", b"7", domain, address, b"", b"PLAIN", user, password]


def items_of(messages: Sequence[list[bytes]]) -> list[Item]:
    """What the decoder makes of messages that arrive in one read."""
    items: list[Item] = []
    ClearDecoder(DEFAULT_LIMITS).feed(encode_messages(messages), items)
    return items


def open_express(zapd: House) -> Express:
    express = zapd.endpoint._express = Express(zapd.authority, zapd.recorder, zapd.metrics)
    return express


async def ask(zapd: House, messages: Sequence[list[bytes]], asker: Asker = EDGE) -> list[list[bytes]]:
    """The replies to messages that arrive together."""
    peer = Connection(asker)
    for item in items_of(messages):
        assert not isinstance(item, bytes)
        zapd.endpoint.on_messages(peer, item)
    async with asyncio.timeout(10):
        while len(peer.sent) < len(messages):
            await asyncio.sleep(0)
    return peer.sent


def records(zapd: House) -> list[dict[str, object]]:
    """What the record says of decisions, without what differs between any two lines."""
    found = [json.loads(line) for line in zapd.lines().splitlines()]
    for record in found:
        for name in ("time", "instance", "sequence", "hash", "trail"):
            record.pop(name, None)
    return [record for record in found if record.get("event", "").startswith("auth.")]


async def test_a_remembered_password_is_answered_at_once(tmp_path: Path) -> None:
    """After the first time nobody is asked: replies, records and counts are those of the whole road."""
    async with house(tmp_path, "relaxed") as zapd:
        (first,) = await ask(zapd, [login(envelope=[ID])])
        (again,) = await ask(zapd, [login(envelope=[ID])])  # the cache's own road
        express = open_express(zapd)
        assert express.is_open()
        assert express.answer(EDGE, login(envelope=[ID])) == first == again
        together = await ask(zapd, [login(envelope=[ID])] * 20)
        assert together == [first] * 20
        assert zapd.people.asked == 1
        assert zapd.metrics.decisions["office", "PLAIN", 200, "granted"] == 23
        assert zapd.authority.cache.hits == 22
    told = records(zapd)
    assert told == [told[0]] * 23
    assert told[0]["username"] == "ada"
    assert told[0]["question_id"] == ID.hex()
    assert "good" not in zapd.lines().replace('"reason":"granted"', "")
    report = verify(tmp_path)
    assert report.ok, list(report.lines())


async def test_questions_without_an_id_are_recorded_without_one(tmp_path: Path) -> None:
    """A bare REQ has none, and its record does not pretend."""
    async with house(tmp_path, "relaxed") as zapd:
        open_express(zapd)
        await ask(zapd, [login()] * 30)
        await ask(zapd, [login()] * 30)
    told = records(zapd)
    assert told == [told[0]] * 60
    assert "question_id" not in told[0]


LOGINS = st.builds(
    lambda user, password, domain, address, envelope: login(
        user, password, domain=domain, address=address, envelope=envelope
    ),
    st.sampled_from([b"ada", b"bob", b"cyd", b"\xc3\xa9a", b'q"q']),
    st.sampled_from([b"good", b"good", b"good", b"evil", b""]),
    st.sampled_from([b"office", b"office", b"orders", b"nobody"]),
    st.sampled_from([b"127.0.0.1", b"127.0.0.2", b"nowhere! "]),
    st.sampled_from([[], [ID], [b"\0abcd", ID], [b"short"]]),
)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(LOGINS, st.integers(1, 8)), min_size=1, max_size=5))
async def test_remembering_changes_no_answer(
    tmp_path_factory: pytest.TempPathFactory, asked: list[tuple[list[bytes], int]]
) -> None:
    """The same replies and the same records as on the whole road, whatever is mixed with what, and again."""
    messages = [list(parts) for parts, times in asked for _ in range(times)]
    both: list[tuple[Counter[tuple[bytes, ...]], Counter[str]]] = []
    for name in ("whole", "express"):
        replies: Counter[tuple[bytes, ...]] = Counter()
        async with house(tmp_path_factory.mktemp(name), "relaxed") as zapd:
            if name == "express":
                open_express(zapd)
            for _ in range(2):
                replies.update(map(tuple, await ask(zapd, messages)))
        both.append((replies, Counter(json.dumps(record) for record in records(zapd))))
    assert both[0] == both[1]


async def test_what_is_forgotten_is_not_repeated(tmp_path: Path) -> None:
    """A disabled user is refused at the next question, though the password was right a moment ago."""
    async with house(tmp_path, "off") as zapd:
        open_express(zapd)
        await ask(zapd, [login()] * 10)
        assert {reply[3] for reply in await ask(zapd, [login()] * 10)} == {b"200"}
        zapd.people.gone.add("ada")
        zapd.authority.forget()
        assert {reply[3] for reply in await ask(zapd, [login()] * 10)} == {b"400"}
        assert {reply[3] for reply in await ask(zapd, [login()])} == {b"400"}


async def test_an_entry_ends_with_the_decision_it_was_made_of(tmp_path: Path) -> None:
    """What the cache would no longer give is asked anew."""
    async with house(tmp_path, "off") as zapd:
        now = 0.0
        zapd.authority.cache.clock = lambda: now
        open_express(zapd)
        await ask(zapd, [login()] * 10)
        await ask(zapd, [login()] * 10)
        asked = zapd.people.asked
        now = 1e6
        await ask(zapd, [login()])
        assert zapd.people.asked == asked + 1
        now = 2e6
        await ask(zapd, [login()] * 10)
        assert zapd.people.asked > asked + 1


async def test_another_asker_learns_for_itself(tmp_path: Path) -> None:
    """What one agent asked before is no answer to one that may not ask."""
    async with house(tmp_path, "off") as zapd:
        open_express(zapd)
        await ask(zapd, [login()] * 10)
        await ask(zapd, [login()] * 10)
        replies = await ask(zapd, [login()] * 10, Asker("edge-2", ("orders",)))
        assert {reply[3] for reply in replies} == {b"300"}


async def test_passwords_that_cannot_be_recorded_are_not_admitted(tmp_path: Path) -> None:
    """A closed journal makes each of them 300, alone and together."""
    async with house(tmp_path, "relaxed") as zapd:
        open_express(zapd)
        await ask(zapd, [login()])
        await ask(zapd, [login()])
        await zapd.journal.close()
        assert {reply[3] for reply in await ask(zapd, [login()])} == {b"300"}
        assert {reply[3] for reply in await ask(zapd, [login()] * 20)} == {b"300"}


def test_a_password_question_on_the_wire() -> None:
    """Head and tail together are the question; no CURVE question has such a form."""
    parts = login(envelope=[b"\0abcd", ID])
    form = wire_form(shape_of(tuple((len(part),) for part in parts)))
    assert isinstance(form, WirePassword)
    octets = encode_messages([parts] * 2)
    (head, tail), _ = form.cut(octets)
    assert form.is_version_right([head])
    assert not form.is_version_right([head, head.replace(b"1.0", b"1.1")])
    assert head + tail == encode_messages([parts])
    assert form.question_id is not None
    assert head[form.question_id] == ID
    assert tail == encode_messages([parts[-6:]])
    run = items_of([parts] * 20)[-1]
    assert isinstance(run, Run)
