"""What one setting demands of another, and of the machine: the rules that shapes alone cannot say.

Each function looks at one subject and reports to `Findings`. Nothing here changes a value.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import entry_points
from pathlib import Path

from zapd.auth.address import AddressRules
from zapd.auth.debts import RECENT
from zapd.auth.policy import Link, Policy, Rule
from zapd.auth.terms import Terms
from zapd.config.backends import SECRET_NAME
from zapd.config.chains import check_approval, check_chain, check_keeping
from zapd.config.doors import check_doors
from zapd.config.findings import Findings, Setting
from zapd.config.plugins import ask_plugins
from zapd.config.secret import Secret
from zapd.config.sections import DomainSection, Sections
from zapd.config.signins import check_signins
from zapd.config.suggest import did_you_mean
from zapd.config.values import format_duration
from zapd.errors import ConfigurationError
from zapd.store.domains import RESERVED

_LIMITS = "limits"
_SQLITE = re.compile(r"(sqlite(?:\+\w+)?:///)([^/?][^?]*)(\?.*)?", re.DOTALL)
_MAY_BE_NOTHING = frozenset({"hold_min", "failure_interval", "ping_after"})


def check(sections: Sections, base: Path, findings: Findings, *, files: bool) -> None:
    """Report everything. ``files`` also looks at the files that hold secrets."""
    check_doors(sections, base, findings)
    _check_times(sections, findings)
    _check_audit(sections, findings)
    _check_database(sections, findings)
    _check_backends(sections, findings)
    _check_penalties(sections, findings)
    check_signins(sections, findings)
    for pattern, domain in sections.domain.items():
        _check_domain(pattern, domain, sections, findings)
    if not sections.domain:
        findings.warn(
            ("domain",), "there is no domain", "every question is refused until there is a [domain.NAME]"
        )
    cores = len(os.sched_getaffinity(0))
    if sections.server.workers > max(1, cores):
        findings.warn(("server", "workers"), f"this machine has {cores} cores", f"write {cores} at most")
    if files:
        _check_files(sections, base, findings)


def _check_times(sections: Sections, findings: Findings) -> None:
    """backend ≤ plan < agent < handshake: whoever waits must outlive what it waits for."""
    limits = sections.limits
    order = (
        ("backend_deadline", "plan_deadline", limits.backend_deadline <= limits.plan_deadline, "at most"),
        ("plan_deadline", "agent_deadline", limits.plan_deadline < limits.agent_deadline, "less than"),
        ("agent_deadline", "handshake_deadline", limits.agent_deadline < limits.handshake_deadline, "less than"),
        ("handshakes_start", "handshakes_total", limits.handshakes_start <= limits.handshakes_total, "at most"),
        ("hold_min", "hold_max", limits.hold_min <= limits.hold_max, "at most"),
    )
    for smaller, larger, holds, relation in order:
        if not holds:
            given = [name for name in (smaller, larger) if name in limits.model_fields_set]
            findings.mistake(
                (_LIMITS, given[0] if given else smaller),
                f"{smaller} ({_shown(limits, smaller)}) must be {relation} {larger} ({_shown(limits, larger)})",
                f"lower {smaller} or raise {larger}",
                needs=[(_LIMITS, smaller), (_LIMITS, larger)],
            )
    for name, field in type(limits).model_fields.items():
        may_be_nothing = name in _MAY_BE_NOTHING or any(getattr(each, "ge", None) == 0 for each in field.metadata)
        if getattr(limits, name) == 0 and not may_be_nothing:
            findings.mistake((_LIMITS, name), "a bound of nothing lets nobody in", "write more than 0")
    if limits.frame_size and limits.frame_size < 255:
        findings.mistake(
            (_LIMITS, "frame_size"), "below the 255 octets that any name may have", "write at least 255B"
        )


def _shown(limits: object, name: str) -> str:
    value = getattr(limits, name)
    return format_duration(value) if isinstance(value, float) else str(value)


def _check_audit(sections: Sections, findings: Findings) -> None:
    audit = sections.audit
    head: Setting = ("audit", "head")
    if audit.head not in ("", "syslog") and not audit.head.startswith(("file:", "https://")):
        findings.mistake(
            head, f"{audit.head!r} is no place for checkpoints", "write syslog, file:PATH or https://…"
        )
    if not audit.head:
        findings.warn(
            head, "a tail of the journal may be cut off unnoticed", "write syslog, file:PATH or https://…"
        )
    durability: Setting = ("audit", "durability")
    if audit.durability == "off":
        findings.warn(durability, "nothing is recorded", 'write "strict"')
    elif audit.durability == "relaxed":
        findings.warn(
            durability,
            f"up to {format_duration(audit.flush_interval)} of records may be lost in a crash",
            'write "strict"',
        )
    if audit.max_size < 1 << 20:
        findings.mistake(("audit", "max_size"), "too small for a single segment", "write at least 1MiB")
    for name in ("flush_interval", "retention", "search_retention"):
        if getattr(audit, name) == 0:
            findings.mistake(("audit", name), "is nothing", "write more than 0")
    if audit.search_retention > audit.retention:
        findings.warn(
            ("audit", "search_retention"),
            "the search would hold what the journal no longer does",
            "lower it below retention",
            needs=[("audit", "retention")],
        )


def _check_database(sections: Sections, findings: Findings) -> None:
    url = sections.database.url
    if not url.is_inline:
        return
    # The URL may hold a password: it is looked at, never shown.
    text = url.reveal()
    setting: Setting = ("database", "url")
    if not re.match(r"(sqlite|postgresql)(\+[a-z0-9]+)?://", text):
        findings.mistake(
            setting,
            "names neither SQLite nor PostgreSQL",
            "write sqlite:///PATH or postgresql+psycopg://USER@HOST/NAME",
        )
    elif re.match(r"[^:]+://[^/@]*:[^/@]+@", text):
        findings.warn(
            setting,
            "a password stands in this file",
            'move the whole URL into a file of mode 0600: url = "file:PATH"',
        )


def _check_backends(sections: Sections, findings: Findings) -> None:
    known = {point.name for point in entry_points(group="zapd.backends")}
    used = {link.backend for domain in sections.domain.values() for link in domain.backends}
    for name, backend in sections.backend.items():
        if backend.type not in known:
            findings.mistake(
                ("backend", name, "type"),
                f"there is no backend type {backend.type!r}",
                did_you_mean(backend.type, known) or f"installed are {', '.join(sorted(known))}",
            )
        for setting, value in backend.settings.items():
            if isinstance(value, str) and SECRET_NAME.search(setting):
                findings.warn(
                    ("backend", name, setting),
                    "a secret stands in this file",
                    f'move it into a file of mode 0600: {setting} = "file:PATH"',
                )
        check_keeping(name, backend, sections, findings)
        if name not in used:
            findings.warn(
                ("backend", name), "no domain asks it", "add it to the backends of a domain, or remove it"
            )


def _check_domain(pattern: str, domain: DomainSection, sections: Sections, findings: Findings) -> None:
    at: Setting = ("domain", pattern)
    before = len(findings.mistakes)
    for link in domain.backends:
        if link.backend not in sections.backend:
            findings.mistake(
                (*at, "backends"),
                f"there is no [backend.{link.backend}]",
                did_you_mean(link.backend, sections.backend) or "add it, or mend the name",
            )
    for name in ("allow", "deny"):
        for rule in getattr(domain, name):
            try:
                AddressRules([rule])
            except ConfigurationError as error:
                findings.mistake((*at, name), str(error), "")
    if "NULL" in domain.mechanisms and not domain.allow:
        findings.mistake(
            (*at, "mechanisms"),
            "NULL is granted by an explicit allow list alone",
            'add allow = ["NETWORK"]',
            needs=[(*at, "allow")],
        )
    if set(domain.mechanisms) - {"NULL"} and not domain.backends:
        findings.mistake(
            at, "no backend is named", 'add backends = ["NAME"]', needs=[(*at, "backends"), (*at, "mechanisms")]
        )
    if pattern == RESERVED:
        findings.mistake(
            at, "reserved for zapd's own door, which enrolled agents alone pass", "choose another name"
        )
    if len(findings.mistakes) == before and not findings.spoiled(at):
        # What the policy itself would refuse at start, so that nothing passes here and fails there.
        try:
            Policy((rule_of(pattern, domain, sections),))
        except ConfigurationError as error:
            for line in str(error).splitlines():
                named = [name for name in sorted(domain.model_fields_set, key=len) if name in line]
                where = (*at, named[-1]) if named else at
                findings.mistake(where, line.partition(": ")[2] or line, "")
    if domain.grace:
        findings.warn(
            (*at, "grace"),
            f"an agent cut off from every zapd lets revoked keys in for {format_duration(domain.grace)}",
            'write "0s" where revoked must mean out',
        )
    check_chain(at, domain.backends, findings)
    check_approval(at, domain, sections, findings)


def rule_of(pattern: str, domain: DomainSection, sections: Sections) -> Rule:
    """The domain as deciding takes it, what it leaves out filled in from ``[limits]``."""
    limits = sections.limits
    return Rule(
        pattern=pattern,
        mechanisms=frozenset(domain.mechanisms),
        backends=tuple(
            Link(each.backend, each.on_unknown, each.on_reject, each.on_unavailable) for each in domain.backends
        ),
        allow=domain.allow,
        deny=domain.deny,
        unknown_keys=domain.unknown_keys,
        grace=domain.grace,
        null_user=domain.null_user,
        deadline=limits.plan_deadline if domain.deadline is None else domain.deadline,
        backend_deadline=limits.backend_deadline if domain.backend_deadline is None else domain.backend_deadline,
        refusal_tick=domain.refusal_tick,
        cache_good=math.inf if domain.cache_good is None else domain.cache_good,
        cache_bad=math.inf if domain.cache_bad is None else domain.cache_bad,
    )


def terms_of(sections: Sections) -> Terms:
    """What wrong tries cost, as deciding takes it."""
    given = sections.penalties
    return Terms(
        trusted=given.trusted,
        tries=given.tries,
        address_tries=given.address_tries,
        account_tries=given.account_tries,
        key_tries=given.key_tries,
        shortest=given.shortest,
        longest=given.longest,
        forgive=given.forgive,
        standing=given.standing,
        entries=sections.limits.penalty_entries,
    )


def _check_penalties(sections: Sections, findings: Findings) -> None:
    at: Setting = ("penalties",)
    given = sections.penalties
    for rule in given.trusted:
        try:
            AddressRules([rule])
        except ConfigurationError as error:
            findings.mistake((*at, "trusted"), str(error), "")
    if given.key_tries > RECENT:
        findings.warn(
            (*at, "key_tries"),
            f"of the addresses that refused a key {RECENT} are known again; the hosts of a larger fleet with an "
            "outdated key would be new each time, and wait in the end",
            f"write {RECENT} at most",
        )
    for name in ("shortest", "longest", "forgive", "standing"):
        if getattr(given, name) == 0:
            findings.mistake((*at, name), "is nothing", "write more than 0; `trusted` exempts networks")
    if given.shortest > given.longest:
        findings.mistake(
            (*at, "longest"),
            f"shortest ({_shown(given, 'shortest')}) must be at most longest ({_shown(given, 'longest')})",
            "lower shortest or raise longest",
            needs=[(*at, "shortest"), (*at, "longest")],
        )
    elif given.shortest and given.forgive:
        terms = terms_of(sections)
        alone = terms.hourly(terms.tries)
        if alone >= terms.account_burst:
            findings.mistake(
                (*at, "account_tries"),
                f"one address alone could use it up ({alone} wrong tries an hour) and lock a name out elsewhere",
                f"write {alone * 5 // 2 + 5} at least, fewer tries, or longer waits",
                needs=[(*at, name) for name in ("tries", "shortest", "longest", "forgive")],
            )


def _check_files(sections: Sections, base: Path, findings: Findings) -> None:
    """Everything that needs more than the text: secrets that can be read, and plugins that agree."""
    for setting, secret in _secrets(sections):
        _check_secret(setting, secret, findings)
    _check_journal_key(sections, findings)
    try:
        url = absolute_database_url(sections.database.url.reveal().strip(), base)
    except ConfigurationError:
        return  # reported with the secret
    if not findings.touched(("database",)):
        found = {point.name: point for point in entry_points(group="zapd.backends")}
        ask_plugins(sections, base, url, found, findings)


def _check_journal_key(sections: Sections, findings: Findings) -> None:
    """Checkpoints that nobody signs prove little, and nothing else would say that the key is not there."""
    named, data_dir = sections.audit.signing_key, sections.server.data_dir
    path = named or data_dir / "journal.key"
    with suppress(OSError):  # what may not be looked at is told when it is needed
        if sections.audit.durability == "off" or path.exists():
            return
        mend = f"make one with `zapd keygen --format journal -o {path}`"
        if named is not None:
            findings.mistake(("audit", "signing_key"), f"there is no {named}", mend)
        elif data_dir.is_dir():  # a folder that is still to be made holds nothing yet
            problem = f"there is no {path.name} in {data_dir}, so that the journal's checkpoints go unsigned"
            findings.warn(("server", "data_dir"), problem, mend)


def absolute_database_url(url: str, base: Path) -> str:
    """An SQLite URL with its relative path started at ``base``; every other URL unchanged."""
    found = _SQLITE.fullmatch(url)
    if found is None or found[2] == ":memory:" or found[2].startswith("file:") or "?" in str(base):
        return url  # `zapd.store.engine.open_engine` starts a relative path at the same folder
    return f"{found[1]}{base / found[2]}{found[3] or ''}"


def _secrets(sections: Sections) -> Iterable[tuple[Setting, Secret]]:
    yield ("database", "url"), sections.database.url
    for name, backend in sections.backend.items():
        for setting, secrets in backend.secrets().items():
            for secret in secrets:
                yield ("backend", name, setting), secret
    if sections.admin.tls_key is not None:
        yield ("admin", "tls_key"), Secret(path=sections.admin.tls_key)
    if sections.enroll.tls_key is not None:
        yield ("enroll", "tls_key"), Secret(path=sections.enroll.tls_key)


def _check_secret(setting: Setting, secret: Secret, findings: Findings) -> None:
    if secret.environment:
        findings.warn(setting, "a secret in the environment is for development", "use file:PATH with mode 0600")
    try:
        secret.check()
    except ConfigurationError as error:
        findings.mistake(setting, str(error), "")
