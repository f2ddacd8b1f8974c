"""zapd's own door: who may ask at all. zapd guards it with itself.

A handshake on a ``[[zap]]`` listener comes here as a question (`zapd.net.admission`). Over CURVE, in the reserved
domain, enrolled agents pass by their keys. Over PLAIN, on loopback and ipc only, users pass whom the listener's
first domain would let in. Over NULL nobody is asked: whoever can open the loopback or ipc listener is a local
asker, limited to the listener's domains. Each decision is journalled like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from zapd.auth.backend import Outcome, Verdict
from zapd.auth.decision import Decision
from zapd.errors import Unavailable
from zapd.server.recorder import Recorder
from zapd.store.agents_index import AgentsIndex
from zapd.zap import REFUSED, TRY_AGAIN, Asker, Status, Withheld, ZapReply, ZapRequest

Decide = Callable[[ZapRequest], Coroutine[Any, Any, Decision]]


class AgentDirectory:
    """The registry of agents, as the authority asks it (`zapd.auth.authority.AgentDirectory`)."""

    def __init__(self, index: AgentsIndex) -> None:
        self._index = index

    def lookup(self, public_key: bytes) -> Asker | None:
        """The agent that this key belongs to, if it may come in."""
        try:
            return self._index.asker(public_key)
        except Unavailable:
            return None

    def refusal(self, public_key: bytes) -> Verdict:
        """Why `lookup` gave None."""
        try:
            known = self._index.lookup(public_key)
        except Unavailable:
            return Verdict(Outcome.UNAVAILABLE, reason="registry_not_read")
        if known is None:
            return Verdict(Outcome.UNKNOWN)
        return Verdict(Outcome.LOCKED, reason="agent_key_rotated" if known.ended else "agent_revoked")


class Door:
    """The handler behind a listener's admission: decide, record, and only then let in."""

    def __init__(self, decide: Decide, recorder: Recorder) -> None:
        self._decide = decide
        self._recorder = recorder
        self.draining = False
        """True from SIGTERM on: nobody new comes in."""

    async def answer(self, request: ZapRequest) -> ZapReply | Withheld:
        """See `zapd.zap.Handler`."""
        if self.draining:
            return TRY_AGAIN
        decision = await self._decide(request)
        reply = self._recorder.record(request, decision)
        return reply if self._recorder.journal.at_once else Withheld(reply, self._when_recorded)

    def _when_recorded(self, leave: Callable[[bool], None]) -> None:
        def told(durable: bool) -> None:
            if not durable:
                self._recorder.unrecorded += 1
            leave(durable)

        self._recorder.journal.when_durable(told)


def at_its_address(decide: Decide, index: AgentsIndex) -> Decide:
    """``decide``, and agents come only from the networks they were enrolled with."""

    async def decide_there(request: ZapRequest) -> Decision:
        decision = await decide(request)
        if decision.status is Status.GRANTED:
            known = index.lookup(request.credentials[0])
            if known is None or not known.allows_address(request.address):
                return Decision(REFUSED, "address_not_allowed", decision.principal, decision.key)
        return decision

    return decide_there
