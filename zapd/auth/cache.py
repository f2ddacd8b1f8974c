"""Recent decisions that were dear to get: password hashes, questions to a directory.

An entry answers only the very same question: policy, domain, mechanism, the whole credential and where it came
from. Credentials are kept as a keyed hash whose key dies with the process. What a failed backend said is never
here; that is the caller's promise. Who asked is not part of the key: askers have been checked before anybody
looks here, and no backend is told who they are.
"""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Callable
from time import monotonic

from zapd.auth.backend import Question
from zapd.auth.decision import Decision
from zapd.zap import Status

ENTRIES = 65_536


class CredentialHash:
    """A keyed hash of several parts; its key dies with the process. Every part is preceded by its length, so none
    can pass for another's."""

    def __init__(self) -> None:
        self._secret = os.urandom(32)

    def of(self, *parts: bytes) -> bytes:
        """What stands for these parts."""
        digest = hashlib.blake2b(digest_size=32, key=self._secret)
        for part in parts:
            digest.update(len(part).to_bytes(8, "big"))
            digest.update(part)
        return digest.digest()


class DecisionCache:
    """At most ``bound`` decisions, the least recently used going first."""

    def __init__(self, bound: int = ENTRIES, clock: Callable[[], float] = monotonic) -> None:
        self._bound = bound
        self.clock = clock
        """Seconds; entries go by it."""
        self._hash = CredentialHash()
        self._entries: OrderedDict[bytes, tuple[float, Decision]] = OrderedDict()
        self.generation = 0
        """Rises with each `forget` and `doubt`."""
        self.hits = 0
        self.misses = 0

    def key(self, policy_version: int, question: Question) -> bytes:
        """What stands for a question here."""
        return self._hash.of(
            policy_version.to_bytes(8, "big"),
            question.domain.encode("utf-8", "surrogatepass"),
            question.mechanism.encode("ascii"),
            place_of(question.address),
            question.key,
            question.username.encode("utf-8", "surrogatepass"),
            question.password,
        )

    def get(self, key: bytes) -> Decision | None:
        """The decision, if it is here and still good."""
        entry = self._entries.get(key)
        if entry is None or entry[0] <= self.clock():
            self.misses += 1
            if entry is not None:
                del self._entries[key]
            return None
        self._entries.move_to_end(key)
        self.hits += 1
        return entry[1]

    def granted(self, key: bytes) -> tuple[Decision, float] | None:
        """A 200 that is here and still good, and until when it is on `clock`. Counts nothing."""
        entry = self._entries.get(key)
        if entry is None or entry[0] <= self.clock() or entry[1].reply.status is not Status.GRANTED:
            return None
        return entry[1], entry[0]

    def put(self, key: bytes, decision: Decision, seconds: float, generation: int) -> None:
        """Keep a decision for ``seconds``.

        ``generation`` is what `generation` was before the backends were asked: what they said before a `forget` is
        not kept after it.
        """
        if seconds <= 0.0 or generation != self.generation or self._bound <= 0:
            return
        self._entries[key] = (self.clock() + seconds, decision)
        self._entries.move_to_end(key)
        while len(self._entries) > self._bound:
            self._entries.popitem(last=False)

    def forget(self) -> None:
        """Something changed: know nothing any more."""
        self.generation += 1
        self._entries.clear()

    def doubt(self) -> None:
        """Whoever learned from this what may be given again has to ask anew; nothing is forgotten."""
        self.generation += 1

    def __len__(self) -> int:
        return len(self._entries)


def remembered(decision: Decision) -> Decision:
    """The same decision as given once more, without asking: nobody took part in it."""
    return Decision(
        decision.reply,
        decision.reason,
        decision.principal,
        decision.key,
        asked=decision.asked,
        cached=True,
        until=decision.until,
    )


def place_of(address: str) -> bytes:
    """An ipc peer's process id changes with each process and decides nothing; its uid and gid do."""
    return (address.partition(",pid=")[0] if address.startswith("ipc:") else address).encode("ascii")
