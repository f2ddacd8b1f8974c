"""The journal when the disk fails: it refuses, keeps what it took, and recovers by itself."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.audit_tools import SEED, decision, records, segments_of

from zapd.audit import segment
from zapd.audit.event import Tag
from zapd.audit.journal import Journal, JournalUnavailable
from zapd.audit.report import Kind
from zapd.audit.verify import verify


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 64 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True).returncode
    ):
        pytest.skip("mounting a small tmpfs needs root and a kernel that allows it")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition, with a generous deadline."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


def assert_chain(directory: Path, acknowledged: set[str]) -> None:
    """The journal verifies, no question stands twice, and each acknowledged one stands there."""
    report = verify(directory)
    assert report.ok, list(report.lines())
    ids = [record["question_id"] for record in records(directory) if "question_id" in record]
    assert len(ids) == len(set(ids))
    assert acknowledged <= set(ids)


async def record_until_refused(journal: Journal, start: int = 0) -> tuple[set[str], int]:
    """Record decisions one by one until one is refused: the ids acknowledged, and the next number."""
    acknowledged = set()
    for number in range(start, start + 5000):
        try:
            journal.append(decision(number))
            await journal.durable()
        except JournalUnavailable:
            return acknowledged, number + 1
        acknowledged.add(f"{number:032x}")
    raise AssertionError("nothing was refused")


async def test_full_disk_refuses_then_recovers(tiny_disk: Path) -> None:
    """ENOSPC turns the journal unwritable; with room again it goes on, tells the gap once, and verifies."""
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(30_000))
    directory = tiny_disk / "audit"
    journal = await Journal.open(directory, retry_interval=0.1)
    acknowledged, number = await record_until_refused(journal)
    assert acknowledged
    assert not journal.writable
    assert "No space left" in journal.why
    with pytest.raises(JournalUnavailable):
        journal.append(decision())
    for _ in range(7):
        journal.note_gap("orders", "10.0.0.17", "journal")
    await asyncio.sleep(0.35)  # it tries in vain
    assert not journal.writable
    ballast.unlink()
    await until(lambda: journal.writable)
    journal.append(decision(number))
    await journal.durable()
    acknowledged.add(f"{number:032x}")
    await journal.close()
    assert_chain(directory, acknowledged)
    gaps = [record for record in records(directory) if record["event"] == Tag.AUTH_GAP]
    assert [gap["count"] for gap in gaps] == [7]
    assert gaps[0]["detail"]["counts"] == [
        {"domain": "orders", "source": "10.0.0.17", "reason": "journal", "count": 7}
    ]
    assert "No space left" in gaps[0]["detail"]["cause"]


async def test_relaxed_keeps_what_it_told_over_a_full_disk(tiny_disk: Path) -> None:
    """In relaxed mode, records already answered for survive a disk that was full for a while."""
    ballast = tiny_disk / "ballast"
    ballast.write_bytes(bytes(40_000))
    directory = tiny_disk / "audit"
    journal = await Journal.open(directory, durability="relaxed", flush_interval=0.01, retry_interval=0.1)
    told: set[str] = set()
    with pytest.raises(JournalUnavailable):
        for number in range(5000):
            journal.append(decision(number))
            journal.when_durable(lambda good, number=number: told.add(f"{number:032x}") if good else None)
            await asyncio.sleep(0.001)
    ballast.unlink()
    await until(lambda: journal.writable)
    await journal.close()
    assert_chain(directory, told)


async def test_what_is_owed_to_the_disk_outlasts_a_timer_that_comes_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines that a failure left behind are kept and go first, whoever wants a group written meanwhile."""
    journal = await Journal.open(tmp_path, durability="relaxed", flush_interval=0.01, retry_interval=0.2)
    await asyncio.sleep(0.05)

    def fail(lines: list[bytes]) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(journal._held, "write", fail)
    told = set()
    for number in range(9):
        journal.append(decision(number))
        told.add(f"{number:032x}")
    await until(lambda: not journal.writable)
    journal._dispatch()
    await until(lambda: journal.writable)
    await journal.close()
    assert_chain(tmp_path, told)


async def test_read_only_at_start_is_waited_for(tiny_disk: Path) -> None:
    """A journal that cannot be opened says so, counts what was refused, and opens by itself later."""
    if subprocess.run(["mount", "-o", "remount,ro", tiny_disk], capture_output=True).returncode:
        pytest.skip("remounting is not allowed here")
    journal = await Journal.open(tiny_disk / "audit", retry_interval=0.1)
    assert not journal.writable
    assert "Read-only" in journal.why
    with pytest.raises(JournalUnavailable):
        journal.append(decision())
    journal.note_gap("orders", "10.0.0.17")
    subprocess.run(["mount", "-o", "remount,rw", tiny_disk], check=True)
    await until(lambda: journal.writable)
    await journal.close()
    assert [record["event"] for record in records(tiny_disk / "audit")] == [Tag.JOURNAL_BEGIN, Tag.AUTH_GAP]


@pytest.mark.parametrize("deed", ["removed", "replaced", "shortened", "folder"])
async def test_file_taken_away_is_noticed(tmp_path: Path, deed: str) -> None:
    """A segment removed, replaced or shortened under us stops the journal before it answers for another record;
    it goes on in a new segment, and verify names what is gone."""
    directory = tmp_path / "audit"
    journal = await Journal.open(directory, retry_interval=0.1)
    for number in range(5):
        journal.append(decision(number))
    await journal.durable()
    path = segments_of(directory)[0]
    if deed == "removed":
        path.unlink()
    elif deed == "replaced":
        path.rename(path.with_suffix(".old"))
        shutil.copy(path.with_suffix(".old"), path)
    elif deed == "shortened":
        os.truncate(path, 700)
    else:
        shutil.rmtree(path.parent)
    refused = False
    try:
        journal.append(decision(5))
        await journal.durable()
    except JournalUnavailable:
        refused = True
    assert refused
    await until(lambda: journal.writable)
    journal.append(decision(6))
    await journal.durable()
    ids = [record.get("question_id") for record in records(directory)]
    assert ids.count(f"{6:032x}") == 1
    assert ids.count(f"{5:032x}") == 1
    await journal.close()
    report = verify(directory)
    if deed == "replaced":  # a faithful copy: nothing is missing
        assert report.ok, list(report.lines())
    else:
        assert [problem.kind for problem in report.problems] in ([Kind.MISSING], [Kind.ALTERED])


async def test_file_removed_while_idle_is_noticed(tmp_path: Path) -> None:
    """Also with nothing to write, a removed segment is noticed within the second."""
    journal = await Journal.open(tmp_path, retry_interval=0.1)
    segments_of(tmp_path)[0].unlink()
    await until(lambda: len(segments_of(tmp_path)) == 1 and journal.writable)
    await journal.close()


@pytest.mark.parametrize("code", [errno.EIO, errno.EROFS, errno.EDQUOT])
async def test_failed_sync_is_never_taken_for_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """After a write that failed half-way the half line is cut, everyone waiting hears no, and the same lines come
    once, in a new segment."""
    journal = await Journal.open(tmp_path, retry_interval=0.1)
    real = segment.write_all
    broken = True

    def write_all(descriptor: int, data: bytes) -> None:
        if broken:
            real(descriptor, data[: len(data) * 2 // 3])
            raise OSError(code, os.strerror(code))
        real(descriptor, data)

    monkeypatch.setattr(segment, "write_all", write_all)
    answers: list[bool] = []
    for number in range(10):
        journal.append(decision(number))
        journal.when_durable(answers.append)
    await until(lambda: len(answers) == 10)
    assert answers == [False] * 10
    await asyncio.sleep(0.3)
    assert not journal.writable
    broken = False
    await until(lambda: journal.writable)
    journal.append(decision(10))
    await journal.durable()
    await journal.close()
    assert_chain(tmp_path, {f"{10:032x}"})
    assert len(records(tmp_path)) == 12


async def test_hanging_disk_refuses_instead_of_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that does not return makes waiters hear no after the deadline; once it returns, it goes on."""
    journal = await Journal.open(tmp_path, stall_timeout=0.2, retry_interval=0.1)
    real = segment.write_all
    free = threading.Event()

    def write_all(descriptor: int, data: bytes) -> None:
        free.wait(20)
        real(descriptor, data)

    monkeypatch.setattr(segment, "write_all", write_all)
    journal.append(decision(0))
    with pytest.raises(JournalUnavailable):
        await journal.durable()
    assert not journal.writable
    free.set()
    await until(lambda: journal.writable)
    journal.append(decision(1))
    await journal.durable()
    await journal.close()
    assert_chain(tmp_path, {f"{1:032x}"})
    assert len(records(tmp_path)) == 3


async def test_random_failures_never_break_chain_or_promise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever call fails and whenever, what was acknowledged is there once, and the chain verifies."""
    import random

    chance = random.Random(7)
    failing = False

    def sometimes(real: Callable[..., object]) -> Callable[..., object]:
        def call(*arguments: object, **named: object) -> object:
            if failing and threading.current_thread().name == "zapd-journal" and chance.random() < 0.15:
                raise OSError(errno.EIO, "planted")
            return real(*arguments, **named)

        return call

    journal = await Journal.open(tmp_path, retry_interval=0.01)
    for name in ("open", "fsync", "ftruncate", "fstat", "write"):
        monkeypatch.setattr(segment.os, name, sometimes(getattr(os, name)))
    acknowledged: set[str] = set()
    refused = 0
    failing = True
    for number in range(400):
        try:
            journal.append(decision(number))
            await journal.durable()
            acknowledged.add(f"{number:032x}")
        except JournalUnavailable:
            refused += 1
            await asyncio.sleep(0.01)
    failing = False
    await until(lambda: journal.writable)
    await journal.close()
    assert refused > 10
    assert len(acknowledged) > 50
    assert_chain(tmp_path, acknowledged)


CHILD = """
import asyncio, sys
from pathlib import Path
from support.audit_tools import SEED, decision
from zapd.audit.instance import Limits
from zapd.audit.journal import Journal

async def main():
    journal = await Journal.open(Path(sys.argv[1]), signing_key=SEED, limits=Limits(size=40_000))
    base = int(sys.argv[2])
    number = base
    while True:
        for number in range(number, number + 8):
            journal.append(decision(number))
            journal.when_durable(lambda good, number=number: good and sys.stdout.write(f"{number}\\n"))
        number += 1
        sys.stdout.flush()
        await asyncio.sleep(0)

asyncio.run(main())
"""


async def test_kill_9_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """Ten times a writing process is killed at a random moment: every record it acknowledged is there, once, in a
    chain that verifies, and the next process continues the same instance."""
    import random

    chance = random.Random(11)
    acknowledged: set[str] = set()
    path = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    for round_ in range(10):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path), str(round_ * 1_000_000)],
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert child.stdout is not None
        first = child.stdout.readline()
        lines = [first]
        reader = threading.Thread(target=lambda out=child.stdout, into=lines: into.extend(out))
        reader.start()
        await asyncio.sleep(chance.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        child.wait()
        reader.join()
        child.stdout.close()
        acknowledged |= {f"{int(line):032x}" for line in lines if line.endswith(b"\n")}
    journal = await Journal.open(tmp_path, signing_key=SEED)
    await journal.close()
    assert len(acknowledged) >= 10
    assert_chain(tmp_path, acknowledged)
    assert len({record["instance"] for record in records(tmp_path)}) == 1


def test_file_size_limit_is_a_full_disk(tmp_path: Path) -> None:
    """A process at its file size limit (EFBIG) refuses like one on a full disk, and stays alive."""
    program = """
import asyncio, resource, sys
from pathlib import Path
from support.audit_tools import decision
from zapd.audit.journal import Journal, JournalUnavailable

async def main():
    journal = await Journal.open(Path(sys.argv[1]), retry_interval=0.05)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.RLIM_INFINITY))
    refused = 0
    for number in range(100):
        try:
            journal.append(decision(number))
            await journal.durable()
        except JournalUnavailable:
            refused += 1
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
            while not journal.writable:
                await asyncio.sleep(0.01)
    await journal.close()
    print(refused)

asyncio.run(main())
"""
    path = [str(Path(__file__).parents[1]), str(Path(__file__).parents[2])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    run = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], env=environment, capture_output=True, timeout=60
    )
    assert run.stdout.strip() == b"1", run.stderr
    assert_chain(tmp_path, {f"{99:032x}"})


async def test_power_cut_at_every_octet_of_a_group(tmp_path: Path) -> None:
    """Wherever a write was cut, what was synced before is there, the whole lines after it too, and the next run
    goes on in the same instance with a chain that verifies."""
    source = tmp_path / "source"
    journal = await Journal.open(source)
    synced = []
    for group in range(4):
        for number in range(3):
            journal.append(decision(group * 3 + number))
        await journal.durable()
        synced.append((segments_of(source)[0].stat().st_size, journal.durable_sequence))
    await journal.close()
    (
        source / journal.instance / "checkpoints.jsonl"
    ).unlink()  # of the orderly end, which a power cut does not see
    whole = segments_of(source)[0].read_bytes()
    ends = [at + 1 for at, octet in enumerate(whole) if octet == 10]
    cuts = {*ends, *(end + step for end in ends[:-1] for step in (1, 2, 200)), *(end - 1 for end in ends)}
    for cut in sorted(cut for cut in cuts if cut >= ends[0]):
        place = tmp_path / str(cut)
        shutil.copytree(source, place)
        os.truncate(segments_of(place)[0], cut)
        again = await Journal.open(place)
        assert again.instance == journal.instance
        await again.close()
        report = verify(place)
        assert report.ok, list(report.lines())
        kept = sum(1 for end in ends if end <= cut)
        assert kept >= max((sequence for size, sequence in synced if size <= cut), default=1)
        found = records(place)
        assert len(found) == kept + 1
        assert found[kept].get("detail", {}).get("cut", {}).get("octets", 0) == cut - max(
            end for end in ends if end <= cut
        )


async def test_gap_survives_a_full_backlog(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of a gap that cannot be recorded at once, because the backlog is full, are recorded the next time."""
    journal = await Journal.open(tmp_path)
    journal.note_gap("orders", "10.0.0.1", count=3)

    def full(event: object) -> int:
        raise JournalUnavailable("full")

    monkeypatch.setattr(journal, "append", full)
    journal._writable_again("a cause")
    monkeypatch.undo()
    journal._writable_again("a cause")
    await journal.close()
    assert records(tmp_path)[-1]["count"] == 3
