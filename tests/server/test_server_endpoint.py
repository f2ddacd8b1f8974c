"""The endpoint: a batch of questions in, one batch of recorded answers out."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from support.server_fixtures import ALICE, BROKEN, SLOW, STRANGER, Connection, house, question

from zapd.auth.decision import Decision
from zapd.zap import REFUSED, TRY_AGAIN, Asker, Status, ZapReply, ZapRequest

EDGE = Asker("edge-1", ("orders",))


async def test_a_batch_is_answered_in_one_write_after_one_sync(tmp_path: Path) -> None:
    """Every question that came together leaves together, and not before the journal holds all of them."""
    async with house(tmp_path) as zapd:
        peer = Connection(EDGE)
        zapd.endpoint.on_messages(peer, [question(ALICE), question(STRANGER, request_id=b"2")])
        assert peer.sent == [], "a strict reply waits for its record"
        await zapd.settled()
        assert peer.writes == 1
        assert [(parts[2], parts[3]) for parts in peer.sent] == [(b"1", b"200"), (b"2", b"400")]
        assert peer.sent[0][5] == b"alice"
        assert zapd.lines().count('"auth.accept"') == zapd.lines().count('"auth.reject"') == 1


async def test_a_relaxed_answer_waits_for_no_disk(tmp_path: Path) -> None:
    """In relaxed mode the reply is out before the call returns, and the record follows."""
    async with house(tmp_path, "relaxed") as zapd:
        peer = Connection(EDGE)
        zapd.endpoint.on_messages(peer, [question(ALICE)])
        assert peer.sent[0][3] == b"200"
    assert '"auth.accept"' in zapd.lines()


async def test_an_envelope_comes_back_untouched_and_its_question_id_is_recorded(tmp_path: Path) -> None:
    """Any number of hops, returned as they came; the innermost 16 octets are the agent's question id."""
    async with house(tmp_path) as zapd:
        peer = Connection(EDGE)
        hops = [b"\0abcd", b"\0efgh", b"q" * 16]
        zapd.endpoint.on_messages(peer, [question(ALICE, envelope=hops)])
        await zapd.settled()
        assert peer.sent[0][:4] == [*hops, b""]
        assert ("71" * 16) in zapd.lines()


async def test_one_slow_question_delays_nobody(tmp_path: Path) -> None:
    """Answers leave as they are ready: the quick one first, the slow one when its backend answers."""
    async with house(tmp_path, "relaxed") as zapd:
        peer = Connection(EDGE)
        zapd.endpoint.on_messages(peer, [question(SLOW, request_id=b"slow"), question(ALICE, request_id=b"quick")])
        assert [parts[2] for parts in peer.sent] == [b"quick"]
        assert zapd.endpoint.in_flight == 1
        zapd.keys.gate.set()
        async with asyncio.timeout(5):
            while len(peer.sent) < 2:
                await asyncio.sleep(0.001)
        assert peer.sent[1][2:4] == [b"slow", b"200"]
        assert zapd.endpoint.in_flight == 0


async def test_beyond_the_bound_of_slow_questions_the_answer_is_300_at_once(tmp_path: Path) -> None:
    """A peer cannot make questions queue up without end."""
    async with house(tmp_path, "relaxed", in_flight=2) as zapd:
        peer = Connection(EDGE)
        zapd.endpoint.on_messages(peer, [question(SLOW, request_id=b"%d" % n) for n in range(5)])
        assert [parts[2:4] for parts in peer.sent] == [[b"%d" % n, b"300"] for n in (2, 3, 4)]
        zapd.keys.gate.set()


async def test_a_backends_bug_is_300_and_never_stops_the_service(tmp_path: Path) -> None:
    """An exception is answered 300, and the next question as if nothing had happened."""
    async with house(tmp_path, "relaxed") as zapd:
        peer = Connection(EDGE)
        zapd.endpoint.on_messages(peer, [question(BROKEN), question(ALICE)])
        assert [parts[3] for parts in peer.sent] == [b"300", b"200"]


async def test_an_authority_that_raises_is_300(tmp_path: Path) -> None:
    """Even what must never raise may: the question is answered all the same."""
    async with house(tmp_path, "relaxed") as zapd:

        async def broken(request: object) -> None:
            raise RuntimeError("a bug")

        zapd.endpoint._decide = broken  # type: ignore[assignment]
        peer = Connection(EDGE)
        zapd.endpoint.on_messages(peer, [question(ALICE)])
        assert peer.sent[0][3] == b"300"
        assert zapd.metrics.bugs == 1


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ([b"hello"], None),
        ([], None),
        ([b""], None),
        ([b"", b"1.0"], None),
        ([b"", b"2.0", b"1", b"orders", b"::1", b"", b"CURVE", ALICE], b"500"),
        ([b"", b"1.0", b"1", b"orders", b"::1", b"", b"CURVE"], b"500"),
        ([b"", b"1.0", b"1", b"orders", b"::1", b"", b"HTTP", b"x"], b"400"),
        ([b"", b"1.0", b"1", b"ord\ners", b"::1", b"", b"CURVE", ALICE], b"400"),
        ([b"", b"1.0", b"1", b"orders", b"::1", b"", b"GSSAPI"], b"401"),
        ([b"", b"1.0", b"1", b"orders", b"::1", b"", b"GSSAPI", b"x", b"y"], b"401"),
        ([b"", b"1.0", b"1", b"orders", b"::1", b"", b"GSSAPI", b"ada\n@R"], b"401"),
        ([b"", b"1.0", b"1", b"orders", b"::1", b"", b"GSSAPI", b"x" * 5000], b"401"),
        ([b"", b"2.0", b"1", b"orders", b"::1", b"", b"GSSAPI", b"x"], b"401"),
    ],
)
async def test_a_malformed_question_gets_its_reaction_and_harms_nobody(
    tmp_path: Path, message: list[bytes], answer: bytes | None
) -> None:
    """500 or 400 with the id that came, silence with nothing to echo; the good question beside it is answered."""
    async with house(tmp_path, "relaxed") as zapd:
        peer = Connection(EDGE)
        zapd.endpoint.on_messages(peer, [message, question(ALICE, request_id=b"good")])
        assert peer.sent[-1][2:4] == [b"good", b"200"]
        assert [parts[3] for parts in peer.sent[:-1]] == ([answer] if answer else [])
        assert zapd.metrics.malformed == 1


async def test_an_agent_hears_300_outside_its_domains(tmp_path: Path) -> None:
    """What an agent was not enrolled for is not decided for it, and not refused for good either."""
    async with house(tmp_path, "relaxed") as zapd:
        peer = Connection(Asker("edge-2", ("metrics.*",)))
        zapd.endpoint.on_messages(peer, [question(ALICE)])
        assert peer.sent[0][3] == b"300"


async def test_newcomers_hear_300_while_it_drains(tmp_path: Path) -> None:
    """Draining finishes what is open and sends everybody else away for now."""
    async with house(tmp_path, "relaxed") as zapd:
        peer = Connection(EDGE)
        zapd.endpoint.on_messages(peer, [question(SLOW)])
        draining = asyncio.create_task(zapd.endpoint.drain(5))
        await asyncio.sleep(0)
        zapd.endpoint.on_messages(peer, [question(ALICE)])
        assert peer.sent[0][3] == b"300"
        zapd.keys.gate.set()
        await draining
        assert [parts[3] for parts in peer.sent] == [b"300", b"200"]


async def test_what_is_open_when_draining_ends_hears_300_on_record(tmp_path: Path) -> None:
    """Nobody is left without an answer: the question is cut short, recorded as deferred, and asked elsewhere."""
    async with house(tmp_path) as zapd:
        peer = Connection(EDGE)
        zapd.endpoint.on_messages(peer, [question(SLOW, request_id=b"1"), question(SLOW, request_id=b"2")])
        await zapd.endpoint.drain(0.01)
        await zapd.settled()
        assert sorted(parts[2] for parts in peer.sent) == [b"1", b"2"]
        assert {parts[3] for parts in peer.sent} == {b"300"}
        assert zapd.lines().count('"auth.defer"') == zapd.lines().count('"reason":"draining"') == 2
        assert zapd.endpoint.in_flight == 0


async def test_what_cannot_be_recorded_is_not_admitted(tmp_path: Path) -> None:
    """With the journal gone, an entitled client hears 300, and the gap is counted."""
    async with house(tmp_path) as zapd:
        peer = Connection(EDGE)
        await zapd.journal.close()
        zapd.endpoint.on_messages(peer, [question(ALICE)])
        assert peer.sent[0][3] == b"300"
        assert zapd.recorder.unrecorded >= 1


@pytest.mark.parametrize("durability", ["strict", "relaxed", "off"])
async def test_for_gssapi_every_no_leaves_in_the_form_that_keeps_peers_out(tmp_path: Path, durability) -> None:
    """Refused, deferred, our own bug, too much at once, late, draining, not recorded: 401 and no user id each, and
    the record has the true status."""
    gate = asyncio.Event()

    async def decide(request: ZapRequest) -> Decision:
        match request.credentials[0]:
            case b"granted":
                return Decision(ZapReply(Status.GRANTED, b"ada"), "granted", "ada")
            case b"refused":
                return Decision(REFUSED, "principal_denied", "ada")
            case b"deferred":
                return Decision(TRY_AGAIN, "no_account", "ada")
            case b"slow":
                await gate.wait()
                return Decision(REFUSED, "in_the_end", "ada")
        raise RuntimeError("a bug")

    def asked(principal: bytes) -> list[bytes]:
        return [b"", b"1.0", principal, b"lab", b"127.0.0.1", b"", b"GSSAPI", principal]

    async with house(tmp_path, durability, in_flight=1) as zapd:
        zapd.endpoint._decide = decide
        peer = Connection(EDGE)
        names = [b"granted", b"refused", b"deferred", b"bug", b"slow", b"slow"]
        zapd.endpoint.on_messages(peer, [asked(name) for name in names])
        gate.set()
        draining = asyncio.create_task(zapd.endpoint.drain(5))
        await asyncio.sleep(0)
        zapd.endpoint.on_messages(peer, [asked(b"granted")])  # while it drains
        await draining
        zapd.endpoint.draining = False
        if durability != "off":
            await zapd.settled()
            await zapd.journal.close()
            zapd.endpoint.on_messages(peer, [asked(b"granted")])  # it cannot be recorded
        by_status = [parts[2] for parts in peer.sent if parts[3] == b"200"]
        assert by_status == [b"granted"]
        others = [parts for parts in peer.sent if parts[3] != b"200"]
        assert len(others) == (7 if durability != "off" else 6)
        assert {(parts[3], parts[5], parts[6]) for parts in others} == {(b"401", b"", b"")}
        if durability != "off":
            for reason, status in (("principal_denied", 400), ("no_account", 300), ("in_the_end", 400)):
                assert f'"status":{status},"reason":"{reason}"' in zapd.lines()
