"""What changed in the registry, told to whoever keeps a copy in memory. (Contract; completed by its author.)"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the change log."""

    sequence: int
    kind: str
    """``key``, ``user``, ``agent``, ``token``: the first word of the audit tag."""
    subject: str
    """Fingerprint (43 characters of URL-safe base64), user name, agent name, or token id."""


class ChangeFeed:
    """Reads the change log and tells subscribers, on the event loop's thread, in order, each change once.

    Changes made by this process and by others (another zapd on PostgreSQL, ``zapd token create --offline``)
    come the same road: a poll of the log, hurried by `catch_up` after a commit of our own.
    """

    def subscribe(self, callback: Callable[[Sequence[Change]], None]) -> None:
        raise NotImplementedError

    async def catch_up(self) -> int:
        """Read and tell what is new; the last sequence read. After a commit, awaiting this means in force."""
        raise NotImplementedError

    async def run(self) -> None:
        """Poll until cancelled; a database that is away is retried for ever."""
        raise NotImplementedError

    @property
    def staleness(self) -> float:
        """Seconds since the log was last known to be read to its end."""
        raise NotImplementedError
