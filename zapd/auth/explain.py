"""Why a question would be decided as it would be, rule by rule. For people; remembers and records nothing."""

from __future__ import annotations

from dataclasses import dataclass
from time import perf_counter
from typing import Final

from zapd.auth.address import AddressRules
from zapd.auth.backend import Outcome, Question
from zapd.auth.chain import Answer
from zapd.auth.grant import Grants
from zapd.auth.lanes import Lane, Lanes
from zapd.auth.meaning import meaning, name_of
from zapd.auth.question import question_of
from zapd.errors import InvalidInput
from zapd.zap import Asker, ZapRequest
from zapd.zap.request import CREDENTIALS

ANYBODY: Final = Asker("explain", mechanisms=frozenset(CREDENTIALS))
"""Asks where the request names no asker: everything but the reserved domain."""


@dataclass(frozen=True, slots=True)
class ExplainStep:
    """One thing that was looked at."""

    step: str
    """``policy``, ``asker``, ``domain``, ``mechanism``, ``address``, ``credentials``, ``backend <name>``,
    ``reply``."""
    verdict: str
    """``ok``, a reason code, or a backend's outcome."""
    detail: str = ""
    milliseconds: float = 0.0
    status: int = 0
    """On the last step: the status that would be answered. 0 on the others."""


async def explain(request: ZapRequest, lanes: Lanes, grants: Grants, *, current: bool) -> list[ExplainStep]:
    """Walk the road of `zapd.auth.authority.Authority.decide`, noting each step; stop where it would stop."""
    version = f"version {lanes.policy.version}"
    if not current:
        return [ExplainStep("policy", "policy_stale", version, status=300)]
    steps = [ExplainStep("policy", "ok", version)]
    asker = request.asker or ANYBODY
    lane = lanes.find(asker, request.domain, request.mechanism)
    steps += _before_address(lane, asker, request)
    if lane.refusal:
        return steps
    started = perf_counter()
    rules = AddressRules(lane.rule.allow, lane.rule.deny)  # of its own: a person's question fills no memory
    address, barred = rules.check(request.address)
    steps.append(ExplainStep("address", barred or "ok", address, _since(started), 400 if barred else 0))
    if barred:
        return steps
    if request.mechanism == "NULL":
        return [*steps, ExplainStep("reply", "granted", lane.rule.null_user, status=200)]
    question = question_of(request, address)
    if isinstance(question, str):
        return [*steps, ExplainStep("credentials", question, status=400)]
    answer = await lane.chain.ask(question)
    steps += [
        ExplainStep(f"backend {step.backend}", step.outcome, milliseconds=step.milliseconds)
        for step in answer.trail
    ]
    return [*steps, _end(lane, grants, question, answer)]


def _before_address(lane: Lane, asker: Asker, request: ZapRequest) -> list[ExplainStep]:
    domain = f"rule {lane.rule.pattern!r}" if lane.rule.mechanisms else ""
    walk = [
        ("asker", ("no_asker", "asker_domain", "asker_mechanism"), asker.name),
        ("domain", ("unknown_domain",), domain),
        ("mechanism", ("mechanism_not_allowed", "no_backend", "address_not_allowed"), request.mechanism),
    ]
    steps: list[ExplainStep] = []
    for name, refusals, detail in walk:
        if lane.refusal in refusals:
            return [*steps, ExplainStep(name, lane.refusal, detail, status=300 if lane.not_now else 400)]
        steps.append(ExplainStep(name, "ok", detail))
    return steps


def _end(lane: Lane, grants: Grants, question: Question, answer: Answer) -> ExplainStep:
    verdict = answer.verdict
    if verdict.outcome is Outcome.ACCEPT and verdict.principal is not None:
        try:
            grants.without_key(verdict.principal)
        except InvalidInput as fault:
            return ExplainStep("reply", "bad_principal", str(fault), status=300)
        granted = "granted_stale" if answer.stale else "granted"
        return ExplainStep("reply", granted, verdict.principal.name, status=200)
    reply, reason = meaning(verdict, question, lane.rule)
    return ExplainStep("reply", reason, name_of(verdict), status=int(reply.status))


def _since(started: float) -> float:
    return (perf_counter() - started) * 1000.0
