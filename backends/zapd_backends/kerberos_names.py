"""Kerberos principals: what they look like, which may come in, what they are called here, and their groups. Pure.

A principal is ``alice@REALM``, or with an instance ``host/db1.example.org@REALM``. In patterns a ``*`` stands
for one part, or for the rest of one, never for a ``/`` or the realm: ``*`` alone means people without an
instance. A name that has no realm means the home realm, whoever wrote it. What cannot be told apart safely
(backslashes, which Kerberos uses to escape, white space, look-alike letters) is nobody.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from zapd.auth.backend import UNKNOWN, Outcome, Principal, Verdict

MAX_OCTETS: Final = 255
MAX_PARTS: Final = 4

_REALM: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", re.ASCII)
_PART: Final = re.compile(r"[^\s/@\\]+")
_BLANK: Final = re.compile(r"\{(\d+)\}")
_STAR: Final = "*"


class KerberosName(NamedTuple):
    """A principal, taken apart."""

    parts: tuple[str, ...]
    realm: str

    @property
    def local(self) -> str:
        """Without the realm."""
        return "/".join(self.parts)

    def __str__(self) -> str:
        return f"{self.local}@{self.realm}"


class Member(NamedTuple):
    """Somebody who may come in as far as the name goes."""

    user: str
    groups: frozenset[str]


def parse_name(text: str, home: str, *, fold: bool = False) -> KerberosName | None:
    """Take a principal apart; without a realm it is of ``home``. None for what is nobody's name. ``fold`` makes
    letters small, the realm's excepted."""
    local, at, realm = text.partition("@")
    parts = tuple((local.casefold() if fold else local).split("/"))
    fits = (
        len(text.encode("utf-8", "surrogatepass")) <= MAX_OCTETS
        and text.isprintable()
        and unicodedata.is_normalized("NFKC", text)
        and len(parts) <= MAX_PARTS
        and all(map(_PART.fullmatch, parts))
        and (not at or _REALM.fullmatch(realm) is not None)
    )
    return KerberosName(parts, realm if at else home) if fits else None


class Pattern:
    """A principal in which a ``*`` may stand for each part, or for the rest of it."""

    def __init__(self, text: str, home: str, *, fold: bool = False) -> None:
        """Raises `ValueError` that says the mend."""
        name = parse_name(text, home, fold=fold)
        if name is None:
            raise ValueError(f"{text!r} is no principal such as alice, host/* or *@EXAMPLE.ORG")
        if any(part.count(_STAR) > 1 for part in name.parts):
            raise ValueError(f"{text!r}: a '*' stands once in a part")
        self.realm = name.realm
        self.stars = name.local.count(_STAR)
        self._expression = re.compile("([^/@]+)".join(map(re.escape, name.local.split(_STAR))))

    def match(self, name: KerberosName) -> tuple[str, ...] | None:
        """What the stars stand for; None where it does not fit."""
        found = self._expression.fullmatch(name.local) if name.realm == self.realm else None
        return None if found is None else found.groups()

    def fits(self, name: KerberosName) -> bool:
        return self.match(name) is not None


class Naming:
    """What a principal is called: ``{1}`` in a template is what the first star stands for."""

    def __init__(self, pattern: Pattern, template: str) -> None:
        """Raises `ValueError` for a blank that has no star."""
        if any(not 1 <= int(number) <= pattern.stars for number in _BLANK.findall(template)):
            raise ValueError(f"{template!r}: {{1}} is what the first '*' stands for; there are {pattern.stars}")
        self.pattern = pattern
        self.template = template

    def name(self, name: KerberosName) -> str | None:
        """None where the pattern does not fit."""
        found = self.pattern.match(name)
        return None if found is None else _BLANK.sub(lambda blank: found[int(blank[1]) - 1], self.template)

    @property
    def is_bare(self) -> bool:
        """It gives away names that may be anybody's: nothing of its own stands in the template."""
        return not _BLANK.sub("", self.template)


class Rules:
    """Who may come in, and as whom."""

    def __init__(
        self,
        home: str,
        *,
        realms: Iterable[str],
        stripped: Iterable[str],
        allow: Sequence[Pattern],
        deny: Sequence[Pattern],
        naming: Sequence[Naming],
        groups: Mapping[str, Sequence[Pattern]],
        require_group: Iterable[str],
        deny_group: Iterable[str],
        fold: bool,
    ) -> None:
        self.home = home
        self._realms = frozenset(realms)
        self._stripped = frozenset(stripped)
        self._allow, self._deny = tuple(allow), tuple(deny)
        self._naming = sorted(
            naming, key=lambda each: bool(each.pattern.stars)
        )  # whole names first, else as written
        self._groups = {group: tuple(patterns) for group, patterns in groups.items()}
        self._require, self._deny_group = frozenset(require_group), frozenset(deny_group)
        self._fold = fold

    def find(self, text: str) -> Member | Verdict:
        """Whom a principal is here, or why not."""
        name = parse_name(text, self.home, fold=self._fold)
        if name is None or name.realm not in self._realms:
            return UNKNOWN
        user = self._user(name)
        if len(user.encode("utf-8")) > MAX_OCTETS:
            return UNKNOWN
        if any(pattern.fits(name) for pattern in self._deny):
            return Verdict(Outcome.LOCKED, Principal(user), "principal_denied")
        if not any(pattern.fits(name) for pattern in self._allow):
            return Verdict(Outcome.REJECT, Principal(user), "principal_not_allowed")
        groups = (g for g, patterns in self._groups.items() if any(pattern.fits(name) for pattern in patterns))
        return Member(user, frozenset(groups))

    def admit(self, member: Member, more: Iterable[str] | None = ()) -> Verdict:
        """What becomes of somebody who has proved to be this member and is in ``more`` groups; None: whether in
        any is not known."""
        who = Principal(member.user)
        groups = member.groups | frozenset(more or ())
        if groups & self._deny_group:
            return Verdict(Outcome.LOCKED, who, "in_denied_group")
        missing = bool(self._require) and not groups & self._require
        if more is None and (missing or self._deny_group):
            return Verdict(Outcome.UNAVAILABLE, who, "no_account")
        if missing:
            return Verdict(Outcome.REJECT, who, "not_in_group")
        return Verdict(Outcome.ACCEPT, Principal(member.user, tuple(sorted(groups))))

    def may_change(self, verdict: Verdict) -> bool:
        """Whether what `admit` said could be otherwise for somebody in more groups."""
        if verdict.outcome is Outcome.ACCEPT:
            return bool(self._deny_group)
        return verdict.outcome is Outcome.REJECT

    def _user(self, name: KerberosName) -> str:
        for each in self._naming:
            user = each.name(name)
            if user is not None:
                return user
        return name.local if name.realm in self._stripped else str(name)
