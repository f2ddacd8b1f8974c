"""Backends whose library blocks: bounded threads, a deadline, and no waiting for what hangs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import ClassVar, Self

import pytest

from zapd.auth.backend import UNKNOWN, BackendBusy, BackendContext, Outcome, Principal, Verdict
from zapd.auth.threaded import Threaded, Threads
from zapd.errors import ConfigurationError, Unavailable
from zapd.testing import BackendContract, ask, started

PATIENCE = 30.0


class Held:
    """Work that hangs until it is let go."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()

    def __call__(self) -> str:
        self.begun.release()
        assert self.go.wait(PATIENCE)
        return "done"

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=PATIENCE)


@pytest.fixture
def held():
    held = Held()
    yield held
    held.go.set()


@pytest.fixture
async def pool():
    pool = Threads("test", threads=1, waiting=1)
    yield pool
    await pool.aclose(PATIENCE)


async def test_work_is_done_in_another_thread(pool):
    """What the work returns or raises comes back; it ran in a thread of the pool's, not in the loop's."""

    def fail() -> None:
        raise KeyError("x")

    assert await pool.run(lambda: threading.current_thread().name) == "zapd-test"
    with pytest.raises(KeyError):
        await pool.run(fail)


async def test_a_full_pool_says_so_at_once(pool, held):
    """One at work and one waiting are all there is room for: the third is refused without waiting."""
    first = asyncio.create_task(pool.run(held, PATIENCE))
    await held.has_begun()
    second = asyncio.create_task(pool.run(lambda: "second", PATIENCE))
    await asyncio.sleep(0)
    with pytest.raises(BackendBusy):
        await pool.run(lambda: "third", PATIENCE)
    held.go.set()
    assert await first == "done"
    assert await second == "second"


async def test_a_hung_thread_keeps_its_place(pool, held):
    """Questions past their deadline are given up; the thread stays taken, no other is started, and when it
    returns the pool works again."""
    first = asyncio.create_task(pool.run(held, PATIENCE))
    await held.has_begun()
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    for _ in range(20):  # each waits behind the hung one, gives up, and leaves no trace in the queue
        with pytest.raises(Unavailable, match="no answer within"):
            await pool.run(lambda: "never", 0.001)
    assert pool.at_work == 1
    assert [thread.name for thread in threading.enumerate()].count("zapd-test") == 1
    held.go.set()
    assert await pool.run(lambda: "again", PATIENCE) == "again"


async def test_whoever_gives_up_leaves_the_queue(pool, held):
    """A question cancelled while it waits makes room for another, and is never asked."""
    first = asyncio.create_task(pool.run(held, PATIENCE))
    await held.has_begun()
    asked: list[str] = []
    second = asyncio.create_task(pool.run(lambda: asked.append("second"), PATIENCE))
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    third = asyncio.create_task(pool.run(lambda: asked.append("third"), PATIENCE))
    await asyncio.sleep(0)
    held.go.set()
    await asyncio.gather(first, third)
    assert asked == ["third"]


async def test_closing_drops_what_waits_and_leaves_what_hangs(held):
    """Closing waits no longer than it is told, says how many hang, and takes nothing more."""
    pool = Threads("test", threads=1)
    first = asyncio.create_task(pool.run(held, PATIENCE))
    await held.has_begun()
    second = asyncio.create_task(pool.run(lambda: "never", PATIENCE))
    await asyncio.sleep(0)
    assert await pool.aclose(0.01) == 1
    with pytest.raises(Unavailable):
        await second
    with pytest.raises(Unavailable, match="closed"):
        await pool.run(lambda: "late")
    held.go.set()
    assert await first == "done"
    assert await pool.aclose(PATIENCE) == 0


async def test_bounds_of_nothing_are_refused():
    """A pool without a thread could never answer."""
    with pytest.raises(ValueError, match="at least one"):
        Threads("none", threads=0)


def test_a_hung_thread_holds_up_no_exit():
    """The process ends although a thread hangs for good."""
    program = """
import asyncio, threading
from zapd.auth.threaded import Threads
from zapd.errors import Unavailable

async def main():
    pool = Threads("hangs", threads=1)
    begun = threading.Event()
    question = asyncio.create_task(pool.run(lambda: (begun.set(), threading.Event().wait()), 0.5))
    await asyncio.to_thread(begun.wait)
    try:
        await question
    except Unavailable:
        print("hung", await pool.aclose(0.01))

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "hung 1\n"), done.stderr


class Ledger:
    """A blocking backend, as somebody would write it."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"PLAIN"})
    threads = 2
    deadline = PATIENCE
    problem = "the ledger is dusty"

    def __init__(self) -> None:
        self.threads_seen: set[str] = set()
        self.before_answer = lambda: None
        self.closed = threading.Event()

    @classmethod
    def from_settings(cls, name: str, settings: object, context: BackendContext) -> Self:
        if settings:
            raise ConfigurationError(f"backend.{name}: a ledger has no settings")
        return cls()

    def start(self) -> None:
        self.threads_seen.add(threading.current_thread().name)

    def check(self, question):
        self.threads_seen.add(threading.current_thread().name)
        self.before_answer()
        if question.username != "ada":
            return UNKNOWN
        if question.password != b"lovelace":
            return Verdict(Outcome.REJECT, reason="wrong_password")
        return Verdict(Outcome.ACCEPT, Principal("ada"))

    def close(self) -> None:
        self.closed.set()


class LedgerBackend(Threaded):
    blocking = Ledger


class TestThreadedBackend(BackendContract):
    """A blocking backend, wrapped, keeps the contract of all backends."""

    async def make(self, context):
        return LedgerBackend.from_settings("ledger", {}, context)

    async def break_source(self, context, backend):
        def away():
            raise Unavailable("the ledger is lent out")

        backend.inner.before_answer = away
        return True

    async def mend_source(self, context, backend):
        backend.inner.before_answer = lambda: None
        return True

    async def hang_source(self, context, backend):
        backend.inner.before_answer = lambda: threading.Event().wait(3)
        return True

    def accepted(self):
        return ask("ada", b"lovelace")

    def rejected(self):
        return ask("ada", b"byron")

    def unknown(self):
        return ask("nobody", b"lovelace")


async def test_a_wrapped_backend_never_runs_on_the_loop(tmp_path):
    """Starting, asking and closing happen in threads; its mechanisms and its complaint are shown as its own."""
    backend = LedgerBackend("ledger", Ledger())
    handle = await started(backend, "ledger")
    assert handle.mechanisms == {"PLAIN"}
    assert (await backend.check(ask("ada", b"lovelace"))).outcome is Outcome.ACCEPT
    assert handle.health().reason == "the ledger is dusty"
    await handle.aclose()
    assert backend.inner.threads_seen == {"zapd-ledger"}
    assert backend.inner.closed.is_set()


async def test_a_wrapped_backend_that_hangs_can_be_closed(held):
    """Its own close is still called while its questions hang, so that it may cut what they wait for."""
    inner = Ledger()
    inner.before_answer = held
    backend = LedgerBackend("ledger", inner)
    await backend.start()
    asked = asyncio.create_task(backend.check(ask("ada", b"lovelace")))
    await held.has_begun()
    await backend.aclose()
    assert inner.closed.is_set()
    held.go.set()
    assert (await asked).outcome is Outcome.ACCEPT
