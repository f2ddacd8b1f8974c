"""zapd's own door: who may ask at all, on record before he may."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest
from support.server_fixtures import ALICE

from zapd.audit.gaps import Summaries
from zapd.audit.journal import Journal
from zapd.auth.backend import Outcome
from zapd.auth.decision import Decision
from zapd.errors import Unavailable
from zapd.server.door import AgentDirectory, Door, at_its_address
from zapd.server.recorder import Recorder
from zapd.store.agents_index import AgentsIndex
from zapd.zap import REFUSED, TRY_AGAIN, Asker, Status, Withheld, ZapReply, ZapRequest

GRANTED = Decision(ZapReply(Status.GRANTED, user_id=b"edge-1"), "granted", "edge-1", "fingerprint")
REQUEST = ZapRequest(b"1", "zapd.agents", "10.0.0.1", b"", "CURVE", (ALICE,))


class Known:
    """An enrolled agent as the index gives it, here only from one network."""

    ended = False

    def allows_address(self, address: str) -> bool:
        return address.startswith("10.")


class Index:
    """Stands where `AgentsIndex` does; ``found`` may raise."""

    def __init__(self, found: Callable[[], object]) -> None:
        self._found = found

    def lookup(self, _public_key: bytes) -> object:
        return self._found()

    def asker(self, _public_key: bytes) -> object:
        return Asker("edge-1") if self._found() is not None else None


def index(found: Callable[[], object]) -> AgentsIndex:
    return cast(AgentsIndex, Index(found))


def away() -> object:
    raise Unavailable("not read")


async def decide(_request: ZapRequest) -> Decision:
    return GRANTED


async def refuse(_request: ZapRequest) -> Decision:
    return Decision(REFUSED, "unknown_agent")


@pytest.fixture
async def recorder(tmp_path: Path) -> AsyncIterator[Recorder]:
    journal = await Journal.open(tmp_path / "audit")
    yield Recorder(journal, Summaries(journal))
    await journal.close()


async def said(door: Door) -> ZapReply:
    """What the door lets out, once it may leave."""
    answer = await door.answer(REQUEST)
    if not isinstance(answer, Withheld):
        return answer
    good: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
    answer.when(good.set_result)
    return answer.reply if await good else TRY_AGAIN


def written(recorder: Recorder) -> str:
    return "".join(path.read_text() for path in recorder.journal.directory.glob("*/*.jsonl"))


async def test_who_comes_in_is_on_disk_first(recorder: Recorder) -> None:
    """The record is durable when the door answers."""
    reply = await said(Door(decide, recorder))
    assert reply.status is Status.GRANTED
    assert '"event":"auth.accept"' in written(recorder)
    assert (await said(Door(refuse, recorder))).status is Status.REFUSED
    assert '"reason":"unknown_agent"' in written(recorder)


async def test_nobody_comes_in_while_the_journal_takes_nothing(recorder: Recorder) -> None:
    """A group that fails between record and answer makes the answer 300; so does a journal that refuses."""
    folder = recorder.journal.directory
    folder.rename(folder.with_name("away"))
    folder.write_text("")
    door = Door(decide, recorder)
    assert await said(door) is TRY_AGAIN
    assert await said(door) is TRY_AGAIN
    assert recorder.unrecorded >= 2
    folder.unlink()
    folder.with_name("away").rename(folder)


async def test_a_draining_door_asks_and_admits_nobody(recorder: Recorder) -> None:
    """From SIGTERM on newcomers hear 300."""
    door = Door(decide, recorder)
    door.draining = True
    assert await said(door) is TRY_AGAIN
    assert "auth." not in written(recorder)


async def test_an_agent_comes_from_its_own_networks_alone() -> None:
    """The right key from elsewhere is refused, and the record says whose it was."""
    guarded = at_its_address(decide, index(Known))
    assert (await guarded(REQUEST)).status is Status.GRANTED
    elsewhere = await guarded(REQUEST._replace(address="192.0.2.1"))
    assert (elsewhere.status, elsewhere.reason) == (Status.REFUSED, "address_not_allowed")
    assert elsewhere.principal == "edge-1"
    gone = at_its_address(decide, index(lambda: None))
    assert (await gone(REQUEST)).status is Status.REFUSED, "revoked between two looks"


def test_the_directory_says_why_it_knows_nobody() -> None:
    """Unknown and revoked are a no; a registry that was not read is none."""
    asker = AgentDirectory(index(Known)).lookup(ALICE)
    assert asker is not None
    assert asker.name == "edge-1"
    assert AgentDirectory(index(lambda: None)).lookup(ALICE) is None
    assert AgentDirectory(index(lambda: None)).refusal(ALICE).outcome is Outcome.UNKNOWN
    assert AgentDirectory(index(Known)).refusal(ALICE).outcome is Outcome.LOCKED
    assert AgentDirectory(index(away)).lookup(ALICE) is None
    assert AgentDirectory(index(away)).refusal(ALICE).outcome is Outcome.UNAVAILABLE
