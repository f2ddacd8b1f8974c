"""What the rooms count, as names and numbers for Prometheus. Read at each scrape, never on the hot road."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING

from zapd.server.recorder import Recorder

if TYPE_CHECKING:
    from zapd.app.service import Service

Gauge = tuple[str, str, Mapping[str, float]]


def gauges(service: Service, recorder: Recorder) -> Iterator[Gauge]:
    """Everything that is not a decision: counters end in ``_total``. Where a label is, it is called ``name``."""
    router = service.doors.router
    counters = router.counters
    yield (
        "zapd_network_events_total",
        "Connections and messages counted since the start, by kind.",
        {field.name: getattr(counters, field.name) for field in fields(counters)},
    )
    yield "zapd_peers", "Admitted connections now.", {"": len(router.peers)}
    yield "zapd_connections", "Open connections of every kind now.", {"": router.connections}
    yield "zapd_slow_questions", "Questions that wait for a backend now.", {"": service.endpoint.in_flight}
    yield "zapd_hashes", "Password hashes at work or waiting now.", {"": service.hash_pool.waiting}
    yield (
        "zapd_hashes_refused_total",
        "Password hashes not begun for want of room.",
        {"": service.hash_pool.refused},
    )
    yield "zapd_journal_writable", "1 while decisions can be recorded.", {"": float(service.journal.writable)}
    yield "zapd_journal_backlog", "Records that are not on disk yet.", {"": service.journal.backlog}
    yield "zapd_journal_sequence", "The last record appended.", {"": service.journal.sequence}
    yield (
        "zapd_journal_unrecorded_total",
        "Answers that became 300 for want of a record.",
        {"": recorder.unrecorded},
    )
    yield "zapd_registry_current", "1 while the registry may decide.", {"": float(service.registry.is_current())}
    yield (
        "zapd_registry_staleness_seconds",
        "Since the registry was last read to its end.",
        {"": service.registry.feed.staleness},
    )
    yield "zapd_ready", "1 while this zapd is ready.", {"": float(service.readiness().ready)}
    handles = [handle.health() for handle in service.backend_handles()]
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
    yield "zapd_audit_lag_records", "Records that SQL does not hold yet.", {"": service.sink.lag}
    yield "zapd_audit_copy_healthy", "1 while the copy in SQL is filled.", {"": float(service.sink.healthy)}
    yield (
        "zapd_audit_copy_conflicts_total",
        "Records that SQL holds with another hash: somebody changed the past.",
        {"": service.sink.status.conflicts},
    )
