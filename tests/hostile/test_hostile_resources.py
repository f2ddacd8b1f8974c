"""After every kind of attack the process is what it was: memory, descriptors, open questions, log."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.hostile_attacks import ATTACKS
from support.hostile_scene import Scene
from support.hostile_wire import wait_for

pytestmark = pytest.mark.xdist_group("hostile-resources")
"""One worker, one zapd."""

ROUNDS = 3
GROWTH = 8 << 20
"""Octets that may stay behind after the rounds that follow the first: none of what was sent, which is far more."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene.prepare(tmp_path_factory.mktemp("hostile-resources"), 'handshake_deadline = "2.5s"\n')
    try:
        yield scene
        scene.is_well()
    finally:
        scene.zapd.stop()


def test_every_attack_again_and_again_leaves_nothing_behind(scene: Scene) -> None:
    """Rounds of all attacks: after each one everybody is gone and every question closed; over all of them neither
    memory nor descriptors nor threads grow."""
    for attack in ATTACKS:
        attack(scene)
    assert wait_for(scene.is_settled)
    resident, descriptors, threads = scene.resident(), scene.descriptors(), scene.threads()
    for _ in range(ROUNDS):
        for attack in ATTACKS:
            attack(scene)
    assert wait_for(scene.is_settled)
    assert wait_for(lambda: scene.descriptors() <= descriptors + 2), f"{descriptors} -> {scene.descriptors()}"
    assert scene.threads() <= threads + 4
    assert scene.resident() - resident < GROWTH, f"{resident} -> {scene.resident()}"
    # What strangers cause is told at a pace: a line or two a second, however many they are.
    assert len(scene.zapd.logged().splitlines()) < 200


@pytest.mark.parametrize(
    "place", [1, 2, 3, 4, 5, 6], ids=["id", "domain", "address", "identity", "mechanism", "key"]
)
def test_no_frame_however_long_is_remembered(scene: Scene, place: int) -> None:
    """Well-shaped CURVE questions with one frame of 600 kB, new each time: nothing that looks for a shorter road
    keeps what it was shown."""
    with scene.stranger() as asking:
        asking.ask(scene.valid(b"before"))
        before = scene.resident()
        for number in range(100):
            body = scene.valid(b"1")[1:]
            body[place] = b"%06d" % number * 100_000
            asking.send([b"", *body], scene.valid(b"%d" % number))
            while asking.read(1)[0][2] != b"%d" % number:
                pass
        assert scene.resident() - before < 20 << 20
