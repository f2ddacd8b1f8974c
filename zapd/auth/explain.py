"""Why a question would be decided as it would be, rule by rule. For people; remembers and records nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Final

from zapd.auth.address import AddressRules, AddressSet, read_address
from zapd.auth.backend import UNKNOWN, Outcome, Principal, Question, Verdict
from zapd.auth.catalog import BackendHandle
from zapd.auth.chain import Chain
from zapd.auth.chain import Step as ChainStep
from zapd.auth.grant import Grants
from zapd.auth.lanes import Lane, Lanes
from zapd.auth.meaning import meaning, name_of
from zapd.auth.policy import Link, Rule
from zapd.auth.question import question_of
from zapd.auth.settling import Settling
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
    """``ok``, a reason code, or a backend's outcome; ``stale`` and ``not_asked`` besides."""
    detail: str = ""
    milliseconds: float = 0.0
    status: int = 0
    """On the last step: the status that would be answered. 0 on the others."""
    principal: Principal | None = None
    """On the last step: as whom, where it would be let in."""


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
    why = _why_address(lane.rule, address, request.address, barred)
    steps.append(ExplainStep("address", barred or "ok", why, _since(started), 400 if barred else 0))
    if barred:
        return steps
    if request.mechanism == "NULL":
        reply = ExplainStep("reply", "granted", lane.rule.null_user, status=200)
        return [*steps, replace(reply, principal=Principal(lane.rule.null_user))]
    question = question_of(request, address)
    if isinstance(question, str):
        return [*steps, ExplainStep("credentials", question, status=400)]
    asked, verdict, stale = await _ask(lane, lanes.backends, question)
    return [*steps, *asked, _end(lane, grants, question, verdict, stale=stale)]


async def _ask(
    lane: Lane, backends: Mapping[str, BackendHandle], question: Question
) -> tuple[list[ExplainStep], Verdict, bool]:
    """(a step for each backend of the rule, what they came to, whether an earlier yes stood in).

    Each is asked by itself, so that what it says can be shown; what follows is the chain's own rule.
    """
    rule, mechanism = lane.rule, question.mechanism
    able = [link for link in rule.backends if mechanism in backends[link.backend].mechanisms]
    settling: Settling[Verdict] = Settling(able)
    told: dict[str, ExplainStep] = {}
    began = perf_counter()
    while (link := settling.asking) is not None:
        left = replace(rule, deadline=max(0.001, rule.deadline - (perf_counter() - began)))
        started = perf_counter()
        answer = await Chain(left, [ChainStep(link, backends[link.backend], mechanism)]).ask(question)
        verdict = answer.verdict
        settling.take(verdict.outcome, verdict)
        said = "an earlier yes stands in" if answer.stale else _words(verdict)
        ends = f"; {settling.why}" if settling.why and verdict.outcome is not Outcome.ACCEPT else ""
        word = "stale" if answer.stale else verdict.outcome.value
        told[link.backend] = ExplainStep(f"backend {link.backend}", word, said + ends, _since(started))
        if answer.stale:
            return _whole(rule, told, mechanism, able), verdict, True
    found = settling.result
    return _whole(rule, told, mechanism, able), UNKNOWN if found is None else found[1], False


def _whole(rule: Rule, told: Mapping[str, ExplainStep], mechanism: str, able: Sequence[Link]) -> list[ExplainStep]:
    """Every backend of the rule in its order, those too that are not asked."""
    names = {link.backend for link in able}
    return [
        told.get(link.backend)
        or ExplainStep(
            f"backend {link.backend}",
            "not_asked",
            "the chain has ended" if link.backend in names else f"it answers no {mechanism}",
        )
        for link in rule.backends
    ]


def _words(verdict: Verdict) -> str:
    """What a backend's verdict says besides its outcome."""
    words = [verdict.reason] if verdict.reason else []
    if verdict.principal is not None:
        words.append(f"as {verdict.principal.name!r}")
    if verdict.until != math.inf:
        words.append(f"until {datetime.fromtimestamp(min(verdict.until, 253402300799), UTC):%Y-%m-%d %H:%M:%SZ}")
    return ", ".join(words)


def _why_address(rule: Rule, address: str, given: str, barred: str) -> str:
    """Which address rule speaks."""
    read = read_address(given)
    if read is None:
        return f"{given!r} is no address as libzmq writes it"
    for name, entries in (("deny", rule.deny), ("allow", rule.allow)):
        for entry in entries:
            if read in AddressSet([entry]):
                return f"{address} is in {name} {entry}"
    return f"{address} is in no allow" if barred else f"{address}; no rule speaks of it"


def _before_address(lane: Lane, asker: Asker, request: ZapRequest) -> list[ExplainStep]:
    rule = lane.rule
    pattern = f"rule {rule.pattern!r}" if rule.mechanisms else "no rule matches"
    if rule.pattern.endswith("*"):
        pattern += ", the longest pattern that matches"
    allowed = f"{request.mechanism}; allowed: {', '.join(sorted(rule.mechanisms))}"
    walk = [
        ("asker", ("no_asker", "asker_domain", "asker_mechanism"), asker.name),
        ("domain", ("unknown_domain",), pattern),
        ("mechanism", ("mechanism_not_allowed", "no_backend", "address_not_allowed"), allowed),
    ]
    steps: list[ExplainStep] = []
    for name, refusals, detail in walk:
        if lane.refusal in refusals:
            return [*steps, ExplainStep(name, lane.refusal, detail, status=300 if lane.not_now else 400)]
        steps.append(ExplainStep(name, "ok", detail))
    return steps


def _end(lane: Lane, grants: Grants, question: Question, verdict: Verdict, *, stale: bool) -> ExplainStep:
    if verdict.outcome is Outcome.ACCEPT and verdict.principal is not None:
        try:
            grants.without_key(verdict.principal)
        except InvalidInput as fault:
            return ExplainStep("reply", "bad_principal", str(fault), status=300)
        granted = "granted_stale" if stale else "granted"
        return ExplainStep("reply", granted, verdict.principal.name, status=200, principal=verdict.principal)
    reply, reason = meaning(verdict, question, lane.rule)
    return ExplainStep("reply", reason, name_of(verdict), status=int(reply.status))


def _since(started: float) -> float:
    return (perf_counter() - started) * 1000.0
