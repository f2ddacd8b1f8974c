"""The narrow waist of the house: whoever can answer a ZAP question has this one shape.

The local authority, a remote zapd, and every test fake are handlers; server, agent and listener admission
consume them. Nothing else needs to fit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from zapd.zap.reply import ZapReply
from zapd.zap.request import ZapRequest


class Withheld(NamedTuple):
    """A reply that stands, and may leave only once something else is done: a record is on the disk."""

    reply: ZapReply
    when: Callable[[Callable[[bool], None]], None]
    """Call it once: what it is given hears, once and within a bounded time, True when the reply may leave, False
    when 300 must leave in its stead."""


class Handler(Protocol):
    """Answers questions."""

    async def answer(self, request: ZapRequest) -> ZapReply | Withheld:
        """Decide one question.

        Always returns: doubt and failure are a reply of 300, never an exception, never a 200. An
        implementation that can answer from memory returns without suspending, so that a caller may drive it
        one step and need no task; one that waits for nothing but its record gives a `Withheld`, for the same end.
        """
        ...
