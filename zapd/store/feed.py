"""What changed in the registry, told to whoever keeps a copy in memory.

The change log is polled in a worker thread, so that a slow or absent database never holds the event loop.
Nothing here knows what the changes mean.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from logging import getLogger
from typing import Final, TypeVar

from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from zapd.errors import Unavailable
from zapd.store.engine import reading
from zapd.store.tables import change_log

POLL: Final = 0.25
"""Seconds between two looks: a change made by another process is in force here after that at the latest."""

PAUSE: Final = 0.01
"""Seconds that a look waits for others who want it too."""

BATCH: Final = 2000
"""Changes told at once; more come in the next batch."""

_Answer = TypeVar("_Answer")

_log = getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """One row of the change log."""

    sequence: int
    kind: str
    """``key``, ``user``, ``agent``, ``token``, ``ban``: the first word of the audit tag."""
    subject: str
    """Fingerprint (43 characters of URL-safe base64), user name, agent name, or a token's or ban's id."""


Subscriber = Callable[[Sequence[Change]], Awaitable[None] | None]


class ChangeFeed:
    """Reads the change log and tells subscribers, on the event loop's thread, in order, each change once.

    Changes made by this process and by others (another zapd on PostgreSQL, ``zapd token create --offline``)
    come the same road: a poll of the log, hurried by `catch_up` after a commit of our own, and by `as_of_now`
    where a final no depends on it.

    The first `catch_up` finds the log's end and tells nothing: a subscriber that awaits it and reads the
    registry afterwards misses no change.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        poll: float = POLL,
        batch: int = BATCH,
        shared: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._poll = poll
        self._batch = batch
        self.shared = shared
        """Whether others change this database too: what was not told yet may be committed (`as_of_now`)."""
        self._next_look: asyncio.Task[None] | None = None
        self._looks: set[asyncio.Task[None]] = set()
        self._clock = clock
        self._subscribers: list[Subscriber] = []
        self._position: int | None = None
        self._untold: tuple[Sequence[Change], list[Subscriber]] | None = None
        self._lock = asyncio.Lock()
        self._current_at = clock()
        self._failing = False

    def subscribe(self, callback: Subscriber) -> None:
        """Call ``callback`` with each batch from now on; what it returns is awaited, if it can be.

        A callback that raises gets the same batch again later, and holds the feed until it takes it: a copy
        that may be wrong must show as stale, not as current.
        """
        self._subscribers.append(callback)

    def unsubscribe(self, callback: Subscriber) -> None:
        """Call it no more. Unknown callbacks are ignored."""
        with suppress(ValueError):
            self._subscribers.remove(callback)
        if self._untold is not None:
            with suppress(ValueError):
                self._untold[1].remove(callback)

    @property
    def position(self) -> int:
        """The last sequence told to all."""
        return self._position or 0

    async def catch_up(self) -> int:
        """Read and tell what is new; the last sequence read. After a commit, awaiting this means in force.

        Raises `Unavailable` when the log cannot be read, or has gone back: then an older database was put in
        the place of ours, and what is in memory may say more than it.
        """
        async with self._lock:
            return await self._catch_up()

    async def as_of_now(self, patience: float) -> bool:
        """Return True once all that was committed before this call is told; False where that cannot be had within
        so many seconds. However many ask, one look at the database is under way and one is to come."""
        if self._next_look is None:
            self._next_look = asyncio.get_running_loop().create_task(self._look())
            self._looks.add(self._next_look)
            self._next_look.add_done_callback(self._looked)
        look = self._next_look
        # Not asyncio.timeout: nothing before the first suspension may need a task (`Backend.check`).
        await asyncio.wait((look,), timeout=patience)
        return look.done() and not look.cancelled() and look.exception() is None

    async def aclose(self) -> None:
        """End what looks are under way."""
        looks = list(self._looks)
        for look in looks:
            look.cancel()
        await asyncio.gather(*looks, return_exceptions=True)

    def _looked(self, look: asyncio.Task[None]) -> None:
        self._looks.discard(look)
        if not look.cancelled():
            look.exception()  # whoever waits hears it, and perhaps nobody does

    async def _look(self) -> None:
        await asyncio.sleep(PAUSE)  # for others who will ask
        async with self._lock:
            self._next_look = None  # who asks from here on may be too late for this one
            await self._catch_up()

    async def _catch_up(self) -> int:
        started = self._clock()
        if self._position is None:
            self._position = await self._ask(self._end)
        full = True
        while full:
            if self._untold is None:
                changes = await self._ask(self._read)
                full = len(changes) == self._batch
                if changes:
                    self._untold = (changes, list(self._subscribers))
            await self._tell()
        # What was committed before we began is told; what came meanwhile is for the next look.
        self._current_at = started
        return self._position

    async def run(self) -> None:
        """Poll until cancelled; a database that is away is retried for ever."""
        while True:
            try:
                await self.catch_up()
            except Exception as trouble:  # noqa: BLE001 - polling never ends; staleness shows that it fails
                if not self._failing:
                    _log.warning("the change log cannot be followed: %s", _summary(trouble))
                self._failing = True
            else:
                if self._failing:
                    _log.warning("the change log can be followed again")
                self._failing = False
            await asyncio.sleep(self._poll)

    @property
    def staleness(self) -> float:
        """Seconds since the log was last known to be read to its end."""
        return max(0.0, self._clock() - self._current_at)

    async def _tell(self) -> None:
        if self._untold is None:
            return
        changes, waiting = self._untold[0], tuple(self._untold[1])
        failed: list[Subscriber] = []
        trouble: Exception | None = None
        for subscriber in waiting:
            try:
                result = subscriber(changes)
                if result is not None:
                    await result
            except Exception as error:  # noqa: BLE001 - the others must hear of a revocation all the same
                failed.append(subscriber)
                trouble = error
        if trouble is not None:
            self._untold = (changes, [callback for callback in failed if callback in self._subscribers])
            raise trouble
        self._position = changes[-1].sequence
        self._untold = None

    async def _ask(self, question: Callable[[], _Answer]) -> _Answer:
        try:
            return await asyncio.to_thread(question)
        except SQLAlchemyError as trouble:
            raise Unavailable("The change log cannot be read: is the database there?") from trouble

    def _end(self) -> int:
        with reading(self._engine) as connection:
            return int(connection.execute(select(func.max(change_log.c.sequence))).scalar() or 0)

    def _read(self) -> Sequence[Change]:
        position = self._position or 0
        # The row at our own position comes along: if it is missing, the database is not the one we knew.
        query = (
            select(change_log.c.sequence, change_log.c.kind, change_log.c.subject)
            .where(change_log.c.sequence >= position)
            .order_by(change_log.c.sequence)
            .limit(self._batch + 1)
        )
        with reading(self._engine) as connection:
            rows = connection.execute(query).all()
        if position:
            if not rows or rows[0].sequence != position:
                raise Unavailable(
                    f"The change log no longer holds change {position}: an older database was put in place."
                    " Restart zapd to read it afresh."
                )
            rows = rows[1:]
        return [Change(row.sequence, row.kind, row.subject) for row in rows[: self._batch]]


def _summary(trouble: BaseException) -> str:
    """One line without parameters: `hide_parameters` keeps them out of the database's own errors."""
    return f"{type(trouble).__name__}: {str(trouble).splitlines()[0] if str(trouble) else ''}"
