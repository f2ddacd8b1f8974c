"""The record for those who may see it: searching, following, exporting, verifying.

The copy in SQL belongs to `zapd.audit.sinks`, the journal's files to `zapd.audit`; here is only who may see what
of them, and how many at a time.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Final, Protocol, TypeVar

from zapd.admin.roles import Actor, Operation
from zapd.admin.services.common import check_limit
from zapd.audit.errand import Form
from zapd.audit.selection import Sought
from zapd.audit.sinks.following import Place, Resumed, Step
from zapd.errors import Conflict, Forbidden, InvalidInput, Unavailable, ZapdError
from zapd.store.types import now

Source = TypeVar("Source")


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
EXPORTS: Final = 2
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


class Journals(Protocol):
    """The journals on this machine's disk. Each raises `zapd.errors.Unavailable`."""

    async def octets(self, sought: Sought) -> int:
        """How much an export has to read, at most."""
        ...

    def export(self, sought: Sought, form: Form) -> AsyncGenerator[bytes, None]:
        """The octets, as they are taken; what breaks off raises."""
        ...

    async def verify(self) -> Mapping[str, Any]:
        """A report as `zapd audit verify --json` has it."""
        ...


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


class Export:
    """An export under way. `close` gives its place to the next; it may be called at any time, and twice."""

    def __init__(
        self, source: AsyncGenerator[bytes, None], octets: int, still: Still, leave: Callable[[], None]
    ) -> None:
        self._source = source
        self._still = still
        self.octets = octets
        """How much there is to read, at most."""
        self.close = leave

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The octets, as long as the token is good: then it breaks off."""
        checked = time.monotonic()
        async with aclosing(self._source) as source:
            async for piece in source:
                if time.monotonic() - checked >= CHECK:
                    (await self._still()).require(Operation.READ_AUDIT)
                    checked = time.monotonic()
                yield piece


class AuditService:
    """The record, for those who may."""

    def __init__(
        self,
        search: Search,
        *,
        copy: Copy | None = None,
        journals: Journals | None = None,
        followers: int = FOLLOWERS,
        exports: int = EXPORTS,
    ) -> None:
        """``copy`` and ``journals`` are None where nothing is recorded."""
        self._journals = journals
        self._verifying = False
        words = "{} export the record already, and [limits] audit_exports allows no more."
        self._exports = Slots(exports, words)
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
        copy = _there(self._copy)
        place = Place.parse(last) if last is not None else None
        leave = self._followers.take()
        try:
            if place is not None:
                start = await copy.resume(place)
            elif wanted.since is not None:
                start = Resumed(await copy.before(wanted.since))
            else:
                start = Resumed(await copy.newest())
        except BaseException:
            leave()
            raise
        return Follower(copy, _within(actor, wanted), start, still, leave)

    async def export(
        self, actor: Actor, wanted: AuditFilter, still: Still, *, form: Form = "jsonl", instance: str = ""
    ) -> Export:
        """The journal's own records, an instance after the other, up to now at the latest.

        JSONL without a filter but time and instance is a whole range, which verifies offline; an actor limited to
        domains gets a selection. Raises `Unavailable` when too many export already.
        """
        actor.require(Operation.READ_AUDIT)
        journals = _there(self._journals)
        wanted = _within(actor, wanted)
        sought = Sought(
            user=wanted.user,
            key=wanted.key,
            address=wanted.address,
            domain=wanted.domain,
            status=wanted.status,
            event=wanted.event,
            domains=wanted.domains,
            instance=instance,
            since=_text(wanted.since) if wanted.since is not None else "",
            until=_text(wanted.until or now()),
        )
        leave = self._exports.take()
        try:
            octets = await journals.octets(sought)
        except BaseException:
            leave()
            raise
        return Export(journals.export(sought, form), octets, still, leave)

    async def verify(self, actor: Actor) -> Mapping[str, Any]:
        """Check the journals on this machine's disk; one at a time. The chain holds the records of all domains, so
        nobody who is limited to some may ask. Raises `Conflict` while another verification is under way."""
        actor.require(Operation.VERIFY_AUDIT)
        if not actor.everywhere:
            raise Forbidden("The journal holds the records of all domains, and your token does not cover them.")
        journals = _there(self._journals)
        if self._verifying:
            raise Conflict("A verification is under way; one is done at a time.")
        self._verifying = True
        try:
            return await journals.verify()
        finally:
            self._verifying = False


def _there(source: Source | None) -> Source:
    if source is None:
        raise Unavailable("Nothing is recorded here.")
    return source


def _text(moment: datetime) -> str:
    """A time as records write it."""
    try:
        return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
    except OverflowError:
        raise InvalidInput("That time lies outside the years 1 to 9999 in UTC.") from None


def _within(actor: Actor, wanted: AuditFilter) -> AuditFilter:
    """The same within the actor's domains."""
    return wanted if actor.everywhere else replace(wanted, domains=actor.domains)
