"""The ZAP endpoint: questions from the router, decisions, their record, and replies back.

The hot road of the product. Everything that arrived in one read is decided, journalled and answered together:
one batch, one call when the journal is durable, one write. A question that memory can answer creates no task;
a slow one gets a task of its own and delays nobody, since replies go out as they are ready (RFC 27 has no
order). It knows no SQL, no sockets and no configuration.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence
from time import perf_counter
from typing import Any, Protocol

import structlog

from zapd.auth.decision import Decision
from zapd.server.answers import Answers
from zapd.server.express import Express
from zapd.server.metrics import DecisionMetrics
from zapd.server.recorder import Recorder
from zapd.zap import (
    TRY_AGAIN,
    Asker,
    MalformedRequest,
    Suspended,
    ZapReply,
    ZapRequest,
    first_step,
    parse_request,
    question_id,
    reply_frames,
    split_envelope,
)
from zapd.zmtp.framing import encode_message
from zapd.zmtp.run import Run

log = structlog.get_logger(__name__)

Answer = tuple[list[bytes], str]
"""What waits for the journal: the reply's frames, envelope in front, and the question's mechanism."""


_CUT_SHORT_SECONDS = 1.0
"""For a backend's question that is cancelled to let go."""
_REPLY = 6
"""Frames of a reply behind the delimiter."""


class Asking(Protocol):
    """The connection that questions came on: what the endpoint needs of `zapd.net.peer.Peer`."""

    context: Any
    """An `EndpointPeer`, set when the peer became ready."""

    def send_messages(self, messages: Iterable[Sequence[bytes]]) -> bool: ...

    def send_encoded(self, octets: bytes) -> bool: ...


class EndpointPeer:
    """What the endpoint keeps for one connection: who asks, and how many of its questions are open."""

    __slots__ = ("asker", "in_flight")

    def __init__(self, asker: Asker) -> None:
        self.asker = asker
        self.in_flight = 0


class Endpoint:
    """Answers questions by ``express`` where that can, else with ``decide``, through ``recorder``.

    ``decide`` must always return a `Decision`; what it raises all the same becomes 300. ``in_flight`` bounds the
    slow questions of one peer, ``in_flight_total`` those of all: beyond them the answer is 300, at once.
    """

    def __init__(
        self,
        decide: Callable[[ZapRequest], Coroutine[Any, Any, Decision]],
        recorder: Recorder,
        metrics: DecisionMetrics,
        *,
        express: Express | None = None,
        in_flight: int = 1024,
        in_flight_total: int = 8192,
        trace: Callable[[ZapRequest, Decision, int, float], None] | None = None,
    ) -> None:
        """``trace`` hears of each question that took a task of its own: with its decision, status and seconds."""
        self._decide = decide
        self._express = express
        self._recorder = recorder
        self._metrics = metrics
        self._in_flight = in_flight
        self._in_flight_total = in_flight_total
        self._trace = trace
        self._tasks: set[asyncio.Task[None]] = set()
        self.draining = False
        """True from SIGTERM on: newcomers hear 300."""

    def on_messages(self, peer: Asking, messages: Sequence[list[bytes]]) -> None:
        """Answer all that arrived together."""
        started = perf_counter()
        asking: EndpointPeer = peer.context
        asker = asking.asker
        record, count = self._recorder.record, self._metrics.count
        answers: list[Answer] = []
        express = self._express
        if express is not None and (self.draining or not express.is_open()):
            express = None
        if express is not None and isinstance(messages, Run):
            quick = express.answer_run(asker, messages)
            if quick.heads:
                self._release_run(peer, quick, started)
            messages = quick.others
        for parts in messages:
            if express is not None:
                frames = express.answer(asker, parts)
                if frames is not None:
                    answers.append((frames, "CURVE"))
                    continue
            split = split_envelope(parts)
            if split is None:
                self._metrics.malformed += 1
                continue
            envelope, body = split
            try:
                request = parse_request(body, question_id(envelope), asker)
            except MalformedRequest as fault:
                self._metrics.malformed += 1
                if fault.request_id is not None:  # else there is nothing to echo, and silence is the answer
                    reply = self._recorder.record_malformed(body, fault, question_id(envelope), asker)
                    answers.append(
                        (envelope + reply_frames(reply, fault.request_id, fault.mechanism), fault.mechanism)
                    )
                continue
            step = DRAINING if self.draining else self._first_step(request)
            if not isinstance(step, Suspended):
                decision = step
            elif self._admit(asking):
                self._go_on(peer, asking, envelope, request, step, started)
                continue
            else:
                step.close()
                decision = OVERLOAD
            reply = record(request, decision)
            count(request, int(reply.status), decision)
            answers.append(_answer(envelope, request, reply))
        if answers:
            self._release(peer, answers, started)

    async def drain(self, seconds: float) -> None:
        """Answer newcomers 300, and give open questions ``seconds`` to finish; those that do not hear 300 too."""
        self.draining = True
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_CUT_SHORT_SECONDS)

    @property
    def in_flight(self) -> int:
        """Slow questions now open."""
        return len(self._tasks)

    def _first_step(self, request: ZapRequest) -> Decision | Suspended[Decision]:
        try:
            return first_step(self._decide(request))
        except Exception:  # noqa: BLE001 - a question is always answered
            return self._bug()

    def _bug(self) -> Decision:
        self._metrics.bugs += 1
        log.exception("deciding failed; the answer is 300")
        return BUG

    def _admit(self, asking: EndpointPeer) -> bool:
        return asking.in_flight < self._in_flight and len(self._tasks) < self._in_flight_total

    def _go_on(
        self,
        peer: Asking,
        asking: EndpointPeer,
        envelope: list[bytes],
        request: ZapRequest,
        rest: Suspended[Decision],
        started: float,
    ) -> None:
        """Give a slow question a task of its own."""

        async def finish() -> None:
            try:
                decision = await rest.finish()
            except asyncio.CancelledError:  # nobody but `drain` cancels: whoever asked tries again elsewhere
                decision = CUT_SHORT
            except Exception:  # noqa: BLE001 - a question is always answered
                decision = self._bug()
            finally:
                asking.in_flight -= 1
            reply = self._recorder.record(request, decision)
            self._metrics.count(request, int(reply.status), decision)
            if self._trace is not None:
                self._trace(request, decision, int(reply.status), perf_counter() - started)
            self._release(peer, [_answer(envelope, request, reply)], started)

        asking.in_flight += 1
        task = asyncio.get_running_loop().create_task(finish())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _release(self, peer: Asking, answers: list[Answer], started: float) -> None:
        """Send the answers once the journal holds them; 300 to each if it cannot."""

        def send(durable: bool) -> None:
            if durable:
                peer.send_messages([frames for frames, _ in answers])
            else:
                self._recorder.unrecorded += len(answers)
                peer.send_messages(
                    [frames[:-_REPLY] + reply_frames(TRY_AGAIN, frames[1 - _REPLY], by) for frames, by in answers]
                )
            self._metrics.observe(perf_counter() - started, len(answers))

        self._recorder.journal.when_durable(send)

    def _release_run(self, peer: Asking, answers: Answers, started: float) -> None:
        """`_release`, for what took the express road together."""

        def send(durable: bool) -> None:
            if durable:
                peer.send_encoded(answers.octets())
            else:
                self._recorder.unrecorded += len(answers.heads)
                peer.send_encoded(answers.octets_with(_TRY_AGAIN))
            self._metrics.observe(perf_counter() - started, len(answers.heads))

        self._recorder.journal.when_durable(send)


def _deferred(reason: str, *, asked: bool = False) -> Decision:
    return Decision(TRY_AGAIN, reason, asked=asked)


_TRY_AGAIN = encode_message(reply_frames(TRY_AGAIN, b"", "CURVE")[2:])
"""A 300 behind the request id, as octets."""
DRAINING = _deferred("draining")
CUT_SHORT = _deferred("draining", asked=True)
OVERLOAD = _deferred("overload")
BUG = _deferred("internal_error", asked=True)


def _answer(envelope: list[bytes], request: ZapRequest, reply: ZapReply) -> Answer:
    return envelope + reply_frames(reply, request.request_id, request.mechanism), request.mechanism
