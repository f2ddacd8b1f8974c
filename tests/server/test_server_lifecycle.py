"""Signals, in their order; what systemd hears; and no trace of secrets outside."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from zapd.server.lifecycle import notify, run


class Service:
    """Notes what is asked of it; each step may be made to do something."""

    def __init__(self, **does: Callable[[], object]) -> None:
        self.story: list[str] = []
        self.reached: dict[str, asyncio.Event] = {}
        self._does = does

    async def _step(self, name: str) -> None:
        self.story.append(name)
        self.reached.setdefault(name, asyncio.Event()).set()
        result = self._does.get(name, lambda: None)()
        if asyncio.iscoroutine(result):
            await result

    async def start(self) -> None:
        await self._step("start")

    async def reload(self) -> None:
        await self._step("reload")

    async def drain(self) -> None:
        await self._step("drain")

    async def stop(self) -> None:
        await self._step("stop")

    async def until(self, name: str) -> None:
        await asyncio.wait_for(self.reached.setdefault(name, asyncio.Event()).wait(), 10)


def tell(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.fixture
def heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """A service manager that listens."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield sock


@pytest.fixture(autouse=True)
def collector() -> Iterator[None]:
    """`run` settles the process's memory for a daemon; the tests go on as they were."""
    import gc

    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_stops(heard: socket.socket, number: int) -> None:
    """Up, drained, down; the service manager hears of the first and the last."""
    service = Service()
    running = asyncio.create_task(run(service))
    await service.until("start")
    assert heard.recv(100) == b"READY=1"
    tell(number)
    await asyncio.wait_for(running, 10)
    assert service.story == ["start", "drain", "stop"]
    assert heard.recv(100) == b"STOPPING=1"


async def test_a_second_signal_cuts_the_draining_short() -> None:
    """Whoever asks twice does not wait."""
    service = Service(drain=lambda: asyncio.sleep(600))
    running = asyncio.create_task(run(service))
    await service.until("start")
    tell(signal.SIGTERM)
    await service.until("drain")
    tell(signal.SIGTERM)
    await asyncio.wait_for(running, 10)
    assert service.story == ["start", "drain", "stop"]


async def test_each_sighup_reloads_and_none_is_lost_while_another_works(heard: socket.socket) -> None:
    """Signals that come during a reload are answered with one more, so that the last edit counts."""
    gate = asyncio.Event()
    service = Service(reload=gate.wait)
    running = asyncio.create_task(run(service))
    await service.until("start")
    tell(signal.SIGHUP)
    await service.until("reload")
    for _ in range(3):
        tell(signal.SIGHUP)
        await asyncio.sleep(0.01)
    gate.set()
    async with asyncio.timeout(10):
        while service.story.count("reload") < 2:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)
    tell(signal.SIGTERM)
    await asyncio.wait_for(running, 10)
    assert service.story == ["start", "reload", "reload", "drain", "stop"]
    told = [heard.recv(100) for _ in range(6)]
    assert told == [b"READY=1", *2 * [b"RELOADING=1", b"READY=1"], b"STOPPING=1"]


async def test_a_reload_that_fails_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """A bug of ours while reloading is logged, and the service goes on."""

    def fail() -> None:
        raise RuntimeError("a bug")

    service = Service(reload=fail)
    running = asyncio.create_task(run(service))
    await service.until("start")
    tell(signal.SIGHUP)
    await service.until("reload")
    await asyncio.sleep(0.05)
    assert not running.done()
    tell(signal.SIGTERM)
    await asyncio.wait_for(running, 10)


async def test_a_start_that_fails_is_taken_down_and_raised(heard: socket.socket) -> None:
    """Half of it may be up: stop is called all the same, and nobody is told that it is ready."""

    def fail() -> None:
        raise OSError("no port")

    service = Service(start=fail)
    with pytest.raises(OSError, match="no port"):
        await run(service)
    assert service.story == ["start", "stop"]
    heard.setblocking(False)
    with pytest.raises(BlockingIOError):
        heard.recv(100)


async def test_sigterm_during_the_start_stops_right_after_it() -> None:
    """Nothing is half-started, and nothing waits."""
    service = Service(start=lambda: tell(signal.SIGTERM))
    await asyncio.wait_for(run(service), 10)
    assert service.story == ["start", "drain", "stop"]


def test_nobody_is_told_where_nobody_listens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a manager, or with one that went away, telling is no trouble."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")


def test_an_abstract_socket_is_reached_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """systemd may name one with an @ in front."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        name = f"zapd-test-{os.getpid()}"
        sock.bind("\0" + name)
        sock.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        notify("READY=1")
        assert sock.recv(100) == b"READY=1"


def test_a_process_that_keeps_its_secrets_in_dumps_no_core_and_shows_no_memory() -> None:
    """The limit on cores is 0, and the kernel calls the process undumpable."""
    program = (
        "import ctypes, resource\n"
        "from zapd.server.lifecycle import keep_secrets_in\n"
        "keep_secrets_in()\n"
        "print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "(0, 0) 0\n"
