"""How many strangers are served, and how many are sent away: the queue, simulated and real."""

from __future__ import annotations

import pytest

from zapd.net.pace import SHORT, TARGET, Pace

TICK = 0.01


class Line:
    """A queue of newcomers in simulated time, fed at a rate and served at another."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.queued = 0.0
        self.now = 0.0
        self.waits: list[float] = []

    def time(self) -> float:
        return self.now

    def waiting(self) -> int:
        return int(self.queued)

    def run(self, seconds: float, coming: float, served: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            self.queued += coming * TICK * (1 - self.pace.share)
            done = min(self.queued, served * TICK)
            self.queued -= done
            self.pace._served += int(done)
            self.pace._look(self.now)
            self.waits.append(self.queued / served)


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    pace = Pace(8, chance=lambda: 0.5)
    made = Line(pace)
    monkeypatch.setattr(pace, "_newcomers", made)
    monkeypatch.setattr(pace, "_loop", made)
    return made


@pytest.mark.parametrize("times", [1.5, 2.5, 10, 50])
def test_a_flood_is_met_quickly_and_the_line_stays_short(line: Line, times: float) -> None:
    """Whatever comes beyond what can be served is sent away: newcomers that stay do not wait long, and nearly all
    that can be served is."""
    line.run(2.0, coming=4000 * times, served=4000)
    settled = line.waits[100:]
    assert max(settled) < 10 * TARGET
    assert max(line.waits) < 0.6
    assert line.pace.share == pytest.approx(1 - 1 / times, abs=0.1)


def test_after_the_flood_nobody_is_sent_away(line: Line) -> None:
    """As soon as the line is empty, everybody is let in again."""
    line.run(2.0, coming=40_000, served=4000)
    assert line.pace.sends_away()
    line.run(1.0, coming=100, served=4000)
    assert line.pace.share == 0
    assert not line.pace.sends_away()


def test_a_share_that_nobody_looked_after_is_forgotten(line: Line) -> None:
    """No turn for a while means that nobody was waiting."""
    line.run(1.0, coming=40_000, served=4000)
    line.now += 1.0
    assert not line.pace.sends_away()
    assert line.pace.share == 0


def test_nobody_is_sent_away_while_the_line_is_short(line: Line) -> None:
    """Load below what can be served sends nobody away."""
    line.run(2.0, coming=3000, served=4000)
    assert max(line.waits) < TARGET
    assert line.pace.share == 0


def test_a_few_that_wait_long_are_no_flood(line: Line) -> None:
    """A machine that is busy with other things keeps its few newcomers waiting, and sends none away."""
    line.queued = SHORT
    line.run(1.0, coming=100, served=100)
    assert min(line.waits) > 10 * TARGET
    assert line.pace.share == 0
