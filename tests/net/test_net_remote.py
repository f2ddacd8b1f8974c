"""Asking a distant zapd: one reply for each question, before its deadline, or 300."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from support.net_handlers import Answering
from support.net_wire import until

from zapd.net.address import Address
from zapd.net.dealer import DealerLimits
from zapd.net.peer import Peer
from zapd.net.remote import RemoteHandler
from zapd.net.router import Router
from zapd.zap import REFUSED, TRY_AGAIN, Status, ZapReply, ZapRequest, parse_request, reply_frames, split_envelope
from zapd.zmtp.mechanisms.null import NullClient, NullServer

BOTH_LOOPS = True
QUICK = DealerLimits(backoff_first=0.01, backoff_most=0.05)
QUESTION = ZapRequest(b"1", "orders", "192.0.2.7", b"", "CURVE", (bytes(32),))


class Central:
    """A zapd in the small: it answers, later, twice or wrongly, as told."""

    def __init__(self) -> None:
        self.handler = Answering(200, b"bob", b"")
        self.asked: list[tuple[Peer, list[bytes]]] = []
        self.reply: Callable[[Peer, list[bytes]], None] = self.answer
        self.router = Router(self.on_messages)

    def on_messages(self, peer: Peer, messages: list[list[bytes]]) -> None:
        for parts in messages:
            self.asked.append((peer, parts))
            self.reply(peer, parts)

    def frames(self, parts: list[bytes]) -> list[bytes]:
        split = split_envelope(parts)
        assert split is not None
        envelope, body = split
        request = parse_request(body)
        return [*envelope, *reply_frames(self.handler.reply, request.request_id, request.mechanism)]

    def answer(self, peer: Peer, parts: list[bytes]) -> None:
        peer.send_messages([self.frames(parts)])

    def keep_silent(self, peer: Peer, parts: list[bytes]) -> None:
        pass


@asynccontextmanager
async def remote(central: Central, deadline: float = 5.0, in_flight: int = 1024) -> AsyncIterator[RemoteHandler]:
    address: Address = await central.router.listen("tcp://127.0.0.1:0", NullServer())
    handler = RemoteHandler(address, NullClient(), deadline=deadline, in_flight=in_flight, limits=QUICK)
    handler.start()
    try:
        assert await handler.dealer.wait_up(5)
        yield handler
    finally:
        await handler.close()
        await central.router.close(0.1)


async def test_a_question_is_answered_from_afar() -> None:
    """The reply of the distant handler is the answer, and each question has its own random id."""
    central = Central()
    async with remote(central) as handler:
        assert await handler.answer(QUESTION) == ZapReply(Status.GRANTED, b"bob", b"")
        central.handler.reply = REFUSED
        answers = await asyncio.gather(*(handler.answer(QUESTION) for _ in range(200)))
        assert set(answers) == {REFUSED}
        ids = {parts[0] for _, parts in central.asked}
        assert len(ids) == 201
        assert {len(each) for each in ids} == {16}
        assert all(parts[1] == b"" for _, parts in central.asked)
        assert handler.in_flight == 0
        assert handler.counters.answered == 201


async def test_a_refusal_under_gssapi_is_one() -> None:
    """zapd's form of it, which libzmq cannot read, is read here: 400 stays 400, and doubt 300."""
    central = Central()
    question = ZapRequest(b"1", "orders", "192.0.2.7", b"", "GSSAPI", (b"alice@EXAMPLE.ORG",))
    async with remote(central) as handler:
        for reply in (central.handler.reply, REFUSED, TRY_AGAIN):
            central.handler.reply = reply
            assert await handler.answer(question) == reply
        assert handler.counters.malformed == 0


async def test_answers_out_of_order_find_their_questions() -> None:
    """The id alone decides which question a reply belongs to."""
    central = Central()
    central.reply = central.keep_silent
    async with remote(central) as handler:
        waiting = [asyncio.create_task(handler.answer(QUESTION)) for _ in range(3)]
        await until(lambda: len(central.asked) == 3)
        for number, (peer, parts) in reversed(list(enumerate(central.asked))):
            central.handler.reply = ZapReply(Status.GRANTED, b"%d" % number)
            central.answer(peer, parts)
        assert [reply.user_id for reply in await asyncio.gather(*waiting)] == [b"0", b"1", b"2"]


async def test_no_answer_in_time_is_300_and_a_late_200_is_dropped() -> None:
    """After the deadline nothing that arrives can let anybody in."""
    central = Central()
    central.reply = central.keep_silent
    async with remote(central, deadline=0.05) as handler:
        assert await handler.answer(QUESTION) == TRY_AGAIN
        central.answer(*central.asked[0])
        await until(lambda: handler.counters.late == 1)
        assert handler.counters.deadline == 1
        assert handler.in_flight == 0


async def test_double_and_foreign_replies_are_dropped_and_counted() -> None:
    """A second reply, one to an id never given, one without envelope: none is taken."""
    central = Central()

    def many(peer: Peer, parts: list[bytes]) -> None:
        good = central.frames(parts)
        granted = reply_frames(ZapReply(Status.GRANTED, b"mallory"), b"1", "CURVE")
        peer.send_messages([[bytes(16), b"", *granted], [parts[0], b"x", *granted], granted, good, good])

    central.reply = many
    async with remote(central) as handler:
        assert (await handler.answer(QUESTION)).user_id == b"bob"
        await until(lambda: handler.counters.double == 1)
        assert handler.counters.foreign == 3
        assert handler.counters.answered == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda frames: frames[:-1],
        lambda frames: [*frames, b""],
        lambda frames: [*frames[:3], b"2", *frames[4:]],
        lambda frames: [*frames[:4], b"201", *frames[5:]],
        lambda frames: [*frames[:4], b"+20", *frames[5:]],
        lambda frames: [*frames[:6], bytes(256), b""],
    ],
    ids=["five frames", "seven frames", "another id", "201", "+20", "long user id"],
)
async def test_a_malformed_reply_is_300(spoil: Callable[[list[bytes]], list[bytes]]) -> None:
    """A reply under the right id that is no ZAP reply is doubt."""
    central = Central()

    def reply_spoilt(peer: Peer, parts: list[bytes]) -> None:
        peer.send_messages([spoil(central.frames(parts))])

    central.reply = reply_spoilt
    async with remote(central) as handler:
        assert await handler.answer(QUESTION) == TRY_AGAIN
        assert handler.counters.malformed == 1


async def test_questions_in_flight_are_bounded() -> None:
    """Beyond the bound the answer is 300 at once, and nothing is sent."""
    central = Central()
    central.reply = central.keep_silent
    async with remote(central, deadline=0.3, in_flight=2) as handler:
        first = [asyncio.create_task(handler.answer(QUESTION)) for _ in range(2)]
        await until(lambda: len(central.asked) == 2)
        assert await handler.answer(QUESTION) == TRY_AGAIN
        assert handler.counters.shed == 1
        assert len(central.asked) == 2
        assert await asyncio.gather(*first) == [TRY_AGAIN, TRY_AGAIN]


async def test_a_lost_connection_is_no_answer_and_the_question_is_asked_again() -> None:
    """Within its deadline a question survives the loss of the connection, under the same id."""
    central = Central()
    central.reply = lambda peer, parts: peer.abort()
    async with remote(central) as handler:
        waiting = asyncio.create_task(handler.answer(QUESTION))
        await until(lambda: len(central.asked) == 1)
        central.reply = central.answer
        assert (await waiting).user_id == b"bob"
        assert len({parts[0] for _, parts in central.asked}) == 1


async def test_closing_answers_whoever_still_waits() -> None:
    """Nobody hangs on a handler that is shut down."""
    central = Central()
    central.reply = central.keep_silent
    async with remote(central) as handler:
        waiting = asyncio.create_task(handler.answer(QUESTION))
        await until(lambda: central.asked)
        await handler.close()
        assert await waiting == TRY_AGAIN


async def test_a_cancelled_question_is_forgotten() -> None:
    """Its reply finds nobody."""
    central = Central()
    central.reply = central.keep_silent
    async with remote(central) as handler:
        waiting = asyncio.create_task(handler.answer(QUESTION))
        await until(lambda: central.asked)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert handler.in_flight == 0
        central.answer(*central.asked[0])
        await until(lambda: handler.counters.foreign == 1)
