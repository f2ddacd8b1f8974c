"""Domain patterns of grants: which ZAP domains a key, a user, an agent or a token is good for.

A pattern is a domain's exact name; or a prefix and a trailing ``*``; or ``*`` alone. ``*`` is every domain but
the empty one and the reserved one (contract). Pure; knows nothing of the configuration's own domains.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

RESERVED = "zapd.agents"
"""The domain of zapd's own door: patterns never match it, only enrolled agents pass it."""

EVERYWHERE = ("*",)


@dataclass(frozen=True, slots=True)
class Grant:
    """A set of patterns, made ready for asking."""

    exact: frozenset[str]
    prefixes: tuple[str, ...]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> Grant:
        found = tuple(patterns)
        return cls(
            frozenset(pattern for pattern in found if not pattern.endswith("*")),
            tuple(sorted({pattern[:-1] for pattern in found if pattern.endswith("*")})),
        )

    def covers(self, domain: str) -> bool:
        """Whether this domain is granted."""
        if domain == RESERVED:
            return False
        if domain in self.exact:
            return True
        # str.startswith takes the tuple in one call; "" (from "*") starts every name but must not mean "".
        return domain != "" and domain.startswith(self.prefixes)

    def covers_pattern(self, pattern: str) -> bool:
        """Whether all that ``pattern`` grants is granted here too."""
        if not pattern.endswith("*"):
            return self.covers(pattern)
        return pattern[:-1].startswith(self.prefixes)


def is_everywhere(patterns: Iterable[str]) -> bool:
    """Whether ``*`` stands among the patterns."""
    return "*" in patterns
