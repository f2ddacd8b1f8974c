"""The journal's disk full, read-only at start, and away; its three kinds of durability; its copy for searching."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.app_scene import ALICE, BOB, CONFIGURATION, STRANGER, Asking, parts, ready, wait_for, z85
from support.serving import Zapd

from zapd.audit.instance import list_instances
from zapd.zmtp.keys import encode_key, generate_keypair

SIZE = 256 * 1024


@pytest.fixture
def zapd(tmp_path: Path) -> Iterator[Zapd]:
    """Not started yet."""
    made = Zapd(tmp_path, configuration=CONFIGURATION)
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def small_disk(zapd: Zapd, *, read_only: bool = False) -> Iterator[Path]:
    """``data/audit`` on a disk of its own, which a test can fill."""
    folder = zapd.folder / "data" / "audit"
    folder.mkdir(mode=0o700, exist_ok=True)
    options = f"size={SIZE},mode=0700" + (",ro" if read_only else "")
    mounted = os.getuid() == 0 and not subprocess.call(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], stderr=subprocess.DEVNULL
    )
    if not mounted:
        if os.getuid() == 0 and os.environ.get("ZAPD_REQUIRE_COMPONENTS"):
            pytest.fail("root could not mount a tmpfs")
        pytest.skip("needs to mount a tmpfs")
    try:
        yield folder
    finally:
        zapd.stop()
        subprocess.check_call(["umount", str(folder)])


def fill(folder: Path) -> Path:
    """Leave no room at all."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            pass
    return filler


def records(zapd: Zapd) -> list[dict[str, object]]:
    return [json.loads(line) for line in zapd.journal().splitlines()]


def test_a_full_disk_makes_decisions_300_and_heals_by_itself(zapd: Zapd) -> None:
    """Nothing is granted unrecorded; revoking works, opening does not; later the gap is on record and verifies."""
    with small_disk(zapd) as folder:
        zapd.start()
        name = zapd.add_key(z85(ALICE), "alice", domains=["orders"])
        zapd.add_key(z85(BOB), "bob", domains=["orders"])
        with Asking(zapd) as asking:
            assert asking.ask(ALICE) == 200
            filler = fill(folder)
            assert wait_for(lambda: asking.ask(ALICE) == 300), "the last page may hold a few more"
            assert asking.ask(STRANGER) == 300
            assert wait_for(lambda: not ready(zapd))
            assert "No space left" in parts(zapd)["journal"]

            new = {"public_key": z85(STRANGER).decode(), "user": "eve", "domains": ["orders"]}
            added = zapd.call("POST", "/v1/keys", new)
            assert added.status_code == 503, added.text
            zapd.ask("POST", f"/v1/keys/{name}/revoke", {"reason": "left"})

            filler.unlink()
            assert wait_for(lambda: asking.ask(BOB) == 200)
            assert asking.ask(ALICE) == 400
            assert wait_for(lambda: ready(zapd))
        assert wait_for(lambda: '"event":"key.revoke"' in zapd.journal())
        gaps = [each for each in records(zapd) if each["event"] == "auth.gap"]
        assert gaps
        assert "No space left" in json.dumps(gaps)
        assert sum(each["event"] == "key.revoke" for each in records(zapd)) == 1
        assert zapd.stop() == 0
        verified = zapd.run("audit", "verify")
        assert verified.returncode == 0, verified.stdout + verified.stderr


def test_a_disk_that_fills_behind_a_commit_is_said_truly(zapd: Zapd) -> None:
    """Keys are added until the journal breaks: the first that hears so is registered as it was told, and on record
    once there is room; it is there once."""
    with small_disk(zapd) as folder:
        zapd.start()
        filler = fill(folder)
        answers = []
        while not answers or answers[-1].status_code == 201:
            key = {"public_key": encode_key(generate_keypair()[0]), "user": "eve", "domains": ["orders"]}
            answers.append(zapd.call("POST", "/v1/keys", key))
        assert answers[-1].status_code == 503
        assert "is made and in force" in answers[-1].json()["detail"]
        added = zapd.ask("GET", "/v1/keys?limit=500")["items"]
        assert key["public_key"] in [each["public_key"] for each in added]
        later = zapd.call("POST", "/v1/keys", key | {"public_key": encode_key(generate_keypair()[0])})
        assert "nothing that opens access is done now" in later.json()["detail"]
        filler.unlink()
        assert wait_for(lambda: zapd.journal().count('"event":"key.add"') == len(added))
        recorded = [each["subject"] for each in records(zapd) if each["event"] == "key.add"]
        assert sorted(recorded) == sorted(each["id"] for each in added)


def test_a_journal_that_is_read_only_at_start_is_waited_for(zapd: Zapd) -> None:
    """zapd starts, answers 300, names the journal, and decides as soon as it can be written."""
    with small_disk(zapd, read_only=True) as folder:
        zapd.start()
        with Asking(zapd) as asking:
            assert asking.ask(domain="lab", mechanism="NULL") == 300
            assert not ready(zapd)
            assert "Read-only" in parts(zapd)["journal"]
            subprocess.check_call(["mount", "-o", "remount,rw", str(folder)])
            assert wait_for(lambda: asking.ask(domain="lab", mechanism="NULL") == 200)
            assert ready(zapd)
        assert any(each["event"] == "auth.gap" for each in records(zapd))
        assert zapd.stop() == 0
        assert zapd.run("audit", "verify").returncode == 0


def test_a_strict_record_is_there_when_the_answer_is(zapd: Zapd) -> None:
    """Read from the file the moment the answer has come, and after kill -9."""
    zapd.start()
    with Asking(zapd) as asking:
        for _ in range(20):
            before = zapd.journal().count('"auth.accept"')
            assert asking.ask(domain="lab", mechanism="NULL") == 200
            assert zapd.journal().count('"auth.accept"') == before + 1
    zapd.stop(signal.SIGKILL)
    assert zapd.journal().count('"auth.accept"') == 20


def test_relaxed_answers_first_and_writes_within_the_flush_interval(zapd: Zapd) -> None:
    """The answer waits for no disk; the record follows by itself, and all of them before an orderly end."""
    zapd.configure(CONFIGURATION.replace("[audit]", '[audit]\ndurability = "relaxed"\nflush_interval = "300ms"'))
    zapd.start()
    with Asking(zapd) as asking:
        assert asking.ask(domain="lab", mechanism="NULL") == 200
        assert wait_for(lambda: '"auth.accept"' in zapd.journal())
        for _ in range(5):
            assert asking.ask(domain="lab", mechanism="NULL") == 200
    assert zapd.stop() == 0
    assert zapd.journal().count('"auth.accept"') == 6
    assert zapd.run("audit", "verify").returncode == 0


def test_off_decides_and_records_nothing(zapd: Zapd) -> None:
    """No journal, no copy, and the API's changes work as ever."""
    zapd.configure(CONFIGURATION.replace("[audit]", '[audit]\ndurability = "off"'))
    zapd.start()
    zapd.add_key(z85(ALICE), "alice", domains=["orders"])
    with Asking(zapd) as asking:
        assert asking.ask(ALICE) == 200
        assert ready(zapd)
    assert zapd.stop() == 0
    assert list_instances(zapd.folder / "data" / "audit") == []


def copying(zapd: Zapd) -> list[int]:
    """The processes that copy zapd's journal into SQL."""
    assert zapd.process is not None
    pid = zapd.process.pid
    children = [int(each) for task in Path(f"/proc/{pid}/task").iterdir() for each in _children(task)]
    return [each for each in children if b"zapd.audit.sinks.copying" in _command(each)]


def _children(task: Path) -> list[str]:
    try:
        return (task / "children").read_text().split()
    except OSError:
        return []


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def listed(zapd: Zapd, status: int) -> int:
    answer = zapd.call("GET", f"/v1/audit?status={status}&limit=100")
    return len(answer.json()["items"]) if answer.is_success else -1


def test_decisions_can_be_searched_soon_and_the_copying_process_may_die(zapd: Zapd) -> None:
    """Killed, it is started again and catches up; decisions never wait for it, and it ends with zapd."""
    zapd.start()
    with Asking(zapd) as asking:
        assert asking.ask(domain="lab", mechanism="NULL") == 200
        assert wait_for(lambda: listed(zapd, 200) == 1)
        shown = zapd.run("audit", "list", "--status", "200", "--json")
        assert shown.returncode == 0, shown.stderr
        assert '"principal": "lab"' in shown.stdout or '"principal":"lab"' in shown.stdout
        [process] = copying(zapd)
        os.kill(process, signal.SIGKILL)
        assert asking.ask(domain="lab", mechanism="NULL") == 200
        assert asking.ask(STRANGER) == 400
        assert wait_for(lambda: (listed(zapd, 200), listed(zapd, 400)) == (2, 1))
    [process] = copying(zapd)
    assert zapd.stop() == 0
    assert wait_for(lambda: b"copying" not in _command(process))


def test_the_copying_process_does_not_outlive_a_killed_zapd(zapd: Zapd) -> None:
    """kill -9 of zapd: its pipe closes, and the process beside it ends by itself."""
    zapd.start()
    assert wait_for(lambda: len(copying(zapd)) == 1)
    [process] = copying(zapd)
    zapd.stop(signal.SIGKILL)
    assert wait_for(lambda: b"copying" not in _command(process))
