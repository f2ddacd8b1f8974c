"""What ``[signin.DOMAIN]`` demands: a domain that judges passwords, and a registry that will know the key."""

from __future__ import annotations

from collections.abc import Iterable

from zapd.config.findings import Findings, Setting
from zapd.config.sections import DomainSection, Sections, SignInSection
from zapd.config.suggest import did_you_mean
from zapd.config.values import format_duration
from zapd.errors import InvalidInput
from zapd.store.domains import Grant
from zapd.store.rules import check_domains, check_name, check_text

_SHORTEST = 60.0
_LONGEST = 366 * 86400.0
_UNWISE = 7 * 86400.0
MAX_HINTS = 4096
"""Octets of all hints together."""


def check_signins(sections: Sections, findings: Findings) -> None:
    """Report on every ``[signin.DOMAIN]``."""
    for name, signin in sections.signin.items():
        at: Setting = ("signin", name)
        _check_asked(at, name, sections, findings)
        _check_granted(at, signin.domains or (name,), sections, findings)
        _check_lifetime(at, signin, findings)
        _check_hints(at, signin, findings)
        if not sections.enroll.listen:
            findings.warn(
                at, "nobody can sign in", 'add listen = "HOST:PORT" to [enroll]', needs=[("enroll", "listen")]
            )


def _check_asked(at: Setting, name: str, sections: Sections, findings: Findings) -> None:
    pattern = _rule_for(name, sections.domain)
    if name.endswith("*") or pattern is None:
        findings.mistake(
            at,
            "there is no such domain",
            did_you_mean(name, sections.domain) or "name a domain in full, one that has a [domain.…]",
        )
    elif "PLAIN" not in sections.domain[pattern].mechanisms:
        findings.mistake(
            at,
            f"[domain.{pattern}] judges no passwords",
            'add "PLAIN" to its mechanisms, or have a domain for signing in, whose `domains` name where keys go',
            needs=[("domain", pattern, "mechanisms")],
        )


def _check_granted(at: Setting, granted: tuple[str, ...], sections: Sections, findings: Findings) -> None:
    try:
        check_domains(granted)
    except InvalidInput as error:
        findings.mistake((*at, "domains"), str(error), "")
        return
    if not any(_knows_keys(domain, sections) for domain in _touched(granted, sections.domain)):
        findings.warn(
            at,
            "the key would be good for nothing: no domain it is granted in takes CURVE and asks the registry",
            'give one the mechanism "CURVE" and a backend of type "sql"',
            needs=[(*at, "domains")],
        )


def _check_lifetime(at: Setting, signin: SignInSection, findings: Findings) -> None:
    shown = format_duration(signin.lifetime)
    if not _SHORTEST <= signin.lifetime <= _LONGEST:
        findings.mistake((*at, "lifetime"), f"{shown} is out of range", "write 1m to 366d")
    elif signin.lifetime > _UNWISE:
        findings.warn(
            (*at, "lifetime"),
            f"whoever is barred by a backend keeps a key for up to {shown}",
            "write a day at most",
        )


def _check_hints(at: Setting, signin: SignInSection, findings: Findings) -> None:
    try:
        for name, text in signin.hints.items():
            check_name(name, "hint's name")
            check_text(text, "hint")
    except InvalidInput as error:
        findings.mistake((*at, "hints"), str(error), "")
    if sum(len(name.encode()) + len(text.encode()) for name, text in signin.hints.items()) > MAX_HINTS:
        findings.mistake((*at, "hints"), f"more than {MAX_HINTS} octets", "say less")


def _rule_for(name: str, patterns: Iterable[str]) -> str | None:
    """The pattern that speaks for a domain, as `zapd.auth.policy` finds it."""
    fitting = [each for each in patterns if Grant.of([each]).covers(name)]
    return max(fitting, key=lambda each: (each == name, len(each)), default=None)


def _touched(granted: tuple[str, ...], patterns: Iterable[str]) -> list[str]:
    """Those domains that have something in common with what is granted."""
    grant = Grant.of(granted)
    own = {each: Grant.of([each]) for each in patterns}
    return [
        each
        for each, rule in own.items()
        if grant.covers_pattern(each) or any(rule.covers_pattern(pattern) for pattern in granted)
    ]


def _knows_keys(pattern: str, sections: Sections) -> bool:
    domain: DomainSection = sections.domain[pattern]
    asked = [sections.backend.get(link.backend) for link in domain.backends]
    return "CURVE" in domain.mechanisms and any(each is not None and each.type == "sql" for each in asked)
