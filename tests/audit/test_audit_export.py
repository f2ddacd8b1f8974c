"""Exports: whole ranges however they are cut, selections, and tables that no spreadsheet computes."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from nacl.signing import SigningKey
from support.audit_tools import SEED, records, segments_of, write

from zapd.audit.errand import Order, exported
from zapd.audit.event import AuditEvent, Tag
from zapd.audit.export import export, octets_since
from zapd.audit.journal import Journal
from zapd.audit.retention import Retention
from zapd.audit.selection import Sought, select
from zapd.audit.sheet import cell, sheet
from zapd.audit.verify import verify_export
from zapd.errors import InvalidInput

PUBLIC = bytes(SigningKey(SEED).verify_key)


@pytest.fixture
async def journal(tmp_path: Path) -> Path:
    """Forty decisions a second apart, in several segments."""
    moments = iter(range(1_700_000_000, 1_800_000_000))
    await write(tmp_path / "audit", 40, clock=lambda: next(moments) * 1_000_000_000)
    return tmp_path / "audit"


def checked(path: Path, octets: bytes) -> int:
    """An export that must be whole; how many records it holds."""
    path.write_bytes(octets)
    report = verify_export(path, PUBLIC)
    assert report.ok, list(report.lines())
    return report.records


def test_every_range_is_exact_and_verifies(journal: Path, tmp_path: Path) -> None:
    """Wherever a range begins and ends, it holds the records of that time and no other, and verifies; segments
    before it are not read."""
    whole = records(journal)
    assert len(segments_of(journal)) > 3
    for first, last in [(0, 41), (0, 1), (5, 6), (17, 30), (39, 41), (20, 20)]:
        since = whole[first]["time"]
        until = whole[last]["time"] if last < len(whole) else ""
        octets = b"".join(export(journal, since=since, until=until))
        lines = [json.loads(line) for line in octets.splitlines()]
        assert [line["sequence"] for line in lines if "kind" not in line] == list(range(first + 1, last + 1))
        assert checked(tmp_path / "export.jsonl", octets) == last - first
    assert octets_since(journal) == sum(path.stat().st_size for path in segments_of(journal))
    assert octets_since(journal, whole[39]["time"]) == segments_of(journal)[-1].stat().st_size
    segments_of(journal)[0].write_bytes(b"nothing of use\n")
    assert checked(tmp_path / "later.jsonl", b"".join(export(journal, since=whole[20]["time"]))) == 21
    assert b"".join(export(journal, instance="0" * 16)) == b""


def test_retention_may_overtake_an_export(journal: Path, tmp_path: Path) -> None:
    """Segments that go while they are exported leave two parts that each verify, not an error or a false alarm."""
    pieces = export(journal)
    begun = [next(pieces) for _ in range(5)]
    gone = Retention(journal, max_size=6000, seed=SEED).enforce({})
    assert len(gone) > 1
    octets = b"".join([*begun, *pieces])
    headers = [json.loads(line) for line in octets.splitlines() if b'"kind"' in line[:8]]
    assert headers[0]["first"] == 1
    assert len(headers) == 2
    assert checked(tmp_path / "export.jsonl", octets) < 41


def test_a_selection_holds_what_fits_and_says_what_it_is(journal: Path, tmp_path: Path) -> None:
    """Each condition chooses as the search does; the first line tells, and verifying one is refused."""
    whole = records(journal)

    def found(**conditions: Any) -> list[int]:
        return [each[0].sequence for each in select(journal, Sought(**conditions)) if each is not None]

    assert found() == list(range(1, 42))
    assert found(user="device-3") == [5]
    assert found(event="auth.*", since=whole[38]["time"]) == [39, 40, 41]
    assert found(status=200, until=whole[3]["time"]) == [2, 3]
    assert found(status=400) == found(domain="lab") == found(address="x") == found(key="SHA256:x") == []
    assert found(domains=("orders",)) == list(range(2, 42))
    assert found(domains=("orders*", "lab")) == list(range(2, 42))
    assert found(domains=("metrics.*",)) == found(domains=()) == []
    octets = b"".join(exported(journal, Sought(user="device-3"), "jsonl"))
    first, second = octets.splitlines()
    assert json.loads(first) == {"kind": "selection", "sought": {"user": "device-3"}}
    assert json.loads(second) == whole[4]
    for form in ("jsonl", "csv"):
        path = tmp_path / form
        path.write_bytes(b"".join(exported(journal, Sought(user="device-3"), form)))  # type: ignore[arg-type]
        with pytest.raises(InvalidInput, match="selection"):
            verify_export(path)


HOSTILE = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1+1",
    " =1",
    "＝1",
    "a\r\nb",
    "\x1b[31m\x07",
    'quo"te, comma',
    "\u202e\u2028",
    "\x00",
    "名前",
]


async def test_a_record_is_a_line_and_no_cell_is_a_formula(tmp_path: Path) -> None:
    """Whatever stands in a record, the table has one line for it, no control octet, and no cell that begins as a
    formula does; a CSV reader finds every cell."""
    journal = await Journal.open(tmp_path / "audit")
    for text in HOSTILE:
        journal.append(AuditEvent(event=Tag.AUTH_REJECT, username=text, address=text, domain=text, status=400))
    await journal.close()
    octets = b"".join(sheet(each and each[0] for each in select(tmp_path / "audit", Sought())))
    lines = octets.decode().split("\r\n")
    assert len(lines) == 1 + 1 + len(HOSTILE) + 1
    assert all(line.isprintable() for line in lines)
    rows = list(csv.DictReader(io.StringIO(octets.decode())))
    assert len(rows) == 1 + len(HOSTILE)
    for text, row in zip(HOSTILE, rows[1:], strict=True):
        assert row["username"] == row["address"] == row["domain"]
        assert row["status"] == "400"
        if text.isprintable():
            assert row["username"].removeprefix("'") == text
        for value in row.values():
            assert not value.lstrip().startswith(("=", "+", "-", "@", "＝"))
    assert cell([("keys", "accept", 0.25)]) == "keys accept 0.25 ms"
    assert (cell(None), cell(0), cell(7), cell({"a": [1]})) == ("", "", "7", '{"a":[1]}')


async def test_exports_take_no_more_memory_for_more_records(tmp_path: Path) -> None:
    """Ten times as many records go through the same few octets of memory, in either form."""

    def all_of(pieces: Iterator[bytes]) -> int:
        return sum(map(len, pieces))

    for form in ("jsonl", "csv"):
        peaks = []
        for count in (500, 5000):
            folder = tmp_path / str(count)
            if not folder.exists():
                await write(folder, count, segment=10_000_000, durability="relaxed")
            tracemalloc.start()
            assert all_of(exported(folder, Sought(), form)) > count * 100  # type: ignore[arg-type]
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert peaks[1] < peaks[0] * 1.5 + 200_000


def errand(order: Order, *, until_end: bool = True) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-P", "-m", "zapd.audit.errand"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        process.stdin.flush()
        out = process.stdout.read() if until_end else process.stdout.read(10)
        process.stdin.close()
        if not until_end:
            process.stdout.close()
        return subprocess.CompletedProcess(command, process.wait(20), out)


async def test_errands_say_all_or_fail(journal: Path, tmp_path: Path) -> None:
    """The process that exports and verifies ends with 0 only when it said everything; when whoever sent it is gone
    it goes too."""
    done = errand(Order(str(journal)))
    assert (done.returncode, done.stdout) == (0, b"".join(export(journal)))
    done = errand(Order(str(journal), verify=True, public_key=PUBLIC.hex()))
    assert (done.returncode, json.loads(done.stdout)["records"]) == (0, 41)
    path = segments_of(journal)[1]
    path.unlink()
    path.mkdir()  # not even root reads that
    assert errand(Order(str(journal))).returncode != 0
    path.rmdir()
    big = tmp_path / "big"
    await write(big, 3000, segment=10_000_000, durability="relaxed")
    assert errand(Order(str(big)), until_end=False).returncode != 0
