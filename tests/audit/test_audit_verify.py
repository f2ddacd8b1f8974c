"""Tampering, by whoever holds the disk: each kind is found, and the first bad record named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.audit_tools import SEED, decision, edit, records, segments_of, write

from zapd.audit import checkpoint as checkpoints
from zapd.audit.chain import chained, genesis, split
from zapd.audit.checkpoint import CHECKPOINTS, FileHead, checkpoint_line
from zapd.audit.export import export
from zapd.audit.instance import Limits
from zapd.audit.journal import Journal
from zapd.audit.report import Kind, Report
from zapd.audit.signing import parse_public_key, public_text
from zapd.audit.verify import verify, verify_export

PUBLIC = parse_public_key(public_text(SEED))


def reseal(directory: Path, instance: str, change: Callable[[bytes], bytes]) -> None:
    """Alter records and make the whole chain fit again, as whoever knows the format can."""
    digest = genesis(instance).digest
    for path in segments_of(directory, instance):
        lines = []
        for line in path.read_bytes().splitlines():
            body = change(split(line)[0])
            digest = chained(digest, body)
            lines.append(body + b',"hash":"' + digest.hex().encode() + b'"}\n')
        path.write_bytes(b"".join(lines))


def only_problem(report: Report) -> tuple[Kind, str, int, int]:
    """Kind, segment, line and sequence of the one problem there is."""
    assert len(report.problems) == 1, list(report.lines())
    problem = report.problems[0]
    assert str(problem)
    return problem.kind, problem.segment, problem.line, problem.sequence


@pytest.fixture
async def journal(tmp_path: Path) -> Path:
    """A journal of four-record segments: ``00000002.jsonl`` holds records 6 to 10 or thereabouts."""
    await write(tmp_path / "audit", 40, segment=2800)
    return tmp_path / "audit"


def first_of(path: Path) -> int:
    """The number of a segment's first record."""
    import json

    return int(json.loads(path.read_bytes().splitlines()[0])["sequence"])


async def test_sound_journal_is_intact(journal: Path) -> None:
    """Nothing is found where nothing was done, with key and without, and what cannot be seen is said."""
    for key in (None, PUBLIC):
        report = verify(journal, key)
        assert report.ok
        assert report.records == 41
        assert report.instances[0].checkpointed == 41
        assert any("outside head" in sentence for sentence in report.blind)
    assert any("no public key" in sentence for sentence in verify(journal).blind)


async def test_altered_record(journal: Path) -> None:
    """One octet changed in a record is found there."""
    path = segments_of(journal)[1]
    first = first_of(path)
    edit(path, lambda lines: [lines[0], lines[1].replace(b"orders", b"0rders"), *lines[2:]])
    assert only_problem(verify(journal)) == (Kind.ALTERED, path.name, 2, first + 1)


@pytest.mark.parametrize(
    "octets", [b"", b"garbage\n", b"\x00" * 40 + b"\n", b'{"sequence":7}\n', b"\xff\xfe\n", b"[" * 5000 + b"\n"]
)
async def test_record_made_into_something_else(journal: Path, octets: bytes) -> None:
    """A record replaced by anything is found there."""
    path = segments_of(journal)[1]
    first = first_of(path)
    edit(path, lambda lines: [lines[0], octets or b"\n", *lines[2:]])
    kind, segment, line, sequence = only_problem(verify(journal))
    assert (kind, segment, line, sequence) == (Kind.ALTERED, path.name, 2, first + 1)


async def test_altered_number(journal: Path) -> None:
    """A record whose number was changed is altered; it is not taken for a gap."""
    path = segments_of(journal)[1]
    first = first_of(path)
    old, new = b'"sequence":%d,' % (first + 1), b'"sequence":%d,' % (first + 30)
    edit(path, lambda lines: [lines[0], lines[1].replace(old, new), *lines[2:]])
    assert only_problem(verify(journal)) == (Kind.ALTERED, path.name, 2, first + 1)


async def test_removed_record(journal: Path) -> None:
    """A record taken out is missed where it should stand."""
    path = segments_of(journal)[1]
    first = first_of(path)
    edit(path, lambda lines: [lines[0], *lines[2:]])
    assert only_problem(verify(journal)) == (Kind.MISSING, path.name, 2, first + 1)


async def test_removed_segment(journal: Path) -> None:
    """A segment taken out is missed from the next one's first line on."""
    gone, after = segments_of(journal)[1:3]
    first = first_of(gone)
    gone.unlink()
    assert only_problem(verify(journal)) == (Kind.MISSING, after.name, 1, first)


async def test_removed_beginning(journal: Path) -> None:
    """The first segment removed without a stub is missed."""
    segments_of(journal)[0].unlink()
    kind, _, line, sequence = only_problem(verify(journal))
    assert (kind, line, sequence) == (Kind.MISSING, 1, 1)


@pytest.mark.parametrize("number", [0, 1, 900])
async def test_inserted_record(journal: Path, number: int) -> None:
    """A record put in between is found, whatever number it was given."""
    path = segments_of(journal)[1]
    sequence = first_of(path) + number

    def insert(lines: list[bytes]) -> list[bytes]:
        old = b'"sequence":%d,' % first_of(path)
        fake = lines[0].replace(old, b'"sequence":%d,' % sequence).replace(b"device", b"forged")
        return [lines[0], fake, *lines[1:]]

    edit(path, insert)
    assert only_problem(verify(journal)) == (Kind.INSERTED, path.name, 2, sequence)


async def test_reordered_records(journal: Path) -> None:
    """Two records in each other's place are found at the first of them."""
    path = segments_of(journal)[1]
    edit(path, lambda lines: [lines[0], lines[2], lines[1], *lines[3:]])
    kind, segment, line, _ = only_problem(verify(journal))
    assert (kind, segment, line) == (Kind.REORDERED, path.name, 2)


async def test_record_moved_far(journal: Path) -> None:
    """A record moved to a later segment is reordered, not missing."""
    near, _, far = segments_of(journal)[1:4]
    moved = near.read_bytes().splitlines(keepends=True)[1]
    edit(near, lambda lines: [lines[0], *lines[2:]])
    edit(far, lambda lines: [*lines[:2], moved, *lines[2:]])
    kind, segment, line, _ = only_problem(verify(journal))
    assert (kind, segment, line) == (Kind.REORDERED, near.name, 2)


@pytest.mark.parametrize("where", [1, 2])
async def test_doubled_record(journal: Path, where: int) -> None:
    """A record that stands there twice is found the second time, near or far."""
    path, other = segments_of(journal)[1], segments_of(journal)[where]
    copy = path.read_bytes().splitlines(keepends=True)[0]
    edit(other, lambda lines: [lines[0], copy, *lines[1:]])
    assert only_problem(verify(journal)) == (Kind.DOUBLED, other.name, 2, first_of(path))


async def test_tail_cut_under_a_checkpoint(journal: Path) -> None:
    """Records cut off the end are missed as soon as a checkpoint remembers them."""
    path = segments_of(journal)[-1]
    edit(path, lambda lines: lines[:-1])
    assert only_problem(verify(journal)) == (Kind.CUT, path.name, 0, 41)


async def test_tail_cut_with_its_checkpoints_needs_a_head(tmp_path: Path) -> None:
    """A tail cut together with the checkpoints beside it is seen through an outside head, and `verify` says that
    it could not see it without."""
    head = tmp_path / "head"
    await write(tmp_path / "audit", 40, heads=[FileHead(head)])
    path = segments_of(tmp_path / "audit")[-1]
    edit(path, lambda lines: lines[:-1])
    (path.parent / CHECKPOINTS).unlink()
    blind = verify(tmp_path / "audit", PUBLIC)
    assert blind.ok
    assert any("a tail cut" in sentence for sentence in blind.blind)
    assert any("records 1 to 40" in sentence for sentence in blind.blind)
    assert only_problem(verify(tmp_path / "audit", PUBLIC, [head])) == (Kind.CUT, path.name, 0, 41)


async def test_closed_segment_stops_within_a_line(journal: Path) -> None:
    """A closed segment that stops within a line was cut; only an open segment's last line may be unfinished."""
    path = segments_of(journal)[1]
    data = path.read_bytes()
    path.write_bytes(data[:-20])
    kind, segment, line, _ = only_problem(verify(journal))
    assert (kind, segment, line) == (Kind.CUT, path.name, data.count(b"\n"))


async def test_unfinished_last_line_is_open(journal: Path) -> None:
    """An unfinished last line of the open segment is called open, and nothing is wrong."""
    path = segments_of(journal)[-1]
    path.write_bytes(path.read_bytes() + b'{"time":"2026-')
    report = verify(journal, PUBLIC)
    assert report.ok
    assert report.instances[0].open


async def test_swapped_segments(journal: Path) -> None:
    """Two segments under each other's name are found."""
    one, two = segments_of(journal)[1:3]
    first, second = one.read_bytes(), two.read_bytes()
    one.write_bytes(second)
    two.write_bytes(first)
    kind, segment, line, _ = only_problem(verify(journal))
    assert (kind, segment, line) == (Kind.SWAPPED, one.name, 1)


async def test_another_instances_log(tmp_path: Path) -> None:
    """An honest log of another instance in this one's place is foreign."""
    one = await write(tmp_path / "one", 30)
    two = await write(tmp_path / "two", 30)
    shutil.rmtree(tmp_path / "one" / one)
    shutil.copytree(tmp_path / "two" / two, tmp_path / "one" / one)
    kind, _, line, _ = only_problem(verify(tmp_path / "one"))
    assert (kind, line) == (Kind.FOREIGN, 1)


async def test_resealed_chain_is_found_through_checkpoints(journal: Path) -> None:
    """A past written anew with a chain that fits disagrees with the checkpoints."""
    instance = records(journal)[0]["instance"]
    reseal(journal, instance, lambda body: body.replace(b"device-7", b"device-X"))
    kind, _, _, sequence = only_problem(verify(journal, PUBLIC))
    assert (kind, sequence) == (Kind.RESEALED, 41)


async def test_resealed_with_the_true_key_is_found_through_a_head(tmp_path: Path) -> None:
    """Old records sealed anew with the journal's own key, checkpoints and all, disagree with the outside head."""
    head = tmp_path / "head"
    instance = await write(tmp_path / "audit", 40, heads=[FileHead(head)])
    reseal(tmp_path / "audit", instance, lambda body: body.replace(b"device-7", b"device-X"))
    last = records(tmp_path / "audit")[-1]
    link = checkpoints.Link(last["sequence"], bytes.fromhex(last["hash"]))
    (tmp_path / "audit" / instance / CHECKPOINTS).write_bytes(checkpoint_line(instance, link, SEED, 1.8e9))
    assert verify(tmp_path / "audit", PUBLIC).ok  # so it says that it cannot see this
    kind, _, _, sequence = only_problem(verify(tmp_path / "audit", PUBLIC, [head]))
    assert (kind, sequence) == (Kind.RESEALED, 41)


async def test_checkpoints_of_another_key_do_not_count(journal: Path) -> None:
    """Checkpoints that another key made neither prove nor accuse; an unsigned one neither."""
    other = bytes(32)
    report = verify(journal, parse_public_key(public_text(other)))
    assert report.ok
    assert report.instances[0].checkpointed == 0
    assert any("another key" in note for note in report.instances[0].notes)


async def test_forged_checkpoint_is_found(journal: Path) -> None:
    """A checkpoint that names the journal's key without its signature is forged."""
    path = segments_of(journal)[0].parent / CHECKPOINTS
    path.write_bytes(path.read_bytes().replace(b'"sequence":41', b'"sequence":40'))
    kind, _, _, sequence = only_problem(verify(journal, PUBLIC))
    assert (kind, sequence) == (Kind.FORGED, 40)


async def test_instance_removed_as_a_whole_is_lost(tmp_path: Path) -> None:
    """A folder that is gone is missed by the head that remembers it."""
    head = tmp_path / "head"
    instance = await write(tmp_path / "audit", 10, heads=[FileHead(head)])
    shutil.rmtree(tmp_path / "audit" / instance)
    assert verify(tmp_path / "audit", PUBLIC).ok
    assert only_problem(verify(tmp_path / "audit", PUBLIC, [head]))[0] is Kind.LOST


async def test_successor_witnesses_its_predecessor(tmp_path: Path) -> None:
    """What a crash left beyond the last trusted record is a note once a successor told of it; a change before that
    record is found."""
    first = await write(tmp_path, 20, segment=100_000, signing_key=None)
    path = segments_of(tmp_path, first)[0]
    (path.parent / CHECKPOINTS).unlink()
    path.write_bytes(path.read_bytes() + b'{"torn":1}\n{"torn":2}\n')
    second = await write(tmp_path, 5)
    report = verify(tmp_path)
    assert report.ok, list(report.lines())
    assert any(second in note for found in report.instances for note in found.notes)
    reseal_until = path.read_bytes().replace(b"device-3", b"device-X")
    path.write_bytes(reseal_until)
    assert not verify(tmp_path).ok


async def test_running_journal_verifies(tmp_path: Path) -> None:
    """A journal that is being written verifies at any moment."""
    journal = await Journal.open(tmp_path, limits=Limits(size=5000), signing_key=SEED)
    import asyncio

    for number in range(60):
        journal.append(decision(number))
        if number % 3 == 0:
            report = await asyncio.to_thread(verify, tmp_path, PUBLIC)
            assert report.ok, list(report.lines())
    await journal.close()


async def test_export_verifies_and_its_tampering_is_found(journal: Path, tmp_path: Path) -> None:
    """A whole range exports as lines that verify alone; a change in any record of it is found, the first too."""
    whole = records(journal)
    since, until = whole[10]["time"], whole[20]["time"]
    path = tmp_path / "export.jsonl"
    path.write_bytes(b"".join(export(journal, since=since, until=until)))
    report = verify_export(path, PUBLIC)
    assert report.ok, list(report.lines())
    assert (report.instances[0].first, report.instances[0].last) == (11, 20)
    edit(path, lambda lines: [lines[0], lines[1].replace(b"orders", b"0rders"), *lines[2:]])
    assert only_problem(verify_export(path, PUBLIC)) == (Kind.ALTERED, path.name, 2, 11)


async def test_export_of_everything_holds_every_line(journal: Path, tmp_path: Path) -> None:
    """Without bounds an export is a header and the journal's own octets; several instances follow each other."""
    await write(tmp_path / "other", 3)
    other = next((tmp_path / "other").iterdir())
    shutil.copytree(other, journal / other.name)
    path = tmp_path / "export.jsonl"
    path.write_bytes(b"".join(export(journal)))
    report = verify_export(path, PUBLIC)
    assert report.ok
    assert sorted(found.last for found in report.instances) == [4, 41]
    edit(path, lambda lines: lines[:-2] + lines[-1:])
    assert not verify_export(path).ok


async def test_lines_without_header_verify_from_the_second(journal: Path, tmp_path: Path) -> None:
    """Bare lines verify too; that the first is taken as it stands is said."""
    path = tmp_path / "bare.jsonl"
    path.write_bytes(segments_of(journal)[1].read_bytes())
    report = verify_export(path)
    assert report.ok
    assert "as it stands" in report.instances[0].notes[0]
    edit(path, lambda lines: [lines[0], lines[2], lines[1], *lines[3:]])
    assert not verify_export(path).ok


async def test_empty_and_absent_folders(tmp_path: Path) -> None:
    """Nothing there is no tampering, and is not called verified records either."""
    assert verify(tmp_path).records == 0
    assert verify(tmp_path / "absent").ok
    (tmp_path / "empty.jsonl").write_bytes(b"")
    assert verify_export(tmp_path / "empty.jsonl").records == 0


async def test_memory_stays_flat(tmp_path: Path) -> None:
    """Verifying ten times as many records takes no more memory."""
    import tracemalloc

    peaks = []
    for count in (500, 5000):
        await write(tmp_path / str(count), count, segment=10_000_000, durability="relaxed")
        tracemalloc.start()
        assert verify(tmp_path / str(count)).records == count + 1
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] * 1.5 + 200_000
