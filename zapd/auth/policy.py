"""The policy: which rule speaks for a ZAP domain, and what that rule lets happen. Pure.

A `Rule` is one table ``[domain.<pattern>]`` of the configuration; a `Plan` is the same, checked and made ready for
asking; a `Policy` finds the plan for a domain. Nothing here asks a backend, reads a clock or knows a
configuration file.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count
from typing import Final, Literal

from zapd.auth.address import AddressRules
from zapd.errors import ConfigurationError
from zapd.store.domains import RESERVED
from zapd.zap.request import CREDENTIALS

MECHANISMS: Final = frozenset(CREDENTIALS)

Next = Literal["stop", "next"]
_NEXT: Final = ("stop", "next")

_versions = count(1)


@dataclass(frozen=True, slots=True)
class Link:
    """One backend in a domain's chain, and when the next one is asked after it.

    LOCKED and NOT_YET have no entry here: nothing may soften them.
    """

    backend: str
    """The name in ``[backend.<name>]``."""
    on_unknown: Next = "next"
    on_reject: Next = "stop"
    on_unavailable: Next = "stop"
    """``next`` lets a later backend admit while this one is away; a refusal then stays in doubt: 300."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What the configuration says about a domain, or about all that a pattern matches. Times are seconds."""

    pattern: str
    """A domain's exact name, a prefix and ``*``, or ``*`` alone (every domain but the empty one)."""
    mechanisms: frozenset[str]
    backends: tuple[Link, ...] = ()
    """Asked in this order."""
    allow: tuple[str, ...] = ()
    """Address rules; empty allows every address, except for NULL, which it allows none."""
    deny: tuple[str, ...] = ()
    unknown_keys: Literal["refuse", "pending"] = "refuse"
    """What a CURVE key hears that no backend knows: 400, or 300 until somebody approves it."""
    grace: float = 0.0
    """How long an agent cut off from every zapd may repeat the last 200."""
    null_user: str = ""
    """The user id of a peer that NULL let in, where no backend says who it is."""
    deadline: float = 1.0
    """For all backends together; past it the answer is 300."""
    backend_deadline: float = 0.8
    """For each backend."""
    refusal_tick: float = 0.1
    """PLAIN refusals leave on multiples of this."""
    cache_good: float = math.inf
    """How long a 200 that was dear to get may be repeated, where its backends say no less; 0 is never."""
    cache_bad: float = math.inf
    """The same for refusals."""

    @property
    def null_by_address(self) -> bool:
        """Whether ``allow`` alone may grant NULL, where none of `backends` answers it. A rule for NULL alone that
        names backends means to ask them."""
        return not self.backends or self.mechanisms != {"NULL"}


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """A rule, checked and ready."""

    rule: Rule
    addresses: AddressRules


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """All rules, ready to be asked."""

    rules: tuple[Rule, ...]
    version: int = field(default_factory=lambda: next(_versions), init=False)
    """Different for each policy of this process."""
    _exact: dict[str, Plan] = field(default_factory=dict, init=False, repr=False)
    _prefixes: dict[str, Plan] = field(default_factory=dict, init=False, repr=False)
    _lengths: list[int] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        """Raises `ConfigurationError` that names every mistake, one a line."""
        mistakes: list[str] = []
        for rule in self.rules:
            mistakes += [f"domain {rule.pattern!r}: {mistake}" for mistake in _mistakes(rule)]
            home, name = self._home(rule.pattern)
            if name in home:
                mistakes.append(f"domain {rule.pattern!r}: there twice, keep one")
            try:
                home[name] = Plan(rule, AddressRules(rule.allow, rule.deny))
            except ConfigurationError as mistake:
                mistakes.append(f"domain {rule.pattern!r}: {mistake}")
        if mistakes:
            raise ConfigurationError("\n".join(mistakes))
        self._lengths.extend(sorted({len(prefix) for prefix in self._prefixes}, reverse=True))

    def _home(self, pattern: str) -> tuple[dict[str, Plan], str]:
        return (self._prefixes, pattern[:-1]) if pattern.endswith("*") else (self._exact, pattern)

    def plan_for(self, domain: str) -> Plan | None:
        """The plan for a domain: its exact rule, else that of the longest matching pattern, else None.

        The reserved domain has none, and the empty one only an exact rule. One look for each length of prefix
        in use: a flood of strange domains finds nothing here to fill.
        """
        plan = self._exact.get(domain)
        if plan is not None or domain == "" or domain == RESERVED:
            return plan
        for length in self._lengths:
            # A domain shorter than ``length`` stays whole here, and then nothing longer can match it.
            plan = self._prefixes.get(domain[:length])
            if plan is not None:
                return plan
        return None

    def backends(self) -> frozenset[str]:
        """The names of all backends that some rule asks."""
        return frozenset(link.backend for rule in self.rules for link in rule.backends)


def _mistakes(rule: Rule) -> Iterable[str]:
    """What is wrong with a rule, and the mend."""
    pattern = rule.pattern
    if pattern == RESERVED:
        yield "reserved for zapd's own door, which enrolled agents alone pass: choose another name"
    if "*" in pattern[:-1]:
        yield "'*' stands at the end only"
    if len(pattern) > 255 or not (pattern.isascii() and pattern.isprintable()):
        yield "a domain has at most 255 printable ASCII characters (RFC 27)"
    if not rule.mechanisms:
        yield "name its mechanisms"
    for unknown in sorted(rule.mechanisms - MECHANISMS):
        yield f"unknown mechanism {unknown!r}: there are {', '.join(sorted(MECHANISMS))}"
    if "NULL" in rule.mechanisms and not rule.allow:
        yield "NULL is granted by an explicit allow list alone: add allow = [...]"
    if rule.mechanisms - {"NULL"} and not rule.backends:
        yield "name the backends to ask"
    if len({link.backend for link in rule.backends}) < len(rule.backends):
        yield "a backend stands twice in its chain"
    if any(
        choice not in _NEXT
        for link in rule.backends
        for choice in (link.on_unknown, link.on_reject, link.on_unavailable)
    ):
        yield "what follows an answer is 'stop' or 'next'"
    if rule.unknown_keys not in ("refuse", "pending"):
        yield "unknown_keys is 'refuse' or 'pending'"
    if len(rule.null_user.encode("utf-8", "surrogatepass")) > 255 or not rule.null_user.isprintable():
        yield "null_user has at most 255 octets and no control characters"
    yield from _wrong_times(rule)


def _wrong_times(rule: Rule) -> Iterable[str]:
    if not 0 < rule.backend_deadline <= rule.deadline:
        yield (
            f"a backend's deadline ({rule.backend_deadline} s) is more than 0 "
            f"and within the plan's ({rule.deadline} s)"
        )
    if not 0 < rule.refusal_tick <= rule.deadline:
        yield f"refusal_tick ({rule.refusal_tick} s) is more than 0 and within the deadline ({rule.deadline} s)"
    if min(rule.grace, rule.cache_good, rule.cache_bad) < 0:
        yield "times are never negative"
    if rule.grace > 86400:
        yield "grace is at most 24 h"
