"""What the rooms count, as names and numbers for Prometheus. Read at each scrape, never on the hot road."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zapd.app.deciding import Deciding
    from zapd.app.office import Office

Gauge = tuple[str, str, Mapping[str, float]]
"""(name, help, {label value or "": number}). Counters end in ``_total``; a label is called ``name``."""


def gauge_of_readiness(ready: bool) -> Gauge:
    """What ``/readyz`` says."""
    return "zapd_ready", "1 while this zapd is ready.", {"": float(ready)}


def gauges_of_deciding(deciding: Deciding) -> Iterator[Gauge]:
    """What those count who decide, but for the decisions themselves."""
    router, ground = deciding.doors.router, deciding.ground
    counters = router.counters
    yield (
        "zapd_network_events_total",
        "Connections and messages counted since the start, by kind.",
        {field.name: getattr(counters, field.name) for field in fields(counters)},
    )
    yield "zapd_peers", "Admitted connections now.", {"": len(router.peers)}
    yield "zapd_connections", "Open connections of every kind now.", {"": router.connections}
    yield "zapd_slow_questions", "Questions that wait for a backend now.", {"": deciding.endpoint.in_flight}
    yield "zapd_hashes", "Password hashes at work or waiting now.", {"": ground.hash_pool.waiting}
    yield (
        "zapd_hashes_refused_total",
        "Password hashes not begun for want of room.",
        {"": ground.hash_pool.refused},
    )
    yield "zapd_journal_writable", "1 while decisions can be recorded.", {"": float(ground.journal.writable)}
    yield "zapd_journal_backlog", "Records that are not on disk yet.", {"": ground.journal.backlog}
    yield "zapd_journal_sequence", "The last record appended.", {"": ground.journal.sequence}
    yield (
        "zapd_journal_unrecorded_total",
        "Answers that became 300 for want of a record.",
        {"": deciding.recorder.unrecorded},
    )
    yield "zapd_registry_current", "1 while the registry may decide.", {"": float(ground.registry.is_current())}
    yield (
        "zapd_registry_staleness_seconds",
        "Since the registry was last read to its end.",
        {"": ground.registry.feed.staleness},
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


def gauges_of_office(office: Office) -> Iterator[Gauge]:
    """How the copy of the journal in SQL fares."""
    sink = office.sink
    yield "zapd_audit_lag_records", "Records that SQL does not hold yet.", {"": sink.lag}
    yield "zapd_audit_copy_healthy", "1 while the copy in SQL is filled.", {"": float(sink.healthy)}
    yield (
        "zapd_audit_copy_conflicts_total",
        "Records that SQL holds with another hash: somebody changed the past.",
        {"": sink.status.conflicts},
    )
