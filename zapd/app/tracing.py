"""OpenTelemetry traces of requests to the admin API and of questions that took a task of their own.

Spans wait in a queue of bounded length and leave in a thread, as OTLP over HTTP; while the collector is away they
are thrown away, and nobody waits. What memory answers makes no span: there a question costs a microsecond or two,
and a span fifty. No user's name, key or address stands in a span; the ids of question and request lead to the
record, where they do.

The libraries (``zapd[otel]``) are loaded only where the configuration names a collector.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from zapd.config import Config
from zapd.errors import ConfigurationError

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from zapd.auth.decision import Decision
    from zapd.zap import ZapRequest

QUEUE: Final = 2048
"""Spans that wait to leave; one more is thrown away."""
BATCH: Final = 512
DELAY: Final = 1.0
"""Seconds that they wait for company."""
PATIENCE: Final = 5.0
"""Seconds for a collector to take some of them, and for the last of them at the end."""


class Tracing:
    """Where spans go. Each method costs some tens of microseconds, and never waits or raises."""

    def __init__(self, provider: TracerProvider) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._provider = provider
        self._tracer = provider.get_tracer("zapd")
        self._server = SpanKind.SERVER
        self._told = TraceContextTextMapPropagator()

    def question(self, request: ZapRequest, decision: Decision, status: int, seconds: float) -> None:
        """A question that backends were asked about, and that took so long up to now."""
        end = time.time_ns()
        agent = request.asker.name if request.asker is not None else ""
        span = self._tracer.start_span(
            f"zap {request.mechanism}",
            kind=self._server,
            start_time=end - int(seconds * 1e9),
            attributes={
                "zapd.domain": request.domain,
                "zapd.mechanism": request.mechanism,
                "zapd.agent": agent,
                "zapd.status": status,
                "zapd.reason": decision.reason,
                "zapd.question": request.question_id.hex(),
            },
        )
        for backend, outcome, milliseconds in decision.trail:
            span.add_event(
                "asked",
                {"zapd.backend": backend, "zapd.outcome": outcome, "zapd.milliseconds": milliseconds},
                timestamp=end,
            )
        span.end(end)

    def request(self, verb: str, route: str, status: int, seconds: float, name: str, parent: str) -> None:
        """A request to the admin API; ``name`` is its id, ``parent`` its caller's ``traceparent`` (W3C)."""
        from opentelemetry.trace import Status, StatusCode

        end = time.time_ns()
        span = self._tracer.start_span(
            f"{verb} {route}",
            context=self._told.extract({"traceparent": parent}) if parent else None,
            kind=self._server,
            start_time=end - int(seconds * 1e9),
            attributes={
                "http.request.method": verb,
                "http.route": route,
                "http.response.status_code": status,
                "zapd.request": name,
            },
        )
        if status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end)

    async def aclose(self) -> None:
        """Send what waits, as far as that goes."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._provider.force_flush(int(PATIENCE * 1000))
        self._provider.shutdown()


def tracing_of(config: Config, attributes: Mapping[str, str]) -> Tracing | None:
    """None where nothing is traced. Raises `ConfigurationError` where ``zapd[otel]`` is not installed."""
    section = config.telemetry
    if not section.endpoint:
        return None
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
    except ModuleNotFoundError:
        raise ConfigurationError("[telemetry] needs OpenTelemetry: pip install 'zapd[otel]'.") from None
    exporter = OTLPSpanExporter(
        endpoint=section.endpoint.rstrip("/") + "/v1/traces",
        certificate_file=str(section.tls_ca) if section.tls_ca else None,
        timeout=PATIENCE,
    )
    provider = TracerProvider(
        resource=Resource.create({"service.name": section.service, **attributes}),
        sampler=ParentBased(TraceIdRatioBased(section.sample)),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(
        BatchSpanProcessor(
            exporter,
            max_queue_size=QUEUE,
            max_export_batch_size=BATCH,
            schedule_delay_millis=DELAY * 1000,
            export_timeout_millis=PATIENCE * 1000,
        )
    )
    return Tracing(provider)
