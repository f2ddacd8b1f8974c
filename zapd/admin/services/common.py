"""What several use cases share: domains left out, times, pages, versions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Generic, TypeVar

from zapd.errors import InvalidInput, PreconditionFailed
from zapd.store import rules

Item = TypeVar("Item")

ConfiguredDomains = Callable[[], Sequence[str]]
"""The patterns of the configuration's ``[domain.…]`` tables."""

MAX_PAGE = 1000


@dataclass(frozen=True, slots=True)
class PageOf(Generic[Item]):
    """Some of a list, and where the rest begins."""

    items: Sequence[Item]
    after: str | None
    """Give it back for what follows; None at the end."""


def resolve_domains(given: Sequence[str] | None, configured: ConfiguredDomains) -> tuple[str, ...]:
    """The domains that were named, checked; or the configuration's only one (contract)."""
    if given is not None:
        return rules.check_domains(given)
    only = configured()
    if len(only) != 1:
        raise InvalidInput("Say which domains: the configuration has not exactly one. '*' is all of them.")
    return rules.check_domains(only)


def check_times(not_before: datetime | None, expires: datetime | None, moment: datetime | None) -> None:
    """An expiry lies ahead of ``moment``, if that is given, and behind the beginning."""
    if expires is not None and moment is not None and expires <= moment:
        raise InvalidInput("The expiry lies in the past. To shut it at once, revoke or disable it.")
    if expires is not None and not_before is not None and expires <= not_before:
        raise InvalidInput("It would expire before it becomes valid.")


def utc(moment: datetime | None) -> datetime | None:
    """The same moment in UTC, as everything is kept and shown."""
    try:
        return None if moment is None else moment.astimezone(UTC)
    except OverflowError:
        raise InvalidInput("That time lies outside the years 1 to 9999 in UTC.") from None


def check_limit(limit: int) -> int:
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInput(f"A page holds 1 to {MAX_PAGE} items.")
    return limit


def check_version(version: int, expected: int | None) -> None:
    """Raise `PreconditionFailed` when somebody else changed it since it was read."""
    if expected is not None and version != expected:
        raise PreconditionFailed(
            f"It is at version {version} now, no longer at {expected}. Read it again, then change it."
        )


def iso(moment: datetime | None) -> str | None:
    """A time for the audit event."""
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
