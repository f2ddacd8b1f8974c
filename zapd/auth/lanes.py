"""Lanes: all that is the same for every question of one asker, domain and mechanism, worked out once.

Which rule speaks, whether the asker may ask and the rule allows the mechanism, which backends are asked: none of
it changes between two questions, so the hot road looks it up in one step. The memory is bounded, since askers
choose domains as they like. Pure; asks nobody.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from zapd.auth.backend import Question
from zapd.auth.catalog import BackendHandle
from zapd.auth.chain import Chain, Step
from zapd.auth.decision import Decision
from zapd.auth.grant import null_reply
from zapd.auth.memo import Memo
from zapd.auth.policy import Plan, Policy, Rule
from zapd.errors import ConfigurationError
from zapd.store.domains import Grant
from zapd.zap import Asker, ZapRequest

LANES: Final = 4096

NOBODY: Final = Rule(pattern="", mechanisms=frozenset())
"""Stands where no rule speaks: its times are the defaults."""

_NOT_NOW: Final = frozenset({"no_asker", "asker_domain", "asker_mechanism", "no_backend"})
"""Refusals of a lane that may heal: 300."""


@dataclass(frozen=True, slots=True, eq=False)
class Lane:
    """The road that a question takes. With a ``refusal`` the rest is empty."""

    mechanism: str
    policy_version: int
    rule: Rule
    chain: Chain
    check_address: Callable[[str], tuple[str, str]]
    """See `zapd.auth.address.AddressRules.check`."""
    refusal: str = ""
    """Why nobody is asked: a reason code."""
    not_now: bool = False
    """The refusal may heal: 300, else 400."""
    null_decision: Decision | None = None
    """What NULL is answered once the address is allowed, where no backend is asked who it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a CURVE question stands when all but its key is decided, and allowed."""

    first: BackendHandle
    """Who is asked first."""
    domain: str


class Lanes:
    """Finds the lane for a question, under one policy and its backends."""

    def __init__(self, policy: Policy, backends: Mapping[str, BackendHandle]) -> None:
        """Raises `ConfigurationError` when a rule names a backend that is not there."""
        missing = sorted(policy.backends() - backends.keys())
        if missing:
            raise ConfigurationError(
                f"rules name backends that are not configured: {', '.join(missing)}; add [backend.{missing[0]}]"
            )
        self.policy = policy
        self.backends = dict(backends)
        self._lanes: Memo[tuple[Asker | None, str, str], Lane] = Memo(LANES)
        self._chains: dict[tuple[Plan, str], Chain] = {}
        self._grants: Memo[Asker, Grant] = Memo(LANES)

    def get(self, request: ZapRequest) -> Lane:
        """The lane for a question."""
        key = (request.asker, request.domain, request.mechanism)
        return self._lanes.get(key) or self._lanes.put(key, self.find(*key))

    def place(self, asker: Asker | None, domain: str, address: str) -> Place | None:
        """Where a CURVE question from there stands; None where something is in the way."""
        lane = self.find(asker, domain, "CURVE")
        if lane.refusal or lane.chain.first is None:
            return None
        _, barred = lane.check_address(address)
        return None if barred else Place(lane.chain.first, domain)

    def find(self, asker: Asker | None, domain: str, mechanism: str) -> Lane:
        """The same, worked out anew and not remembered."""
        if asker is None:
            return self._refusal(mechanism, "no_asker")
        grant = self._grants.get(asker) or self._grants.put(asker, Grant.of(asker.domains))
        if not grant.covers(domain):
            return self._refusal(mechanism, "asker_domain")
        if mechanism not in asker.mechanisms:
            return self._refusal(mechanism, "asker_mechanism")
        plan = self.policy.plan_for(domain)
        if plan is None:
            return self._refusal(mechanism, "unknown_domain")
        rule = plan.rule
        if mechanism not in rule.mechanisms:
            return self._refusal(mechanism, "mechanism_not_allowed", rule)
        if mechanism == "NULL" and not plan.addresses.restricted:
            return self._refusal(mechanism, "address_not_allowed", rule)
        chain = self._chain(plan, mechanism)
        if not len(chain):
            if mechanism == "NULL" and rule.null_by_address:
                granted = Decision(null_reply(rule.null_user), "granted", rule.null_user)
                return self._open(mechanism, plan, chain, granted)
            return self._refusal(mechanism, "no_backend", rule)
        return self._open(mechanism, plan, chain)

    def _chain(self, plan: Plan, mechanism: str) -> Chain:
        """The backends of a plan that can answer this mechanism; shared by all its lanes."""
        chain = self._chains.get((plan, mechanism))
        if chain is None:
            steps = [
                Step(link, self.backends[link.backend], mechanism)
                for link in plan.rule.backends
                if mechanism in self.backends[link.backend].mechanisms
            ]
            chain = self._chains[plan, mechanism] = Chain(plan.rule, steps)
        return chain

    def _open(self, mechanism: str, plan: Plan, chain: Chain, null_decision: Decision | None = None) -> Lane:
        return Lane(
            mechanism=mechanism,
            policy_version=self.policy.version,
            rule=plan.rule,
            chain=chain,
            check_address=plan.addresses.check,
            null_decision=null_decision,
        )

    def _refusal(self, mechanism: str, reason: str, rule: Rule = NOBODY) -> Lane:
        return Lane(
            mechanism=mechanism,
            policy_version=self.policy.version,
            rule=rule,
            chain=_NO_CHAIN,
            check_address=_nowhere,
            refusal=reason,
            not_now=reason in _NOT_NOW,
        )


def knows_by_heart(lane: Lane, question: Question) -> bool:
    """Whether a backend of a CURVE question lets its key in from memory alone."""
    return any(_recalls(handle, question) for handle in lane.chain.handles)


def _recalls(handle: BackendHandle, question: Question) -> bool:
    try:
        return handle.recall((question.key,), question.domain)[0] is not None
    except Exception:  # noqa: BLE001 - what it means will be seen when it is asked
        return False


_NO_CHAIN: Final = Chain(NOBODY, ())


def _nowhere(text: str) -> tuple[str, str]:
    return text, "address_not_allowed"
