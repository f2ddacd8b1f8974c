"""From a decision to its line: one by one, counted, or not given at all."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.server_fixtures import STRANGER

from zapd.audit.event import AuditEvent, Tag
from zapd.audit.gaps import Summaries
from zapd.audit.journal import Journal, JournalUnavailable
from zapd.auth.decision import Decision
from zapd.server.recorder import ChangeRecorder, Recorder, event_of
from zapd.zap import REFUSED, TRY_AGAIN, Asker, Status, ZapReply, ZapRequest

GRANTED = ZapReply(Status.GRANTED, user_id=b"alice")


def request(mechanism: str = "CURVE", *credentials: bytes) -> ZapRequest:
    given = credentials or (STRANGER,)
    return ZapRequest(b"1", "orders", "127.0.0.1", b"", mechanism, given, b"q" * 16, Asker("edge-1"))


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Recorder]:
    journal = await Journal.open(tmp_path / "audit", retry_interval=0.05)
    yield Recorder(journal, Summaries(journal))
    await journal.close()


def lines(recorder: Recorder) -> list[dict[str, object]]:
    paths = sorted(recorder.journal.directory.glob("*/*.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def block(recorder: Recorder) -> None:
    """Put a file where the journal's folder was."""
    folder = recorder.journal.directory
    folder.rename(folder.with_name("away"))
    folder.write_text("")


async def refusing(recorder: Recorder) -> None:
    """Until the journal has noticed."""
    block(recorder)
    recorder.record(request(), Decision(REFUSED, "unknown_key"))
    with pytest.raises(JournalUnavailable):
        await recorder.journal.durable()


@pytest.mark.parametrize(
    ("reply", "tag"), [(GRANTED, "auth.accept"), (REFUSED, "auth.reject"), (TRY_AGAIN, "auth.defer")]
)
async def test_each_decision_has_its_own_record(recorder: Recorder, reply: ZapReply, tag: str) -> None:
    """Who, what, through whom, why: and the reply is the decision's own."""
    decision = Decision(reply, "why", "alice", "fingerprint", (("keys", "accept", 0.1),))
    assert recorder.record(request(), decision) is reply
    await recorder.journal.durable()
    [line] = [each for each in lines(recorder) if each["event"] == tag]
    assert (line["domain"], line["mechanism"], line["address"]) == ("orders", "CURVE", "127.0.0.1")
    assert (line["agent"], line["principal"], line["key"]) == ("edge-1", "alice", "fingerprint")
    assert (line["status"], line["reason"]) == (int(reply.status), "why")
    assert line["question_id"] == (b"q" * 16).hex()
    assert line["trail"] == [["keys", "accept", 0.1]]


async def test_300s_that_asked_nobody_are_counted_into_one_record(recorder: Recorder) -> None:
    """A thousand of them are one line with the sum."""
    for _ in range(1000):
        assert recorder.record(request(), Decision(TRY_AGAIN, "overload", asked=False)) is TRY_AGAIN
    recorder.summaries.flush()
    await recorder.journal.durable()
    found = [each for each in lines(recorder) if each["event"] == "auth.summary"]
    assert [each["count"] for each in found] == [1000]
    assert found[0]["reason"] == "overload"


async def test_what_cannot_be_recorded_is_not_given(recorder: Recorder) -> None:
    """A grant becomes 300 while the journal takes nothing; afterwards the gap is told, with its counts."""
    await refusing(recorder)
    for _ in range(3):
        assert recorder.record(request(), Decision(GRANTED, "granted", "alice")) is TRY_AGAIN
    assert recorder.unrecorded == 3
    folder = recorder.journal.directory
    folder.unlink()
    folder.with_name("away").rename(folder)
    while not recorder.journal.writable:
        await asyncio.sleep(0.01)
    await recorder.journal.durable()
    [gap] = [each for each in lines(recorder) if each["event"] == "auth.gap"]
    assert gap["count"] == 3
    assert "alice" not in json.dumps([each for each in lines(recorder) if each["event"] == "auth.accept"])


async def test_off_records_nothing_and_stands_in_nobodys_way(tmp_path: Path) -> None:
    """The reply goes out as decided, and no file is made."""
    journal = await Journal.open(tmp_path / "audit", durability="off")
    recorder = Recorder(journal, Summaries(journal))
    assert recorder.record(request(), Decision(GRANTED, "granted", "alice")) is GRANTED
    await journal.close()
    assert not list(tmp_path.glob("audit/*/*"))


def test_a_record_has_the_name_and_never_the_password() -> None:
    """PLAIN and GSSAPI tell who; a name that is no UTF-8 is shown all the same."""
    told = event_of(request("PLAIN", b"bob", b"correct horse"), Decision(REFUSED, "wrong_password"))
    assert told.username == "bob"
    assert "correct horse" not in repr(told)
    assert event_of(request("GSSAPI", b"b\xff"), Decision(REFUSED, "no")).username == "b\N{REPLACEMENT CHARACTER}"
    assert event_of(request(), Decision(REFUSED, "no")).username == ""


async def test_a_change_is_durable_when_its_recorder_returns(recorder: Recorder) -> None:
    """And raises when it is not."""
    changes = ChangeRecorder(recorder.journal)
    assert changes.writable
    assert changes.instance == recorder.journal.instance
    await changes.record_change(7, AuditEvent(event=Tag.KEY_ADD, subject="key", change=7))
    assert [each["change"] for each in lines(recorder) if each["event"] == "key.add"] == [7]
    await refusing(recorder)
    assert not ChangeRecorder(recorder.journal).writable
    with pytest.raises(JournalUnavailable):
        await changes.record_change(8, AuditEvent(event=Tag.KEY_ADD, subject="key", change=8))
