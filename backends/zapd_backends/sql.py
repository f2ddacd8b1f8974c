"""The ``sql`` backend: CURVE keys and PLAIN users of zapd's own registry, answered from memory.

The registry is read once, then followed by its change feed: only rows that changed are read again, off the
event loop, and what they say is in force before the feed's reader goes on. So a database that is away stops no
answer, and a revocation waits for no cache. Whether what is in memory may still be *current enough* is not
judged here: `ChangeFeed.staleness` tells the authority.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import ClassVar, Final, Self

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from zapd.auth.backend import UNKNOWN, Admission, BackendContext, Outcome, Principal, Question, Verdict
from zapd.auth.hashing import HashPoolFull
from zapd.errors import ConfigurationError, InvalidInput, Unavailable
from zapd.store.domains import Grant
from zapd.store.engine import reading
from zapd.store.feed import Change
from zapd.store.keys import KeyState
from zapd.store.snapshot import NEVER, UserFacts, load_keys, load_some_keys, load_users
from zapd.store.users import UserState
from zapd.zmtp.keys import fingerprint_id, mark_of
from zapd_backends.key_table import KeyTable

CLOCK_TOLERANCE: Final = 60.0
"""Seconds that the wall clock may go back before an expiry it had passed is in doubt (limits.md R22)."""

RELOAD_FROM: Final = 1_000
"""Changes at once from which reading everything again may be cheaper than row by row."""


class SqlBackend:
    """Keys and users of the registry. Settings: none but ``type = "sql"``."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"CURVE", "PLAIN"})

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Build from ``[backend.<name>]``. Raises `ConfigurationError`."""
        if settings:
            unknown = ", ".join(sorted(settings))
            raise ConfigurationError(f"[backend.{name}] has settings that sql does not know: {unknown}.")
        if context.database is None:
            raise ConfigurationError(f"[backend.{name}] is of type sql, which needs [database] url.")
        return cls(context, context.database)

    def __init__(self, context: BackendContext, database: Engine) -> None:
        self._context = context
        self._database = database
        self._clock = context.wall_clock or time.time
        self._latest = 0.0
        self._keys: KeyTable | None = None
        self._users: dict[str, UserFacts] = {}
        self._lock = asyncio.Lock()
        """One reader of the database at a time, so that nothing older is put over something newer."""
        self._subscribed = False
        self._unusable: set[str] = set()

    async def start(self) -> None:
        """Read everything. Raises `Unavailable` when the registry cannot be read."""
        feed = self._context.feed
        if feed is not None:
            if not self._subscribed:
                feed.subscribe(self._follow)
                self._subscribed = True
            # From here on the feed tells every change; what came before is in what we read next.
            await feed.catch_up()
        async with self._lock:
            await self._load()

    async def check(self, question: Question) -> Verdict:
        """Answer from memory; for PLAIN after the hash pool's work."""
        if question.mechanism == "CURVE":
            verdict = self._check_key(question.key, question.domain)
            if self._may_be_stale(verdict):
                if not await self._as_of_now():
                    return _NOT_CONFIRMED
                verdict = self._check_key(question.key, question.domain)
            return verdict
        if question.mechanism == "PLAIN":
            user = self._users.get(question.username)
            verdict = await self._check_user(question)
            if self._may_be_stale(verdict):
                if not await self._as_of_now():
                    return _NOT_CONFIRMED
                if self._users.get(question.username) is not user:
                    return _CHANGED
            return verdict
        return UNKNOWN

    async def aclose(self) -> None:
        """Follow the feed no more."""
        if self._context.feed is not None:
            self._context.feed.unsubscribe(self._follow)

    @property
    def problem(self) -> str:
        """Users whose hash cannot be verified, if any."""
        if not self._unusable:
            return ""
        return f"{len(self._unusable)} users have a hash that zapd cannot verify; give them new passwords."

    def __len__(self) -> int:
        """How many keys are in memory."""
        return 0 if self._keys is None else len(self._keys)

    # -- deciding --------------------------------------------------------------------------------------------

    def _may_be_stale(self, verdict: Verdict) -> bool:
        """Whether a final no may be wrong already: another zapd on this database may have registered the key a
        moment ago, and its holder would never try again. A revocation is for good."""
        feed = self._context.feed
        return feed is not None and feed.shared and verdict.outcome in _FINAL and verdict.reason != "revoked"

    async def _as_of_now(self) -> bool:
        feed = self._context.feed
        return feed is None or await feed.as_of_now(self._context.deadline * _WITHIN)

    def recall(self, keys: Sequence[bytes], domain: str) -> Sequence[Admission | None]:
        """Active keys, granted here and now (`zapd.auth.backend.AnswersFromMemory`); all else is for `check`."""
        now = self._clock()
        if self._keys is None or now < self._latest:  # a clock that goes back puts every expiry in doubt
            return (None,) * len(keys)
        self._latest = now
        return self._keys.recall(keys, domain, now)

    def _check_key(self, key: bytes, domain: str) -> Verdict:
        if self._keys is None:
            return _NOT_LOADED
        facts = self._keys.facts(key)
        if facts is None:
            return UNKNOWN
        principal = Principal(facts.user, facts.groups, facts.attributes)
        if facts.state is KeyState.REVOKED:
            return self._judge(Verdict(Outcome.LOCKED, principal, "revoked"), facts.grant, 0.0, NEVER, domain)
        if facts.state is KeyState.PENDING:
            pending = Verdict(Outcome.NOT_YET, principal, "pending")
            return self._judge(pending, facts.grant, 0.0, facts.expires, domain)
        accept = Verdict(Outcome.ACCEPT, principal, "granted")
        return self._judge(accept, facts.grant, facts.not_before, facts.expires, domain)

    async def _check_user(self, question: Question) -> Verdict:
        if self._keys is None:
            return _NOT_LOADED
        name = question.username
        user = self._users.get(name)
        # Everybody costs one hash, known or not, enabled or not: the time must not tell (limits.md R15).
        stored = user.hash if user is not None and question.password else None
        try:
            fits = await self._context.hash_pool.verify(stored, question.password, slot=(question.address, name))
        except HashPoolFull:
            return _POOL_FULL
        except InvalidInput:
            return Verdict(Outcome.UNAVAILABLE, Principal(name), "hash_unusable")
        if self._users.get(name) is not user:
            # What was verified is no longer what is known: ask again.
            return _CHANGED
        if user is None:
            return UNKNOWN
        principal = Principal(user.name, user.groups, user.attributes)
        if not fits:
            return Verdict(Outcome.REJECT, principal, "wrong_password")
        if user.state is UserState.DISABLED:
            return self._judge(
                Verdict(Outcome.LOCKED, principal, "disabled"), user.grant, 0.0, NEVER, question.domain
            )
        # An expiry is no change that the feed tells: whoever remembers this verdict must know its end.
        accept = Verdict(Outcome.ACCEPT, principal, "granted", until=user.expires)
        return self._judge(accept, user.grant, 0.0, user.expires, question.domain)

    def _judge(self, verdict: Verdict, grant: Grant, not_before: float, expires: float, domain: str) -> Verdict:
        """``verdict`` if it holds in this domain and at this moment, else what holds instead."""
        if not grant.covers(domain):
            # Before all else: what is known of a key in one domain is nobody's business in another.
            return Verdict(Outcome.REJECT, verdict.principal, "not_in_domain")
        now = self._clock()
        if now > self._latest:
            self._latest = now
        if expires <= now:
            return Verdict(Outcome.LOCKED, verdict.principal, "expired")
        if expires <= self._latest - CLOCK_TOLERANCE:
            return Verdict(Outcome.UNAVAILABLE, verdict.principal, "clock_went_back")
        if now < not_before:
            return Verdict(Outcome.NOT_YET, verdict.principal, "not_yet_valid")
        return verdict

    # -- following the registry ------------------------------------------------------------------------------

    async def _load(self) -> None:
        keys, users = await self._ask_both()
        self._keys = KeyTable(keys)
        self._users = {}
        self._take_users(users)
        self._context.forget()

    async def _follow(self, changes: Sequence[Change]) -> None:
        """What the feed calls: read again what changed, and let it take force."""
        keys = {change.subject for change in changes if change.kind == "key"}
        names = {change.subject for change in changes if change.kind == "user"}
        if not keys and not names:
            return
        async with self._lock:
            if self._keys is None:
                return  # start() reads it all
            if len(keys) > max(RELOAD_FROM, len(self._keys) // 4):
                await self._load()
                return
            found, users = await self._ask_some(keys, names)
            self._keys.update(found)
            for name in names - users.keys():
                self._users.pop(name, None)
            self._take_users(users)
            self._context.forget()
            gone = keys - {fingerprint_id(key) for key in found}
            if gone:
                await self._take_away(self._keys, gone)
                self._context.forget()

    async def _take_away(self, table: KeyTable, fingerprints: set[str]) -> None:
        """Know keys no more that were removed. The feed tells their fingerprints, by which the table cannot be
        asked: it is looked through, with pauses, in a fraction of the time of reading it anew."""
        marks = {mark_of(each).encode() for each in fingerprints}
        found: list[bytes] = []
        for some in table.search(marks):
            found += some
            if len(found) == len(marks):
                break
            await asyncio.sleep(0)
        table.remove(found)

    def _take_users(self, users: dict[str, UserFacts]) -> None:
        self._users.update(users)
        self._unusable &= self._users.keys()
        for name, user in users.items():
            try:
                self._context.hash_pool.note(user.hash)
            except InvalidInput:
                self._unusable.add(name)
            else:
                self._unusable.discard(name)

    async def _ask_both(self) -> tuple[dict[bytes, bytes], dict[str, UserFacts]]:
        def read() -> tuple[dict[bytes, bytes], dict[str, UserFacts]]:
            with reading(self._database) as connection:
                return load_keys(connection), load_users(connection)

        try:
            return await asyncio.to_thread(read)
        except SQLAlchemyError as trouble:
            raise _away(trouble) from trouble

    async def _ask_some(
        self, fingerprints: set[str], names: set[str]
    ) -> tuple[dict[bytes, bytes], dict[str, UserFacts]]:
        def read() -> tuple[dict[bytes, bytes], dict[str, UserFacts]]:
            with reading(self._database) as connection:
                return load_some_keys(connection, fingerprints), load_users(connection, names)

        try:
            return await asyncio.to_thread(read)
        except SQLAlchemyError as trouble:
            raise _away(trouble) from trouble


_FINAL: Final = frozenset({Outcome.UNKNOWN, Outcome.REJECT, Outcome.LOCKED})
_WITHIN: Final = 0.6
"""The part of the backend's deadline in which a no is to be confirmed."""
_NOT_CONFIRMED: Final = Verdict(Outcome.NOT_YET, reason="registry_not_current")
"""A database that is away stops no yes, so it is no outage of this backend's."""
_CHANGED: Final = Verdict(Outcome.UNAVAILABLE, reason="changed_meanwhile")
_NOT_LOADED: Final = Verdict(Outcome.UNAVAILABLE, reason="registry_not_read")
_POOL_FULL: Final = Verdict(Outcome.UNAVAILABLE, reason="hash_pool_full")


def _away(trouble: SQLAlchemyError) -> Unavailable:
    return Unavailable(
        f"The registry cannot be read ({type(trouble).__name__}): is the database there, and upgraded?"
    )
