"""The single door: every question to this zapd is decided here.

`Authority.decide` takes a ZAP request and always gives a `Decision`: doubt and our own bugs are 300, and nothing
is a 200 that no rule granted. The order is fixed: is the policy current; may this asker ask; which rule speaks
for the domain; mechanism; address; the form of the credentials; bans; penalties for guessing; memory; backends.
zapd's own door has a path of its own, `decide_door`, which no rule and no asker can reach.

It records nothing, counts little and sends nothing: that is `zapd.server`'s. The hot road, a CURVE key that a
backend knows by heart, creates no task, parses no address twice and encodes no metadata twice.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import perf_counter
from typing import Final, Protocol

import structlog

from zapd.auth.backend import Admission, Outcome, Principal, Question, Verdict
from zapd.auth.bans import REASONS as BANNED
from zapd.auth.bans import Ban, Bans
from zapd.auth.cache import ENTRIES, DecisionCache, remembered
from zapd.auth.catalog import BackendHandle
from zapd.auth.chain import NOT_ASKED, Answer
from zapd.auth.decision import Decision
from zapd.auth.explain import ExplainStep, explain
from zapd.auth.flights import Flights
from zapd.auth.grant import Grants
from zapd.auth.hashing import HashPool
from zapd.auth.lanes import NOBODY, Lane, Lanes, Place, knows_by_heart
from zapd.auth.meaning import PENDING, meaning, name_of
from zapd.auth.pace import Pace
from zapd.auth.policy import Policy
from zapd.auth.question import question_of
from zapd.auth.throttle import Attempt, Throttle
from zapd.errors import InvalidInput
from zapd.store.domains import RESERVED
from zapd.zap import REFUSED, TRY_AGAIN, Asker, Status, ZapRequest
from zapd.zmtp.keys import fingerprint

log = structlog.get_logger(__name__)

_ACCEPT: Final = Outcome.ACCEPT
_WRONG: Final = frozenset({Outcome.REJECT, Outcome.UNKNOWN})
_BANNED: Final = frozenset(BANNED.values())
_NOT_KEPT: Final = _BANNED | {"bad_principal", "registry_not_current"}
"""Reasons of decisions that are not remembered: they may be others at any moment."""

POLICY_STALE: Final = Decision(TRY_AGAIN, "policy_stale", asked=False)
UNCONFIRMED: Final = Decision(TRY_AGAIN, "registry_not_current", asked=False)
INTERNAL_ERROR: Final = Decision(TRY_AGAIN, "internal_error")


class AgentDirectory(Protocol):
    """Who knows the enrolled agents' keys, from memory."""

    def lookup(self, public_key: bytes) -> Asker | None:
        """The agent that this key belongs to, if it may come in now."""
        ...

    def refusal(self, public_key: bytes) -> Verdict:
        """Why `lookup` gave None: UNKNOWN, LOCKED (revoked), NOT_YET (pending) or UNAVAILABLE, with a reason."""
        ...


class Authority:
    """Decides. One for each process; its methods are for the event loop's thread."""

    def __init__(
        self,
        policy: Policy,
        backends: Mapping[str, BackendHandle],
        *,
        agents: AgentDirectory | None = None,
        hash_pool: HashPool | None = None,
        throttle: Throttle | None = None,
        is_current: Callable[[], bool] = lambda: True,
        as_of_now: Callable[[], Awaitable[bool]] | None = None,
        on_pending: Callable[[Question, str, str], None] | None = None,
        wall_clock: Callable[[], float] = time.time,
        cache_entries: int = ENTRIES,
    ) -> None:
        """``is_current`` says whether policy and registry are known to be current; while they are not, the
        answer is 300. ``on_pending`` hears of each unknown key that a domain holds for approval: (question, who
        asked, the rule's pattern). ``hash_pool`` is asked only for its dearest hash. ``throttle`` counts wrong
        tries, here and wherever else it is asked; by default one of our own. ``as_of_now``, where another process
        may take a ban back, returns once all that was committed is in force here, False if that takes too long.
        Raises `ConfigurationError` when a rule names a backend that is not there.
        """
        self._lanes = Lanes(policy, backends)
        self._agents = agents
        self._hash_pool = hash_pool
        self._is_current = is_current
        self._as_of_now = as_of_now
        self._on_pending = on_pending
        self._wall_clock = wall_clock
        self._grants = Grants()
        self._bans = Bans()
        self._sift: Callable[[Sequence[Admission | None], str], Sequence[Admission | None]] | None = None
        """Takes the banned out of what is known by heart; None while no key and no user is banned."""
        self.cache = DecisionCache(cache_entries)
        self.throttle = throttle or Throttle()
        self.throttle.on_bar = self.cache.doubt
        self._flights = Flights()
        self._pace = Pace()
        self.internal_errors = 0
        """Our own bugs, each answered 300. Any is worth an alert."""

    @property
    def policy(self) -> Policy:
        return self._lanes.policy

    @property
    def backends(self) -> Mapping[str, BackendHandle]:
        return self._lanes.backends

    def reload(self, policy: Policy, backends: Mapping[str, BackendHandle]) -> None:
        """Put new rules and backends in force at once, and forget what the old ones said.

        Raises `ConfigurationError`, and changes nothing, when a rule names a backend that is not there.
        """
        self._lanes = Lanes(policy, backends)
        for handle in backends.values():
            handle.forget()
        self.forget()

    def bar(self, bans: Bans) -> None:
        """Put other bans in force at once: whatever was learned under the old ones holds no more."""
        self._bans = bans
        self._sift = bans.sift if bans.named else None
        self._lanes = Lanes(self._lanes.policy, self._lanes.backends)
        self.forget()

    def forget(self) -> None:
        """Something that a backend knows has changed: no remembered decision is given any more."""
        self.cache.forget()

    @property
    def in_force(self) -> object | None:
        """What stands for the rules, backends and bans in force: another object after each change, None while
        nothing may be decided. Whatever was learned from `place` holds while this stays the same."""
        return self._lanes if self._is_current() else None

    def place(self, asker: Asker | None, domain: str, address: str) -> Place | None:
        """All of `decide` but the key, for a CURVE question from there: the asker may ask, the domain has a rule,
        the mechanism and the address are allowed. None where that is not so, or no backend answers."""
        place = self._lanes.place(asker, domain, address)
        if place is not None and self._bans.any and self._bans.of_address(address, domain) is not None:
            return None
        return place

    def admit(self, place: Place, keys: Sequence[bytes]) -> Sequence[Admission | None]:
        """For each key that the backend lets in by heart its admission; None for every other: `decide` says what
        becomes of it. Nearly all questions of a fleet at work end here.

        Only while `in_force` is what it was when the place was asked for.
        """
        first = place.first
        try:
            found = first.recall(keys, place.domain)
        except Exception:  # noqa: BLE001 - `decide` meets the same trouble, and says what it is
            return (None,) * len(keys)
        first.asked += len(found) - found.count(None)
        sift = self._sift
        return found if sift is None else sift(found, place.domain)

    def recollect(self, request: ZapRequest) -> tuple[Decision, float] | None:
        """The 200 that `decide` would now give a PLAIN question from memory, and until when on the cache's clock.
        None where there is none.

        Only while `in_force`. What is learned from it holds as long as `in_force` and the cache's ``generation``
        stay what they were.
        """
        lane = self._lanes.get(request)
        if lane.refusal or lane.mechanism != "PLAIN":
            return None
        address, barred = lane.check_address(request.address)
        question = question_of(request, address)
        if barred or isinstance(question, str):
            return None
        if self._bans.any and self._bans.of_question(question) is not None:
            return None
        if not self.throttle.idle and self._attempt(lane, question).look() is not None:
            return None
        return self.cache.granted(self.cache.key(lane.policy_version, question))

    async def decide(self, request: ZapRequest) -> Decision:
        """Decide one question. Never raises; does not suspend when memory can answer."""
        try:
            if not self._is_current():
                return POLICY_STALE
            lanes = self._lanes
            lane = lanes.get(request)
            if lane.refusal:
                return await self._refuse(request, lane, lane.refusal)
            address, barred = lane.check_address(request.address)
            if barred:
                return await self._refuse(request, lane, barred)
            bans = self._bans
            if lane.null_decision is not None:
                banned = bans.of_address(address, request.domain) if bans.any else None
                if banned is None:
                    return lane.null_decision
                return await self._final(banned.answer()) or await self.decide(request)
            question = question_of(request, address)
            if isinstance(question, str):
                return await self._refuse(request, lane, question)
            if bans.any and (banned := bans.of_question(question)) is not None:
                started = perf_counter()
                decision = await self._final(banned.answer(self._mark(question.key)))
                return await (self.decide(request) if decision is None else self._at_tick(decision, lane, started))
            if lane.chain.dear or lane.mechanism == "PLAIN":
                decision = await self._remembered(lane, question)
                return self._heard(request, lane, question, decision)
            if not self.throttle.idle and (reason := self._barred(lane, question, self._attempt(lane, question))):
                return Decision(TRY_AGAIN, reason, key=self._mark(question.key), asked=False)
            answer = await lane.chain.ask(question)
            if answer.dear or answer.verdict.outcome is not _ACCEPT:
                self._note(self._attempt(lane, question), lane, question, answer)
            decision = self._decision(lane, question, answer)
            if bans.any:
                decision = await self._final(decision) or self._decision(lane, question, answer)
            return self._heard(request, lane, question, decision)
        except Exception:  # noqa: BLE001 - a Decision always comes back
            return self._bug()

    async def decide_door(self, request: ZapRequest) -> Decision:
        """Decide who may connect to zapd itself: enrolled agents, by their CURVE keys, and nobody else.

        ``request.domain`` must be the reserved domain. The user id of a 200 is the agent's name.
        """
        try:
            if not self._is_current():
                return POLICY_STALE
            if request.domain != RESERVED or self._agents is None:
                return Decision(REFUSED, "unknown_domain")
            if request.mechanism != "CURVE":
                return Decision(REFUSED, "mechanism_not_allowed")
            (key,) = request.credentials
            asker = self._agents.lookup(key)
            if asker is not None:
                mark = fingerprint(key)
                return Decision(self._grants.for_key(Principal(asker.name), mark), "granted", asker.name, mark)
            verdict = self._agents.refusal(key)
            if verdict.outcome is Outcome.UNKNOWN:
                reply, reason = REFUSED, "unknown_agent"
            else:
                reply, reason = meaning(verdict, Question(RESERVED, "CURVE", request.address, key), NOBODY)
            return Decision(reply, reason, name_of(verdict), fingerprint(key))
        except Exception:  # noqa: BLE001 - a Decision always comes back
            return self._bug()

    async def explain(self, request: ZapRequest) -> list[ExplainStep]:
        """What would be decided now, and why, rule by rule. Nothing is remembered, ticked or journalled.

        For PLAIN an empty password asks no backend: only the rules are shown then.
        """
        return await explain(
            request, self._lanes, self._grants, self._bans, self.throttle, current=self._is_current()
        )

    def _attempt(self, lane: Lane, question: Question) -> Attempt:
        """This question, as those see it who count wrong tries. The rule stands for those who know the name."""
        return self.throttle.about(question, lane.rule.pattern)

    def _barred(self, lane: Lane, question: Question, attempt: Attempt) -> str:
        """The reason why nobody is asked about this one now; empty where somebody may be.

        A key that a backend knows by heart is nobody's guess: it passes, whatever others tried from its address or
        with it, and whatever was tried with it before it was registered.
        """
        if question.key and attempt.look() is not None and knows_by_heart(lane, question):
            return ""
        return attempt.ask()

    async def _remembered(self, lane: Lane, question: Question) -> Decision:
        """Answer from the cache, else from whoever asks the same already, else from the backends; not even from
        the cache under a penalty, since a yes in it would tell a guess that is right."""
        attempt = None if self.throttle.idle else self._attempt(lane, question)
        if attempt is not None and (reason := self._barred(lane, question, attempt)):
            return Decision(TRY_AGAIN, reason, key=self._mark(question.key), asked=False)
        started = perf_counter()
        key = self.cache.key(lane.policy_version, question)
        generation = self.cache.generation
        decision = self.cache.get(key)
        if decision is None:
            who = attempt or self._attempt(lane, question)
            decision = await self._flights.share(
                key, generation, lane.rule.deadline, lambda: self._ask(lane, question, who, key, generation)
            )
        return await self._at_tick(decision, lane, started)

    async def _ask(
        self, lane: Lane, question: Question, attempt: Attempt, key: bytes, generation: int
    ) -> Decision:
        """Ask the backends, and keep what was dear to get."""
        with attempt:
            answer = await lane.chain.ask(question)
            self._note(attempt, lane, question, answer)
        decision = self._decision(lane, question, answer)
        if self._bans.any:
            decision = await self._final(decision) or self._decision(lane, question, answer)
        if answer.dear and not answer.doubt and decision.reason not in _NOT_KEPT:
            good = decision.status is Status.GRANTED
            seconds = lane.rule.cache_good if good else lane.rule.cache_bad
            seconds = min(seconds, answer.cache_seconds, answer.verdict.until - self._wall_clock())
            self.cache.put(key, remembered(decision), seconds, generation)
        return decision

    def _note(self, attempt: Attempt, lane: Lane, question: Question, answer: Answer) -> None:
        """Lay the answer to whoever tried. Only who is wrong pays: who is barred, expired or in doubt does not."""
        outcome = answer.verdict.outcome
        if outcome is _ACCEPT:
            if not answer.stale:
                attempt.succeed()
        elif outcome in _WRONG and meaning(answer.verdict, question, lane.rule)[0] is REFUSED:
            attempt.fail()

    def _decision(self, lane: Lane, question: Question, answer: Answer) -> Decision:
        """What a chain's answer means."""
        verdict = answer.verdict
        principal = verdict.principal
        if verdict.outcome is not _ACCEPT or principal is None:
            return self._not_granted(lane, question, answer)
        if self._bans.any and (banned := self._ban_of(question, principal)) is not None:
            return banned.answer(self._mark(question.key), principal.name, answer.trail)
        try:
            if question.key:
                mark = fingerprint(question.key)
                reply = self._grants.for_key(principal, mark)
            else:
                mark, reply = "", self._grants.without_key(principal)
        except InvalidInput as fault:
            # A backend let somebody in whom no ZAP reply can name: its data can be mended, so 300.
            if self._pace.allows():
                log.warning("a backend's principal fits no reply", domain=question.domain, reason=str(fault))
            return Decision(TRY_AGAIN, "bad_principal", key=self._mark(question.key), trail=answer.trail)
        reason = "granted_stale" if answer.stale else "granted"
        return Decision(reply, reason, principal.name, mark, answer.trail, until=verdict.until)

    def _ban_of(self, question: Question, principal: Principal) -> Ban | None:
        """The ban of somebody whom a backend would let in: of the user found, or one made while it was asked."""
        return self._bans.of_user(principal.name, question.domain) or self._bans.of_question(question)

    async def _final(self, decision: Decision) -> Decision | None:
        """The decision; where it is a ban's final no that another process may just have taken back, only once that
        is known not to be so. None where the bans have changed meanwhile: decide again."""
        if decision.status is not Status.REFUSED or decision.reason not in _BANNED or self._as_of_now is None:
            return decision
        bans = self._bans
        if not await self._as_of_now():
            return UNCONFIRMED
        return decision if self._bans is bans else None

    def _not_granted(self, lane: Lane, question: Question, answer: Answer) -> Decision:
        verdict = answer.verdict
        reply, reason = meaning(verdict, question, lane.rule)
        asked = reason not in NOT_ASKED
        return Decision(reply, reason, name_of(verdict), self._mark(question.key), answer.trail, asked)

    def _heard(self, request: ZapRequest, lane: Lane, question: Question, decision: Decision) -> Decision:
        """``decision``, and whoever approves hears when a key waits for that; also when it was remembered."""
        if decision.reason == PENDING and self._on_pending is not None and request.asker is not None:
            self._on_pending(question, request.asker.name, lane.rule.pattern)
        return decision

    async def _refuse(self, request: ZapRequest, lane: Lane, reason: str) -> Decision:
        """A no, or a not now, for a reason of policy or of form."""
        started = perf_counter()
        mark = self._mark(request.credentials[0]) if request.mechanism == "CURVE" else ""
        if lane.not_now:
            return Decision(TRY_AGAIN, reason, key=mark, asked=False)
        return await self._at_tick(Decision(REFUSED, reason, key=mark), lane, started)

    def _mark(self, key: bytes) -> str:
        """The fingerprint; empty for no key."""
        return fingerprint(key) if key else ""

    async def _at_tick(self, decision: Decision, lane: Lane, started: float) -> Decision:
        """Hold a PLAIN refusal until its tick, so that time does not tell why (limits.md R15).

        It leaves on the first multiple of the tick that is at least a tick after the question came: however
        quickly it was found, it takes as long as the dearest hash. It holds no slot meanwhile.
        """
        if lane.mechanism != "PLAIN" or decision.reply.status is not Status.REFUSED:
            return decision
        tick = lane.rule.refusal_tick
        if self._hash_pool is not None:
            tick *= max(1, math.ceil(self._hash_pool.dearest / tick))
        loop = asyncio.get_running_loop()
        now = loop.time()
        earliest = max(now, now - (perf_counter() - started) + tick)
        await asyncio.sleep(math.ceil(earliest / tick) * tick - now)
        return decision

    def _bug(self) -> Decision:
        self.internal_errors += 1
        if self._pace.allows():
            log.exception("deciding failed; the answer is 300", errors=self.internal_errors)
        return INTERNAL_ERROR
