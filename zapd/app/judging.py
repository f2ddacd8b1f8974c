"""Somebody's name and password, put to the authority on the road of every PLAIN question."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from zapd.admin.services.signing_in import ASKER, Judged, Login, request_of
from zapd.app.deciding import Deciding
from zapd.audit.journal import JournalUnavailable
from zapd.auth.grant import principal_of
from zapd.server.endpoint import DRAINING
from zapd.zap import TRY_AGAIN, Asker, Status

_ASKER: Final = Asker(ASKER, ("*", ""), frozenset({"PLAIN"}))
"""`zapd.admin.services.signing_in` sees to it that only domains are asked about that are named for it."""


async def judge(deciding: Deciding, login: Login) -> Judged:
    """Decide, count, and put it on record; returns when the record is durable."""
    request = request_of(login)._replace(asker=_ASKER)
    draining = deciding.endpoint.draining
    decision = DRAINING if draining else await deciding.authority.decide(request)
    recorder = deciding.recorder
    reply = recorder.record(request, decision, {"signin": login.key, "request": login.request})
    deciding.metrics.count(request, int(reply.status), decision)
    try:
        await recorder.journal.durable()
    except JournalUnavailable:
        recorder.unrecorded += 1
        reply = TRY_AGAIN
    if reply.status is not Status.GRANTED:
        return Judged(int(reply.status), decision.reason)
    found = principal_of(reply)
    return Judged(200, decision.reason, found.name, found.groups, found.attributes, _moment(decision.until))


def _moment(until: float) -> datetime | None:
    """A time of the wall clock; None for one that never comes, or that no calendar has."""
    try:
        return datetime.fromtimestamp(until, UTC)
    except (OverflowError, ValueError, OSError):
        return None
