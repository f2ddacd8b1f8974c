"""Checking a journal, or an export of it, with nothing but the files and the public half of its key.

Works while the server runs and when it is stopped, streams, and keeps no record in memory. For each instance it
walks the chain from the beginning (or from a stub that retention left) and holds every witness against it: the
checkpoints beside the segments, the heads given, and the first record of the instance that came after.

What it cannot see it says: without an outside head, whoever can write the folder could have cut the tail and the
checkpoints of that tail with it; and whoever had the signing key could have sealed another past.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import msgspec

from zapd.audit.chain import Link, genesis
from zapd.audit.checkpoint import CHECKPOINTS, read_checkpoints
from zapd.audit.event import Tag
from zapd.audit.instance import is_instance, list_instances
from zapd.audit.report import InstanceReport, Kind, Problem, Report
from zapd.audit.segment import LONGEST, list_segments, read_lines
from zapd.audit.signing import is_signed_by
from zapd.audit.stub import STUB, read_stub
from zapd.audit.walk import Line, Walk, walk
from zapd.audit.witness import Trust, Witness
from zapd.errors import InvalidInput


class _First(msgspec.Struct):
    event: str = ""
    sequence: int = 0
    detail: dict[str, object] | None = None


@dataclass(slots=True)
class _Outside:
    """What is known of instances from outside them, as of the beginning."""

    heads: dict[Path, int] = field(default_factory=dict)
    """Head files and their size: what a running server adds later is not waited for."""
    successors: dict[str, list[tuple[Link, str]]] = field(default_factory=dict)
    """For an instance, the records that later ones name as its last, and who names them."""


def verify(directory: Path, public_key: bytes | None = None, heads: Sequence[Path] = ()) -> Report:
    """Check every instance under ``directory`` (``data_dir/audit``).

    ``public_key`` is the 32 octets of the journal's Ed25519 key: only checkpoints and stubs that it signed count.
    ``heads`` are files that the journal's ``[audit] head`` went to: its own file, or what syslog kept. Blocks, for
    about six seconds a million records. Raises `OSError` only when ``directory`` itself cannot be read.
    """
    outside = _Outside({path: path.stat().st_size for path in heads if path.exists()})
    folders = list_instances(directory)
    for folder in folders:
        for link, named in _named_predecessor(folder):
            outside.successors.setdefault(named, []).append((link, folder.name))
    reports = [_verify_instance(folder, public_key, outside) for folder in folders]
    problems = [found.problem for found in reports if found.problem is not None]
    problems += _lost(directory, {folder.name for folder in folders}, public_key, outside)
    missing_heads = [path for path in heads if path not in outside.heads]
    return Report(tuple(reports), tuple(problems), tuple(_blind(reports, public_key, outside, missing_heads)))


def verify_export(path: Path, public_key: bytes | None = None, heads: Sequence[Path] = ()) -> Report:
    """Check an exported range: JSONL as `zapd.audit.export` writes it, or whole lines of one segment.

    Raises `InvalidInput` for an export that is a selection.
    """
    with path.open("rb") as file:
        if file.readline(LONGEST).startswith((b'{"kind":"selection"', b"time,instance,sequence,")):
            raise InvalidInput(
                f"{path} is a selection, and what was left out cannot be told from what was taken away: "
                "export a whole range as JSONL to verify it."
            )
    outside = _Outside({head: head.stat().st_size for head in heads if head.exists()})
    reports: list[InstanceReport] = []
    problems: list[Problem] = []
    for instance, start, place, anchored in _parts(path):
        trust = Trust(instance, public_key)
        witnesses = _witnesses(None, outside, trust)
        for witness in witnesses:
            witness.start_after(start.sequence)
        result = walk(partial(_part_lines, path, *place), instance, start, witnesses)
        notes = (
            () if anchored else ("nothing names the hash before its first record, which is taken as it stands",)
        )
        reports.append(_report(instance, 1, result, witnesses, result.problem, notes))
        if result.problem is not None:
            problems.append(result.problem)
    blind = ["records before and after the range", *_blind(reports, public_key, outside, [])]
    return Report(tuple(reports), tuple(problems), tuple(blind))


def _verify_instance(folder: Path, public_key: bytes | None, outside: _Outside) -> InstanceReport:
    instance = folder.name
    notes: list[str] = []
    trust = Trust(instance, public_key)
    for attempt in range(3):
        try:
            # Ends are taken before records are read, so that what a running server adds is not missed later.
            witnesses = _witnesses(folder, outside, trust)
            stub = read_stub(folder)
            segments = [
                (number, path)
                for number, path in list_segments(folder)
                if stub is None or number >= stub.first_segment
            ]
            start = genesis(instance) if stub is None else stub.link
            for witness in witnesses:
                witness.start_after(start.sequence)
            result = walk(lambda: _segment_lines(segments), instance, start, witnesses)  # noqa: B023
            break
        except FileNotFoundError:
            if attempt == 2:
                raise
        except OSError as error:
            problem = Problem(Kind.UNREADABLE, instance, "", 0, 0, error.strerror or str(error))
            return _report(instance, 0, Walk(genesis(instance)), [], problem, ())
    problem_found = result.problem
    if stub is not None:
        notes.append(
            f"records up to {stub.link.sequence} were removed by retention ({stub.reason}) on {stub.time}"
        )
        if stub.instance != instance or (public_key is not None and not is_signed_by(stub.line, public_key)):
            detail = "the stub that stands for removed records is not signed with this journal's key"
            problem_found = Problem(Kind.FORGED, instance, STUB, 0, stub.link.sequence, detail)
    problem_found = problem_found or _cut_tail(instance, result, segments, witnesses)
    if problem_found is None and trust.forged is not None:
        detail = "a checkpoint names the journal's key and is not signed by it"
        problem_found = Problem(Kind.FORGED, instance, "", 0, trust.forged.link.sequence, detail)
    if trust.other_keys:
        notes.append(f"{trust.other_keys} checkpoints are signed by another key and were not used")
    if trust.unsigned and public_key is not None:
        notes.append(f"{trust.unsigned} checkpoints are unsigned and were not used")
    if any(witness.out_of_order for witness in witnesses):
        notes.append("checkpoints stand out of order in a head")
    report = _report(instance, len(segments), result, witnesses, problem_found, ())
    report, extra = _known_damage(report, outside)
    return replace(report, notes=(*notes, *extra))


def _witnesses(folder: Path | None, outside: _Outside, trust: Trust) -> list[Witness]:
    found: list[Witness] = []
    if folder is not None and (folder / CHECKPOINTS).exists():
        path = folder / CHECKPOINTS
        found.append(
            Witness(f"{folder.name}/{CHECKPOINTS}", trust.links(path, path.stat().st_size), outside=False)
        )
    found += [
        Witness(f"head {path.name}", trust.links(path, end), outside=True) for path, end in outside.heads.items()
    ]
    for link, successor in sorted(outside.successors.get(trust.instance, ()), key=lambda named: named[0].sequence):
        if link.sequence:
            found.append(Witness(f"instance {successor}", [link], outside=False))
    return found


def _cut_tail(
    instance: str, result: Walk, segments: list[tuple[int, Path]], witnesses: Sequence[Witness]
) -> Problem | None:
    furthest, name = 0, ""
    for witness in witnesses:
        coming = witness.furthest()
        if coming > furthest:
            furthest, name = coming, witness.name
    if furthest <= result.link.sequence:
        return None
    segment = segments[-1][1].name if segments else ""
    detail = f"{name} remembers record {furthest}; the journal ends with record {result.link.sequence}"
    return Problem(Kind.CUT, instance, segment, 0, result.link.sequence + 1, detail)


def _known_damage(report: InstanceReport, outside: _Outside) -> tuple[InstanceReport, tuple[str, ...]]:
    """Damage past the record after which a successor began, and past every checkpoint, was found at that start
    and is told in the successor's chain: an unfinished tail after a power cut, not tampering."""
    problem = report.problem
    named = outside.successors.get(report.instance)
    if problem is None or not named or problem.kind in (Kind.RESEALED, Kind.FORGED, Kind.CUT):
        return report, ()
    trusted, successor = max(((link.sequence, name) for link, name in named), default=(0, ""))
    if problem.sequence <= trusted or report.checkpointed > trusted or report.last != trusted:
        return report, ()
    note = f"damaged after record {trusted}, as instance {successor} says, which began in its place"
    return replace(report, problem=None), (note,)


def _lost(directory: Path, there: set[str], public_key: bytes | None, outside: _Outside) -> list[Problem]:
    """Instances that are remembered and whose folders are gone."""
    lost: dict[str, tuple[str, int]] = {}
    for path, end in outside.heads.items():
        for found in read_checkpoints(path, end):
            if found.instance in there or not is_instance(found.instance):
                continue
            if public_key is None or found.signed_by(public_key):
                lost[found.instance] = (f"head {path.name}", found.link.sequence)
    for name, links in outside.successors.items():
        if name not in there:
            lost[name] = (f"instance {links[0][1]}", links[0][0].sequence)
    return [
        Problem(Kind.LOST, name, "", 0, sequence, f"{witness} remembers it; its folder is not there")
        for name, (witness, sequence) in sorted(lost.items())
    ]


def _named_predecessor(folder: Path) -> Iterator[tuple[Link, str]]:
    """The link and the instance that an instance's first record names."""
    for _, path in list_segments(folder):
        with path.open("rb") as file:
            line = file.readline(131_072)
        if not line:
            continue
        try:
            first = msgspec.json.decode(line, type=_First)
            detail = first.detail or {}
            sequence, digest, named = detail.get("sequence"), detail.get("hash"), detail.get("predecessor")
            if first.sequence == 1 and first.event == Tag.JOURNAL_BEGIN and isinstance(sequence, int):
                yield Link(sequence, bytes.fromhex(str(digest))), str(named)
        except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
            pass
        return


def _report(
    instance: str,
    segments: int,
    result: Walk,
    witnesses: Sequence[Witness],
    problem: Problem | None,
    notes: tuple[str, ...],
) -> InstanceReport:
    marks = [witness for witness in witnesses if not witness.name.startswith("instance ")]
    return InstanceReport(
        instance=instance,
        first=result.first,
        last=result.link.sequence if result.first else 0,
        segments=segments,
        head=result.link.digest.hex(),
        began=result.began,
        ended=result.ended,
        open=result.open,
        checkpointed=max((witness.agreed for witness in marks), default=0),
        checkpoints=sum(witness.seen for witness in marks),
        outside=max((witness.agreed for witness in marks if witness.outside), default=0),
        problem=problem,
        notes=notes,
    )


def _blind(
    reports: Sequence[InstanceReport], public_key: bytes | None, outside: _Outside, missing: Sequence[Path]
) -> Iterator[str]:
    if public_key is None:
        yield "whether checkpoints and stubs are genuine: no public key was given"
    for path in missing:
        yield f"what the head {path} remembers: there is no such file"
    if not outside.heads:
        yield "a tail cut together with its checkpoints, an instance removed as a whole: no outside head was given"
    for found in reports:
        reach = found.outside if outside.heads else found.checkpointed
        if found.last > reach:
            span = f"record {found.last}" if found.last == reach + 1 else f"records {reach + 1} to {found.last}"
            yield f"whether more followed, or another past was sealed: {found.instance}, {span}, no checkpoint"


def _segment_lines(segments: Sequence[tuple[int, Path]]) -> Iterator[Line]:
    for index, (_, path) in enumerate(segments):
        last = index == len(segments) - 1
        with path.open("rb") as file:
            for number, octets in enumerate(read_lines(file), 1):
                yield Line(path.name, number, octets, last)


# --- exports ---------------------------------------------------------------------------------------------------


class _Header(msgspec.Struct):
    kind: str
    instance: str
    first: int
    previous: str


class _Anchor(msgspec.Struct):
    instance: str
    sequence: int
    hash: str


_Part = tuple[str, Link, tuple[int, int], bool]
"""(instance, link before its first record, octet and number of its first line, whether that link is known)."""


def _parts(path: Path) -> list[_Part]:
    parts: list[_Part] = []
    with path.open("rb") as file:
        for number, line in enumerate(read_lines(file), 1):
            if line.startswith(b'{"kind":"export"'):
                try:
                    header = msgspec.json.decode(line, type=_Header)
                    start = Link(header.first - 1, bytes.fromhex(header.previous))
                except (msgspec.DecodeError, ValueError):
                    continue
                parts.append((header.instance, start, (file.tell(), number + 1), True))
            elif not parts:
                parts.append(_unheaded(line))
    return parts


def _unheaded(line: bytes) -> _Part:
    """A range that begins with a record."""
    try:
        anchor = msgspec.json.decode(line, type=_Anchor)
        digest = bytes.fromhex(anchor.hash)
    except (msgspec.DecodeError, ValueError):
        return "?", Link(0, bytes(32)), (0, 1), False
    if anchor.sequence == 1:
        return anchor.instance, genesis(anchor.instance), (0, 1), True
    return anchor.instance, Link(anchor.sequence, digest), (len(line), 2), False


def _part_lines(path: Path, at: int, first: int) -> Iterator[Line]:
    with path.open("rb") as file:
        file.seek(at)
        for number, octets in enumerate(read_lines(file), first):
            if octets.startswith(b'{"kind":"export"'):
                return
            yield Line(path.name, number, octets, last_segment=False)
