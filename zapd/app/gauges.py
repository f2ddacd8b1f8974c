"""What the rooms count, as names and numbers for Prometheus. Read at each scrape, never on the hot road."""

from __future__ import annotations

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

from zapd.store.bans import BanKind

if TYPE_CHECKING:
    from zapd.app.deciding import Deciding
    from zapd.app.ground import Ground
    from zapd.app.office import Office
    from zapd.app.workers.seat import Seat

Gauge = tuple[str, str, Mapping[str, float]]
"""(name, help, {label value or "": number}). Counters end in ``_total``; a label is called ``name``."""


def gauge_of_readiness(ready: bool) -> Gauge:
    """What ``/readyz`` says."""
    return "zapd_ready", "1 while this zapd is ready.", {"": float(ready)}


def gauges_of_deciding(deciding: Deciding) -> Iterator[Gauge]:
    """What those count who decide, but for the decisions themselves and their ground."""
    router = deciding.doors.router
    counters = router.counters
    yield (
        "zapd_network_events_total",
        "Connections and messages counted since the start, by kind.",
        {field.name: getattr(counters, field.name) for field in fields(counters)},
    )
    yield "zapd_peers", "Admitted connections now.", {"": len(router.peers)}
    yield "zapd_connections", "Open connections of every kind now.", {"": router.connections}
    yield "zapd_slow_questions", "Questions that wait for a backend now.", {"": deciding.endpoint.in_flight}
    yield (
        "zapd_journal_unrecorded_total",
        "Answers that became 300 for want of a record.",
        {"": deciding.recorder.unrecorded},
    )
    yield (
        "zapd_summarised_total",
        "300s that were counted into auth.summary instead of recorded one by one.",
        {"": deciding.recorder.summarised},
    )
    yield (
        "zapd_refused_too_often_total",
        "Refusals that became 300, since their source or the agent was refused too often.",
        {"": deciding.recorder.repeated},
    )
    handles = [handle.health() for handle in deciding.backend_handles()]
    yield (
        "zapd_backend_up",
        "1 while the backend runs.",
        {health.name: float(health.state == "running") for health in handles},
    )
    yield "zapd_backend_questions_total", "Questions asked.", {health.name: health.asked for health in handles}
    yield (
        "zapd_backend_unavailable_total",
        "Questions that it could not answer.",
        {health.name: health.unavailable for health in handles},
    )
    yield (
        "zapd_backend_errors_total",
        "Its own bugs; any is worth an alert.",
        {health.name: health.errors for health in handles},
    )
    yield (
        "zapd_backend_late_total",
        "Questions not answered before their deadline.",
        {health.name: health.late for health in handles},
    )
    yield (
        "zapd_backend_in_flight",
        "Questions it is working on now.",
        {health.name: health.open for health in handles},
    )
    yield (
        "zapd_backend_circuit_open",
        "1 while nobody is sent there, since it could not answer.",
        {health.name: float(health.circuit != "closed") for health in handles},
    )
    yield (
        "zapd_backend_circuit_opened_total",
        "How often that began.",
        {health.name: health.circuit_opened for health in handles},
    )
    yield (
        "zapd_backend_stale_answers_total",
        "Admissions by an earlier yes while the backend was away (stale_if_error).",
        {health.name: health.stale for health in handles},
    )


def gauges_of_ground(ground: Ground) -> Iterator[Gauge]:
    """How registry, journal and hash pool of one process fare."""
    yield "zapd_hashes", "Password hashes at work or waiting now.", {"": ground.hash_pool.waiting}
    yield (
        "zapd_hashes_refused_total",
        "Password hashes not begun for want of room.",
        {"": ground.hash_pool.refused},
    )
    held = Counter(ban.kind.value for ban in ground.registry.bans.holding)
    yield "zapd_bans", "Bans by hand that hold now.", {kind.value: held[kind.value] for kind in BanKind}
    throttle = ground.throttle
    yield (
        "zapd_penalised",
        "Who is remembered for wrong tries now: addresses, names at an address, accounts, keys.",
        {kind: float(number) for kind, number in throttle.counts().items()},
    )
    yield (
        "zapd_penalties_total",
        "300s given without asking, by what bars the question.",
        {kind: float(number) for kind, number in throttle.answered.items()},
    )
    yield "zapd_wrong_tries_total", "Wrong guesses that were new.", {"": throttle.wrong}
    yield (
        "zapd_good_standing",
        "Names and keys that were let in from an address and are asked about whatever happens around them.",
        {"": throttle.in_good_standing},
    )
    yield (
        "zapd_pending_evictions_total",
        "Unknown keys that made room in the list of those that wait for approval, by what was full.",
        {bucket: float(number) for bucket, number in ground.waiting.evicted.items()},
    )
    yield "zapd_journal_writable", "1 while decisions can be recorded.", {"": float(ground.journal.writable)}
    yield "zapd_journal_backlog", "Records that are not on disk yet.", {"": ground.journal.backlog}
    yield "zapd_journal_sequence", "The last record appended.", {"": ground.journal.sequence}
    yield "zapd_registry_current", "1 while the registry may decide.", {"": float(ground.registry.is_current())}
    yield (
        "zapd_registry_staleness_seconds",
        "Since the registry was last read to its end.",
        {"": ground.registry.feed.staleness},
    )


def gauges_of_office(office: Office) -> Iterator[Gauge]:
    """How the copy of the journal in SQL fares, and who comes for a key."""
    sink = office.sink
    yield "zapd_audit_lag_records", "Records that SQL does not hold yet.", {"": sink.lag}
    yield "zapd_audit_copy_healthy", "1 while the copy in SQL is filled.", {"": float(sink.healthy)}
    yield (
        "zapd_audit_copy_conflicts_total",
        "Records that SQL holds with another hash: somebody changed the past.",
        {"": sink.status.conflicts},
    )
    yield from office.enrolment.gauges()
    yield (
        "zapd_pending_keys",
        "Unknown keys that wait for approval, by the domain's pattern; at most 15 seconds old.",
        {rule: float(number) for rule, number in office.noting.counts.items()},
    )


def gauges_of_workers(seats: Sequence[Seat]) -> Iterator[Gauge]:
    """What is told of each worker by its number."""
    by_number = {str(seat.number): seat for seat in seats}
    yield (
        "zapd_worker_up",
        "1 while the worker answers.",
        {name: float(seat.up) for name, seat in by_number.items()},
    )
    yield (
        "zapd_worker_peers",
        "Admitted connections of the worker now.",
        {name: seat.load.peers for name, seat in by_number.items()},
    )
    yield (
        "zapd_worker_replaced_total",
        "Times that the worker ended by itself and another took its place.",
        {name: seat.replaced for name, seat in by_number.items()},
    )


_JOINED: Mapping[str, Callable[[float, float], float] | None] = {
    "zapd_journal_writable": min,
    "zapd_registry_current": min,
    "zapd_backend_up": min,
    "zapd_backend_circuit_open": max,
    "zapd_registry_staleness_seconds": max,
    "zapd_journal_sequence": None,
    "zapd_bans": max,
    "zapd_penalised": max,
    "zapd_good_standing": max,
}
"""What is no sum over processes: the worst of them, or nothing that can be said of all."""


class Joined:
    """Numbers of several processes as one."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[str, dict[str, float]]] = {}

    def add(self, gauges: Iterable[Gauge], *, counters_only: bool = False) -> None:
        """Take those of one more process. ``counters_only``: it is no more, but what it counted has happened."""
        for name, text, values in gauges:
            how = operator.add if name.endswith("_total") else _JOINED.get(name, operator.add)
            if how is None or (counters_only and not name.endswith("_total")):
                continue
            here = self._found.setdefault(name, (text, {}))[1]
            for label, value in values.items():
                here[label] = how(here[label], value) if label in here else value

    def gauges(self) -> Iterator[Gauge]:
        """All of them together."""
        for name, (text, values) in self._found.items():
            yield name, text, values
