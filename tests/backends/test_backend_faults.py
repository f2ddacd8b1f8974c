"""The fault matrix: see `support.faults` for how a backend joins it. Run alone, this file prints its table.

How quickly the neighbour is answered is printed and not judged: a busy machine is no fault of a backend.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import faults
from support.app_scene import BOB, CONFIGURATION, EVER, Asking, wait_for, z85
from support.faults import DEADLINE, HANGS, Fault, Patient, Then
from support.pulse import Heard, Pulse
from support.serving import Zapd

globals().update(faults.fixtures())

SICK = """
[backend.sick]
{table}
deadline = "{deadline:.0f}ms"
cache_good = "0s"
cache_bad = "0s"
circuit_pause = "200ms"
[domain.sick]
mechanisms = ["{mechanism}"]
backends = ["sick"]
{configuration}
"""


RELAXED = CONFIGURATION.replace("[audit]", '[audit]\ndurability = "relaxed"')
"""A record that waits for its disk would hide what a backend does to other domains."""
A_WHILE = 0.6
"""Seconds; the registry is looked at four times in one."""
LEAST = float(os.environ.get("FAULT_SECONDS", "0.1"))
"""Seconds that a fault lasts at least: `make faults` takes the time that a 99th percentile wants."""
PACE = 0.002 if LEAST > 1 else 0.02
"""Seconds from one question of the neighbour's to the next."""
LABEL = f"{'backend':<20} {'fault':<26} {'good ones hear':<16}"


class Table:
    """What was found, fault by fault."""

    def __init__(self) -> None:
        self.lines = [
            "",
            f"{'':{len(LABEL)}} another domain: p50, p99 in ms",
            f"{LABEL} {'before':>15} {'meanwhile':>15} 200 again after",
            "-" * (len(LABEL) + 48),
        ]

    def add(self, fault: Sequence[str], before: Heard, meanwhile: Heard, healed: float) -> None:
        backend, label, good = fault
        self.lines.append(f"{backend:<20} {label:<26} {good:<16} {before} {meanwhile} {healed:6.2f} s")

    def __str__(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture(scope="module")
def table(request: pytest.FixtureRequest) -> Iterator[Table]:
    made = Table()
    yield made
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        print(made)


class Ward:
    """A running zapd with one patient, and a neighbour that must never notice."""

    def __init__(self, zapd: Zapd, asking: Asking, patient: Patient) -> None:
        self.zapd = zapd
        self.patient = patient
        self._asking = asking
        self._who = {"good": patient.good, "unknown": patient.unknown}
        if patient.wrong is not None:
            self._who["wrong"] = patient.wrong

    def round(self) -> tuple[dict[str, int], list[str]]:
        """All credentials at once, each from a place of its own, and the neighbour behind them: (status of each,
        the order of the answers)."""
        sent: dict[bytes, str] = {}
        for who, credentials in self._who.items():
            sent[self._asking.send(*credentials, domain="sick", **self._from(who))] = who
        sent[self._asking.send(BOB, domain="orders")] = "neighbour"
        statuses: dict[str, int] = {}
        for _ in sent:
            number, status, _user = self._asking.receive()
            statuses[sent[number]] = status
        assert statuses.keys() == set(sent.values())
        return statuses, list(statuses)

    def _from(self, who: str) -> dict[str, str]:
        place = f"192.0.2.{list(self._who).index(who)}"
        return {"mechanism": self.patient.mechanism, "address": self.patient.addresses.get(who, place)}

    def good_ones_until(self, end: float, allowed: set[int]) -> None:
        """Only they, since the others would come to owe penalties."""
        while time.monotonic() < end:
            status = self._asking.ask(*self.patient.good, domain="sick", **self._from("good"))
            assert status in allowed, f"a valid user hears {status}"

    def health(self) -> dict[str, object]:
        """What the API says of the patient."""
        items = self.zapd.ask("GET", "/v1/backends")["items"]
        return next(each for each in items if each["name"] == "sick")

    def is_well(self) -> bool:
        """Whether everybody hears what they must."""
        statuses, _ = self.round()
        assert statuses["good"] in {200, 300}, "a valid user hears no for good"
        assert statuses["unknown"] in {400, 300}
        assert statuses.get("wrong", 400) in {400, 300}
        return statuses == {who: 200 if who in {"good", "neighbour"} else 400 for who in statuses}


@pytest.mark.parametrize("name", faults.rows())
def test_no_fault_makes_a_wrong_answer(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, table: Table
) -> None:
    """Broken in each way: never a wrong admission, never a final no for an outage, other domains answered
    meanwhile, its trouble shown; mended: as before, without a restart."""
    with ExitStack() as stack:
        patient = stack.enter_context(faults.rows()[name](tmp_path, request.getfixturevalue))
        more = SICK.format(
            table=patient.table,
            deadline=DEADLINE * 1000,
            mechanism=patient.mechanism,
            configuration=patient.configuration,
        )
        text = patient.head + RELAXED + more
        zapd = Zapd(tmp_path / "zapd", configuration=text, database=patient.database)
        zapd.environment.update(patient.environment)
        stack.enter_context(zapd)
        zapd.add_key(z85(BOB), "bob", domains=["orders"])
        patient.prepare(zapd)
        ward = Ward(zapd, stack.enter_context(Asking(zapd)), patient)
        assert wait_for(ward.is_well)
        pulse = stack.enter_context(Pulse(tmp_path, zapd.folder / "data" / "zap.sock", "orders", BOB, PACE))
        before = _before(ward, pulse)
        for label, fault in patient.faults.items():
            begun = time.monotonic()
            fault.begin()
            try:
                good = _meanwhile(ward, label, fault)
                meanwhile = pulse.heard(begun, time.monotonic())
            finally:
                patient.heal()
            mended = time.monotonic()
            assert wait_for(ward.is_well), f"{label}: it does not heal without a restart"
            table.add((name, label, good), before, meanwhile, time.monotonic() - mended)
            if patient.has_neighbours:
                assert meanwhile.statuses == {200}, f"{label}: another domain heard {meanwhile.statuses}"
        page = zapd.call("GET", "/metrics").text
        assert 'zapd_backend_errors_total{name="sick"} 0.0' in page, "an outage was taken for a bug"
        assert "zapd_internal_errors_total 0.0" in page
        assert "Traceback" not in zapd.logged()


def _before(ward: Ward, pulse: Pulse) -> Heard:
    """The neighbour while all is well, and the API was asked once, whose first answer takes the longest."""
    ward.health()
    begun = time.monotonic()
    ward.good_ones_until(begun + max(A_WHILE, LEAST), {200})
    return pulse.heard(begun, time.monotonic())


def _meanwhile(ward: Ward, label: str, fault: Fault) -> str:
    """Ask while the fault lasts; what good credentials heard."""
    heard: list[int] = []
    shown = False
    begun = time.monotonic()
    while time.monotonic() < begun + EVER:
        statuses, order = ward.round()
        good = statuses["good"]
        assert good in {200, 300}, f"{label}: a valid user hears {good}"
        assert statuses["unknown"] in {400, 300}, label
        assert statuses.get("wrong", 400) in {400, 300}, label
        if ward.patient.has_neighbours:
            assert statuses["neighbour"] == 200, label
            if label == HANGS and not heard:
                assert order[0] == "neighbour", "one that hangs holds up its neighbours"
        if good != (heard or [0])[-1]:
            heard.append(good)
        if fault.then is Then.AWAY:
            assert set(statuses.values()) - {300} <= {200}, f"{label}: {statuses} although nobody could be asked"
            assert good == 300, f"{label}: {statuses}"
        if good == 300 and ward.patient.has_neighbours:
            health = ward.health()
            shown = health["circuit"] != "closed" and bool(health["last_error"]) and bool(health["last_error_at"])
        match fault.then:
            case Then.AWAY if shown:
                break
            case Then.SOON if good == 300 and (shown or not ward.patient.has_neighbours):
                break
            case Then.ANSWERS if good == 200:
                break
            case Then.EITHER if time.monotonic() > begun + A_WHILE:
                break
        time.sleep(0.02)
    else:
        pytest.fail(f"{label}: heard {heard}, and must hear {fault.then.value}")
    ward.good_ones_until(begun + LEAST, {200, 300})
    return ", then ".join(map(str, heard))
