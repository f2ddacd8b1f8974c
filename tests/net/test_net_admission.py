"""A handshake becomes a ZAP question, and doubt of every kind becomes 300."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support.net_handlers import Answering, Hanging, Raising
from support.net_wire import until

from zapd.net.admission import Admission
from zapd.zap import REFUSED, TRY_AGAIN, Asker, Status, Withheld, ZapReply, ZapRequest
from zapd.zmtp.credentials import CurveCredentials, NullCredentials, PlainCredentials

NOBODY = NullCredentials()


async def test_the_question_is_what_libzmq_would_ask() -> None:
    """Request id 1, the listener's domain, the peer's address, no identity, the credentials' frames."""
    handler = Answering(200, b"bob")
    asker = Asker("local:here")
    door = Admission(handler, "orders", asker=asker)
    replies: list[ZapReply] = []
    assert door.ask("PLAIN", PlainCredentials(b"bob", b"secret"), "127.0.0.1", replies.append) is None
    assert door.ask("CURVE", CurveCredentials(bytes(32)), "::1", replies.append) is None
    plain, curve = handler.asked
    assert (plain.request_id, plain.domain, plain.address, plain.identity) == (b"1", "orders", "127.0.0.1", b"")
    assert (plain.mechanism, plain.credentials, plain.asker) == ("PLAIN", (b"bob", b"secret"), asker)
    assert (curve.mechanism, curve.credentials, curve.address) == ("CURVE", (bytes(32),), "::1")
    assert [reply.user_id for reply in replies] == [b"bob", b"bob"]


async def test_an_answer_from_memory_needs_no_task() -> None:
    """The verdict has come before `ask` returns, and nothing is left running."""
    before = asyncio.all_tasks()
    replies: list[ZapReply] = []
    door = Admission(Answering(400), "lab")
    assert door.ask("NULL", NOBODY, "127.0.0.1", replies.append) is None
    assert replies == [REFUSED]
    assert asyncio.all_tasks() == before


class Waiting:
    """A handler whose answers wait for something; it may take a while over them besides."""

    def __init__(self, reply: ZapReply, delay: float = 0.0) -> None:
        self.waiting: list[Callable[[bool], None]] = []
        self._reply = reply
        self._delay = delay

    async def answer(self, request: ZapRequest) -> Withheld:
        if self._delay:
            await asyncio.sleep(self._delay)
        return Withheld(self._reply, self.waiting.append)


@pytest.mark.parametrize("good", [True, False])
async def test_an_answer_that_waits_for_its_record_needs_no_task(good: bool) -> None:
    """It leaves when it may, and is 300 when the record failed."""
    before = asyncio.all_tasks()
    replies: list[ZapReply] = []
    handler = Waiting(REFUSED)
    door = Admission(handler, "lab")
    assert door.ask("NULL", NOBODY, "127.0.0.1", replies.append) is not None
    assert asyncio.all_tasks() == before
    assert not replies
    handler.waiting[0](good)
    assert replies == [REFUSED if good else TRY_AGAIN]


async def test_a_slow_answer_may_wait_for_its_record_besides() -> None:
    """The deadline counts for both together."""
    replies: list[ZapReply] = []
    handler = Waiting(REFUSED, delay=0.001)
    door = Admission(handler, "lab", deadline=0.1)
    door.ask("NULL", NOBODY, "127.0.0.1", replies.append)
    door.ask("NULL", NOBODY, "127.0.0.1", replies.append)
    await until(lambda: len(handler.waiting) == 2)
    handler.waiting[0](True)
    assert replies == [REFUSED]
    await until(lambda: len(replies) == 2)
    assert replies == [REFUSED, TRY_AGAIN]
    handler.waiting[1](True)
    assert len(replies) == 2  # a late answer is nobody's


async def test_a_dropped_question_hears_nothing_of_its_record() -> None:
    """The peer went while its record was written."""
    replies: list[ZapReply] = []
    handler = Waiting(ZapReply(Status.GRANTED))
    question = Admission(handler, "lab").ask("NULL", NOBODY, "127.0.0.1", replies.append)
    assert question is not None
    question.drop()
    handler.waiting[0](True)
    assert not replies


async def test_a_slow_answer_comes_later() -> None:
    """A handler that waits is given a task, and its answer reaches the verdict once."""
    replies: list[ZapReply] = []
    door = Admission(Answering(200, b"slow", delay=0.01), "lab")
    assert door.ask("NULL", NOBODY, "127.0.0.1", replies.append) is not None
    assert door.open == 1
    await until(lambda: replies)
    assert [reply.user_id for reply in replies] == [b"slow"]
    assert door.open == 0


@pytest.mark.parametrize("late", [False, True])
async def test_an_exception_is_300(late: bool) -> None:
    """A bug in the handler, at once or later, is doubt; it is told to whoever listens for it."""
    errors: list[BaseException] = []
    replies: list[ZapReply] = []
    door = Admission(Raising(late), "lab", on_error=errors.append)
    door.ask("NULL", NOBODY, "127.0.0.1", replies.append)
    await until(lambda: replies)
    assert replies == [TRY_AGAIN]
    assert door.errors == 1
    assert [str(error) for error in errors] == ["a bug in the handler"]


async def test_an_exception_nobody_listens_for_reaches_the_loop() -> None:
    """It is not lost in silence, and no credential is in what is told."""
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context))
    replies: list[ZapReply] = []
    Admission(Raising(), "lab").ask("PLAIN", PlainCredentials(b"bob", b"secret"), "::1", replies.append)
    assert replies == [TRY_AGAIN]
    assert "failed to answer" in seen[0]["message"]
    assert "secret" not in repr(seen)


async def test_a_handler_that_hangs_is_300_at_the_deadline() -> None:
    """The deadline ends the wait and stops the handler; what it says afterwards is nobody's."""
    handler = Hanging()
    replies: list[ZapReply] = []
    door = Admission(handler, "lab", deadline=0.05)
    door.ask("NULL", NOBODY, "127.0.0.1", replies.append)
    await until(lambda: handler.stopped)
    assert replies == [TRY_AGAIN]
    assert door.late == 1
    await until(lambda: door.open == 0)
    assert replies == [TRY_AGAIN]


async def test_a_handler_that_cannot_be_stopped_keeps_its_place() -> None:
    """Questions are bounded even when a handler ignores its cancellation; the next ones are 300 at once."""
    release = asyncio.Event()

    class Stubborn:
        async def answer(self, request: ZapRequest) -> ZapReply:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return ZapReply(Status.GRANTED)

    replies: list[ZapReply] = []
    door = Admission(Stubborn(), "lab", deadline=0.02, waiting=1)
    door.ask("NULL", NOBODY, "127.0.0.1", replies.append)
    await until(lambda: replies)
    door.ask("NULL", NOBODY, "127.0.0.1", replies.append)
    assert replies == [TRY_AGAIN, TRY_AGAIN]
    assert door.shed == 1
    release.set()
    await until(lambda: door.open == 0)
    assert replies == [TRY_AGAIN, TRY_AGAIN]  # a late 200 is nobody's


async def test_a_dropped_question_gives_no_verdict() -> None:
    """The peer is gone: the handler is stopped, the verdict never called."""
    handler = Hanging()
    replies: list[ZapReply] = []
    door = Admission(handler, "lab")
    question = door.ask("NULL", NOBODY, "127.0.0.1", replies.append)
    assert question is not None
    await asyncio.sleep(0)
    question.drop()
    await until(lambda: handler.stopped)
    assert not replies


@pytest.mark.parametrize("answer", [None, 200, ZapReply(200), ZapReply(Status.GRANTED, bytes(256))])  # type: ignore[arg-type]
async def test_an_answer_that_is_none_is_300(answer: Any) -> None:
    """Only a reply with a status of the enum and a user id that fits can let anybody in."""

    class Odd:
        async def answer(self, request: ZapRequest) -> ZapReply:
            reply: ZapReply = answer
            return reply

    replies: list[ZapReply] = []
    Admission(Odd(), "lab").ask("NULL", NOBODY, "127.0.0.1", replies.append)
    handler = Waiting(answer)
    Admission(handler, "lab").ask("NULL", NOBODY, "127.0.0.1", replies.append)
    handler.waiting[0](True)
    assert replies == [TRY_AGAIN, TRY_AGAIN]
