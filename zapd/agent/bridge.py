"""The bridge: libzmq's questions on one side, zapds on the other, one thread between.

    libzmq ──inproc──▶ ROUTER │ table of questions │ DEALER ──CURVE──▶ zapd
                                                   │ DEALER ──CURVE──▶ another zapd

The ROUTER is bound before `start` returns and stays bound until its context is terminated, whatever happens to
everything else here: bound and silent means refused, unbound means that libzmq lets everybody in. So the thread
survives every fault of its own, answers 300 where it cannot do better, and ends only with its context.

A question goes to the zapd that answered last; another is asked as well when that one is silent for 200 ms or
loses its link, under the same question id, so that zapd counts it once. One reply is taken, see
`zapd.agent.questions`. What is answered when nobody replies in time is 300: libzmq's client comes back.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import zmq

from zapd.agent import contexts
from zapd.agent.contexts import AgentError
from zapd.agent.keyfile import AgentKeys, Endpoint
from zapd.agent.questions import Dropped, Question, QuestionTable
from zapd.agent.upstream import NEVER, SyncContext, SyncSocket, Upstream
from zapd.zap.envelope import split_envelope
from zapd.zap.reply import ERROR, TRY_AGAIN, MalformedReply, Status, ZapReply, parse_reply, reply_frames
from zapd.zap.request import MalformedRequest, parse_request

log = logging.getLogger("zapd.agent")

ZAP_ENDPOINT = "inproc://zeromq.zap.01"
NEXT_AFTER = 0.2
"""Seconds of silence after which the next zapd is asked as well."""
TICK = 0.02
"""Seconds between two looks at the open questions' clocks."""
BURST = 256
"""Messages taken from one socket in a row, so that no side starves another."""
PAUSE_AFTER_FAULT = 0.05
MAX_REQUEST = 16 * 1024
"""Octets of one question: 255 for each field, 4 KiB for a principal, with room to spare."""

COUNTERS = (
    "questions",
    "granted",
    "refused",
    "deferred",
    "failed",
    "unanswered",
    "overflow",
    "malformed_questions",
    "malformed_replies",
    "late",
    "double",
    "foreign",
    "asked_again",
    "links",
    "handshakes_failed",
    "faults",
)
"""What `Agent.counters` counts; docs/agent.md says what each means."""

_COUNTER_OF = {
    Status.GRANTED: "granted",
    Status.REFUSED: "refused",
    Status.TRY_AGAIN: "deferred",
    Status.ERROR: "failed",
}


class Bridge:
    """Both sides and the thread between; `zapd.agent.starting.Agent` is its public face."""

    def __init__(
        self, address: int, keys: AgentKeys | None, endpoints: Sequence[Endpoint], deadline: float, limit: int
    ) -> None:
        self._address = address
        # A shadow of the application's context: its destroy() would close our sockets under our thread's feet.
        self._context: SyncContext = zmq.Context.shadow(address)
        self.counters: Counter[str] = Counter(dict.fromkeys(COUNTERS, 0))
        self.upstreams = [
            Upstream(self._context, number, endpoint, keys, self.counters)
            for number, endpoint in enumerate(endpoints)
        ]
        self._table = QuestionTable(limit, deadline)
        self._preferred = 0
        self._looked_at = 0.0
        self._complained_at = 0.0
        self._front = _bind(self._context)
        self.thread = threading.Thread(target=self._run, name="zapd-agent", daemon=True)

    # --- the thread -----------------------------------------------------------------------------------

    def _run(self) -> None:
        """Turn until the context ends. No fault may end this earlier: an unbound endpoint admits everybody."""
        while True:
            try:
                self._turn()
            except zmq.ContextTerminated:
                break
            except BaseException as fault:  # noqa: BLE001  (SystemExit too: this thread must outlive it)
                if not self._survive(fault):
                    break
        try:
            contexts.forget(self._address)
            for upstream in self.upstreams:
                upstream.close()
        finally:
            self._front.close(linger=0)

    def _survive(self, fault: BaseException) -> bool:
        """Put things in order after a fault of our own; False when the context has ended meanwhile."""
        try:
            self.counters["faults"] += 1
            time.sleep(PAUSE_AFTER_FAULT)  # first of all: a fault that stays must not spin
            now = time.monotonic()
            if now - self._complained_at >= 1.0:
                self._complained_at = now
                log.error("the agent's own fault; questions under way get 300", exc_info=fault)
            for question in self._table:
                with suppress(zmq.Again):
                    self._answer(question.envelope, TRY_AGAIN, question.request_id, question.mechanism)
                self._table.close(question, Dropped.LATE)
            for upstream in self.upstreams:
                upstream.close()
            self._refuse_queued()
        except zmq.ContextTerminated:
            return False
        except BaseException:  # noqa: BLE001
            # Not even that worked. Silence refuses too; the next turn finds out whether the context lives.
            self.counters["faults"] += 1
        return True

    def _refuse_queued(self) -> None:
        """The plainest answer there is to what waits at the door: 300, without a look at zapd."""
        for _ in range(BURST):
            try:
                parts = self._front.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            cut = split_envelope(parts)
            if cut is not None and len(cut[1]) >= 6:
                mechanism = "GSSAPI" if cut[1][5] == b"GSSAPI" else ""
                self._answer(cut[0], TRY_AGAIN, cut[1][1], mechanism)

    def _turn(self) -> None:
        """One wait and what came of it."""
        now = time.monotonic()
        for upstream in self.upstreams:
            upstream.tend(now)
        watched: list[tuple[Any, int]] = [(self._front, zmq.POLLIN)]
        for upstream in self.upstreams:
            if upstream.socket is not None and upstream.monitor is not None:
                watched.append((upstream.socket, zmq.POLLIN | zmq.POLLOUT if upstream.blocked else zmq.POLLIN))
                watched.append((upstream.monitor, zmq.POLLIN))
        happened = dict(zmq.zmq_poll(watched, self._patience(now)))
        now = time.monotonic()
        for upstream in self.upstreams:
            link = upstream.link
            if happened.get(upstream.monitor):
                upstream.watch(now)
            if upstream.link != link:
                self._rescue(upstream)
            state = happened.get(upstream.socket, 0)
            if state & zmq.POLLIN:
                self._take_replies(upstream, now)
            if state & zmq.POLLOUT:
                upstream.blocked = False
                self._looked_at = 0.0
        if happened.get(self._front):
            self._take_questions(now)
        if len(self._table) and now - self._looked_at >= TICK:
            self._look_at_clocks(now)

    def _patience(self, now: float) -> int:
        """Milliseconds to wait: a tick while questions are open, else until a link needs care."""
        wait = TICK if len(self._table) else 60.0
        wait = min(wait, *(upstream.due() - now for upstream in self.upstreams), NEVER)
        return max(0, int(wait * 1000) + 1)

    # --- questions ------------------------------------------------------------------------------------

    def _take_questions(self, now: float) -> None:
        for _ in range(BURST):
            try:
                parts = self._front.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self.counters["questions"] += 1
            self._take_question(parts, now)

    def _take_question(self, parts: list[bytes], now: float) -> None:
        cut = split_envelope(parts)
        if cut is None:
            self.counters["malformed_questions"] += 1
            return
        envelope, body = cut
        try:
            parse_request(body)
        except MalformedRequest as fault:
            # A name that no rule admits (400) goes to zapd all the same: it refuses, and keeps the record.
            if fault.status != Status.REFUSED or len(body) < 6 or not fault.mechanism:
                self.counters["malformed_questions"] += 1
                if fault.request_id is not None:
                    self._answer(envelope, ERROR, fault.request_id, fault.mechanism)
                return
        request_id, mechanism = body[1], body[5].decode("ascii")
        if sum(map(len, body)) > MAX_REQUEST:
            self.counters["malformed_questions"] += 1
            self._answer(envelope, ERROR, request_id, mechanism)
            return
        question = self._table.add(envelope, body, request_id, mechanism, now)
        if question is None:
            self.counters["overflow"] += 1
            self._answer(envelope, TRY_AGAIN, request_id, mechanism)
            return
        self._ask(question, now)

    def _ask(self, question: Question, now: float) -> None:
        """Put a question to the first zapd that has not had it on its present link; else let it wait for one."""
        count = len(self.upstreams)
        for step in range(count):
            upstream = self.upstreams[(self._preferred + step) % count]
            if question.asked.get(upstream.number) == upstream.link:
                continue
            if upstream.send([question.id, b"", *question.body]):
                if question.asked:
                    self.counters["asked_again"] += 1
                question.asked[upstream.number] = upstream.link
                question.retry_at = now + NEXT_AFTER
                question.waiting = False
                return
        question.waiting = True

    def _rescue(self, upstream: Upstream) -> None:
        """A link is lost: what was asked there need not wait for its silence to end."""
        for question in self._table:
            if question.asked.get(upstream.number, upstream.link) != upstream.link:
                question.retry_at = 0.0
        self._looked_at = 0.0

    def _look_at_clocks(self, now: float) -> None:
        self._looked_at = now
        for question in self._table.expired(now):
            held = question.held
            self._table.close(question, Dropped.LATE if held is None else Dropped.DOUBLE)
            self.counters["unanswered"] += held is None
            self._answer(question.envelope, held or TRY_AGAIN, question.request_id, question.mechanism)
        for question in self._table:
            if question.held is None and (question.waiting or question.retry_at <= now):
                self._ask(question, now)

    # --- replies --------------------------------------------------------------------------------------

    def _take_replies(self, upstream: Upstream, now: float) -> None:
        for _ in range(BURST):
            parts = upstream.receive()
            if parts is None:
                return
            self._take_reply(upstream, parts, now)

    def _take_reply(self, upstream: Upstream, parts: list[bytes], now: float) -> None:
        """RFC 27's reply behind our question id and a delimiter, or it is nothing."""
        if len(parts) != 8 or parts[1]:
            self.counters["malformed_replies"] += 1
            return
        question = self._table.match(parts[0], upstream.number, upstream.first_link, now)
        if isinstance(question, Dropped):
            self.counters[question.value] += 1
            return
        try:
            reply = parse_reply(parts[2:], question.request_id, question.mechanism)
        except MalformedReply:
            # Not an answer. Another zapd may still give one; without it, the deadline says 300.
            self.counters["malformed_replies"] += 1
            return
        self._preferred = upstream.number
        self.counters[_COUNTER_OF[reply.status]] += 1
        if question.mechanism == "GSSAPI" and reply.status is not Status.GRANTED:
            # libzmq hangs up at the one refusal that it obeys, and its client is back at once: not so soon.
            question.held = reply
            return
        self._table.close(question, Dropped.DOUBLE)
        self._answer(question.envelope, reply, question.request_id, question.mechanism)

    def _answer(self, envelope: list[bytes], reply: ZapReply, request_id: bytes, mechanism: str) -> None:
        """To libzmq. A connection that is gone, or takes nothing, gets nothing: silence refuses."""
        with suppress(zmq.Again):
            self._front.send_multipart([*envelope, *reply_frames(reply, request_id, mechanism)], zmq.NOBLOCK)


def _bind(context: SyncContext) -> SyncSocket:
    """The front. Failing here is loud: a foreign handler in our place decides in our name (limits.md, R12)."""
    try:
        front = context.socket(zmq.ROUTER)
    except zmq.ZMQError as error:
        raise AgentError(f"no socket for the agent: {error.strerror}") from None
    try:
        front.linger = 0
        front.bind(ZAP_ENDPOINT)
    except zmq.ZMQError as error:
        front.close(linger=0)
        if error.errno == zmq.EADDRINUSE:
            raise AgentError(
                f"something else is bound to {ZAP_ENDPOINT} in this context and answers libzmq in our place: "
                f"stop it (zmq.auth, czmq's zauth, another agent), or start the agent first"
            ) from None
        raise AgentError(f"cannot bind {ZAP_ENDPOINT}: {error.strerror}") from None
    return front
