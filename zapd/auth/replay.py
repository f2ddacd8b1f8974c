"""Deciding the past anew: what other rules would have made of a question, by what backends said of it then. Pure.

Only the rules are others. What each backend said is taken from the record; where a rule asks one that was not
asked then, or is set up otherwise now, nobody can know, and that is said. What was decided before any rule (a
penalty, draining, a malformed request) stays as it was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from zapd.auth.backend import Outcome
from zapd.auth.policy import Link, Plan, Policy, Rule
from zapd.auth.settling import Settling
from zapd.store.domains import RESERVED, Grant

REMEMBERED: Final = 20_000
"""Answers whose backends are kept in mind: zapd repeats some from memory, and those name nobody."""

FORM: Final = frozenset({"bad_credentials", "bad_username", "empty_username", "empty_password"})
_RULES: Final = frozenset(
    {
        *("unknown_domain", "mechanism_not_allowed", "address_not_allowed", "address_denied", "bad_address"),
        *("no_backend", "asker_domain", "asker_mechanism", "no_asker"),
    }
)
_BEFORE: Final = frozenset(
    {
        *("malformed", "draining", "policy_stale", "internal_error", "overload"),
        *("banned_address", "banned_key", "banned_user"),
        *("penalty_address", "penalty_name", "penalty_account", "penalty_key"),
        *("unknown_agent", "agent_revoked", "no_signin"),
    }
)
"""Decided before any rule, and so the same whatever the rules."""
_UNKNOWN: Final = {
    "CURVE": "unknown_key",
    "PLAIN": "unknown_user",
    "GSSAPI": "unknown_principal",
    "NULL": "unknown_peer",
}
_UNDECIDABLE: Final = 0


class Asked(Protocol):
    """A question as the journal has it."""

    @property
    def domain(self) -> str | None: ...
    @property
    def mechanism(self) -> str: ...
    @property
    def address(self) -> str: ...
    @property
    def agent(self) -> str: ...
    @property
    def key(self) -> str: ...
    @property
    def username(self) -> str: ...
    @property
    def principal(self) -> str: ...
    @property
    def status(self) -> int: ...
    @property
    def reason(self) -> str: ...
    @property
    def trail(self) -> Sequence[tuple[str, str, float]]: ...


@dataclass(frozen=True, slots=True)
class Anew:
    """What it would come to."""

    status: int
    """0 where that cannot be known."""
    reason: str
    """A reason code; or, where it cannot be known, why not."""
    principal: str = ""
    """NULL: as whom it would be let in, by the rule or by the backend of then."""

    @property
    def decidable(self) -> bool:
        return self.status != _UNDECIDABLE


@dataclass(slots=True)
class Replay:
    """Decides questions of the past by these rules."""

    policy: Policy
    mechanisms: Mapping[str, frozenset[str]]
    """What each configured backend answers."""
    listeners: Mapping[str, Sequence[str]]
    """What each listener without agents (``local:…``) may ask about."""
    changed: frozenset[str] = frozenset()
    """Backends that are set up otherwise than they were."""
    forgiving: frozenset[str] = frozenset()
    """Backends whose earlier yes stands in while they are away (``stale_if_error``)."""
    _memory: OrderedDict[tuple[str, ...], Sequence[tuple[str, str, float]]] = field(
        default_factory=OrderedDict, init=False, repr=False
    )

    def decide(self, past: Asked) -> Anew:
        """What these rules make of it."""
        domain = past.domain or ""
        trail = self._trail(domain, past)
        if domain == RESERVED or past.reason in _BEFORE:
            return Anew(past.status, past.reason, past.principal)
        if past.agent.startswith("local:"):
            domains = self.listeners.get(past.agent)
            if domains is None:
                return Anew(_UNDECIDABLE, f"the listener {past.agent[6:]} is not there any more")
            if not Grant.of(domains).covers(domain):
                return Anew(300, "asker_domain")
        plan = self.policy.plan_for(domain)
        if plan is None:
            return Anew(400, "unknown_domain")
        links = [link for link in plan.rule.backends if past.mechanism in self.mechanisms.get(link.backend, ())]
        barred = _barred(plan, past, links)
        if barred is not None:
            return barred
        if past.mechanism == "NULL":
            if not links:
                return Anew(200, "granted", plan.rule.null_user)
            if not trail:
                return Anew(_UNDECIDABLE, f"backend {links[0].backend} was not asked then")
        if past.reason in FORM:
            return Anew(400, past.reason)
        if not trail and past.reason in _RULES:
            return Anew(_UNDECIDABLE, "no backend was asked then")
        if not trail:
            return Anew(_UNDECIDABLE, "answered from memory, and the first answer is not in the range")
        return self._by_backends(plan.rule, links, past, {name: (said, spent) for name, said, spent in trail})

    def _trail(self, domain: str, past: Asked) -> Sequence[tuple[str, str, float]]:
        """Who said what; of an answer from memory, what was said when it was given first."""
        who = (past.principal, past.address) if past.mechanism == "NULL" else (past.key, past.username)
        key = (domain, past.mechanism, *who, str(past.status), past.reason)
        if past.trail:
            self._memory[key] = past.trail
            self._memory.move_to_end(key)
            if len(self._memory) > REMEMBERED:
                self._memory.popitem(last=False)
            return past.trail
        return self._memory.get(key, ())

    def _by_backends(
        self, rule: Rule, links: Sequence[Link], past: Asked, trail: Mapping[str, tuple[str, float]]
    ) -> Anew:
        settling: Settling[str] = Settling(links)
        while (link := settling.asking) is not None:
            if link.backend not in trail:
                return Anew(_UNDECIDABLE, f"backend {link.backend} was not asked then")
            if link.backend in self.changed:
                return Anew(_UNDECIDABLE, f"backend {link.backend} is set up otherwise now")
            said, spent = trail[link.backend]
            if said == "stale" and link.backend in self.forgiving:
                return Anew(200, "granted_stale", _as_whom(past))
            try:
                outcome = Outcome.UNAVAILABLE if said == "stale" else Outcome(said)
            except ValueError:
                return Anew(_UNDECIDABLE, f"backend {link.backend} said something unknown here")
            late = outcome is Outcome.UNAVAILABLE and past.reason == "deadline"
            if late and spent < rule.backend_deadline * 900:
                return Anew(_UNDECIDABLE, f"backend {link.backend} was late then, and has more time now")
            if outcome is not Outcome.UNAVAILABLE and spent > rule.backend_deadline * 1000:
                outcome = Outcome.UNAVAILABLE
            settling.take(outcome, link.backend)
        found = settling.result
        if found is None:
            return Anew(300, "no_backend")
        return _meaning(found[0], rule, past)


def _barred(plan: Plan, past: Asked, links: Sequence[Link]) -> Anew | None:
    """A no, or a not now, of the rules alone; in the order of `zapd.auth.lanes` and `zapd.auth.authority`."""
    rule = plan.rule
    if past.mechanism not in rule.mechanisms:
        return Anew(400, "mechanism_not_allowed")
    if past.mechanism == "NULL" and not plan.addresses.restricted:
        return Anew(400, "address_not_allowed")
    if not links and not (past.mechanism == "NULL" and rule.null_by_address):
        return Anew(300, "no_backend")
    _, barred = plan.addresses.check(past.address)
    return Anew(400, barred) if barred else None


def _meaning(outcome: Outcome, rule: Rule, past: Asked) -> Anew:
    """As `zapd.auth.meaning.meaning`, with the reason of then where it stands for the same."""
    match outcome:
        case Outcome.ACCEPT:
            if past.reason == "bad_principal":
                return Anew(300, past.reason)
            return Anew(200, "granted", _as_whom(past))
        case Outcome.UNKNOWN if past.mechanism == "CURVE" and rule.unknown_keys == "pending":
            return Anew(300, "pending_approval")
        case Outcome.UNKNOWN:
            return Anew(400, _UNKNOWN.get(past.mechanism, "unknown"))
        case Outcome.REJECT | Outcome.LOCKED:
            return Anew(400, past.reason if past.status == 400 else outcome.value)
        case _:
            return Anew(300, past.reason if past.status == 300 else outcome.value)


def _as_whom(past: Asked) -> str:
    return past.principal if past.mechanism == "NULL" else ""
