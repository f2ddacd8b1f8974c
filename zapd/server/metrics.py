"""Counters of the service, and the page that Prometheus reads.

The hot road touches plain integers alone; names and labels are made when somebody scrapes. Label values are
bounded: what strangers invent (domains, reasons never) ends in ``(other)``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from zapd.auth.decision import Decision
from zapd.zap import ZapRequest

BUCKETS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds of the latency histogram, seconds."""

MAX_DOMAINS = 100
"""Distinct domain labels; the rest are counted together."""

OTHER = "(other)"

_INVENTED = frozenset({"unknown_domain", "asker_domain", "asker_mechanism", "no_asker", "overload", "draining"})
"""With these reasons the domain is the asker's word alone, and must take no real one's label."""


Slot = tuple[str, str, int, str]
"""(domain, mechanism, status, reason): where an answer is counted."""


class DecisionMetrics:
    """What the endpoint counts."""

    def __init__(self) -> None:
        self.decisions: dict[Slot, int] = {}
        """How many of each."""
        self._slots: dict[Slot, Slot] = {}
        self.malformed = 0
        """Requests that were none."""
        self.bugs = 0
        """Failures of our own while deciding; any is worth an alert."""
        self.buckets = [0] * (len(BUCKETS) + 1)
        self.seconds: float = 0.0
        self._domains: set[str] = set()

    def count(self, request: ZapRequest, status: int, decision: Decision) -> None:
        """One answer. ``status`` differs from the decision's where it could not be recorded."""
        key = (request.domain, request.mechanism, status, decision.reason)
        try:
            self.decisions[key] += 1
        except KeyError:
            self.decisions[self.slot(*key)] += 1

    def add(self, slots: Sequence[Slot]) -> None:
        """Answers that left together, nearly always of one kind: each is one that `slot` gave."""
        while slots:
            first = slots[0]
            number = slots.count(first)
            self.decisions[first] += number
            slots = [each for each in slots if each != first] if number < len(slots) else ()

    def slot(self, domain: str, mechanism: str, status: int, reason: str) -> Slot:
        """Where such answers are counted; there from now on. The same object each time."""
        if domain not in self._domains:
            if len(self._domains) < MAX_DOMAINS and reason not in _INVENTED:
                self._domains.add(domain)
            else:
                domain = OTHER
        key = (domain, mechanism, status, reason)
        self.decisions.setdefault(key, 0)
        return self._slots.setdefault(key, key)

    def observe(self, seconds: float, answers: int) -> None:
        """How long ``answers`` that left together took, from arrival to hand-over to the transport."""
        self.buckets[bisect_left(BUCKETS, seconds)] += answers
        self.seconds += seconds * answers


Gauges = Callable[[], Iterable[tuple[str, str, Mapping[str, float]]]]
"""Gives (name, help, {label value or "": number}) of what other rooms count, at each scrape."""


class ServiceCollector(Collector):
    """Turns plain counters into metric families when Prometheus asks."""

    def __init__(self, decisions: DecisionMetrics, gauges: Gauges) -> None:
        self._decisions = decisions
        self._gauges = gauges

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]:
        counted = CounterMetricFamily(
            "zapd_decisions", "Answers given.", labels=("domain", "mechanism", "status", "reason")
        )
        for (domain, mechanism, status, reason), number in list(self._decisions.decisions.items()):
            counted.add_metric((domain, mechanism, str(status), reason), number)
        yield counted
        yield CounterMetricFamily(
            "zapd_malformed_requests", "Messages that were no ZAP request.", value=self._decisions.malformed
        )
        yield CounterMetricFamily(
            "zapd_internal_errors", "Failures of zapd itself while deciding.", value=self._decisions.bugs
        )
        yield self._latency()
        for name, text, values in self._gauges():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(name, text, labels=("name",) if "" not in values else ())
            for label, value in values.items():
                family.add_metric((label,) if label else (), value)
            yield family

    def _latency(self) -> HistogramMetricFamily:
        total = 0
        buckets = []
        for bound, number in zip((*map(str, BUCKETS), "+Inf"), self._decisions.buckets, strict=True):
            total += number
            buckets.append((bound, total))
        return HistogramMetricFamily(
            "zapd_answer_seconds",
            "From a question's arrival to its answer's hand-over to the transport.",
            buckets=buckets,
            sum_value=self._decisions.seconds,
        )


def page(collector: Collector) -> bytes:
    """The text that ``/metrics`` serves."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(collector)
    return generate_latest(registry)
