"""What a chain of backends comes to, given what each of them says. Pure.

`zapd.auth.chain.Chain` asks and decides at once, as quickly as it can. This is the same rule by itself, for those
who look at it slowly: an explanation, where each backend is asked by itself, and a replay, where they said it long
ago. A test holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar

from zapd.auth.backend import Outcome
from zapd.auth.policy import Link

Said = TypeVar("Said")


class Settling(Generic[Said]):
    """Take one backend's word after the other, in the order of the links, for as long as `asking` is true.

    ``Said`` is whatever comes with an outcome; `result` gives back that which counts.
    """

    def __init__(self, links: Sequence[Link]) -> None:
        self._links = list(links)
        self._next = 0
        self._ended = False
        self._away: tuple[Outcome, Said] | None = None
        self._settled: tuple[Outcome, Said] | None = None
        self.why = ""
        """What ended it before the last link, in words; empty while it goes on, or went to its end."""

    @property
    def asking(self) -> Link | None:
        """Whose word is wanted next; None when nothing is."""
        return None if self._ended or self._next >= len(self._links) else self._links[self._next]

    @property
    def left(self) -> Sequence[Link]:
        """Those who were not asked."""
        return self._links[self._next :]

    def take(self, outcome: Outcome, said: Said) -> None:
        """The word of the link that `asking` gave."""
        link = self._links[self._next]
        self._next += 1
        match outcome:
            case Outcome.ACCEPT | Outcome.LOCKED | Outcome.NOT_YET:
                self._away, self._settled = None, (outcome, said)
                self._end(f"{outcome.value} ends the chain")
            case Outcome.UNKNOWN:
                if self._settled is None or self._settled[0] is not Outcome.REJECT:
                    self._settled = (outcome, said)
                if link.on_unknown == "stop":
                    self._end('on_unknown = "stop"')
            case Outcome.REJECT:
                self._settled = (outcome, said)
                if link.on_reject == "stop":
                    self._end('on_reject = "stop"')
            case Outcome.UNAVAILABLE:
                self._away = self._away or (outcome, said)
                if link.on_unavailable == "stop":
                    self._end('on_unavailable = "stop"')

    @property
    def result(self) -> tuple[Outcome, Said] | None:
        """What it came to; None when nobody was asked. While one is away a refusal is in doubt."""
        return self._away or self._settled

    def _end(self, why: str) -> None:
        self._ended = True
        self.why = why
