"""The narrow waist of the house: whoever can answer a ZAP question has this one shape.

The local authority, a remote zapd, and every test fake are handlers; server, agent and listener admission
consume them. Nothing else needs to fit.
"""

from __future__ import annotations

from typing import Protocol

from zapd.zap.reply import ZapReply
from zapd.zap.request import ZapRequest


class Handler(Protocol):
    """Answers questions."""

    async def answer(self, request: ZapRequest) -> ZapReply:
        """Decide one question.

        Always returns: doubt and failure are a reply of 300, never an exception, never a 200. An
        implementation that can answer from memory returns without suspending, so that a caller may drive it
        one step and need no task.
        """
        ...
