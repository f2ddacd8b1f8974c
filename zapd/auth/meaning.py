"""What a refusal or a doubt means on the wire and in the journal. Pure.

===========  ======  ===========================================================
REJECT       400     the proof is wrong
LOCKED       400     barred, revoked or expired
UNKNOWN      400     nobody knows it; 300 where the domain holds keys for approval
NOT_YET      300     pending, or not yet valid
UNAVAILABLE  300     nobody can tell now
===========  ======  ===========================================================
"""

from __future__ import annotations

from typing import Final

from zapd.auth.backend import Outcome, Question, Verdict
from zapd.auth.policy import Rule
from zapd.zap import REFUSED, TRY_AGAIN, ZapReply

PENDING: Final = "pending_approval"

_REASON: Final = {
    Outcome.REJECT: "rejected",
    Outcome.LOCKED: "locked",
    Outcome.NOT_YET: "not_yet",
    Outcome.UNAVAILABLE: "backend_unavailable",
}
_UNKNOWN: Final = {
    "CURVE": "unknown_key",
    "PLAIN": "unknown_user",
    "GSSAPI": "unknown_principal",
    "NULL": "unknown_peer",
}
_FINAL: Final = frozenset({Outcome.REJECT, Outcome.LOCKED})


def meaning(verdict: Verdict, question: Question, rule: Rule) -> tuple[ZapReply, str]:
    """(reply, reason code) for a chain's verdict other than ACCEPT."""
    outcome = verdict.outcome
    if outcome is Outcome.UNKNOWN:
        if question.mechanism == "CURVE" and rule.unknown_keys == "pending":
            return TRY_AGAIN, PENDING
        return REFUSED, _UNKNOWN[question.mechanism]
    return (REFUSED if outcome in _FINAL else TRY_AGAIN), reason_of(verdict)


def reason_of(verdict: Verdict) -> str:
    """The backend's code if it is one (letters, digits, underscores, at most 40), else what the outcome says."""
    reason = verdict.reason
    if reason and len(reason) <= 40 and reason.isascii() and reason.isidentifier():
        return reason
    return _REASON.get(verdict.outcome, verdict.outcome.value)


def name_of(verdict: Verdict) -> str:
    """Whom it is about, where the backend knew; for the journal only."""
    return verdict.principal.name if verdict.principal is not None else ""
