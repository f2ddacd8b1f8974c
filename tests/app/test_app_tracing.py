"""OpenTelemetry traces: a real zapd and a collector that takes OTLP over HTTP."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support.app_scene import ALICE, CONFIGURATION, Asking, wait_for, z85
from support.http_service import Quiet
from support.serving import Zapd

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Collector:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.services: set[str] = set()
        self.octets = b""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(body)
                self.send_response(200 if self.path == "/v1/traces" else 404)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_words: object) -> None:
                pass

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def take(self, body: bytes) -> None:
        self.octets += body
        for each in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.services |= {item.value.string_value for item in each.resource.attributes}
            for scope in each.scope_spans:
                self.spans += scope.spans

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    made = Collector()
    yield made
    made.close()


def attributes(span: Span) -> dict[str, object]:
    kinds = ((item.key, item.value, item.value.WhichOneof("value")) for item in span.attributes)
    return {key: getattr(value, str(kind)) for key, value, kind in kinds}


def configured(url: str) -> str:
    return CONFIGURATION + f'[telemetry]\nendpoint = "{url}"\nservice = "zapd-test"\n'


def test_requests_and_slow_questions_are_traced_and_quick_ones_are_not(
    tmp_path: Path, collector: Collector
) -> None:
    """A request goes on with its caller's trace, a password's question has its backends' verdicts, a key that
    memory knows makes no span, and nothing says who it was."""
    with Zapd(tmp_path, configuration=configured(collector.url)) as zapd, Asking(zapd) as asking:
        zapd.add_key(z85(ALICE), "alice-the-key", domains=["orders"])
        zapd.ask("POST", "/v1/users", {"name": "ada-secret", "password": "love-lace", "domains": ["orders"]})
        assert asking.ask(ALICE) == 200
        assert asking.plain("ada-secret", "love-lace") == 200
        headers = {"Authorization": f"Bearer {zapd.token}", "traceparent": PARENT, "X-Request-Id": "mine"}
        zapd_says = zapd.call("GET", "/healthz")
        assert zapd_says.status_code == 200
        httpx.get(zapd.admin + "/v1/keys", headers=headers, timeout=10).raise_for_status()
        assert wait_for(lambda: collector.named("GET /v1/keys") and collector.named("zap PLAIN"))
        (keys,) = collector.named("GET /v1/keys")
        assert keys.trace_id.hex() == TRACE
        assert attributes(keys)["zapd.request"] == "mine"
        assert attributes(keys)["http.response.status_code"] == 200
        (question,) = collector.named("zap PLAIN")
        assert attributes(question).items() >= {"zapd.domain": "orders", "zapd.status": 200}.items()
        assert [event.name for event in question.events] == ["asked"]
        assert 0 < question.end_time_unix_nano - question.start_time_unix_nano < 60e9
    assert not collector.named("zap CURVE")
    assert not [span for span in collector.spans if "healthz" in span.name]
    assert "zapd-test" in collector.services
    for secret in (zapd.token, "love-lace", "ada-secret", "alice-the-key", "127.0.0.1"):
        assert secret.encode() not in collector.octets


def test_a_collector_that_is_away_holds_nobody_up(tmp_path: Path) -> None:
    """Questions and requests are answered as ever, and zapd ends in order and in time."""
    with Zapd(tmp_path, configuration=configured("http://127.0.0.1:9")) as zapd, Asking(zapd) as asking:
        zapd.ask("POST", "/v1/users", {"name": "ada", "password": "love-lace", "domains": ["orders"]})
        for _ in range(5):
            assert asking.plain("ada", "love-lace") == 200
        began = time.monotonic()
        assert zapd.stop() == 0
        assert time.monotonic() - began < 18
    assert "Traceback" not in zapd.logged()
