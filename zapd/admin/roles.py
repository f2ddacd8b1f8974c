"""Who may administer what: one table, role by operation, and domains on top.

Deny by default: an operation that stands in no row is nobody's. The domains of a token limit both what it sees
and what it changes; ``*`` alone is no limit. Every use case asks here first; the API's routes never decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from zapd.errors import Forbidden
from zapd.store.domains import EVERYWHERE, Grant, is_everywhere


class Role(StrEnum):
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"


class Operation(StrEnum):
    """Everything that can be asked of the admin API."""

    READ_KEYS = "keys.read"
    CHANGE_KEYS = "keys.change"
    READ_USERS = "users.read"
    CHANGE_USERS = "users.change"
    READ_AGENTS = "agents.read"
    CHANGE_AGENTS = "agents.change"
    READ_JOINS = "joins.read"
    CHANGE_JOINS = "joins.change"
    READ_BANS = "bans.read"
    CHANGE_BANS = "bans.change"
    READ_DOMAINS = "domains.read"
    READ_BACKENDS = "backends.read"
    READ_AUDIT = "audit.read"
    VERIFY_AUDIT = "audit.verify"
    EXPLAIN = "explain"
    READ_TOKENS = "tokens.read"
    CHANGE_TOKENS = "tokens.change"


_VIEWER: Final = frozenset(
    {
        Operation.READ_KEYS,
        Operation.READ_USERS,
        Operation.READ_AGENTS,
        Operation.READ_DOMAINS,
        Operation.READ_BACKENDS,
        Operation.READ_AUDIT,
    }
)
_OPERATOR: Final = _VIEWER | {
    Operation.CHANGE_KEYS,
    Operation.CHANGE_USERS,
    Operation.CHANGE_AGENTS,
    Operation.READ_JOINS,
    Operation.CHANGE_JOINS,
    Operation.READ_BANS,
    Operation.CHANGE_BANS,
    Operation.VERIFY_AUDIT,
    Operation.EXPLAIN,
}

ROLES: Final[Mapping[Role, frozenset[Operation]]] = MappingProxyType(
    {
        Role.VIEWER: _VIEWER,
        Role.OPERATOR: _OPERATOR,
        Role.ADMIN: _OPERATOR | {Operation.READ_TOKENS, Operation.CHANGE_TOKENS},
    }
)


@dataclass(frozen=True, slots=True)
class Actor:
    """A person or a program administering, as its token makes it."""

    name: str
    """For the record: the token's name."""
    role: Role
    domains: tuple[str, ...] = EVERYWHERE
    token_id: str = ""
    _grant: Grant = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_grant", Grant.of(self.domains))

    @property
    def everywhere(self) -> bool:
        """Whether no domain is closed to it, the empty one included."""
        return is_everywhere(self.domains)

    def require(self, operation: Operation) -> None:
        """Raise `Forbidden` unless the role has this operation."""
        if operation not in ROLES[self.role]:
            raise Forbidden(f"The role {self.role} may not do this ({operation}).")

    def visible(self, patterns: Iterable[str]) -> tuple[str, ...]:
        """Those of the patterns that lie within its own domains."""
        return tuple(pattern for pattern in patterns if self._reaches(pattern))

    def sees(self, patterns: Iterable[str]) -> bool:
        """Whether any of the patterns is its affair: what is granted elsewhere only does not exist for it."""
        return any(self._reaches(pattern) for pattern in patterns)

    def sees_in(self, patterns: Iterable[str], domain: str | None) -> bool:
        """As `sees`; with a domain, whether what is visible here covers that domain."""
        if domain is None:
            return self.sees(patterns)
        return Grant.of(self.visible(patterns)).covers(domain)

    def require_all(self, patterns: Iterable[str]) -> None:
        """Raise `Forbidden` unless all the patterns lie within its domains: else a change here would be felt
        where it has no say."""
        if not all(self._reaches(pattern) for pattern in patterns):
            raise Forbidden("This reaches into domains that your token does not cover.")

    def _reaches(self, pattern: str) -> bool:
        return self.everywhere or self._grant.covers_pattern(pattern)


OFFLINE: Final = Actor("offline", Role.ADMIN)
"""Whoever can write the database's own files: the way back in after a lost token."""
