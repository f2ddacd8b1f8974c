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


async def explain(request: ZapRequest, lanes: Lanes, grants: Grants, *, current: bool) -> list[ExplainStep]:
    """Walk the road of `zapd.auth.authority.Authority.decide`, noting each step; stop where it would stop."""
    steps = [ExplainStep("policy", "ok" if current else "policy_stale", f"version {lanes.policy.version}")]
    if not current:
        return steps
    asker = request.asker or ANYBODY
    lane = lanes.find(asker, request.domain, request.mechanism)
    steps += _before_address(lane, asker, request)
    if lane.refusal:
        return steps
    started = perf_counter()
    rules = AddressRules(lane.rule.allow, lane.rule.deny)  # of its own: a person's question fills no memory
    address, barred = rules.check(request.address)
    steps.append(ExplainStep("address", barred or "ok", address, _since(started)))
    if barred:
        return steps
    if request.mechanism == "NULL":
        return [*steps, ExplainStep("reply", "granted", lane.rule.null_user)]
    question = question_of(request, address)
    if isinstance(question, str):
        return [*steps, ExplainStep("credentials", question)]
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
            return [*steps, ExplainStep(name, lane.refusal, detail)]
        steps.append(ExplainStep(name, "ok", detail))
    return steps


def _end(lane: Lane, grants: Grants, question: Question, answer: Answer) -> ExplainStep:
    verdict = answer.verdict
    if verdict.outcome is Outcome.ACCEPT and verdict.principal is not None:
        try:
            grants.without_key(verdict.principal)
        except InvalidInput as fault:
            return ExplainStep("reply", "bad_principal", str(fault))
        return ExplainStep("reply", "granted", verdict.principal.name)
    return ExplainStep("reply", meaning(verdict, question, lane.rule)[1], name_of(verdict))


def _since(started: float) -> float:
    return (perf_counter() - started) * 1000.0
