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
from zapd.auth.bans import Ban, Bans
from zapd.auth.catalog import BackendHandle
from zapd.auth.chain import Chain
from zapd.auth.chain import Step as ChainStep
from zapd.auth.grant import Grants
from zapd.auth.lanes import Lane, Lanes, knows_by_heart
from zapd.auth.meaning import meaning, name_of
from zapd.auth.policy import Link, Rule
from zapd.auth.question import question_of
from zapd.auth.settling import Settling
from zapd.auth.throttle import REASONS as PENALTIES
from zapd.auth.throttle import Throttle
from zapd.errors import InvalidInput
from zapd.zap import Asker, ZapRequest
from zapd.zap.request import CREDENTIALS

ANYBODY: Final = Asker("explain", ("*", ""), frozenset(CREDENTIALS))
"""Asks where the request names no asker: everything but the reserved domain."""

_SOME: Final = b"?"
"""Stands for a password that nobody gave."""


@dataclass(frozen=True, slots=True)
class ExplainStep:
    """One thing that was looked at."""

    step: str
    """``policy``, ``asker``, ``domain``, ``mechanism``, ``address``, ``ban``, ``penalty``, ``credentials``,
    ``backend <name>``, ``reply``."""
    verdict: str
    """``ok``, a reason code, or a backend's outcome; ``stale`` and ``not_asked`` besides."""
    detail: str = ""
    milliseconds: float = 0.0
    status: int = 0
    """On the last step: the status that would be answered. 0 on the others."""
    principal: Principal | None = None
    """On the last step: as whom, where it would be let in."""


async def explain(
    request: ZapRequest, lanes: Lanes, grants: Grants, bans: Bans, throttle: Throttle, *, current: bool
) -> list[ExplainStep]:
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
    if lane.null_decision is not None:
        steps.append(_ban_step(banned := bans.of_address(address, request.domain)))
        if banned is not None:
            return steps
        reply = ExplainStep("reply", "granted", lane.rule.null_user, status=200)
        return [*steps, replace(reply, principal=Principal(lane.rule.null_user))]
    question = question_of(request, address)
    named = question if isinstance(question, Question) else _named(request, address)
    if named is not None:
        steps.append(_ban_step(banned := bans.of_question(named)))
        if banned is not None:
            return steps
        steps.append(penalty := _penalty_step(throttle, lane, named))
        if penalty.status:
            return steps
    if isinstance(question, str):
        return [*steps, ExplainStep("credentials", question, status=400)]
    asked, verdict, stale = await _ask(lane, lanes.backends, question)
    steps += asked
    found = verdict.principal if verdict.outcome is Outcome.ACCEPT else None
    if found is not None and (banned := bans.of_user(found.name, request.domain)) is not None:
        return [*steps, _ban_step(banned)]
    return [*steps, _end(lane, grants, question, verdict, stale=stale)]


def _named(request: ZapRequest, address: str) -> Question | None:
    """What is asked about somebody who gave no password; None where nobody is named."""
    if request.mechanism != "PLAIN":
        return None
    named = question_of(request._replace(credentials=(request.credentials[0], _SOME)), address)
    return named if isinstance(named, Question) else None


def _ban_step(ban: Ban | None) -> ExplainStep:
    if ban is None:
        return ExplainStep("ban", "ok")
    record = ban.record
    until = "" if record.expires is None else f" until {record.expires:%Y-%m-%d %H:%M:%SZ}"
    why = f": {record.reason}" if record.reason else ""
    return ExplainStep("ban", ban.reason, f"ban {record.id}{until}{why}", status=400 if ban.final else 300)


def _penalty_step(throttle: Throttle, lane: Lane, question: Question) -> ExplainStep:
    """Whether a wrong try of late holds it up; a key that is known by heart passes all the same."""
    found = throttle.about(question, lane.rule.pattern).look()
    if found is None:
        return ExplainStep("penalty", "ok")
    kind, seconds = found
    if question.key and knows_by_heart(lane, question):
        return ExplainStep("penalty", "ok", f"penalty_{kind}; a key known by heart passes")
    return ExplainStep("penalty", PENALTIES[kind], f"for {math.ceil(seconds)} s at most", status=300)


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
