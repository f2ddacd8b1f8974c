"""Checkpoints, the heads they go to, the key that signs them, and retention under their cover."""

from __future__ import annotations

import asyncio
import http.server
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.audit_tools import SEED, decision, records, segments_of, write

from zapd.audit import journal as journal_module
from zapd.audit.chain import Link
from zapd.audit.checkpoint import (
    CHECKPOINTS,
    Checkpointer,
    FileHead,
    HttpsHead,
    SyslogHead,
    make_head,
    read_checkpoints,
)
from zapd.audit.event import Tag
from zapd.audit.instance import Limits, list_instances
from zapd.audit.journal import Journal
from zapd.audit.report import Kind
from zapd.audit.retention import Retention
from zapd.audit.signing import (
    generate_signing_key,
    is_signed_by,
    load_signing_key,
    parse_public_key,
    public_text,
    sign,
)
from zapd.audit.stub import STUB, read_stub
from zapd.audit.verify import verify
from zapd.errors import ConfigurationError, Conflict, InvalidInput

PUBLIC = parse_public_key(public_text(SEED))


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait for a condition, with a generous deadline."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        await asyncio.sleep(0.01)


def test_key_is_written_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """A key file is 0600, is never overwritten, reads back, and is refused when others could read it."""
    path = tmp_path / "journal.key"
    public = generate_signing_key(path)
    assert path.stat().st_mode & 0o777 == 0o600
    seed = load_signing_key(path)
    assert public_text(seed) == public
    with pytest.raises(Conflict):
        generate_signing_key(path)
    path.chmod(0o640)
    with pytest.raises(ConfigurationError, match="chmod 600"):
        load_signing_key(path)
    path.chmod(0o600)
    path.write_text("not a key")
    with pytest.raises(ConfigurationError, match="no signing key"):
        load_signing_key(path)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_signing_key(tmp_path / "absent")


@pytest.mark.parametrize("text", ["", "AAAA", "é" * 44, "A" * 43 + "?", "A" * 100])
def test_public_key_of_wrong_shape_is_refused(text: str) -> None:
    """What is not base64 of 32 octets is no public key."""
    with pytest.raises(InvalidInput):
        parse_public_key(text)


def test_signature_covers_every_octet() -> None:
    """A statement changed in any octet is no longer signed."""
    line = sign({"kind": "stub", "sequence": 7}, SEED)
    assert is_signed_by(line, PUBLIC)
    for index in range(len(line) - 1):
        changed = line[:index] + bytes([line[index] ^ 1]) + line[index + 1 :]
        assert not is_signed_by(changed, PUBLIC), changed
    assert not is_signed_by(sign({"kind": "stub"}, None), PUBLIC)


async def test_checkpoint_after_so_many_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint is signed as soon as enough records followed the last one, not only when time is up."""
    monkeypatch.setattr(journal_module, "CHECKPOINT_RECORDS", 10)
    journal = await Journal.open(tmp_path, signing_key=SEED)
    for number in range(25):
        journal.append(decision(number))
        await journal.durable()
    await until(lambda: journal.checkpointed_sequence >= 20)
    found = list(read_checkpoints(tmp_path / journal.instance / CHECKPOINTS))
    assert all(each.signed_by(PUBLIC) for each in found)
    assert [each.link.sequence for each in found][:1] == [10]
    await journal.close()


async def test_checkpoint_after_so_much_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A quiet journal is checkpointed when time is up, once for the same last record."""
    monkeypatch.setattr(journal_module, "CHECKPOINT_SECONDS", 0.1)
    journal = await Journal.open(tmp_path, signing_key=SEED, retry_interval=0.05)
    await until(lambda: journal.checkpointed_sequence == 1)
    await asyncio.sleep(0.5)
    assert len(list(read_checkpoints(tmp_path / journal.instance / CHECKPOINTS))) == 1
    await journal.close()


async def test_syslog_head_verifies_as_syslog_keeps_it(tmp_path: Path) -> None:
    """A checkpoint goes to syslog as one message, and the file that syslog keeps is a head for `verify`."""
    kept = tmp_path / "auth.log"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as syslog:
        syslog.bind(str(tmp_path / "log"))
        syslog.settimeout(10)
        await write(tmp_path / "audit", 10, heads=[SyslogHead(str(tmp_path / "log"))])
        message = syslog.recv(65_536)
    assert message.startswith(b"<85>zapd[")
    kept.write_bytes(b"Jan 31 12:00:00 host sshd[1]: noise\nJan 31 12:00:01 host " + message[4:] + b"\n")
    report = verify(tmp_path / "audit", PUBLIC, [kept])
    assert report.ok
    assert report.instances[0].outside == 11


async def test_head_that_is_away_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without syslog the journal goes on, warns once, names the head, and keeps its checkpoints itself."""
    journal = await Journal.open(
        tmp_path / "audit", signing_key=SEED, heads=[SyslogHead(str(tmp_path / "absent"))]
    )
    journal.append(decision())
    await journal.durable()
    journal._checkpoint()
    await until(lambda: journal.failing_heads == ("syslog",))
    journal.append(decision(1))
    await journal.close()
    assert verify(tmp_path / "audit", PUBLIC).instances[0].checkpointed == 3
    assert len([entry for entry in caplog.records if "do not reach syslog" in entry.getMessage()]) == 1


def test_https_head_posts_the_checkpoint() -> None:
    """A web address gets the checkpoint as the body of a POST; an answer that is not 2xx is a failure."""
    bodies: list[bytes] = []
    status = 204

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        head = HttpsHead(f"http://127.0.0.1:{server.server_port}/head")
        head.send(b"line\n")
        status = 500
        with pytest.raises(OSError, match="500"):
            head.send(b"line\n")
        server.shutdown()
        thread.join()
    assert bodies == [b"line\n", b"line\n"]
    with pytest.raises(OSError, match="Connect"):
        head.send(b"line\n")


def test_slow_head_gets_the_newest_only(tmp_path: Path) -> None:
    """While a head is slow, checkpoints do not queue up: the newest covers those before it."""
    free = threading.Event()
    sent: list[bytes] = []

    class Slow:
        name = "slow"

        def send(self, line: bytes) -> None:
            free.wait(10)
            sent.append(line)

        def remembered(self, instance: str, public_key: bytes | None) -> list[Link]:
            return []

    (tmp_path / "i").mkdir()
    checkpointer = Checkpointer(seed=SEED, heads=[Slow()])
    checkpointer.start()
    for number in range(1, 50):
        checkpointer.submit(tmp_path / "i", Link(number, bytes(32)))
    time.sleep(0.1)
    free.set()
    checkpointer.close(10)
    assert len(sent) <= 3
    assert json.loads(sent[-1])["sequence"] == 49


def test_heads_are_named_in_the_configuration(tmp_path: Path) -> None:
    """The setting names syslog, a file or a web address; anything else is refused."""
    assert make_head("") is None
    assert isinstance(make_head("syslog"), SyslogHead)
    head = make_head("file:head.jsonl", tmp_path)
    assert isinstance(head, FileHead)
    assert head.path == tmp_path / "head.jsonl"
    assert isinstance(make_head("https://example.org/head"), HttpsHead)
    for wrong in ("http://example.org", "file:", "nothing"):
        with pytest.raises(ConfigurationError):
            make_head(wrong)


async def test_torn_checkpoint_line_hides_no_other(tmp_path: Path) -> None:
    """After half a line in a head, the next whole one still counts."""
    head = tmp_path / "head"
    head.write_bytes(b'{"kind":"checkpoint","instance":"5f')
    await write(tmp_path / "audit", 5, heads=[FileHead(head)])
    assert verify(tmp_path / "audit", PUBLIC, [head]).instances[0].outside == 6


# --- retention ---


async def test_oldest_segments_go_by_size_and_leave_a_stub(tmp_path: Path) -> None:
    """Over its size the journal loses its oldest checkpointed segments, keeps the newest, and verifies from a
    signed stub; it goes on in the same instance."""
    instance = await write(tmp_path, 100)
    before = len(segments_of(tmp_path))
    retention = Retention(tmp_path, max_size=20_000, seed=SEED)
    removed = retention.enforce({})
    assert 0 < len(removed) < before
    assert sum(path.stat().st_size for path in segments_of(tmp_path)) <= 20_000
    report = verify(tmp_path, PUBLIC)
    assert report.ok, list(report.lines())
    assert report.instances[0].first > 1
    assert "removed by retention (size)" in report.instances[0].notes[0]
    assert await write(tmp_path, 5) == instance
    assert verify(tmp_path, PUBLIC).ok
    assert retention.enforce({}) == [] or verify(tmp_path, PUBLIC).ok


async def test_old_segments_go_by_age(tmp_path: Path) -> None:
    """Segments older than the retention go, of every instance that nobody holds."""
    instance = await write(tmp_path, 50)
    for path in segments_of(tmp_path)[:3]:
        os.utime(path, (1e9, 1e9))
    removed = Retention(tmp_path, max_age=86_400, seed=SEED).enforce({})
    assert len(removed) == 3
    assert verify(tmp_path, PUBLIC).ok
    assert read_stub(tmp_path / instance) is not None


async def test_segments_without_checkpoint_stay(tmp_path: Path) -> None:
    """What no checkpoint covers is never removed, whatever its size."""
    instance = await write(tmp_path, 50)
    (tmp_path / instance / CHECKPOINTS).unlink()
    assert Retention(tmp_path, max_size=1000, seed=SEED).enforce({}) == []


async def test_instance_held_by_another_is_left_alone(tmp_path: Path) -> None:
    """Another process's running journal keeps all its segments."""
    journal = await Journal.open(tmp_path, signing_key=SEED, limits=Limits(size=2000))
    for number in range(30):
        journal.append(decision(number))
        await journal.durable()
    journal._checkpoint()
    await until(lambda: journal.checkpointed_sequence > 20)
    retention = Retention(tmp_path, max_size=1000, seed=SEED)
    assert retention.enforce({}) == []
    assert retention.enforce({journal.instance: journal.checkpointed_sequence})
    await journal.close()
    assert verify(tmp_path, PUBLIC).ok


async def test_running_journal_retires_and_records_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A running journal over its size removes old segments after a checkpoint, and says so in a record."""
    monkeypatch.setattr(journal_module, "CHECKPOINT_RECORDS", 20)
    retention = Retention(tmp_path, max_size=15_000, seed=SEED, interval=0.0)
    journal = await Journal.open(tmp_path, signing_key=SEED, limits=Limits(size=2000), retention=retention)
    number = 0
    while not any(record["event"] == Tag.JOURNAL_RETIRE for record in records(tmp_path)):
        assert number < 2000
        journal.append(decision(number))
        await journal.durable()
        number += 1
    await journal.close()
    assert retention.retired
    report = verify(tmp_path, PUBLIC)
    assert report.ok, list(report.lines())


async def test_nearly_full_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """At 80 % of its size the journal warns, and removes nothing yet."""
    await write(tmp_path, 50)
    size = sum(path.stat().st_size for path in segments_of(tmp_path))
    retention = Retention(tmp_path, max_size=int(size * 1.1), seed=SEED)
    assert retention.enforce({}) == []
    assert retention.nearly_full
    assert any("octets" in entry.getMessage() for entry in caplog.records)


async def test_stub_of_somebody_else_is_forged(tmp_path: Path) -> None:
    """Removing segments and writing a stub without the journal's key is found; so is another instance's stub."""
    instance = await write(tmp_path, 100)
    Retention(tmp_path, max_size=20_000, seed=bytes(32)).enforce({})
    if not (tmp_path / instance / STUB).exists():  # checkpoints of another key cover nothing for it
        Retention(tmp_path, max_size=20_000).enforce({})
    assert verify(tmp_path).ok
    assert [problem.kind for problem in verify(tmp_path, PUBLIC).problems] == [Kind.FORGED]


async def test_crash_between_stub_and_removal_verifies(tmp_path: Path) -> None:
    """Segments that the stub has given up already and that are still there are passed over."""
    await write(tmp_path / "audit", 100)
    shutil.copytree(tmp_path / "audit", tmp_path / "before")
    Retention(tmp_path / "audit", max_size=20_000, seed=SEED).enforce({})
    for folder in list_instances(tmp_path / "before"):
        shutil.copy(tmp_path / "audit" / folder.name / STUB, folder / STUB)
    assert verify(tmp_path / "before", PUBLIC).ok
