"""What one backend last let in, for as long as ``stale_if_error`` says: used only while that backend is away.

An entry speaks for the very same question: domain, mechanism, account, the whole proof, and where it came from. It
is gone as soon as the backend says anything else about the account (another proof accepted, this proof refused,
barred, unknown), and all are gone with a `forget`. Somebody else's wrong guess takes nothing away. Accounts and
proofs are kept as keyed hashes whose key dies with the process.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic
from typing import Final

from zapd.auth.backend import Outcome, Question, Verdict
from zapd.auth.cache import CredentialHash, place_of

PLACES: Final = 65_536
"""Entries, one for each account and place it came from."""

_ACCEPT, _REJECT, _UNAVAILABLE = Outcome.ACCEPT, Outcome.REJECT, Outcome.UNAVAILABLE


class _Account:
    __slots__ = ("places", "proof")

    def __init__(self, proof: bytes) -> None:
        self.proof = proof
        self.places: dict[bytes, tuple[float, Verdict]] = {}


class LastGood:
    """At most ``bound`` entries, those of the account that was let in longest ago going first."""

    def __init__(
        self,
        seconds: float,
        bound: int = PLACES,
        clock: Callable[[], float] = monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._seconds = seconds
        self._bound = bound
        self._clock = clock
        self._wall_clock = wall_clock
        self._hash = CredentialHash()
        self._accounts: OrderedDict[bytes, _Account] = OrderedDict()
        self._entries = 0
        self.generation = 0
        """Rises with each `forget`, and whenever an account is dropped."""

    def note(self, question: Question, verdict: Verdict, generation: int) -> None:
        """What the backend said. ``generation`` is what `generation` was before it was asked: a yes from before
        something was forgotten is not kept after it."""
        outcome = verdict.outcome
        if outcome is _UNAVAILABLE:
            return
        who, proof = self._account(question), self._proof(question)
        known = self._accounts.get(who)
        if outcome is _ACCEPT:
            if known is not None and known.proof != proof:
                self._drop(who)  # the credential has changed
                known = None
                generation += 1
            if generation == self.generation:
                self._keep(who, known or _Account(proof), place_of(question.address), verdict)
        elif known is not None and (outcome is not _REJECT or known.proof == proof):
            self._drop(who)

    def recall(self, question: Question) -> Verdict | None:
        """The last yes to this very question, if it is still good enough."""
        account = self._accounts.get(self._account(question))
        if account is None or account.proof != self._proof(question):
            return None
        until, verdict = account.places.get(place_of(question.address), (0.0, None))
        if verdict is None or until <= self._clock() or verdict.until <= self._wall_clock():
            return None
        return verdict

    def forget(self) -> None:
        """Something that the backend knows has changed: know nothing any more."""
        self.generation += 1
        self._accounts.clear()
        self._entries = 0

    def __len__(self) -> int:
        return self._entries

    def _keep(self, who: bytes, account: _Account, place: bytes, verdict: Verdict) -> None:
        self._accounts[who] = account
        self._accounts.move_to_end(who)
        self._entries += place not in account.places
        account.places[place] = (self._clock() + self._seconds, verdict)
        while self._entries > self._bound:
            _, oldest = self._accounts.popitem(last=False)
            self._entries -= len(oldest.places)

    def _drop(self, who: bytes) -> None:
        self._entries -= len(self._accounts.pop(who).places)
        self.generation += 1

    def _account(self, question: Question) -> bytes:
        who = question.username or question.key
        if not who:  # NULL: whoever comes from there
            return self._hash.of(question.domain.encode("utf-8", "surrogatepass"), place_of(question.address))
        return self._hash.of(
            question.domain.encode("utf-8", "surrogatepass"),
            question.mechanism.encode("ascii"),
            question.key,
            question.username.encode("utf-8", "surrogatepass"),
        )

    def _proof(self, question: Question) -> bytes:
        return self._hash.of(question.key, question.password)
