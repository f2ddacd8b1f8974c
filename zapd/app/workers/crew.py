"""All workers: who takes the next connection, what all are told, and what all of them say."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

import structlog

from zapd import __version__
from zapd.admin.services.explain import Explanation, Supposed
from zapd.admin.services.signing_in import Judged, Login
from zapd.admin.services.topology import BackendInfo, as_one
from zapd.app.workers import messages
from zapd.app.workers.channel import Closed
from zapd.app.workers.joining import Counts
from zapd.app.workers.messages import Done
from zapd.app.workers.penalties import MOST_DEBTS, MOST_GOOD, Telling
from zapd.app.workers.seat import Seat
from zapd.auth.throttle import Throttle
from zapd.config import Config
from zapd.errors import ConfigurationError, Unavailable
from zapd.store.sightings import Sighting

log = structlog.get_logger(__name__)

IN_FORCE = 4.0
"""Seconds after which a worker that has not said that a change is in force, or that it is not, is killed."""
RELOAD = 60.0
"""Seconds that a worker may take for a new configuration; starting a backend may take ten."""
EXPLAIN = 30.0
JUDGE = 30.0
"""Seconds; a worker's own deadlines end far sooner."""
DRAINED = 5.0
"""Seconds beyond ``drain`` to answer that it is done."""
ENDED = 12.0
"""Seconds to go down in order."""
LEVEL = 2.0
"""Seconds between two looks whether connections are spread evenly."""
MOST_RELEASED = 16
"""Connections let go at a time."""


class Crew:
    """So many workers, each with the same configuration."""

    def __init__(self, config: Config, server_key: bytes, throttle: Throttle, position: Callable[[], int]) -> None:
        """``throttle`` is the parent's; ``position`` gives the last change that is in force there."""
        self._started = config.text
        self._text = config.text
        self._path = str(config.path)
        self._server_key = server_key
        self._throttle = throttle
        Telling(throttle, self._tell_all)
        self._position = position
        self.seats = [Seat(number, self) for number in range(1, config.server.workers + 1)]
        self._gone = Counts()
        """What workers that ended had counted."""
        self.on_change: Callable[[], None] = lambda: None
        """Called when a worker has come or gone."""
        self.on_seen: Callable[[Sequence[Sighting]], None] = lambda _: None
        """Hears of the unknown keys that workers saw and somebody may approve."""
        self._levelling: asyncio.Task[None] | None = None
        self._draining = False

    # -- up and down -----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Returns when each worker is up or has failed once; those that failed are tried again for ever.

        Raises `ConfigurationError` when one says that the configuration is to blame, and `Unavailable` when none
        came up.
        """
        for seat in self.seats:
            seat.start()
        firsts = await asyncio.gather(*(seat.first for seat in self.seats), return_exceptions=True)
        troubles = [each for each in firsts if isinstance(each, Exception)]
        for trouble in troubles:
            if isinstance(trouble, ConfigurationError):
                raise trouble
        if len(troubles) == len(self.seats):
            raise Unavailable(f"No worker could be started: {troubles[0]}")
        self._levelling = asyncio.create_task(self._level(), name="zapd-level")

    async def drain(self, seconds: float) -> None:
        """300 to newcomers everywhere; returns when what is open is answered, or after so long."""
        self._draining = True
        await self._ask_all(messages.Drain(seconds), within=seconds + DRAINED)

    async def stop(self) -> None:
        """End all."""
        self._draining = True
        if self._levelling is not None:
            self._levelling.cancel()
        await asyncio.gather(*(seat.stop(ENDED) for seat in self.seats))

    # -- connections -----------------------------------------------------------------------------------------

    @property
    def any_up(self) -> bool:
        """Whether anybody can take a connection."""
        return any(seat.up for seat in self.seats)

    def hand(self, endpoint: int, connection: socket.socket) -> bool:
        """Hand a connection to whoever has the fewest; False when nobody can take it."""
        return any(seat.hand(endpoint, connection) for seat in sorted(self.seats, key=lambda seat: seat.weight))

    async def _level(self) -> None:
        """Those that stay come back to those who are there when a worker dies, and would stay there."""
        while True:
            await asyncio.sleep(LEVEL)
            if self._draining or not all(seat.up for seat in self.seats):
                continue
            ordered = sorted(self.seats, key=lambda seat: seat.load.peers)
            few, many = ordered[0].load.peers, ordered[-1].load.peers
            if many - few >= max(2, (many + few) // 8):
                count = min((many - few) // 2, MOST_RELEASED)
                log.info("connections are spread anew", worker=ordered[-1].number, of=many, released=count)
                ordered[-1].tell(messages.Release(count))

    # -- what all are told -----------------------------------------------------------------------------------

    async def catch_up(self, sequence: int) -> None:
        """Bring the changes up to this one into force in every worker; those that are coming up read it anyway.
        Raises `Unavailable` naming who does not have it; that worker answers 300 until it has."""
        failures = await self._ask_all(messages.CatchUp(sequence), within=IN_FORCE)
        if failures:
            raise Unavailable(_told(failures))

    async def reload(self, text: str, between: Callable[[], None]) -> None:
        """Bring a configuration into force in every worker, or in none; ``between`` is called when all can take
        it, and may still refuse. Raises `ConfigurationError` naming who cannot take it."""
        try:
            failures = await self._ask_all(messages.Prepare(text), within=RELOAD)
            if failures:
                raise ConfigurationError(_told(failures))
            between()
        except ConfigurationError:
            await self._ask_all(messages.Forget(), within=RELOAD)
            raise
        self._text = text
        for seat, trouble in await self._ask_all(messages.Adopt(), within=RELOAD):
            log.error("a worker did not take the new configuration", number=seat.number, reason=trouble)
            seat.kill()

    async def explain(self, supposed: Supposed) -> Explanation:
        """Ask one of them. Raises `Unavailable`."""
        for seat in self.seats:
            if seat.up:
                answer = await seat.ask(messages.Explain(supposed), messages.Explained, within=EXPLAIN)
                return answer.explanation
        raise Unavailable("No worker is there.")

    async def judge(self, login: Login) -> Judged:
        """Ask whoever has the fewest connections. Raises `Unavailable`."""
        for seat in sorted(self.seats, key=lambda seat: seat.weight):
            if seat.up:
                return (await seat.ask(messages.Judge(login), messages.Told, within=JUDGE)).judged
        raise Unavailable("No worker is there.")

    async def _ask_all(self, question: messages.Message, *, within: float) -> list[tuple[Seat, str]]:
        """Ask everybody who is up, together; who failed, and with what. Whoever ended meanwhile did not: it says
        nothing to anybody any more, and its successor begins with what is in force by then."""

        async def ask(seat: Seat) -> tuple[Seat, str]:
            try:
                await seat.ask(question, Done, within=within)
            except (ConfigurationError, Unavailable) as error:
                return seat, str(error) if seat.up else ""
            return seat, ""

        answers = await asyncio.gather(*(ask(seat) for seat in self.seats if seat.up))
        return [(seat, trouble) for seat, trouble in answers if trouble]

    # -- what all of them say --------------------------------------------------------------------------------

    def readiness(self) -> list[tuple[str, str]]:
        """A part for each worker: ``ok``, or what is wrong there."""
        return [(f"worker {seat.number}", _state(seat)) for seat in self.seats]

    def backends(self) -> Sequence[BackendInfo]:
        """Each backend as it fares in all workers together."""
        found: dict[str, list[BackendInfo]] = {}
        for seat in self.seats:
            for info in seat.report.backends if seat.report is not None else ():
                found.setdefault(info.name, []).append(info)
        return [as_one(infos) for infos in found.values()]

    def counted(self) -> Counts:
        """What all of them count, and those before them have counted."""
        counts = Counts()
        counts.add(self._gone.as_report())
        for seat in self.seats:
            if seat.report is not None:
                counts.add(seat.report)
        return counts

    # -- what seats ask (`zapd.app.workers.seat.Owner`) ------------------------------------------------------

    def begin(self, number: int) -> messages.Begin:
        """What a new worker is told first."""
        return messages.Begin(
            version=__version__,
            number=number,
            workers=len(self.seats),
            path=self._path,
            started=self._started,
            text=self._text,
            server_key=self._server_key,
            penalty_key=self._throttle.secret,
        )

    async def welcome(self, seat: Seat) -> None:
        """Whatever came into force while it read registry and configuration comes into force there."""
        if self._draining:
            raise Unavailable("zapd is draining")
        text, position = "", -1
        while text is not self._text or position != self._position():
            text, position = self._text, self._position()
            await seat.ask(messages.Prepare(text), Done, within=RELOAD)
            await seat.ask(messages.Adopt(), Done, within=RELOAD)
            try:
                await seat.ask(messages.CatchUp(position), Done, within=IN_FORCE)
            except Closed:
                raise
            except Unavailable as trouble:  # it answers 300 until it has caught up
                log.warning("a worker comes up behind", number=seat.number, reason=str(trouble))
        seat.tell(messages.Penalties(self._throttle.remembered(MOST_DEBTS, MOST_GOOD)))

    def heard(self, seat: Seat, traces: messages.Traces) -> None:
        """A worker's wrong tries and successes: kept, and told to the others."""
        self._throttle.take(traces.traces)
        for other in self.seats:
            if other is not seat and other.up:
                other.tell(traces)

    def _tell_all(self, traces: messages.Traces) -> None:
        for seat in self.seats:
            if seat.up:
                seat.tell(traces)

    def changed(self, seat: Seat) -> None:
        """A worker has come or gone."""
        self.on_change()

    def seen(self, sightings: Sequence[Sighting]) -> None:
        """A worker saw unknown keys."""
        self.on_seen(sightings)

    def lost(self, report: messages.Report) -> None:
        """Counters never fall, though those who counted end."""
        self._gone.add(report, counters_only=True)


def _told(failures: Sequence[tuple[Seat, str]]) -> str:
    """Each line that workers said, once, and which of them said it."""
    said: dict[str, list[int]] = {}
    for seat, trouble in failures:
        for line in trouble.splitlines():
            said.setdefault(line, []).append(seat.number)
    return "\n".join(f"{line} (worker {', '.join(map(str, numbers))})" for line, numbers in said.items())


def _state(seat: Seat) -> str:
    if not seat.up or seat.report is None:
        return seat.why
    return next((f"{part}: {state}" for part, state in seat.report.parts if state != "ok"), "ok")
