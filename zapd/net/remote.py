"""A `Handler` that asks a distant zapd through a `Dealer`.

Every question travels under 16 random octets of its own, the innermost address frame (RFC 28, "envelope"). One
reply is taken for each, before the deadline; what is late, doubled or foreign is dropped and counted (R13).
What gets no reply in time is 300. A connection lost on the way is no answer: what is still open is asked again
as soon as there is another, for as long as its deadline allows.
"""

from __future__ import annotations

import asyncio
import os
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from zapd.net.address import Address
from zapd.net.dealer import Dealer, DealerLimits, Down
from zapd.zap import TRY_AGAIN, MalformedReply, ZapReply, ZapRequest, parse_reply, serialize_request
from zapd.zap.envelope import QUESTION_ID_LENGTH
from zapd.zmtp.handshake import Mechanism


@dataclass(slots=True)
class RemoteCounters:
    """Plain numbers that only rise, for metrics."""

    asked: int = 0
    answered: int = 0
    deadline: int = 0
    """No answer in time."""
    shed: int = 0
    """Not asked: too many in flight."""
    malformed: int = 0
    """A reply to an open question that was none; the question is answered 300."""
    late: int = 0
    """Replies after the deadline."""
    double: int = 0
    """Replies to what had been answered."""
    foreign: int = 0
    """Messages with no question of ours in them."""


@dataclass(slots=True, eq=False)
class _Open:
    """A question that waits."""

    frames: list[bytes] = field(repr=False)  # a password may be among them
    request_id: bytes
    mechanism: str
    answer: asyncio.Future[ZapReply]


class RemoteHandler:
    """Asks one zapd. `start` it in the loop that uses it; `close` it there."""

    def __init__(
        self,
        address: Address | str,
        mechanism: Mechanism | Callable[[], Mechanism | Awaitable[Mechanism]],
        *,
        deadline: float = 2.0,
        in_flight: int = 1024,
        on_up: Callable[[], None] | None = None,
        on_down: Callable[[Down], None] | None = None,
        limits: DealerLimits | None = None,
        server_uids: frozenset[int] | None = None,
    ) -> None:
        """``deadline`` in seconds; at most ``in_flight`` questions wait, more are answered 300 at once."""
        self.counters = RemoteCounters()
        self._deadline = deadline
        self._most = in_flight
        self._on_up = on_up
        self._open: dict[bytes, _Open] = {}
        self._settled: OrderedDict[bytes, bool] = OrderedDict()  # lately: True answered, False too late
        self.dealer = Dealer(
            address,
            mechanism,
            self._take,
            on_up=self._ask_again,
            on_down=on_down,
            limits=limits,
            server_uids=server_uids,
        )

    @property
    def in_flight(self) -> int:
        """Questions that wait for their answer."""
        return len(self._open)

    def start(self) -> None:
        """Begin to connect."""
        self.dealer.start()

    async def close(self) -> None:
        """Close; whoever still waits hears 300."""
        for question in list(self._open.values()):
            if not question.answer.done():
                question.answer.set_result(TRY_AGAIN)
        await self.dealer.close()

    async def answer(self, request: ZapRequest) -> ZapReply:
        """Put the question to the distant zapd; 300 when no answer comes in time."""
        counters = self.counters
        if len(self._open) >= self._most:
            counters.shed += 1
            return TRY_AGAIN
        loop = asyncio.get_running_loop()
        # Always fresh, also for a question that brought an id: nobody else may know it.
        question_id = os.urandom(QUESTION_ID_LENGTH)
        frames = [question_id, b"", *serialize_request(request)]
        question = _Open(frames, request.request_id, request.mechanism, loop.create_future())
        self._open[question_id] = question
        counters.asked += 1
        self.dealer.send_messages([frames])  # refused: it goes out with the next connection, if that is soon
        timer = loop.call_later(self._deadline, self._too_late, question_id)
        try:
            return await question.answer
        finally:
            timer.cancel()
            self._open.pop(question_id, None)

    def _take(self, messages: Sequence[list[bytes]]) -> None:
        for parts in messages:
            question_id = parts[0]
            question = self._open.pop(question_id, None) if len(parts) > 2 and parts[1] == b"" else None
            if question is None:
                self._count_stray(question_id)
                continue
            try:
                reply = parse_reply(parts[2:], question.request_id, question.mechanism)
            except MalformedReply:
                self.counters.malformed += 1
                reply = TRY_AGAIN
            else:
                self.counters.answered += 1
            self._settle(question_id, question, reply, in_time=True)

    def _too_late(self, question_id: bytes) -> None:
        question = self._open.pop(question_id, None)
        if question is not None:
            self.counters.deadline += 1
            self._settle(question_id, question, TRY_AGAIN, in_time=False)

    def _settle(self, question_id: bytes, question: _Open, reply: ZapReply, *, in_time: bool) -> None:
        self._settled[question_id] = in_time
        while len(self._settled) > self._most:
            self._settled.popitem(last=False)
        if not question.answer.done():
            question.answer.set_result(reply)

    def _count_stray(self, question_id: bytes) -> None:
        match self._settled.get(question_id):
            case True:
                self.counters.double += 1
            case False:
                self.counters.late += 1
            case None:
                self.counters.foreign += 1

    def _ask_again(self) -> None:
        """A new connection: whatever waits was lost with the old one, or never left."""
        waiting = [question.frames for question in self._open.values()]
        if waiting:
            self.dealer.send_messages(waiting)
        if self._on_up is not None:
            self._on_up()
