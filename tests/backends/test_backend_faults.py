"""The fault matrix: see `support.faults` for how a backend joins it. Run alone, this file prints its table."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support import faults
from support.app_scene import BOB, CONFIGURATION, EVER, Asking, wait_for, z85
from support.faults import DEADLINE, HANGS, Fault, Patient, Then
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


A_WHILE = 0.6
"""Seconds; the registry is looked at four times in one."""


class Table:
    """What was found, fault by fault."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, backend: str, fault: str, meanwhile: str, healed: float) -> None:
        self.lines.append(f"{backend:<20} {fault:<26} {meanwhile:<16} {healed:6.2f} s")

    def __str__(self) -> str:
        heading = f"{'backend':<20} {'fault':<26} {'good ones hear':<16} 200 again after"
        return "\n".join(["", heading, "-" * len(heading), *self.lines])


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
        mechanism = self.patient.mechanism
        sent: dict[bytes, str] = {}
        for number, (who, credentials) in enumerate(self._who.items()):
            address = self.patient.addresses.get(who, f"192.0.2.{number}")
            sent[self._asking.send(*credentials, domain="sick", mechanism=mechanism, address=address)] = who
        sent[self._asking.send(BOB, domain="orders")] = "neighbour"
        statuses: dict[str, int] = {}
        for _ in sent:
            number, status, _user = self._asking.receive()
            statuses[sent[number]] = status
        assert statuses.keys() == set(sent.values())
        return statuses, list(statuses)

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
        text = patient.head + CONFIGURATION + more
        zapd = Zapd(tmp_path / "zapd", configuration=text, database=patient.database)
        zapd.environment.update(patient.environment)
        stack.enter_context(zapd)
        zapd.add_key(z85(BOB), "bob", domains=["orders"])
        patient.prepare(zapd)
        ward = Ward(zapd, stack.enter_context(Asking(zapd)), patient)
        assert wait_for(ward.is_well)
        for label, fault in patient.faults.items():
            fault.begin()
            try:
                heard = _meanwhile(ward, label, fault)
            finally:
                patient.heal()
            mended = time.monotonic()
            assert wait_for(ward.is_well), f"{label}: it does not heal without a restart"
            table.add(name, label, heard, time.monotonic() - mended)
        page = zapd.call("GET", "/metrics").text
        assert 'zapd_backend_errors_total{name="sick"} 0.0' in page, "an outage was taken for a bug"
        assert "zapd_internal_errors_total 0.0" in page
        assert "Traceback" not in zapd.logged()


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
    else:
        pytest.fail(f"{label}: heard {heard}, and must hear {fault.then.value}")
    return ", then ".join(map(str, heard))
