"""Whose groups somebody is in, what they are called, and what they allow.

Groups come from an attribute of the entry (``member_of``), from a search for groups that name it (``group_base``),
or from both; groups of groups from more such searches, as many as ``group_depth`` says. All of it is bounded: with
more groups than may be, nobody can say what somebody may, and the answer is "cannot tell".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from zapd_backends.ldap_driver import (
    NO_SUCH_OBJECT,
    SIZE_LIMIT_EXCEEDED,
    SUCCESS,
    Entry,
    Link,
    fill_filter,
    first_value,
    normal_dn,
)
from zapd_backends.ldap_line import Doubt, Trouble
from zapd_backends.ldap_settings import LdapSettings

CHUNK: Final = 25
"""Groups that are asked about in one search."""


@dataclass(frozen=True, slots=True)
class Group:
    """One group."""

    dn: str
    name: str
    normal: str
    """The DN in the form that is compared."""


class _TooMany(Exception):
    """More groups than may be; what gave them."""


class Groups:
    """Finds groups and applies the rules about them."""

    def __init__(self, settings: LdapSettings) -> None:
        self._settings = settings
        self._below = normal_dn(settings.group_base) if settings.group_base else ""
        self._require = frozenset(map(_wanted, settings.require_group))
        self._deny = frozenset(map(_wanted, settings.deny_group))
        self._map = {_wanted(group): name for group, name in settings.group_map.items()}
        self.needed = bool(settings.member_of or settings.group_base)

    def find(self, searcher: Link, entry: Entry, user: str, until: float) -> tuple[Group, ...]:
        """The groups that this entry is in. Raises `Trouble` and `Doubt`."""
        try:
            return tuple(self._find(searcher, entry, user, until).values())
        except _TooMany as source:
            raise Doubt("too_many_groups", f"{source} gives more groups than group_limit", entry.dn) from None
        except ValueError as error:
            raise Doubt("bad_attribute", f"the name of a group is {error}", entry.dn) from None

    def _find(self, searcher: Link, entry: Entry, user: str, until: float) -> dict[str, Group]:
        found: dict[str, Group] = {}
        member_of = self._settings.member_of
        if member_of:
            if any(name.startswith(f"{member_of.lower()};range=") for name in entry.attributes):
                raise _TooMany(member_of)
            for dn in entry.texts(member_of):
                self._add(found, _group(dn), member_of)
        if self._settings.group_base:
            self._search(searcher, [entry.dn], user, found, until)
            asked: set[str] = set()
            for _ in range(self._settings.group_depth):
                new = [group for normal, group in found.items() if normal not in asked]
                if not new:
                    break
                asked |= {group.normal for group in new}
                for start in range(0, len(new), CHUNK):
                    chunk = [group.dn for group in new[start : start + CHUNK]]
                    self._search(searcher, chunk, user, found, until)
        return found

    def refusal(self, groups: Sequence[Group]) -> str:
        """Why somebody in these groups may not come in, as a code; empty if nothing speaks against it."""
        names = {key for group in groups for key in _keys(group)}
        if self._deny & names:
            return "in_denied_group"
        if self._require and not self._require & names:
            return "not_in_group"
        return ""

    def told(self, groups: Sequence[Group]) -> tuple[str, ...]:
        """What the reply calls them."""
        if not self._map:
            return tuple(sorted({group.name for group in groups}))
        return tuple(
            sorted({self._map[key] for group in groups for key in _keys(group) if key in self._map}),
        )

    def _search(
        self, searcher: Link, members: Iterable[str], user: str, found: dict[str, Group], until: float
    ) -> None:
        settings = self._settings
        parts = [fill_filter(settings.group_filter, {"dn": dn, "user": user}) for dn in members]
        wanted = parts[0] if len(parts) == 1 else f"(|{''.join(parts)})"
        limit = settings.group_limit
        result, entries = searcher.search(
            settings.group_base, "SUBTREE", wanted, (settings.group_name,), limit, until
        )
        if result.code == SIZE_LIMIT_EXCEEDED:
            raise _TooMany("group_base")
        if result.code != SUCCESS:
            reason = "base_missing" if result.code == NO_SUCH_OBJECT else "directory_error"
            raise Trouble(reason, f"{searcher.place}: searching group_base fails: {result.told}")
        for each in entries:
            names = each.texts(settings.group_name)
            self._add(found, _group(each.dn, names[0] if names else ""), "group_base")

    def _add(self, found: dict[str, Group], group: Group, source: str) -> None:
        # An entry may be put into a group anywhere; where one base is named, only groups below it count.
        if self._below and not f",{group.normal}".endswith(f",{self._below}"):
            return
        found.setdefault(group.normal, group)
        if len(found) > self._settings.group_limit:
            raise _TooMany(source)


def _group(dn: str, name: str = "") -> Group:
    return Group(dn, name or first_value(dn), normal_dn(dn))


_Key = tuple[str, str]
"""What groups are compared by. Names and DNs are kept apart: whoever names a group might name it like a DN."""


def _wanted(group: str) -> _Key:
    """A group as the configuration names it: by its DN, or by a name without '='."""
    return ("dn", normal_dn(group)) if "=" in group else ("name", group.casefold())


def _keys(group: Group) -> tuple[_Key, _Key]:
    return ("dn", group.normal), ("name", group.name.casefold())
