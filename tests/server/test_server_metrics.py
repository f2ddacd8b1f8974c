"""What Prometheus reads: one bounded set of labels, whoever asks about what."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.app_scene import ALICE, CONFIGURATION, STRANGER, UNCOUNTED, Asking, z85
from support.serving import serving

from zapd.auth.decision import Decision
from zapd.server.metrics import BUCKETS, MAX_DOMAINS, OTHER, DecisionMetrics, ServiceCollector, page
from zapd.zap import REFUSED, ZapRequest

Samples = list[tuple[str, Mapping[str, str], float]]


def read(text: str) -> Samples:
    """Every sample of a page, as Prometheus' own client reads it."""
    return [
        (sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def asked(domain: str, mechanism: str = "CURVE") -> ZapRequest:
    return ZapRequest(b"1", domain, "127.0.0.1", b"", mechanism, (STRANGER,))


def value(samples: Samples, sample: str, /, **labels: str) -> float:
    return sum(number for found, has, number in samples if found == sample and labels.items() <= has.items())


def test_the_running_programs_page_tells_each_decision_and_stays_small(tmp_path: Path) -> None:
    """Decisions by domain, mechanism, status and reason; 150 strange domains make a bounded number of labels."""
    with serving(tmp_path, configuration=CONFIGURATION + UNCOUNTED) as zapd, Asking(zapd) as asking:
        zapd.add_key(z85(ALICE), "alice", domains=["orders"])
        for number in range(150):
            assert asking.ask(STRANGER, domain=f"strange-{number}") == 400
        assert asking.ask(ALICE) == 200
        assert asking.ask(STRANGER) == 400
        assert asking.ask(domain="lab", mechanism="NULL") == 200
        answer = zapd.call("GET", "/metrics", token="none")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        samples = read(answer.text)
    decisions = [(labels, number) for name, labels, number in samples if name == "zapd_decisions_total"]
    assert sum(number for _, number in decisions) == 153
    assert len({labels["domain"] for labels, _ in decisions}) <= MAX_DOMAINS + 1
    granted = {"mechanism": "CURVE", "status": "200", "reason": "granted"}
    assert value(samples, "zapd_decisions_total", domain="orders", **granted) == 1
    refused = {"mechanism": "CURVE", "status": "400", "reason": "unknown_key"}
    assert value(samples, "zapd_decisions_total", domain="orders", **refused) == 1
    assert value(samples, "zapd_decisions_total", mechanism="NULL", status="200") == 1
    assert value(samples, "zapd_decisions_total", domain=OTHER, reason="unknown_domain") == 150
    assert value(samples, "zapd_answer_seconds_count") == 153
    assert value(samples, "zapd_ready") == 1
    assert "alice" not in answer.text


def test_domains_that_strangers_invent_take_no_label_from_real_ones() -> None:
    """However many unknown domains came first, the next known one is shown by its name."""
    metrics = DecisionMetrics()
    for number in range(3 * MAX_DOMAINS):
        metrics.count(asked(f"strange-{number}"), 400, Decision(REFUSED, "unknown_domain"))
    metrics.count(asked("orders"), 400, Decision(REFUSED, "unknown_key"))
    samples = read(page(ServiceCollector(metrics, lambda: ())).decode())
    assert value(samples, "zapd_decisions_total", domain="orders") == 1
    assert value(samples, "zapd_decisions_total", domain=OTHER) == 3 * MAX_DOMAINS


def test_domains_beyond_the_bound_are_counted_together() -> None:
    """A pattern may match any number of names; their sum is exact, their labels are bounded."""
    metrics = DecisionMetrics()
    for _ in range(2):
        for number in range(MAX_DOMAINS + 50):
            metrics.count(asked(f"metrics.{number}"), 400, Decision(REFUSED, "unknown_key"))
    samples = read(page(ServiceCollector(metrics, lambda: ())).decode())
    assert (
        len({labels["domain"] for name, labels, _ in samples if name == "zapd_decisions_total"}) == MAX_DOMAINS + 1
    )
    assert value(samples, "zapd_decisions_total", domain=OTHER) == 100
    assert value(samples, "zapd_decisions_total") == 2 * (MAX_DOMAINS + 50)


@pytest.mark.parametrize("domain", ['a"b', "a\\b", "a\nb", "a{b}", "ü", ""])
def test_hostile_domain_names_survive_the_page(domain: str) -> None:
    """What stands in a label comes back as it was, and breaks no line."""
    metrics = DecisionMetrics()
    metrics.count(asked(domain), 400, Decision(REFUSED, "unknown_key"))
    samples = read(page(ServiceCollector(metrics, lambda: ())).decode())
    assert value(samples, "zapd_decisions_total", domain=domain) == 1


def test_the_histogram_counts_each_answer_once_and_adds_up() -> None:
    """Cumulative buckets, the last of them all; the sum in seconds."""
    metrics = DecisionMetrics()
    metrics.observe(BUCKETS[0], 3)
    metrics.observe(0.02, 2)
    metrics.observe(60.0, 1)
    samples = read(page(ServiceCollector(metrics, lambda: ())).decode())
    assert value(samples, "zapd_answer_seconds_bucket", le=str(BUCKETS[0])) == 3
    assert value(samples, "zapd_answer_seconds_bucket", le="0.025") == 5
    assert value(samples, "zapd_answer_seconds_bucket", le="+Inf") == 6
    assert value(samples, "zapd_answer_seconds_count") == 6
    assert value(samples, "zapd_answer_seconds_sum") == pytest.approx(60.0403)


def test_gauges_have_a_label_only_where_there_is_something_to_name() -> None:
    """One number stands alone, several by name."""
    gauges = [("zapd_ready", "Ready.", {"": 1.0}), ("zapd_backend_up", "Up.", {"keys": 1.0, "staff": 0.0})]
    samples = read(page(ServiceCollector(DecisionMetrics(), lambda: gauges)).decode())
    assert ("zapd_ready", {}, 1.0) in samples
    assert value(samples, "zapd_backend_up", name="keys") == 1
    assert ("zapd_backend_up", {"name": "staff"}, 0.0) in samples
