"""From a decision to its line in the journal.

The one place that knows which decisions are recorded one by one, which may be counted, and what becomes of an
answer that cannot be recorded: it is not given (contract, promise 3).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec

from zapd.audit.event import AuditEvent, Tag
from zapd.audit.gaps import Summaries
from zapd.audit.journal import Journal, JournalUnavailable
from zapd.auth.decision import Decision
from zapd.errors import Unavailable
from zapd.server.repeats import TOO_OFTEN, Repeats
from zapd.zap import TRY_AGAIN, Asker, MalformedRequest, Status, ZapReply, ZapRequest

# By number: hashing an enum's member calls Python, and this stands on the hot road.
_TAGS = {
    int(Status.GRANTED): Tag.AUTH_ACCEPT.value,
    int(Status.REFUSED): Tag.AUTH_REJECT.value,
    int(Status.ERROR): Tag.AUTH_REJECT.value,
    int(Status.TRY_AGAIN): Tag.AUTH_DEFER.value,
}
_GRANTED = Status.GRANTED


class Recorder:
    """Writes decisions down before their replies may leave."""

    def __init__(self, journal: Journal, summaries: Summaries, repeats: Repeats | None = None) -> None:
        self.journal = journal
        self.summaries = summaries
        self.repeats = repeats or Repeats()
        self.unrecorded = 0
        """Answers that became 300 because they could not be recorded."""
        self.repeated = 0
        """Answers that became 300 because their source, or the agent, was refused too often."""
        self.summarised = 0
        """300s that were counted, those included, instead of recorded one by one."""
        self.silent = journal.durability == "off"
        """Nothing is kept: there is no need to make what would be."""

    def record(self, request: ZapRequest, decision: Decision, detail: dict[str, object] | None = None) -> ZapReply:
        """Append the decision; the reply that may be given once the journal is durable.

        300 instead, when the journal takes nothing now, and to whoever is refused too often. ``detail``: what else
        the record shall say.
        """
        if self.silent:
            return decision.reply
        if not decision.asked:
            self._count(request.domain, request.address, decision.reason)
            return decision.reply
        if decision.reply.status is not _GRANTED and self._too_often(
            request.domain, request.address, request.asker
        ):
            return TRY_AGAIN
        try:
            event = event_of(request, decision)
            self.journal.append(event if detail is None else msgspec.structs.replace(event, detail=detail))
        except JournalUnavailable:
            self.unrecorded += 1
            self.journal.note_gap(request.domain, request.address, decision.reason)
            return TRY_AGAIN
        return decision.reply

    def record_malformed(
        self, frames: Sequence[bytes], fault: MalformedRequest, question_id: bytes, asker: Asker
    ) -> ZapReply:
        """The reply to what is no question.

        A 400 is a decision like any other and gets its record, with as much of the names as can be shown; a 500 is
        only counted (limits.md, "malformed requests").
        """
        reply = ZapReply(Status(fault.status))
        if self.silent or reply.status is not Status.REFUSED:
            return reply
        _, _, domain, address, _, mechanism, *_ = (_shown(frame) for frame in frames)
        if self._too_often(domain, address, asker):
            return TRY_AGAIN
        try:
            self.journal.append(
                AuditEvent(
                    event=Tag.AUTH_REJECT.value,
                    domain=domain,
                    mechanism=mechanism,
                    address=address,
                    agent=asker.name,
                    status=400,
                    reason="malformed",
                    question_id=question_id.hex(),
                    detail={"fault": fault.reason},
                )
            )
        except JournalUnavailable:
            self.unrecorded += 1
            self.journal.note_gap(domain, address, "malformed")
            return TRY_AGAIN
        return reply

    def _too_often(self, domain: str, address: str, asker: Asker | None) -> bool:
        """Whether one more refusal would be one too many; if so it is counted."""
        if self.repeats.allows(self.repeats.source(address), "" if asker is None else asker.name):
            return False
        self.repeated += 1
        self._count(domain, address, TOO_OFTEN)
        return True

    def _count(self, domain: str, address: str, reason: str) -> None:
        self.summarised += 1
        self.summaries.count(domain, self.repeats.source(address), reason)


def _shown(frame: bytes) -> str:
    return frame[:255].decode("utf-8", "replace")


def event_of(request: ZapRequest, decision: Decision) -> AuditEvent:
    """What the journal says about one decision: who, what, result, why; never a secret."""
    mechanism = request.mechanism
    username = ""
    if mechanism == "PLAIN" or mechanism == "GSSAPI":
        username = request.credentials[0].decode("utf-8", "replace")
    asker = request.asker
    status = int(decision.reply.status)
    return AuditEvent(
        event=_TAGS[status],
        domain=request.domain,
        mechanism=mechanism,
        address=request.address,
        agent=asker.name if asker is not None else "",
        principal=decision.principal,
        key=decision.key,
        username=username,
        status=status,
        reason=decision.reason,
        question_id=request.question_id.hex(),
        trail=decision.trail,
    )


_ANY_ID = bytes(16)
_ANY_ID_MEMBER = b',"question_id":"' + _ANY_ID.hex().encode("ascii") + b'"'
_MOST_MEMBERS = 4096


def members_of(request: ZapRequest, decision: Decision) -> tuple[bytes, bytes] | None:
    """What the journal's encoder would write for this decision: (up to the question id, behind it), as JSON
    without the braces. None for what it would have to tame."""
    members = msgspec.json.encode(event_of(request._replace(question_id=_ANY_ID), decision))[1:-1]
    if not members.isascii() or len(members) > _MOST_MEMBERS:
        return None
    before, _, after = members.rpartition(_ANY_ID_MEMBER)
    return before, after


def members_of_granted(request: ZapRequest, backend: str) -> tuple[bytes, bytes]:
    """What `event_of` and the journal's encoder would write for an admission of such a request from the memory of
    this backend: (up to the principal's name, behind the question id), as JSON without the braces."""
    asker = request.asker
    before = AuditEvent(
        event=_TAGS[200],
        domain=request.domain,
        mechanism=request.mechanism,
        address=request.address,
        agent=asker.name if asker is not None else "",
    )
    after = AuditEvent(event="", trail=((backend, "accept", 0.0),))
    return (
        msgspec.json.encode(before)[1:-1] + b',"principal":"',
        msgspec.json.encode(after)[len(b'{"event":""') : -1],
    )


class ChangeRecorder:
    """The journal as administration's changes need it (see `zapd.admin.services.journalling.Recorder`)."""

    def __init__(self, journal: Journal, on_recorded: Callable[[int], None] = lambda _sequence: None) -> None:
        """``on_recorded`` hears, in a thread, of each change that is on disk."""
        self._journal = journal
        self._on_recorded = on_recorded

    @property
    def writable(self) -> bool:
        """Whether the journal takes events now."""
        return self._journal.writable

    @property
    def instance(self) -> str:
        """Whose record this is."""
        return self._journal.instance

    async def record_change(self, sequence: int, event: AuditEvent) -> None:
        """Append one change and wait until it is durable. Raises `JournalUnavailable`."""
        await self.record_changes([(sequence, event)])

    async def record_changes(self, changes: Sequence[tuple[int, AuditEvent]]) -> None:
        """As `record_change`, for some hundreds that share one sync."""
        for _, event in changes:
            self._journal.append(event)
        await self._journal.durable()
        await asyncio.to_thread(self._on_recorded, max(sequence for sequence, _ in changes))


class EventRecorder:
    """The journal for what administration tells beside its changes (see
    `zapd.admin.services.enrolling.Recording`)."""

    def __init__(self, journal: Journal, summaries: Summaries) -> None:
        self._journal = journal
        self._summaries = summaries

    async def record_event(self, event: AuditEvent) -> None:
        """Append one event and wait until it is durable. Raises `Unavailable`."""
        try:
            self._journal.append(event)
            await self._journal.durable()
        except JournalUnavailable:
            raise Unavailable("It cannot be put on record now. Try again later.") from None

    def count(self, address: str, reason: str) -> None:
        """Count one that was turned away without being looked at."""
        self._summaries.count(None, address, reason)
