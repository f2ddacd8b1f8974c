"""What is wrong or unwise about how a backend is kept, and about what follows its answers in a domain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from zapd.config.backends import BackendSection
from zapd.config.findings import Findings, Setting
from zapd.config.sections import DomainSection, LinkSection, Sections
from zapd.config.values import format_duration

LONGEST_STALE: Final = 86400.0
LONGEST_CACHE: Final = 3600.0
LONGEST_PAUSE: Final = 60.0
HEALED_WITHIN: Final = 1.0
"""Seconds after which what has healed should work again."""


def check_keeping(name: str, backend: BackendSection, sections: Sections, findings: Findings) -> None:
    """zapd's own settings of one ``[backend.NAME]``."""
    at: Setting = ("backend", name)
    for setting in ("deadline", "circuit_pause"):
        if getattr(backend, setting) == 0:
            findings.mistake((*at, setting), "is nothing", "write more than 0")
    for setting, longest in (
        ("circuit_pause", LONGEST_PAUSE),
        ("cache_good", LONGEST_CACHE),
        ("cache_bad", LONGEST_CACHE),
        ("stale_if_error", LONGEST_STALE),
    ):
        if getattr(backend, setting) > longest:
            findings.mistake(
                (*at, setting), f"is longer than {format_duration(longest)}", f"write {format_duration(longest)}"
            )
    _check_deadline(name, backend, sections, findings)
    if HEALED_WITHIN < backend.circuit_pause <= LONGEST_PAUSE:
        findings.warn(
            (*at, "circuit_pause"),
            f"{name} may have healed {format_duration(backend.circuit_pause)} ago and the answer still be 300",
            "write at most 1s",
        )
    if 0 < backend.stale_if_error <= LONGEST_STALE:
        findings.warn(
            (*at, "stale_if_error"),
            f"while {name} is away, whoever was revoked there is let in for "
            f"{format_duration(backend.stale_if_error)}",
            'write "0s" where revoked must mean out',
        )


def _check_deadline(name: str, backend: BackendSection, sections: Sections, findings: Findings) -> None:
    if backend.deadline is None:
        return
    given = [
        sections.limits.backend_deadline if domain.backend_deadline is None else domain.backend_deadline
        for domain in sections.domain.values()
        if name in {link.backend for link in domain.backends}
    ]
    most = max(given, default=sections.limits.backend_deadline)
    if backend.deadline > most:
        findings.mistake(
            ("backend", name, "deadline"),
            f"{format_duration(backend.deadline)} is longer than a domain gives it ({format_duration(most)})",
            "lower it, or raise backend_deadline and plan_deadline in [limits] or deadlines in the domain",
            needs=[("limits", "backend_deadline")],
        )


def check_chain(at: Setting, links: Sequence[LinkSection], findings: Findings) -> None:
    """What follows each backend's answers in the domain ``at``."""
    for number, link in enumerate(links):
        here: Setting = (*at, "backends", number)
        last = number == len(links) - 1
        if link.on_unavailable == "next":
            findings.warn(here, f"while {link.backend} is away the next backend decides alone", "be sure it may")
        if link.on_reject == "next" and not last:
            findings.warn(
                here,
                f"who is known to {link.backend} and has the wrong proof may be let in by the next backend",
                "be sure that a name means the same one in both",
            )
        if not last and "next" not in (link.on_unknown, link.on_reject, link.on_unavailable):
            findings.warn(
                here, "nobody behind it is ever asked", "remove what stands behind it, or one of its stops"
            )


def check_approval(at: Setting, domain: DomainSection, sections: Sections, findings: Findings) -> None:
    """Whether approving a key that the domain ``at`` holds lets it in: it is in the registry then."""
    if domain.unknown_keys != "pending" or not domain.backends:
        return
    for link in domain.backends:
        backend = sections.backend.get(link.backend)
        if backend is None or backend.type == "sql":  # what is not there is a mistake of its own
            return
        if link.on_unknown != "next":
            break
    findings.warn(
        (*at, "unknown_keys"),
        "zapd's registry is not asked about unknown keys, so that one that is approved would never be let in",
        'add a backend of type sql before any on_unknown = "stop", or write "refuse"',
        needs=[(*at, "backends")],
    )
