"""kill -9 in the middle of a flood: what a client heard is on record, and the record is whole."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path

from support.hostile_scene import Scene, status_of
from support.hostile_wire import Ended, Message, Stranger, question, wait_for

from zapd.audit.verify import verify

KILLS = 5
LOAD = 0.3
"""Seconds of questions before each kill."""


class Client(threading.Thread):
    """Asks with a question id of its own each time, as agents do, and writes down what it hears."""

    def __init__(self, endpoint: str, bodies: list[Message]) -> None:
        super().__init__(daemon=True)
        self.heard: dict[str, int] = {}
        """Question ids to the statuses that came back."""
        self.asked: dict[str, bytes] = {}
        self.twice = 0
        self._endpoint = endpoint
        self._bodies = bodies
        self.over = threading.Event()

    def run(self) -> None:
        try:
            with Stranger(self._endpoint) as asking:
                turn = 0
                while not self.over.is_set():
                    batch = []
                    for _ in range(16):
                        turn += 1
                        body = self._bodies[turn % len(self._bodies)]
                        name = os.urandom(16)
                        self.asked[name.hex()] = body[2]
                        batch.append([name, b"", *body])
                    asking.send(*batch)
                    for reply in asking.read(len(batch)):
                        self._note(reply)
        except (Ended, OSError):
            pass

    def _note(self, reply: Message) -> None:
        name = reply[0].hex()
        self.twice += name in self.heard
        self.heard[name] = int(reply[4])


def records(zapd_folder: Path) -> dict[str, list[int]]:
    """The statuses on record for each question id."""
    found: dict[str, list[int]] = {}
    for path in zapd_folder.glob("data/audit/*/[0-9]*.jsonl"):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            if record.get("question_id"):
                found.setdefault(record["question_id"], []).append(record["status"])
    return found


def test_no_answer_is_without_its_record_after_five_kills(tmp_path: Path) -> None:
    """Every 200 and 400 that a client received has exactly one record with that verdict; the chain verifies after
    each restart; the same questions are granted again."""
    scene = Scene.prepare(tmp_path)
    audit = tmp_path / "data" / "audit"
    heard: dict[str, int] = {}
    asked: dict[str, bytes] = {}
    try:
        bodies = [
            scene.valid(b"1")[1:],
            question(b"1", b"orders", b"CURVE", (bytes(31) + b"\x09",))[1:],
            question(b"1", b"lab", b"NULL")[1:],
            question(b"1", b"lab", b"NULL", address=b"192.0.2.7")[1:],
            question(b"1", b"nowhere", b"NULL")[1:],
        ]
        for _ in range(KILLS):
            clients = [Client(scene.null, bodies) for _ in range(3)]
            for client in clients:
                client.start()
            time.sleep(LOAD)
            scene.zapd.stop(signal.SIGKILL)
            for client in clients:
                client.over.set()
                client.join()
                assert client.twice == 0
                assert client.heard
                heard |= client.heard
                asked |= client.asked
            scene.zapd.start()
            report = verify(audit)
            assert report.ok, list(report.lines())
            with scene.stranger() as asking:
                assert status_of(asking.ask(scene.valid(b"again"))) == b"200"
    finally:
        scene.zapd.stop()
    written = records(tmp_path)
    missing = [name for name, status in heard.items() if status in (200, 400) and name not in written]
    assert not missing, f"{len(missing)} of {len(heard)} answers have no record"
    wrong = {name: (status, written[name]) for name, status in heard.items() if written.get(name) != [status]}
    assert not wrong, dict(list(wrong.items())[:5])
    assert written.keys() <= asked.keys(), "records of questions that nobody asked"
    assert len(set(heard.values())) > 1
    assert verify(audit).ok


def test_a_revocation_that_was_answered_survives_the_kill(tmp_path: Path) -> None:
    """kill -9 right behind the API's answers: keys stay revoked, and each change is in the journal, once."""
    scene = Scene.prepare(tmp_path)
    try:
        keys = [scene.add_key(f"leaver-{number}") for number in range(4)]
        for key in keys[:3]:
            scene.zapd.ask("POST", f"/v1/keys/{scene.ids[key]}/revoke")
        scene.zapd.stop(signal.SIGKILL)
        scene.zapd.start()
        with scene.stranger() as asking:
            statuses = [status_of(asking.ask(question(b"1", b"orders", b"CURVE", (key,)))) for key in keys]
        assert statuses == [b"400", b"400", b"400", b"200"]
        assert wait_for(lambda: scene.zapd.journal().count('"event":"key.revoke"') >= 3)
        time.sleep(0.2)
        assert scene.zapd.journal().count('"event":"key.revoke"') == 3
        assert scene.zapd.journal().count('"event":"key.add"') == 5
    finally:
        scene.zapd.stop()
