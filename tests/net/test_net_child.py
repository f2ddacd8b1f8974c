"""Child processes, on both loops: what they hear and say, how they end, and that nothing of them stays."""

from __future__ import annotations

import asyncio
import mmap
import os
import resource
import sys
from pathlib import Path
from subprocess import DEVNULL

import pytest

from zapd.child import start_child

BOTH_LOOPS = True
PAGES = 16384
ECHO = "import sys; sys.stdout.write(sys.stdin.read()[::-1]); sys.exit(7)"
FOREVER = "import time; print('up', flush=True); time.sleep(1000)"


def children() -> set[int]:
    """Processes of this one, zombies too."""
    return {int(word) for word in Path("/proc/thread-self/children").read_text().split()}


async def test_a_child_hears_what_it_is_told_says_what_it_has_to_say_and_ends() -> None:
    """Its input ends before its output does."""
    child = await start_child(sys.executable, "-c", ECHO)
    child.stdin.write(b"zapd")
    assert child.returncode is None
    child.end_input()
    assert await child.stdout.read() == b"dpaz"
    assert await child.wait() == child.returncode == 7
    assert await child.end() == 7, "what has ended is ended again"
    assert child.pid not in children()
    child.end_input()


async def test_a_child_that_goes_on_is_killed_and_gone() -> None:
    """One who waits for its end may give up; the others hear of it."""
    child = await start_child(sys.executable, "-c", FOREVER)
    assert await child.stdout.readline() == b"up\n"
    impatient = asyncio.create_task(child.wait())
    patient = asyncio.create_task(child.wait())
    await asyncio.sleep(0)
    impatient.cancel()
    assert await child.end() == -9
    assert await patient == -9
    assert child.pid not in children()


async def test_a_child_has_the_environment_and_the_place_it_is_given() -> None:
    """And nothing else of ours: no descriptor, no variable."""
    os.environ["ZAPD_TEST_SECRET"] = "swordfish"
    words = "sorted(os.environ), os.getcwd(), os.getsid(0) == os.getpid(), os.listdir('/proc/self/fd')"
    child = await start_child(
        *(sys.executable, "-c", f"import os; print({words})"),
        env={"LANG": "C.UTF-8"},
        cwd="/",
        start_new_session=True,
        stderr=DEVNULL,
    )
    said = (await child.stdout.read()).decode()
    await child.end()
    del os.environ["ZAPD_TEST_SECRET"]
    assert said.startswith("['LANG'] / True ")
    assert len(said.split("[")[2].split(",")) == 4, "its three, and the one that reads the folder"


async def test_what_cannot_be_started_leaves_nothing_behind() -> None:
    """No descriptor, no process."""
    before = set(os.listdir("/proc/self/fd")), children()
    with pytest.raises(FileNotFoundError):
        await start_child("/there/is/no/such/program")
    assert (set(os.listdir("/proc/self/fd")), children()) == before


async def test_a_start_that_is_given_up_leaves_no_process() -> None:
    """Whenever that is."""
    before = children()
    for turns in range(4):
        starting = asyncio.create_task(start_child(sys.executable, "-c", FOREVER))
        for _ in range(turns):
            await asyncio.sleep(0)
        starting.cancel()
        ended = (await asyncio.gather(starting, return_exceptions=True))[0]
        if not isinstance(ended, BaseException):
            await ended.end()
    assert children() == before


async def test_starting_a_child_copies_nothing_of_this_process() -> None:
    """A fork makes every page that is written afterwards fault once; a registry of a million keys has 100,000."""
    with mmap.mmap(-1, PAGES * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as ballast:
        ballast.madvise(mmap.MADV_NOHUGEPAGE)

        def faults_of_writing() -> int:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for at in range(0, len(ballast), mmap.PAGESIZE):
                ballast[at] = 1
            return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

        assert faults_of_writing() >= PAGES, "fresh memory"
        child = await start_child(sys.executable, "-c", FOREVER)
        assert faults_of_writing() < PAGES // 4
        await child.end()
