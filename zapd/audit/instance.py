"""Which instance a journal continues, and whether it may.

An instance is a random id with a folder of its own, ``<audit>/<instance>/``, held by a lock on the file
``lock`` there. At start the newest instance that nobody holds is continued, if its last segment is sound and
holds every record that is remembered as durable (the newest checkpoints, in its folder and at the heads). An
unfinished last line, which a crash leaves, is cut. Anything else is left as it is found, for `verify` to
judge: a new instance begins, and its first record names the last trusted record of its predecessor.

Everything here blocks and belongs to the journal's helper thread.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from zapd.audit.chain import BadLine, Link, chained, genesis, head_of, split
from zapd.audit.segment import LONGEST, Segments, list_segments, read_lines, sync_folder, write_atomically
from zapd.audit.stub import read_stub

LOCK = "lock"
CLOSED = "closed"
"""A note in a folder whose instance must not be continued: why."""

PREDECESSOR = "predecessor.json"

Remembered = Callable[[str, Path], Sequence[Link]]
"""Given an instance and its folder, the records that were signed as durable: the newest few are enough."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When a new segment begins."""

    size: int = 64 * 1024 * 1024
    """Octets."""
    age: float = 86_400.0
    """Seconds."""


@dataclass(slots=True)
class Opened:
    """A held instance, ready to be written."""

    instance: str
    link: Link
    """Of the last record there is."""
    segments: Segments
    lock: int
    """Descriptor that holds the lock."""
    resumed: bool
    """An earlier run's instance, continued."""
    detail: dict[str, object] = field(default_factory=dict)
    """What the first record must say: a repair, or the predecessor."""


class Untrusted(Exception):
    """The instance cannot be continued; ``link`` is the last record that can be trusted."""

    def __init__(self, cause: str, link: Link) -> None:
        super().__init__(cause)
        self.link = link


def is_instance(name: str) -> bool:
    """Whether a folder's name is an instance's id: 16 hexadecimal digits."""
    return len(name) == 16 and all(character in "0123456789abcdef" for character in name)


def list_instances(directory: Path) -> list[Path]:
    """The folders of all instances, by name. None where the folder does not exist."""
    try:
        with os.scandir(directory) as entries:
            return sorted(Path(entry.path) for entry in entries if is_instance(entry.name) and entry.is_dir())
    except FileNotFoundError:
        return []


def open_instance(directory: Path, *, limits: Limits, remembered: Remembered) -> Opened:
    """Continue the newest instance that nobody holds, or begin one. Raises `OSError`."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    for folder in sorted(list_instances(directory), key=_last_written, reverse=True):
        if (folder / CLOSED).exists() or (lock := take_lock(folder)) is None:
            continue
        try:
            return _continue(folder, lock, limits, remembered)
        except Untrusted as untrusted:
            predecessor: dict[str, object] = {
                "predecessor": folder.name,
                "sequence": untrusted.link.sequence,
                "hash": untrusted.link.digest.hex(),
                "cause": str(untrusted),
            }
            try:
                opened = _begin(directory, limits, predecessor)
                with contextlib.suppress(OSError):
                    write_atomically(folder / CLOSED, f"{untrusted}\n".encode())
            finally:
                os.close(lock)
            return opened
        except BaseException:
            os.close(lock)
            raise
    return _begin(directory, limits, {})


def take_lock(folder: Path) -> int | None:
    """Hold a folder: a descriptor, or `None` when another process does."""
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _begin(directory: Path, limits: Limits, detail: dict[str, object]) -> Opened:
    instance = secrets.token_hex(8)
    folder = directory / instance
    folder.mkdir(mode=0o700)
    sync_folder(directory)
    lock = take_lock(folder)
    if lock is None:
        raise OSError(f"{folder} is held by another process")
    if detail:  # kept until the first record says it, in case of a crash before
        write_atomically(folder / PREDECESSOR, msgspec.json.encode(detail))
    segments = Segments.open(folder, limit=limits.size, age=limits.age)
    return Opened(instance, genesis(instance), segments, lock, resumed=False, detail=detail)


def _continue(folder: Path, lock: int, limits: Limits, remembered: Remembered) -> Opened:
    instance = folder.name
    segments = list_segments(folder)
    wanted = {link.sequence: link.digest for link in remembered(instance, folder)}
    detail: dict[str, object] = {}
    link = _before_last(folder, instance, segments)
    whole = size = 0
    if segments:
        link, whole, size = _walk(segments[-1][1], instance, link, wanted)
    elif link.sequence or wanted:
        raise Untrusted("its segments are gone", link)
    # What lies before the last segment is verify's to read; only the newest checkpoints can be ahead of the end.
    ahead = max((sequence for sequence in wanted if sequence > link.sequence), default=0)
    if ahead:
        raise Untrusted(f"record {ahead} was durable once and is not there: restored from a backup, or cut", link)
    if not link.sequence:
        detail.update(_read_predecessor(folder))
    if not segments:
        writer = Segments.open(folder, limit=limits.size, age=limits.age)
        return Opened(instance, link, writer, lock, resumed=False, detail=detail)
    number, path = segments[-1]
    if whole < size:
        detail["cut"] = {"segment": path.name, "octets": size - whole}
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.ftruncate(descriptor, whole)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    writer = Segments.open(folder, limit=limits.size, age=limits.age, number=number)
    return Opened(instance, link, writer, lock, resumed=link.sequence > 0, detail=detail)


def _before_last(folder: Path, instance: str, segments: list[tuple[int, Path]]) -> Link:
    """The link before the last segment's first record."""
    for _, path in reversed(segments[:-1]):
        line = last_line(path)
        if line is None:
            continue
        try:
            head = head_of(line)
            if head.instance != instance:
                raise BadLine("another instance's record")
            return Link(head.sequence, split(line)[1])
        except BadLine as error:
            raise Untrusted(f"{path.name} ends badly: {error}", genesis(instance)) from None
    stub = read_stub(folder)
    if stub is not None:
        return stub.link
    return genesis(instance)


def _read_predecessor(folder: Path) -> dict[str, object]:
    try:
        return msgspec.json.decode((folder / PREDECESSOR).read_bytes(), type=dict[str, object])
    except (OSError, msgspec.DecodeError):
        return {}


def _walk(path: Path, instance: str, link: Link, wanted: dict[int, bytes]) -> tuple[Link, int, int]:
    """Check every record of the last segment: (last record, octets of whole lines, octets in all)."""
    whole = 0
    with path.open("rb") as file:
        for line in read_lines(file):
            if not line.endswith(b"\n"):
                if len(line) >= LONGEST:
                    raise Untrusted(f"{path.name} is damaged after record {link.sequence}: an endless line", link)
                break
            try:
                body, stored = split(line[:-1])
                head = head_of(line)
            except BadLine as error:
                raise Untrusted(f"{path.name} is damaged after record {link.sequence}: {error}", link) from None
            if (
                head.instance != instance
                or head.sequence != link.sequence + 1
                or chained(link.digest, body) != stored
            ):
                raise Untrusted(f"{path.name} does not go on after record {link.sequence}", link)
            link = Link(head.sequence, stored)
            if wanted.get(link.sequence, stored) != stored:
                raise Untrusted(
                    f"record {link.sequence} is not the one that was signed", Link(link.sequence, stored)
                )
            whole += len(line)
        size = os.fstat(file.fileno()).st_size
    return link, whole, size


def last_line(path: Path) -> bytes | None:
    """The last whole line of a segment, without its newline; `None` when it has none."""
    with path.open("rb") as file:
        end = file.seek(0, os.SEEK_END)
        tail = b""
        while end > 0 and tail.count(b"\n") < 2 and len(tail) < 4 * LONGEST:
            start = max(0, end - 65_536)
            file.seek(start)
            tail = file.read(end - start) + tail
            end = start
    lines = tail.split(b"\n")
    return lines[-2] if len(lines) >= 2 else None


def _last_written(folder: Path) -> tuple[int, str]:
    newest = 0
    with contextlib.suppress(OSError):
        newest = max((path.stat().st_mtime_ns for _, path in list_segments(folder)), default=0)
    return newest, folder.name
