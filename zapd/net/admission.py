"""The door of a listener: a handshake becomes a ZAP question, and the answer goes back into the handshake.

Whatever the mechanism, the peer's credentials are put to a `Handler` as libzmq would put them (RFC 27), so
zapd's own door, a gateway's, and that of any Python service without libzmq are the same. Doubt is 300: an
exception, a deadline, too many questions at once. An answer from memory is taken on the spot, without a task, and
so is one that waits for nothing but its record.

It knows nothing of sockets: `ask` takes words and gives the answer to a callback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from zapd.zap import TRY_AGAIN, Asker, Handler, Status, Suspended, Withheld, ZapReply, ZapRequest, first_step
from zapd.zmtp.handshake import CredentialsLike

REQUEST_ID = b"1"
"""What libzmq always says."""
_MAX_USER_ID = 255


class Question:
    """One question on its way; `drop` it when nobody wants the answer any more."""

    __slots__ = ("_task", "_timer", "_verdict")

    def __init__(self, verdict: Callable[[ZapReply], None]) -> None:
        self._verdict: Callable[[ZapReply], None] | None = verdict
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[ZapReply | Withheld] | None = None

    @property
    def settled(self) -> bool:
        """The answer was given, or nobody wants it."""
        return self._verdict is None

    def watch(self, task: asyncio.Task[ZapReply | Withheld], timer: asyncio.TimerHandle) -> None:
        self._task, self._timer = task, timer

    def take(self, answer: ZapReply | Withheld) -> None:
        """Give the answer, now or when it may leave."""
        if type(answer) is Withheld:
            reply = _sound(answer.reply)
            answer.when(lambda good: self.settle(reply if good else TRY_AGAIN))
        else:
            self.settle(_sound(answer))

    def settle(self, reply: ZapReply) -> None:
        """Give the answer, once."""
        verdict, self._verdict = self._verdict, None
        if self._timer is not None:
            self._timer.cancel()
        if verdict is not None:
            verdict(reply)

    def expire(self) -> None:
        """Nobody waits longer: 300, and whatever still works on it is stopped."""
        self.settle(TRY_AGAIN)
        if self._task is not None:
            self._task.cancel()

    def drop(self) -> None:
        """The peer is gone."""
        self._verdict = None
        self.expire()


class Admission:
    """Puts login questions of one ZAP domain to a handler."""

    def __init__(
        self,
        handler: Handler,
        domain: str,
        *,
        deadline: float = 2.0,
        waiting: int = 1024,
        asker: Asker | None = None,
        on_error: Callable[[BaseException], None] | None = None,
    ) -> None:
        """``deadline`` in seconds; at most ``waiting`` questions may be open, more are answered 300 at once.

        ``asker`` is put into each request as it stands. ``on_error`` hears each exception of the handler (a bug
        there, or a deadline it did not keep itself is none); without it the loop's exception handler does.
        """
        self.domain = domain
        self.errors = 0
        """Exceptions that left the handler."""
        self.late = 0
        """Questions answered 300 because the deadline passed."""
        self.shed = 0
        """Questions answered 300 because too many were open."""
        self._handler = handler
        self._deadline = deadline
        self._waiting = waiting
        self._asker = asker
        self._on_error = on_error
        self._tasks: set[asyncio.Task[ZapReply | Withheld]] = set()

    @property
    def open(self) -> int:
        """Questions that somebody works on."""
        return len(self._tasks)

    def ask(
        self, mechanism: str, credentials: CredentialsLike, address: str, verdict: Callable[[ZapReply], None]
    ) -> Question | None:
        """Ask; ``verdict`` is called exactly once unless the question is dropped, often before this returns.

        Gives the open question, or None when it is answered already. Needs a running loop.
        """
        request = ZapRequest(
            request_id=REQUEST_ID,
            domain=self.domain,
            address=address,
            identity=b"",
            mechanism=mechanism,
            credentials=tuple(credentials.frames),
            asker=self._asker,
        )
        if len(self._tasks) >= self._waiting:
            self.shed += 1
            verdict(TRY_AGAIN)
            return None
        try:
            step = first_step(self._handler.answer(request))
        except Exception as error:  # noqa: BLE001 - a handler's bug is a 300 (contract, statuses)
            self._failed(error)
            verdict(TRY_AGAIN)
            return None
        if isinstance(step, Suspended):
            return self._wait(step, verdict)
        if type(step) is not Withheld:
            verdict(_sound(step))
            return None
        question = Question(verdict)
        question.take(step)
        return None if question.settled else question

    def _wait(self, rest: Suspended[ZapReply | Withheld], verdict: Callable[[ZapReply], None]) -> Question:
        loop = asyncio.get_running_loop()
        question = Question(verdict)
        task = loop.create_task(rest.finish())
        self._tasks.add(task)
        question.watch(task, loop.call_later(self._deadline, self._too_late, question))

        def done(task: asyncio.Task[ZapReply | Withheld]) -> None:
            # A task that will not be cancelled keeps its place in the count until it ends.
            self._tasks.discard(task)
            if task.cancelled():
                question.settle(TRY_AGAIN)
            elif (error := task.exception()) is not None:
                self._failed(error)
                question.settle(TRY_AGAIN)
            else:
                question.take(task.result())

        task.add_done_callback(done)
        return question

    def _too_late(self, question: Question) -> None:
        self.late += 1
        question.expire()

    def _failed(self, error: BaseException) -> None:
        self.errors += 1
        if self._on_error is not None:
            self._on_error(error)
        else:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a handler failed to answer a ZAP question; the answer was 300", "exception": error}
            )


def _sound(reply: object) -> ZapReply:
    """A handler's answer if it is one, whatever its types promised; anything else is doubt."""
    if isinstance(reply, ZapReply) and type(reply.status) is Status and len(reply.user_id) <= _MAX_USER_ID:
        return reply
    return TRY_AGAIN
