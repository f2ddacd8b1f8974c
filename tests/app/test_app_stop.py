"""The end: draining, a hurry, and what systemd is told."""

from __future__ import annotations

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.app_scene import CONFIGURATION, Asking, wait_for
from support.serving import Zapd

PLUGIN = '''
import asyncio, pathlib
from zapd.auth.backend import Outcome, Principal, Verdict

class Slow:
    """Answers when its file is there."""
    mechanisms = frozenset({"PLAIN"})
    def __init__(self, path): self.path = path
    @classmethod
    def from_settings(cls, name, settings, context): return cls(context.base_dir / "go")
    async def start(self): pass
    async def aclose(self): pass
    async def check(self, question):
        while not self.path.exists():
            await asyncio.sleep(0.01)
        return Verdict(Outcome.ACCEPT, Principal(question.username))
'''

SLOW = """
[backend.slow]
type = "slow"
[domain.slow]
mechanisms = ["PLAIN"]
backends = ["slow"]
[limits]
backend_deadline = "20s"
plan_deadline = "21s"
agent_deadline = "22s"
handshake_deadline = "25s"
"""


@pytest.fixture
def zapd(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Zapd]:
    """Running, with a backend that answers once there is a file ``go``; in one process unless a test says more."""
    drain = f'drain = "20s"\nworkers = {getattr(request, "param", 1)}'
    site = tmp_path / "plugins"
    info = site / "zapd_slow-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zapd-slow\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zapd.backends]\nslow = zapd_slow:Slow\n")
    (site / "zapd_slow.py").write_text(PLUGIN)
    made = Zapd(tmp_path / "zapd", configuration=CONFIGURATION.replace('drain = "5s"', drain) + SLOW)
    paths = os.pathsep.join(each for each in (str(site), os.environ.get("PYTHONPATH", "")) if each)
    made.start(env={"PYTHONPATH": paths})
    try:
        yield made
    finally:
        made.stop(signal.SIGKILL)


def open_question(zapd: Zapd, asking: Asking) -> bytes:
    """A question that waits for its backend; its request id."""
    number = asking.send(b"ada", b"lovelace", domain="slow", mechanism="PLAIN")
    assert wait_for(lambda: "\nzapd_slow_questions 1.0" in zapd.call("GET", "/metrics").text)
    return number


def draining(zapd: Zapd) -> bool:
    return bool(zapd.call("GET", "/readyz").json()["parts"].get("service") == "draining")


@pytest.mark.parametrize("zapd", [1, 2], indirect=True, ids=["one process", "two workers"])
def test_sigterm_finishes_what_is_open_and_turns_newcomers_away(zapd: Zapd) -> None:
    """A slow question gets its 200 after the signal, a new one 300, and the exit code is 0."""
    with Asking(zapd) as asking, Asking(zapd) as newcomer:
        slow = open_question(zapd, asking)
        process = zapd.process
        assert process is not None
        zapd.signal(signal.SIGTERM)
        assert wait_for(lambda: draining(zapd))
        assert zapd.call("GET", "/readyz").status_code == 503
        assert newcomer.ask(domain="lab", mechanism="NULL") == 300
        (zapd.folder / "go").touch()
        assert asking.receive() == (slow, 200, "ada")
        assert process.wait(15) == 0
    assert '"principal":"ada"' in zapd.journal()
    for folder in zapd.folder.glob("data/audit/*"):
        assert '"event":"service.stop"' in (folder / "00000001.jsonl").read_text().splitlines()[-1]


def test_an_answer_on_the_last_moment_is_still_given(zapd: Zapd) -> None:
    """The last open question is answered and recorded before the doors close, ten at once as one."""
    with Asking(zapd) as asking:
        open_question(zapd, asking)
        for number in range(9):
            asking.send(b"ada%d" % number, b"lovelace", domain="slow", mechanism="PLAIN")
        assert wait_for(lambda: "\nzapd_slow_questions 10.0" in zapd.call("GET", "/metrics").text)
        zapd.signal(signal.SIGTERM)
        assert wait_for(lambda: draining(zapd))
        (zapd.folder / "go").touch()
        assert {asking.receive()[1] for _ in range(10)} == {200}


@pytest.mark.parametrize("zapd", [1, 2], indirect=True, ids=["one process", "two workers"])
def test_a_second_sigterm_waits_for_nobody(zapd: Zapd) -> None:
    """Draining could take 20 s; told twice, zapd ends at once, in order and with 0. What is open hears 300."""
    with Asking(zapd) as asking:
        slow = open_question(zapd, asking)
        process = zapd.process
        assert process is not None
        began = time.monotonic()
        zapd.signal(signal.SIGTERM)
        assert wait_for(lambda: draining(zapd))
        zapd.signal(signal.SIGTERM)
        assert asking.receive() == (slow, 300, "")
        assert process.wait(15) == 0
        assert time.monotonic() - began < 15
    assert '"reason":"draining"' in zapd.journal()
    for folder in zapd.folder.glob("data/audit/*"):
        assert '"event":"service.stop"' in (folder / "00000001.jsonl").read_text().splitlines()[-1]
    assert not (zapd.folder / "data" / "zap.sock").exists()


def test_systemd_is_told_when_it_is_ready_reloads_and_stops(tmp_path: Path) -> None:
    """sd_notify on a datagram socket, in this order."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.settimeout(15)
        zapd = Zapd(tmp_path / "zapd", configuration=CONFIGURATION)
        zapd.start(env={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        try:
            assert heard.recv(4096) == b"READY=1"
            zapd.signal(signal.SIGHUP)
            assert heard.recv(4096).startswith(b"RELOADING=1")
            assert heard.recv(4096) == b"READY=1"
        finally:
            assert zapd.stop() == 0
        assert heard.recv(4096) == b"STOPPING=1"


@pytest.mark.parametrize("zapd", [1, 2], indirect=True, ids=["one process", "two workers"])
def test_a_signal_to_the_whole_group_alarms_nobody(zapd: Zapd) -> None:
    """A terminal and systemd tell every process: the parent decides, all go down in order, and the log is calm."""
    assert wait_for(lambda: zapd.call("GET", "/v1/audit").json().get("items"))  # the copying process is up
    process = zapd.process
    assert process is not None
    children = {int(line) for line in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()}
    assert children
    before = zapd.logged()
    for number in (process.pid, *children):
        os.kill(number, signal.SIGTERM)
    assert process.wait(15) == 0
    levels = [json.loads(line)["level"] for line in zapd.logged()[len(before) :].splitlines()]
    assert set(levels) <= {"info"}, zapd.logged()
