"""What stands for whoever tries: keyed hashes of addresses, names, keys and guesses.

`zapd.auth.throttle` says who owes for what; here is only how they are told apart, so that nothing that somebody
sent has to be kept. Whoever shares the secret understands each other's. Times, debts and answers are unknown here.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, NamedTuple

from zapd.auth.address import AddressSet, read_again, source_of
from zapd.auth.debts import GUESS
from zapd.auth.memo import Memo
from zapd.auth.question import folded_name

_SOURCES: Final = 4096
_MARK: Final = 16
"""Octets of what stands for a debtor."""
_TRUSTED: Final = "trusted"
"""Stands for every trusted address. No address looks like it."""


class Trace(NamedTuple):
    """What stands for those whom a wrong try, or a success, is laid to; empty where there is none."""

    address: bytes
    name: bytes
    account: bytes
    key: bytes
    guess: bytes
    good: bool = False
    """A success."""

    @property
    def where(self) -> bytes:
        """What another guess is to an address, this is to a key: another address."""
        return self.address[:GUESS]


class Tracer:
    """Makes traces."""

    def __init__(self, secret: bytes, trusted: tuple[str, ...]) -> None:
        """``trusted`` are networks that leave none. Raises `ConfigurationError` for one that cannot be read."""
        self._secret = secret
        self._trusted = AddressSet(trusted)
        self._sources: Memo[str, str] = Memo(_SOURCES)

    def trace(
        self, address: str, realm: str, name: str | bytes, secret: bytes, *, here_only: bool
    ) -> tuple[Trace, bytes] | None:
        """(trace, what stands for the name at the address); None for a trusted address. The arguments are those
        of `zapd.auth.throttle.Throttle.attempt`."""
        source = self._sources.get(address) or self._sources.put(address, self._source(address))
        if source == _TRUSTED:
            return None
        folded = name if isinstance(name, bytes) else folded_name(name)
        where, who = source.encode("utf-8", "surrogatepass"), realm.encode("utf-8", "surrogatepass")
        pair = self._mark(b"name", where, who, folded)
        if secret:
            account, guess = self._mark(b"account", who, folded), self._mark(b"guess", who, folded, secret)
            return Trace(self._mark(b"address", where), pair, account, b"", guess[:GUESS]), pair
        guess = self._mark(b"guess", who, folded)
        key = b"" if here_only else guess
        return Trace(self._mark(b"address", where), b"", b"", key, guess[:GUESS]), pair

    def _source(self, address: str) -> str:
        read = read_again(address)
        if read is None:
            return address
        return _TRUSTED if read in self._trusted else source_of(read)

    def _mark(self, *parts: bytes) -> bytes:
        digest = blake2b(digest_size=_MARK, key=self._secret)
        for part in parts:
            digest.update(len(part).to_bytes(4, "big"))
            digest.update(part)
        return digest.digest()
