"""Penalties for guessing: who has to wait before anybody is asked about them (limits.md, R16).

A wrong try is remembered in up to three places, and each has a reason of its own to answer 300 without asking:

    penalty_address   the address (IPv4), the /48 (IPv6), the local user (ipc): some tries are free, then each one
                      costs a wait that doubles
    penalty_name      the name from that address: the same, sooner
    penalty_account   the name from wherever it comes: never a wait, only so many wrong tries an hour
    penalty_key       the key from wherever it comes: some addresses are free, then each one more costs a wait

The same wrong guess again is not a new one, in the manner of Dovecot: a host with an old password earns one wrong
try however often it comes. What was guessed is kept as a keyed hash, as are names and addresses.

A name that was let in from an address is *in good standing* there, for days: neither what its neighbours behind
the same address do, nor what the whole world tries with its name, holds it up; only what is tried with its name
from its own address does. So a flood from one address locks nobody out elsewhere.

A key (or a Kerberos principal) is no guess at a name. What another guess is to an address, another address is to
a key: refused again where it was refused already, it is no new try, so a client that comes back for ever owes one,
a copied key that is tried everywhere owes many, and one address never makes a key wait at another. Once let in it
owes nothing any more, and one that is known by heart passes whatever it owes (`zapd.auth.authority`).

Whoever waits holds nothing: the answer comes at once, and a question under a penalty makes it no longer. Time is
monotonic. Every table is bounded. It knows no backends, no wire and no journal.
"""

from __future__ import annotations

import heapq
import math
import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from itertools import islice
from time import monotonic
from types import TracebackType
from typing import Final, NamedTuple, Self

from zapd.auth.backend import Question
from zapd.auth.debts import Debts, Kind, open_tries
from zapd.auth.memo import Memo
from zapd.auth.terms import HOUR, Terms
from zapd.auth.trace import Trace, Tracer

REASONS: Final[dict[Kind, str]] = {kind: f"penalty_{kind}" for kind in ("address", "name", "account", "key")}
"""Reason codes of the 300."""


class Remembered(NamedTuple):
    """What one throttle tells another that comes later. Times are seconds from now."""

    debts: tuple[tuple[bytes, Kind, float, float, bytes], ...]
    """(debtor, kind, until nothing is owed, until it bars no more, what stands for its wrong guesses)."""
    good: tuple[tuple[bytes, float], ...]
    """(name at an address, until its good standing ends)."""


class Throttle:
    """One for each process. Its methods are for the event loop's thread."""

    def __init__(
        self,
        terms: Terms | None = None,
        *,
        clock: Callable[[], float] = monotonic,
        secret: bytes = b"",
        on_bar: Callable[[], None] = lambda: None,
    ) -> None:
        """``secret`` keys what stands for addresses, names and guesses; random unless it is shared. ``on_bar`` is
        called when a name in good standing has to wait: what was learned to be good from memory must be looked at
        again. Raises `ConfigurationError` for a trusted network that cannot be read."""
        self.clock = clock
        self.on_bar = on_bar
        self.on_trace: Callable[[Trace], None] = lambda _: None
        """Hears of each new wrong try and of each success that others should know of."""
        self.answered: dict[Kind, int] = dict.fromkeys(REASONS, 0)
        """How often the answer was a penalty."""
        self.wrong = 0
        """New wrong tries."""
        self.secret = secret or os.urandom(32)
        self.exempt = Attempt(self, None, b"")
        """One that counts for nothing."""
        self._open: dict[bytes, dict[bytes, int]] = {}
        """Guesses that are being asked about now, by debtor, and by how many at once."""
        self._apply(terms or Terms())

    def _apply(self, terms: Terms) -> None:
        self._tracer = Tracer(self.secret, terms.trusted)
        self.terms = terms
        self._debts = Debts(terms.entries, self.clock)
        self._good: OrderedDict[bytes, float] = OrderedDict()
        """Names in good standing at an address, and until when."""
        self._reset: Memo[bytes, float] = Memo(terms.entries)
        """When an account, or a key, was reset last."""

    def reload(self, terms: Terms) -> None:
        """Go by other terms from now on; whoever owed something begins anew where they differ. Raises
        `ConfigurationError`, and changes nothing, for a trusted network that cannot be read."""
        if terms != self.terms:
            self._apply(terms)

    @property
    def idle(self) -> bool:
        """Nobody owes anything: there is nothing to ask."""
        return not len(self._debts) and not self._open

    def attempt(
        self, address: str, realm: str, name: str | bytes, secret: bytes = b"", *, here_only: bool = False
    ) -> Attempt:
        """Somebody at ``address``, as libzmq writes it or normalised, who says to be ``name`` and has ``secret``.

        ``realm`` stands for those who know the name: two people of one name in two realms are two. Without a
        ``secret`` the name is the proof itself (a key): it counts against the address and itself; with
        ``here_only`` against the address alone, for what is good at some addresses and not at others.
        """
        found = self._tracer.trace(address, realm, name, secret, here_only=here_only)
        return self.exempt if found is None else Attempt(self, *found)

    def about(self, question: Question, realm: str) -> Attempt:
        """`attempt` for what backends are asked. Whoever comes with nothing (NULL) guesses nothing."""
        if question.mechanism == "NULL":
            return self.exempt
        return self.attempt(question.address, realm, question.username or question.key, question.password)

    def take(self, traces: Iterable[Trace]) -> None:
        """What was seen elsewhere, by somebody with the same secret. It is neither counted nor told again."""
        for trace in traces:
            if trace.good:
                self._be_good(trace, trace.name)
            else:
                self._owe(trace)

    def remembered(self, debts: int, good: int) -> Remembered:
        """What somebody with the same secret who comes later should know: of so many debtors, and names in good
        standing, those that last longest."""
        now = self.clock()
        owing = heapq.nlargest(debts, self._debts.items(), key=lambda each: each[1].clean_at)
        standing = heapq.nlargest(good, self._good.items(), key=lambda each: each[1])
        return Remembered(
            tuple(
                (debtor, debt.kind, debt.clean_at - now, debt.barred_until - now, debt.wrong)
                for debtor, debt in owing
            ),
            tuple((pair, until - now) for pair, until in standing),
        )

    def remember(self, told: Remembered) -> None:
        """What `remembered` gave elsewhere, beside what is known here."""
        now = self.clock()
        for debtor, kind, clean, barred, wrong in told.debts:
            self._debts.put(debtor, kind, now + clean, now + barred, wrong)
        for pair, left in sorted(told.good, key=lambda each: each[1]):
            self._stand(pair, max(now + left, self._good.get(pair, 0.0)))

    def counts(self) -> dict[Kind, int]:
        """How many of each kind owe something."""
        self._debts.sweep()
        found: dict[Kind, int] = dict.fromkeys(REASONS, 0)
        for debt in self._debts:
            found[debt.kind] += 1
        return found

    @property
    def in_good_standing(self) -> int:
        """How many names and keys are, each at an address."""
        return len(self._good)

    # -- for attempts ----------------------------------------------------------------------------------------

    def barred(self, trace: Trace, pair: bytes) -> tuple[Kind, float] | None:
        """For whose sake nobody is asked now, and for how many seconds; None where somebody may be."""
        if trace.name and (wait := self._wait(trace.name, "name", trace.guess)) is not None:
            return "name", wait
        if self._is_good(pair):
            return None
        if (wait := self._wait(trace.address, "address", trace.guess)) is not None:
            return "address", wait
        if trace.key and (wait := self._wait(trace.key, "key", trace.where)) is not None:
            return "key", wait
        if not trace.account:
            return None
        if (wait := self._wait(trace.account, "account", trace.guess)) is not None:
            return "account", wait
        account = self._debts.get(trace.account)
        if account is not None and account.knows(trace.guess):
            # Wrong elsewhere a moment ago. Where it was wrong it may be tried again, perhaps it is right by now.
            here = self._debts.get(trace.name)
            if here is None or not here.knows(trace.guess):
                return "account", account.clean_at - self.clock()
        return None

    def _wait(self, debtor: bytes, kind: Kind, guess: bytes) -> float | None:
        """Seconds for which this one bars a guess; None if it does not."""
        debt, flying = self._debts.get(debtor), self._open.get(debtor, _NOTHING)
        if debt is None and not flying:
            return None
        now, (free, forgive) = self.clock(), self._measure(kind)
        tries = 0 if debt is None else open_tries(debt, now, forgive)
        if kind == "account":
            if tries + len(flying) - (guess in flying) < free:
                return None
            return 0.0 if debt is None else max(0.0, debt.clean_at - now - (free - 1) * forgive)
        if debt is not None and debt.barred_until > now:
            return debt.barred_until - now
        # One wrong guess must not become many by being made at once; one that is known to be wrong stays one. An
        # address may have many users, a key many hosts: only who has been wrong rather often is held to it.
        if kind != "name" and tries * 2 < free:
            return None
        others = (each for each in flying if each != guess and not (debt is not None and debt.knows(each)))
        room = max(1, free - tries)
        return 0.0 if sum(1 for _ in islice(others, room)) == room else None

    def fail(self, trace: Trace) -> None:
        """A wrong try."""
        if self._owe(trace):
            self.wrong += 1
            self.on_trace(trace)

    def _owe(self, trace: Trace) -> bool:
        """Lay a wrong try to whom it belongs; False where it is no new one."""
        known = self._debts.get(trace.name or trace.address)
        if known is not None and known.knows(trace.guess):
            return False
        self._charge(trace.address, "address", trace.guess)
        if trace.name:
            self._charge(trace.name, "name", trace.guess)
            self._charge(trace.account, "account", trace.guess)
        if trace.key:
            self._charge(trace.key, "key", trace.where)
        return True

    def _charge(self, debtor: bytes, kind: Kind, guess: bytes) -> None:
        known = self._debts.get(debtor)
        if known is not None and known.knows(guess):
            return
        terms = self.terms
        free, forgive = self._measure(kind)
        if kind == "account":
            self._debts.charge(debtor, kind, guess, forgive, free)
            return
        doublings = math.ceil(math.log2(max(1.0, terms.longest / max(terms.shortest, 0.001)))) + 1
        debt, tries = self._debts.charge(debtor, kind, guess, forgive, free + doublings)
        if tries > free:
            debt.barred_until = self.clock() + min(terms.longest, terms.shortest * 2.0 ** (tries - free - 1))
            if kind == "name" and debtor in self._good:
                self.on_bar()

    def succeed(self, trace: Trace, pair: bytes) -> None:
        """Let in. What was wrong before is forgiven with time alone, else one good name would pay for guesses at
        it; but the world's tries at the account are, where the address was known to be good, and so is all that a
        key owes: it is the whole proof."""
        if self._be_good(trace, pair):
            self.on_trace(trace._replace(name=pair, good=True))

    def _be_good(self, trace: Trace, pair: bytes) -> bool:
        """Whether others should know."""
        now = self.clock()
        debtor = trace.account or trace.key
        owing = self._debts.get(debtor) is not None
        if owing and (trace.key or self._is_good(pair)):
            before = self._reset.get(debtor)
            if before is None or now - before >= HOUR:
                self._reset.put(debtor, now)
                self._debts.forgive(debtor)
        news = self._good.get(pair, 0.0) - now < self.terms.standing / 2
        self._stand(pair, now + self.terms.standing)
        return owing or news

    def _stand(self, pair: bytes, until: float) -> None:
        good = self._good
        good[pair] = until
        good.move_to_end(pair)
        while len(good) > self.terms.entries:
            good.popitem(last=False)

    def fly(self, trace: Trace, by: int) -> None:
        """So many more, or fewer, are being asked about now."""
        for debtor in (trace.address, trace.name, trace.account):
            self._fly(debtor, trace.guess, by)
        self._fly(trace.key, trace.where, by)

    def _fly(self, debtor: bytes, guess: bytes, by: int) -> None:
        if debtor:
            flying = self._open.setdefault(debtor, {})
            flying[guess] = flying.get(guess, 0) + by
            if not flying[guess]:
                del flying[guess]
                if not flying:
                    del self._open[debtor]

    def _is_good(self, pair: bytes) -> bool:
        until = self._good.get(pair)
        return until is not None and until > self.clock()

    def _measure(self, kind: Kind) -> tuple[int, float]:
        """(tries that are free, seconds until one is forgiven)."""
        terms = self.terms
        if kind == "account":
            return terms.account_burst, terms.account_forgive
        if kind == "name":
            return terms.tries, terms.forgive
        return (terms.key_tries if kind == "key" else terms.address_tries), terms.forgive


class Attempt:
    """One try of somebody. `ask` first; then, as a context manager, for as long as somebody is asked about it."""

    __slots__ = ("_pair", "_throttle", "_trace")

    def __init__(self, throttle: Throttle, trace: Trace | None, pair: bytes) -> None:
        """Made by `Throttle.attempt`. Without a ``trace`` it counts for nothing."""
        self._throttle = throttle
        self._trace = trace
        self._pair = pair

    def ask(self) -> str:
        """The reason code of a 300 that is to be answered at once; empty where the question may be asked."""
        found = self.look()
        if found is None:
            return ""
        kind, _ = found
        self._throttle.answered[kind] += 1
        return REASONS[kind]

    def look(self) -> tuple[Kind, float] | None:
        """`ask` without being counted: who bars it, and for how many seconds at most."""
        return None if self._trace is None else self._throttle.barred(self._trace, self._pair)

    def fail(self) -> None:
        """It was refused: a wrong proof, or nobody knows it."""
        if self._trace is not None:
            self._throttle.fail(self._trace)

    def succeed(self) -> None:
        """It was let in."""
        if self._trace is not None:
            self._throttle.succeed(self._trace, self._pair)

    def __enter__(self) -> Self:
        if self._trace is not None:
            self._throttle.fly(self._trace, 1)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._trace is not None:
            self._throttle.fly(self._trace, -1)


_NOTHING: Final[dict[bytes, int]] = {}
