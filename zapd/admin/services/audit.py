"""The record for those who may see it: searching and following.

The copy in SQL belongs to `zapd.audit.sinks`; here is only who may see what of it, and how many at a time.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

from zapd.admin.roles import Actor, Operation
from zapd.admin.services.common import check_limit
from zapd.audit.sinks.following import Place, Resumed, Step
from zapd.errors import Unavailable, ZapdError


@dataclass(frozen=True, slots=True)
class AuditFilter:
    """What is sought; None is no condition. ``domains`` None is every domain and what has none."""

    user: str | None = None
    """A principal or a PLAIN user name."""
    key: str | None = None
    """``SHA256:…``."""
    address: str | None = None
    domain: str | None = None
    status: int | None = None
    event: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    domains: tuple[str, ...] | None = None
    """Domain patterns beyond which nothing is shown."""


AuditRecord = Mapping[str, object]
"""A record as the journal's line has it."""

Search = Callable[[AuditFilter, int, "str | None"], Awaitable[tuple[Sequence[AuditRecord], "str | None"]]]
"""(filter, limit, cursor) to (records, cursor of the next page). Raises `zapd.errors.Unavailable`."""

Still = Callable[[], Awaitable[Actor]]
"""Who asks, as of now; raises `zapd.errors.Unauthenticated` once the token is revoked or has expired."""


class Copy(Protocol):
    """The searchable copy, forwards in time. Each raises `zapd.errors.Unavailable`."""

    async def newest(self) -> Place: ...
    async def before(self, moment: datetime) -> Place: ...
    async def resume(self, place: Place) -> Resumed: ...
    async def read_after(self, place: Place, wanted: AuditFilter, limit: int) -> Step: ...
    async def changed(self, place: Place, seconds: float) -> None:
        """Return when there is more than ``place``, or after so many seconds."""


FOLLOWERS: Final = 16
PAGE: Final = 200
"""Records read, and sent, at a time."""
CHECK: Final = 1.0
"""Seconds between two looks at a token."""
HEARTBEAT: Final = 15.0
"""Seconds of silence after which a follower hears that all is well."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a follower is told at once."""

    records: Sequence[tuple[Place, str]] = ()
    """Each with the journal's line."""
    place: Place | None = None
    """How far was looked."""
    lost: str = ""
    """Why records may be missing or come twice."""
    end: ZapdError | None = None
    """Why nothing more comes."""


class Slots:
    """How many do something at one time."""

    def __init__(self, limit: int, words: str) -> None:
        self._limit = limit
        self._words = words
        self.taken = 0

    def take(self) -> Callable[[], None]:
        """A place, until what is returned is called. Raises `Unavailable`."""
        if self.taken >= self._limit:
            raise Unavailable(self._words.format(self._limit))
        self.taken += 1
        given_back = False

        def give_back() -> None:
            nonlocal given_back
            if not given_back:
                given_back = True
                self.taken -= 1

        return give_back


class Follower:
    """One who follows. `close` gives its place to the next; it may be called at any time, and twice."""

    def __init__(self, copy: Copy, wanted: AuditFilter, start: Resumed, still: Still, leave: Callable[[], None]):
        self._copy = copy
        self._wanted = wanted
        self._start = start
        self._still = still
        self.close = leave

    async def told(self) -> AsyncGenerator[Told, None]:
        """What happens, for as long as the token is good. What is not taken is not read either."""
        place = self._start.place
        yield Told(place=place, lost=self._start.lost)
        checked = spoken = time.monotonic()
        while True:
            now = time.monotonic()
            if now - checked >= CHECK:
                try:
                    (await self._still()).require(Operation.READ_AUDIT)
                except ZapdError as end:
                    yield Told(end=end)
                    return
                checked = now
            try:
                step = await self._copy.read_after(place, self._wanted, PAGE)
            except ZapdError as end:
                yield Told(end=end)
                return
            place = step.place
            if step.records or now - spoken >= HEARTBEAT:
                yield Told(step.records, place)
                spoken = time.monotonic()
            if not step.more:
                await self._copy.changed(place, CHECK)


class AuditService:
    """The record, for those who may."""

    def __init__(self, search: Search, *, copy: Copy | None = None, followers: int = FOLLOWERS) -> None:
        """``copy`` is None where nothing is recorded."""
        self._search = search
        self._copy = copy
        self._followers = Slots(followers, "{} follow the record already: [limits] audit_followers allows no more")

    @property
    def followers(self) -> int:
        """How many follow now."""
        return self._followers.taken

    async def search(
        self, actor: Actor, wanted: AuditFilter, *, cursor: str | None = None, limit: int = 100
    ) -> tuple[Sequence[AuditRecord], str | None]:
        """Newest first. An actor limited to domains sees what happened in them, and nothing without a domain."""
        actor.require(Operation.READ_AUDIT)
        check_limit(limit)
        return await self._search(_within(actor, wanted), limit, cursor)

    async def follow(
        self, actor: Actor, wanted: AuditFilter, still: Still, *, last: str | None = None
    ) -> Follower:
        """Follow what is recorded: from behind ``last``, a place that was told before; else from ``wanted.since``;
        else from now. Raises `Unavailable` when too many follow already."""
        actor.require(Operation.READ_AUDIT)
        if self._copy is None:
            raise Unavailable("Nothing is recorded here, so there is nothing to follow.")
        place = Place.parse(last) if last is not None else None
        leave = self._followers.take()
        try:
            if place is not None:
                start = await self._copy.resume(place)
            elif wanted.since is not None:
                start = Resumed(await self._copy.before(wanted.since))
            else:
                start = Resumed(await self._copy.newest())
        except BaseException:
            leave()
            raise
        return Follower(self._copy, _within(actor, wanted), start, still, leave)


def _within(actor: Actor, wanted: AuditFilter) -> AuditFilter:
    """The same within the actor's domains."""
    return wanted if actor.everywhere else replace(wanted, domains=actor.domains)
