"""What a rotation is, and which keys can be: a new key in the place of an old one, both good for a while."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from zapd.errors import Conflict, InvalidInput
from zapd.store.keys import KeyRecord, KeyState

MAX_OVERLAP: Final = timedelta(days=366)
"""How long two keys of one rotation may work together."""

GONE: Final = "The key is revoked: only a new key can take its place."


@dataclass(frozen=True, slots=True)
class Rotation:
    """What `KeyService.rotate` wants to know: what it does not say is as it was."""

    public_key: bytes
    overlap: timedelta
    """How long both keys work. Nothing: the old one is revoked at once."""
    label: str | None = None
    keep_expiry: bool = True
    expires: datetime | None = None
    """Of the new key; counts unless ``keep_expiry``."""


@dataclass(frozen=True, slots=True)
class Rotated:
    """Both keys, as they are from then on."""

    old: KeyRecord
    new: KeyRecord


def check_overlap(overlap: timedelta) -> None:
    """Raise `InvalidInput` for one that is negative or endless."""
    if not timedelta(0) <= overlap <= MAX_OVERLAP:
        raise InvalidInput(f"Both keys can work together for 0 s to {MAX_OVERLAP.days} days.")


def refuse_to_rotate(before: KeyRecord, moment: datetime) -> None:
    """Only a key that works, and has not been rotated, can be."""
    if before.state is KeyState.REVOKED:
        raise Conflict(GONE)
    if before.state is KeyState.PENDING:
        raise Conflict("The key waits for its approval: approve it, or reject it and add the new one.")
    if before.expires is not None and before.expires <= moment:
        raise Conflict("The key has expired: add the new one, with the rights that it shall have.")
    if before.replaced_by is not None:
        raise Conflict(f"The key is being replaced already, by {before.replaced_by}: rotate that one.")


def ending(before: KeyRecord, successor: str, moment: datetime, overlap: timedelta) -> KeyRecord:
    """The old key of a rotation: it goes when the overlap is over, if it does not go before."""
    if not overlap:
        return replace(before, state=KeyState.REVOKED, reason="rotated", replaced_by=successor)
    end = moment + overlap
    if before.expires is not None:
        end = min(before.expires, end)
    return replace(before, expires=end, replaced_by=successor)
