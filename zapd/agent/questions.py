"""The agent's open questions: a bounded table, and the rule for which reply counts.

A question gets a random id that nobody can guess; exactly one reply is taken for each id, from a zapd that was
asked, before the deadline. Ids that are done are remembered for a while, only to say why a reply was dropped.
Pure bookkeeping: the clock is passed in, and no socket is known here.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from zapd.zap.envelope import QUESTION_ID_LENGTH
from zapd.zap.reply import ZapReply

REMEMBERED = 4096
"""Finished ids kept to tell a late or doubled reply from a foreign one."""


class Dropped(Enum):
    """Why a reply does not count."""

    LATE = "late"
    """Its question was answered with 300 at the deadline."""
    DOUBLE = "double"
    """Its question has had its one reply."""
    FOREIGN = "foreign"
    """Never asked, or not asked there."""


@dataclass(slots=True, eq=False)
class Question:
    """One question of libzmq, under way."""

    id: bytes
    envelope: list[bytes]
    """libzmq's own routing frames, delimiter included; they never leave the process."""
    body: list[bytes] = field(repr=False)
    """The frames of the request, credentials among them."""
    request_id: bytes
    mechanism: str
    deadline: float
    retry_at: float = 0.0
    """When the next zapd is asked as well."""
    waiting: bool = True
    """No zapd could take it yet, or all that could have been asked and the time for a reply is over."""
    held: ZapReply | None = None
    """Its one reply, given at the deadline."""
    asked: dict[int, int] = field(default_factory=dict)
    """Number of each zapd that was asked, and the link it was asked on."""


class QuestionTable:
    """Questions under way, oldest first, never more than ``limit``."""

    def __init__(self, limit: int, patience: float) -> None:
        self._limit = limit
        self._patience = patience
        self._open: dict[bytes, Question] = {}
        self._done: dict[bytes, Dropped] = {}

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Question]:
        return iter(tuple(self._open.values()))

    def add(
        self, envelope: list[bytes], body: list[bytes], request_id: bytes, mechanism: str, now: float
    ) -> Question | None:
        """Open a question under a fresh id; None when the table is full."""
        if len(self._open) >= self._limit:
            return None
        # The system's generator, each time: a forked child can never repeat its parent's ids (R5).
        question_id = os.urandom(QUESTION_ID_LENGTH)
        question = Question(question_id, envelope, body, request_id, mechanism, now + self._patience)
        self._open[question_id] = question
        return question

    def match(self, question_id: bytes, number: int, first_link: int, now: float) -> Question | Dropped:
        """The question that a reply from zapd ``number`` may answer, or why it may not.

        ``first_link`` is the oldest link of the socket it came from: a question put to an earlier socket, under
        another pinned key perhaps, is foreign to this one.
        """
        question = self._open.get(question_id)
        if question is None:
            return self._done.get(question_id, Dropped.FOREIGN)
        if question.asked.get(number, -1) < first_link:
            return Dropped.FOREIGN
        if question.held is not None:
            return Dropped.DOUBLE
        if now >= question.deadline:
            return Dropped.LATE
        return question

    def close(self, question: Question, later: Dropped) -> None:
        """Take a question off the table; ``later`` is what another reply to it will be."""
        if self._open.pop(question.id, None) is None:
            return
        if len(self._done) >= REMEMBERED:
            del self._done[next(iter(self._done))]
        self._done[question.id] = later

    def expired(self, now: float) -> list[Question]:
        """The questions whose deadline is over, oldest first. All have the same patience, so order is age."""
        late = []
        for question in self._open.values():
            if question.deadline > now:
                break
            late.append(question)
        return late
