"""Strangers who never finish their handshake, while honest agents go on."""

from __future__ import annotations

import resource
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.hostile_halfway import STAGES, HalfOpen, hear_all, knock, opening
from support.hostile_scene import Scene, status_of
from support.hostile_wire import Ended, Stranger, wait_for

pytestmark = pytest.mark.xdist_group("hostile-strangers")
"""One worker, one zapd."""

DEADLINE = 2.5
"""The handshake's, in the configuration below."""
HALF_OPEN = 1000
SOURCES = 25
HONEST = 100
FLOOD = 2.5
"""Seconds of HELLOs."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene.prepare(tmp_path_factory.mktemp("hostile-strangers"), f'handshake_deadline = "{DEADLINE}s"\n')
    try:
        yield scene
    finally:
        scene.zapd.stop()


def source(number: int) -> str:
    return f"127.0.1.{1 + number % SOURCES}"


def honest(scene: Scene, mechanism: object, number: int) -> list[float]:
    """So many handshakes one after the other, a question in each; the seconds that each took."""
    took = []
    for each in range(number):
        started = time.monotonic()
        with Stranger(scene.curve, mechanism) as agent:  # type: ignore[arg-type]
            assert status_of(agent.ask(scene.valid(b"%d" % each))) == b"200"
        took.append(time.monotonic() - started)
    return took


def test_a_thousand_half_open_connections_keep_no_honest_agent_out(scene: Scene) -> None:
    """At every stage, some sending an octet now and then: each honest handshake succeeds, nobody is sent more than
    he sent and 64 octets, and all are gone soon after the deadline with their descriptors."""
    agent = scene.agent("beside a crowd")
    octets = opening(agent)
    honest(scene, agent, 5)
    assert wait_for(lambda: scene.metric("zapd_connections") == 0)
    time.sleep(0.1)
    descriptors, resident = scene.descriptors(), scene.resident()
    with Stranger(scene.curve, agent) as established:
        began = time.monotonic()
        crowd = [
            HalfOpen(scene.curve, STAGES[number % len(STAGES)], octets, source(number))
            for number in range(HALF_OPEN)
        ]
        try:
            slow = [each for each in crowd if each.rest][::3]
            done = 0
            while time.monotonic() - began < DEADLINE - 0.5 or done < HONEST:
                honest(scene, agent, 5)
                done += 5
                for each in slow:
                    each.trickle()
                assert status_of(established.ask(scene.valid(b"established"))) == b"200"
                hear_all(crowd)
            assert scene.resident() - resident < HALF_OPEN * 120_000
            deadline = time.monotonic() + DEADLINE + 10
            while not all(each.gone for each in crowd):
                assert time.monotonic() < deadline, "some outlive the deadline"
                for each in slow:
                    each.trickle()
                hear_all(crowd, 0.1)
            worst = max(crowd, key=lambda each: each.heard - each.said)
            assert worst.heard <= worst.said + 64, worst.stage
            assert all(each.said >= len(octets) for each in crowd if each.heard > 64), "a WELCOME without a HELLO"
        finally:
            for each in crowd:
                each.close()
    assert wait_for(lambda: scene.descriptors() <= descriptors), f"{descriptors} -> {scene.descriptors()}"
    assert scene.zapd.logged().count("a connection failed") < 3 * (DEADLINE + 20)
    scene.is_well()


def test_a_flood_of_valid_hellos_is_amplified_nowhere_and_starves_nobody(scene: Scene) -> None:
    """HELLOs as fast as they can be sent: agents that are in are answered meanwhile, a new one gets in."""
    agent = scene.agent("beside a flood")
    octets = opening(agent)
    over = threading.Event()
    counts: list[tuple[int, int]] = []

    def flood(number: int) -> None:
        while not over.is_set():
            try:
                counts.append(knock(scene.curve, octets, source(number)))
            except OSError:
                time.sleep(0.01)

    with Stranger(scene.curve, agent) as established:
        before = scene.descriptors()
        threads = [threading.Thread(target=flood, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            answered, slowest, began = 0, 0.0, time.monotonic()
            while time.monotonic() - began < FLOOD:
                asked = time.monotonic()
                assert status_of(established.ask(scene.valid(b"%d" % answered))) == b"200"
                slowest = max(slowest, time.monotonic() - asked)
                answered += 1
            assert max(honest(scene, agent, 5)) < 5
        finally:
            over.set()
            for thread in threads:
                thread.join()
        assert len(counts) > 100
        assert all(heard <= said + 64 for said, heard in counts)
        assert answered > 50
        assert slowest < 2
        assert wait_for(lambda: scene.descriptors() <= before + 2)
    scene.is_well()


@pytest.mark.parametrize("bounded", ["by the configuration", "by the system"])
def test_fewer_descriptors_than_strangers(tmp_path: Path, bounded: str) -> None:
    """200 silent strangers where 60 connections fit: honest ones get in all the same, and a listener without
    descriptors rests instead of spinning."""
    limits = "connections = 60\n" if bounded == "by the configuration" else ""
    scene = Scene.prepare(tmp_path, limits)
    crowd: list[HalfOpen] = []
    try:
        agent = scene.agent("honest")
        honest(scene, agent, 2)
        if bounded == "by the system":
            most = scene.descriptors() + 60
            resource.prlimit(scene.pid, resource.RLIMIT_NOFILE, (most, most))
        crowd = [HalfOpen(scene.curve, "silent", b"", source(number)) for number in range(200)]
        used = _processor(scene)
        succeeded, began = 0, time.monotonic()
        for _ in range(20):
            try:
                honest(scene, agent, 1)
                succeeded += 1
            except Ended:
                time.sleep(0.05)  # turned away at the door; it comes again, as every libzmq does
        assert succeeded >= 15
        time.sleep(max(0.0, 1.0 - (time.monotonic() - began)))
        spent = time.monotonic() - began
        assert _processor(scene) - used < 0.7 * spent + 0.5, "it spins"
        for each in crowd:
            each.close()
        assert wait_for(lambda: scene.metric("zapd_connections") == 0)
        honest(scene, agent, 3)
        assert len(scene.zapd.logged().splitlines()) < 60
        scene.is_well()
    finally:
        for each in crowd:
            each.close()
        scene.zapd.stop()


def _processor(scene: Scene) -> float:
    """Seconds of processor time that it has used."""
    fields = Path(f"/proc/{scene.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_cve_2020_15166_raw_connections_stop_no_delivery(scene: Scene) -> None:
    """Connections that never say a word, and some that say anything but ZMTP: established peers hear no less."""
    agent = scene.agent("beside the silent")
    with Stranger(scene.curve, agent) as established, Stranger(scene.null) as local:
        crowd = [HalfOpen(scene.zapd.zap[number % 3], "silent", b"", source(number)) for number in range(60)]
        for number, each in enumerate(crowd):
            each.say((b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00", b"\0" * 500, b"")[number % 4])
        for number in range(100):
            assert status_of(established.ask(scene.valid(b"%d" % number))) == b"200"
            assert status_of(local.ask(scene.valid(b"%d" % number))) == b"200"
        for each in crowd:
            each.close()
    scene.is_well()
