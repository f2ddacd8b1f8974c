"""Who owes for wrong tries, and how long they are remembered: a bounded table.

A debtor is sixteen octets (a keyed hash; what of is `zapd.auth.throttle`'s affair). Each wrong try adds the time
after which one is forgiven, so one number, the moment when all of it will be forgiven, says how many are open: a
bucket that leaks. When the table is full whoever is forgiven first makes room, the least penalised and the oldest
at once: a crowd of newcomers with one wrong try each pushes out its own kind, never a debtor of many.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, ItemsView, Iterator
from time import monotonic
from typing import Final, Literal

Kind = Literal["address", "name", "account", "key"]
"""What a debtor is. To a key another address is what another guess is to the others."""

RECENT: Final = 32
"""Wrong guesses that are known again, for each debtor."""
GUESS: Final = 8
"""Octets of what stands for a guess."""


class Debt:
    """What one debtor owes. Times are those of the table's clock."""

    __slots__ = ("barred_until", "clean_at", "kind", "wrong")

    def __init__(self, kind: Kind, now: float) -> None:
        self.kind = kind
        self.clean_at = now
        """When all of it is forgiven."""
        self.barred_until = now
        """Until then nobody is asked for it."""
        self.wrong = b""
        """What stands for the last wrong guesses, the newest last."""

    def knows(self, guess: bytes) -> bool:
        """Whether this was tried of late, and was wrong."""
        wrong = self.wrong
        return any(wrong[at : at + GUESS] == guess for at in range(0, len(wrong), GUESS))


class Debts:
    """At most ``bound`` debtors."""

    def __init__(self, bound: int, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self._bound = bound
        self._debts: dict[bytes, Debt] = {}
        self._order: list[tuple[float, bytes]] = []
        """A heap. An entry whose time is not its debtor's any more is passed over."""

    def get(self, debtor: bytes) -> Debt | None:
        """What is owed, if anything still is."""
        debt = self._debts.get(debtor)
        return None if debt is None or debt.clean_at <= self.clock() else debt

    def charge(self, debtor: bytes, kind: Kind, guess: bytes, forgive: float, most: int) -> tuple[Debt, int]:
        """Add one wrong try, forgiven after ``forgive`` seconds: (debt, how many are open, ``most`` at most)."""
        now = self.clock()
        self.sweep()
        debt = self._debts.get(debtor)
        if debt is None:
            debt = self._debts[debtor] = Debt(kind, now)
        debt.wrong = (debt.wrong + guess)[-RECENT * GUESS :]
        debt.clean_at = min(max(now, debt.clean_at) + forgive, now + most * forgive)
        heapq.heappush(self._order, (debt.clean_at, debtor))
        self._keep_bound()
        return debt, open_tries(debt, now, forgive)

    def put(self, debtor: bytes, kind: Kind, clean_at: float, barred_until: float, wrong: bytes) -> None:
        """A debt that was made elsewhere; what was made here stays where it lasts longer."""
        debt = self._debts.get(debtor)
        if debt is None or debt.clean_at < clean_at:
            debt = self._debts[debtor] = Debt(kind, clean_at)
            debt.barred_until = barred_until
            debt.wrong = wrong[-RECENT * GUESS :]
            heapq.heappush(self._order, (clean_at, debtor))
            self._keep_bound()

    def items(self) -> ItemsView[bytes, Debt]:
        """Every debtor and what it owes."""
        return self._debts.items()

    def forgive(self, debtor: bytes) -> None:
        """Nothing is owed any more."""
        self._debts.pop(debtor, None)

    def sweep(self) -> None:
        """Let go of those who owe nothing any more."""
        now = self.clock()
        while self._order and self._order[0][0] <= now:
            self._pop()

    def _keep_bound(self) -> None:
        while len(self._debts) > self._bound:
            self._pop()
        if len(self._order) > 2 * self._bound + RECENT:
            self._order = [(debt.clean_at, debtor) for debtor, debt in self._debts.items()]
            heapq.heapify(self._order)

    def _pop(self) -> None:
        at, debtor = heapq.heappop(self._order)
        debt = self._debts.get(debtor)
        if debt is not None and debt.clean_at == at:
            del self._debts[debtor]

    def __len__(self) -> int:
        return len(self._debts)

    def __iter__(self) -> Iterator[Debt]:
        return iter(self._debts.values())


def open_tries(debt: Debt, now: float, forgive: float) -> int:
    """How many wrong tries are not forgiven yet."""
    # Rounded: a sum of many small times must not open one try more.
    return max(0, math.ceil(round((debt.clean_at - now) / forgive, 6)))
