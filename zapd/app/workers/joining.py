"""What several workers counted, as if one had: the parent's side of ``/metrics``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from zapd.app.gauges import Gauge, Joined
from zapd.app.workers.messages import Report
from zapd.server.metrics import DecisionMetrics


class Counts:
    """Decisions and gauges, added up."""

    def __init__(self) -> None:
        self.decisions = DecisionMetrics()
        self._gauges = Joined()

    def add(self, report: Report, *, counters_only: bool = False) -> None:
        """Take what a worker said. ``counters_only``: it is no more, but what it counted has happened."""
        sums = self.decisions
        for domain, mechanism, status, reason, number in report.decisions:
            key = (domain, mechanism, status, reason)
            sums.decisions[key] = sums.decisions.get(key, 0) + number
        sums.malformed += report.malformed
        sums.bugs += report.bugs
        sums.buckets = [mine + more for mine, more in zip(sums.buckets, report.buckets, strict=True)]
        sums.seconds += report.seconds
        self.add_gauges(report.gauges, counters_only=counters_only)

    def add_gauges(self, gauges: Iterable[Gauge], *, counters_only: bool = False) -> None:
        """Take gauges alone."""
        self._gauges.add(gauges, counters_only=counters_only)

    def gauges(self) -> Iterator[Gauge]:
        """All of them together."""
        return self._gauges.gauges()

    def as_report(self) -> Report:
        """What `add` takes."""
        sums = self.decisions
        return Report(
            parts=(),
            backends=(),
            decisions=tuple((*key, number) for key, number in sums.decisions.items()),
            malformed=sums.malformed,
            bugs=sums.bugs,
            buckets=tuple(sums.buckets),
            seconds=sums.seconds,
            gauges=tuple((name, text, dict(values)) for name, text, values in self.gauges()),
        )
