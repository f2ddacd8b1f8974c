"""Keys, users and agents are revoked while they are asked about at full speed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from support.hostile_scene import PASSWORD, Scene, status_of
from support.hostile_wire import Ended, Message, Stranger, question, wait_for
from support.postgres import postgres_server, postgres_url  # noqa: F401 - fixtures

from zapd.zmtp.handshake import Mechanism

pytestmark = pytest.mark.xdist_group("hostile-revocation")
"""One worker, one zapd."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene.prepare(tmp_path_factory.mktemp("hostile-revocation"))
    try:
        yield scene
        scene.is_well()
    finally:
        scene.zapd.stop()


@dataclass
class Asking(threading.Thread):
    """Asks the same over and over; each answer with the moment before its question left."""

    endpoint: str
    message: Message
    mechanism: Mechanism | None = None
    window: int = 1
    answers: list[tuple[float, bytes]] = field(default_factory=list)
    cut: str = ""

    def __post_init__(self) -> None:
        super().__init__(daemon=True)
        self.over = threading.Event()

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        try:
            with Stranger(self.endpoint, self.mechanism) as asking:
                while not self.over.is_set():
                    started = time.monotonic()
                    asking.send(*[self.message] * self.window)
                    self.answers += [(started, status_of(reply)) for reply in asking.read(self.window)]
        except Ended as end:
            self.cut = str(end)

    def seen(self, status: bytes, since: float = 0.0) -> int:
        return sum(1 for started, each in self.answers if each == status and started >= since)


def run_until(threads: list[Asking], enough: float) -> None:
    time.sleep(enough)
    for thread in threads:
        thread.over.set()
    for thread in threads:
        thread.join()


def test_after_the_answer_to_a_revocation_no_later_question_is_granted(scene: Scene) -> None:
    """Six askers without pause, twelve keys revoked one after the other: the history is judged question by
    question, and each key was granted until the moment it was not."""
    keys = [scene.add_key(f"leaver-{number}") for number in range(12)]
    threads = [
        Asking(scene.null, question(b"1", b"orders", b"CURVE", (key,)), window=8 if number % 2 else 1)
        for number, key in enumerate(keys)
    ]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    revoked: list[float] = []
    for key in keys:
        scene.zapd.ask("POST", f"/v1/keys/{scene.ids[key]}/revoke", {"reason": "left"})
        revoked.append(time.monotonic())
    run_until(threads, 0.3)
    for thread, moment in zip(threads, revoked, strict=True):
        assert thread.seen(b"200") > 0
        assert thread.seen(b"200", since=moment) == 0
        assert thread.seen(b"400", since=moment) > 0


def test_a_password_that_was_just_remembered_dies_with_its_user(scene: Scene) -> None:
    """Answers from the memory of dear decisions: a disabled user, a changed password, a deleted user."""
    ends = {
        "disabled": lambda name: scene.zapd.ask("PATCH", f"/v1/users/{name}", {"state": "disabled"}),
        "changed": lambda name: scene.zapd.ask("PUT", f"/v1/users/{name}/password", {"password": "another one"}),
        "deleted": lambda name: scene.zapd.ask("DELETE", f"/v1/users/{name}"),
        "moved": lambda name: scene.zapd.ask("PATCH", f"/v1/users/{name}", {"domains": ["elsewhere"]}),
    }
    for name, end in ends.items():
        scene.zapd.ask("POST", "/v1/users", {"name": name, "password": PASSWORD.decode(), "domains": ["staff"]})
        asking = Asking(scene.null, question(b"1", b"staff", b"PLAIN", (name.encode(), PASSWORD)))
        asking.start()
        deadline = time.monotonic() + 10
        while not asking.seen(b"200") and time.monotonic() < deadline:
            time.sleep(0.02)
        end(name)
        moment = time.monotonic()
        run_until([asking], 0.5)
        assert asking.seen(b"200"), name
        assert asking.seen(b"200", since=moment) == 0, name


def test_a_revoked_agent_is_cut_at_once_and_never_comes_back(scene: Scene) -> None:
    """Three connections of one agent, asking without pause, end with its revocation; no new one gets in; its name
    with another key is another agent."""
    mechanism = scene.agent("leaving")
    stays = scene.agent("staying")
    message = scene.valid(b"1")
    threads = [Asking(scene.curve, message, mechanism, window=4) for _ in range(3)]
    other = Asking(scene.curve, message, stays)
    for thread in (*threads, other):
        thread.start()
    time.sleep(0.3)
    scene.zapd.ask("DELETE", "/v1/agents/leaving")
    moment = time.monotonic()
    again = scene.agent("leaving")
    time.sleep(0.3)
    for _ in range(3):
        with pytest.raises(Ended):
            Stranger(scene.curve, mechanism)
    with Stranger(scene.curve, again) as welcome:
        assert status_of(welcome.ask(message)) == b"200"
    run_until([*threads, other], 0.0)
    for thread in threads:
        assert thread.seen(b"200") > 0
        assert thread.cut, "still connected"
        assert thread.seen(b"200", since=moment) == 0
    assert not other.cut
    assert other.seen(b"200", since=moment) > 0


def is_let_in(endpoint: str, mechanism: Mechanism) -> bool:
    try:
        Stranger(endpoint, mechanism).close()
    except Ended:
        return False
    return True


@pytest.fixture
def shared(tmp_path: Path, postgres_url: str) -> Iterator[Scene]:  # noqa: F811 - the fixture
    """A zapd whose database others may share."""
    scene = Scene.prepare(tmp_path, database=postgres_url)
    try:
        yield scene
    finally:
        scene.zapd.stop()


def test_a_revoked_agents_connection_does_not_live_on_under_its_name(shared: Scene) -> None:
    """Revoked and enrolled anew with another key before a second process has looked: there too the old is cut."""
    scene = shared
    old = scene.agent("renewed")
    second = scene.beside()
    try:
        with Stranger(second.zap[1], old) as asking:
            assert status_of(asking.ask(scene.valid(b"1"))) == b"200"
            scene.zapd.ask("DELETE", "/v1/agents/renewed")
            renewed = scene.agent("renewed")
            with pytest.raises(Ended):
                for _ in range(100):
                    time.sleep(0.05)
                    asking.ask(scene.valid(b"2"))
        assert wait_for(lambda: is_let_in(second.zap[1], renewed))
    finally:
        second.stop()


def test_a_key_that_comes_and_goes_ends_as_it_was_left(scene: Scene) -> None:
    """Ten agents enrolled and revoked in a row, each tried at once with its key: in, then out."""
    for number in range(10):
        mechanism = scene.agent(f"brief-{number}")
        with Stranger(scene.curve, mechanism) as asking:
            assert status_of(asking.ask(scene.valid(b"1"))) == b"200"
            scene.zapd.ask("DELETE", f"/v1/agents/brief-{number}")
            with pytest.raises(Ended):
                asking.ask(scene.valid(b"2"))
        with pytest.raises(Ended):
            Stranger(scene.curve, mechanism)
