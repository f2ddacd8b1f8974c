"""A long day of a fleet in a short time; `make soak` takes ten minutes for it and prints each tenth.

A fleet asks without rest and knows its answers; peers come and go; strangers attack in every way there is;
operators add and revoke, change passwords, lose files and reload. No answer may be wrong, and nothing may grow.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from support.hostile_scene import Scene
from support.hostile_wire import wait_for
from support.soak import Day, Fleet, write_passwd

SECONDS = float(os.environ.get("SOAK_SECONDS", "4"))
MORE = """handshake_deadline = "2.5s"
[backend.people]
type = "passwd"
path = "users.passwd"
[domain.people]
mechanisms = ["PLAIN"]
backends = ["people"]
"""
GROWTH = 8 << 20
"""Octets that may be added after the first third; none of what was sent meanwhile, which is far more."""
WAL = 64 << 20
"""Octets of SQLite's log at most; from 33 MB on its pages are moved into the database."""


@pytest.fixture
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene.prepare(tmp_path_factory.mktemp("hostile-soak"), MORE)
    try:
        yield scene
    finally:
        scene.zapd.stop()


def held(scene: Scene) -> Counter[str]:
    """What is open, whatever number it has in its name; but for the database, whose connections are kept."""
    found: Counter[str] = Counter()
    for name, count in scene.open_files().items():
        if ".db" not in name:
            found[re.sub(r"\d+", "#", name)] += count
    return found


@pytest.mark.timeout(2 * SECONDS + 120)
def test_a_long_day_leaves_nothing_behind(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    """No wrong answer, no growth, no leak, no bug in the log."""
    write_passwd(scene)
    day = Day(scene)
    for _ in range(16):
        day.go_on()
    assert wait_for(scene.is_settled)
    files, threads = held(scene), scene.threads()
    resident: list[int] = []
    lines = [f"{'s':>5} {'asked':>9} {'peers':>7} {'away':>6} {'p99 ms':>7} {'MB':>6} {'fds':>5} {'wal MB':>7}"]
    with Fleet(scene, keys=20) as fleet:
        assert wait_for(lambda: bool(fleet.reports))
        begun = time.monotonic()
        for tenth in range(1, 11):
            first = len(fleet.reports)
            while time.monotonic() < begun + SECONDS * tenth / 10:
                day.go_on()
                assert fleet.alive
            found = fleet.since(first)
            assert not found.wrong, found.wrong[:10]
            resident.append(scene.resident())
            wal = max((each.stat().st_size for each in scene.zapd.folder.glob("data/*-wal")), default=0)
            assert wal < WAL
            lines.append(
                f"{time.monotonic() - begun:5.0f} {found.asked:9} {found.connections:7} {found.turned_away:6}"
                f" {found.p99:7.1f} {resident[-1] / 1e6:6.1f} {scene.descriptors():5} {wal / 1e6:7.1f}"
            )
    everything = fleet.since(0)
    with capsys.disabled():
        print("", *lines, f"answers: {dict(everything.statuses)}", f"besides: {dict(day.done)}", sep="\n")
    assert everything.statuses["key 200"] > 0
    assert everything.statuses["stranger 400"] > 0
    assert everything.statuses["password 200"] > 0
    assert resident[-1] - resident[3] < GROWTH, resident
    assert wait_for(scene.is_settled)
    assert wait_for(lambda: not held(scene) - files), held(scene) - files
    assert scene.threads() <= threads + 4
    scene.is_well()
