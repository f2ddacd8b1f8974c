"""Password hashes: bounded work off the event loop. (Contract; completed by its author.)"""

from __future__ import annotations


class HashPoolFull(Exception):
    """As many hashes wait as may wait: answer 300."""


class HashPool:
    """As many workers as cores, 64 waiting, one at a time for an (address, name)."""

    def __init__(self, workers: int | None = None, waiting: int = 64) -> None:
        raise NotImplementedError

    async def verify(self, stored: str | None, password: bytes, *, slot: tuple[str, str]) -> bool:
        """Whether ``password`` fits the ``stored`` hash. ``None`` does the work of a current hash and says
        False, so that an unknown name costs what a wrong password costs. ``slot`` is (address, name).
        Raises `HashPoolFull`."""
        raise NotImplementedError

    async def hash(self, password: bytes) -> str:
        """A new argon2id hash with the current parameters."""
        raise NotImplementedError

    async def aclose(self) -> None:
        raise NotImplementedError


def check_hash(stored: str) -> None:
    """Raise `zapd.errors.InvalidInput` for a hash that is unreadable, of an unknown kind, or too dear
    (over 250 ms or 64 MiB)."""
    raise NotImplementedError
