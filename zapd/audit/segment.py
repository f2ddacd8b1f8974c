"""The files of one instance: numbered segments, written at their end, each write durable when it returns.

Segments are ``00000001.jsonl``, ``00000002.jsonl``… in the instance's folder, opened with ``O_APPEND`` and
``O_DSYNC``: one system call writes a group and syncs it, as `fdatasync` would. Everything here blocks and
belongs to the journal's helper thread. Knows nothing of events and hashes.

After a failed sync the kernel may have dropped what it held and report success the next time. So a failure is
never retried in place: `Segments.recover` cuts the file to what was durable before, and goes on in a new one.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_NAME = re.compile(r"([0-9]{8,})\.jsonl")


LONGEST = 131_072
"""Octets after which a reader stops looking for a line's end; twice what a writer makes."""


class SegmentLost(OSError):
    """The open segment is no longer at its path: somebody removed, replaced or shortened it."""


def segment_name(number: int) -> str:
    """The file name of a segment."""
    return f"{number:08d}.jsonl"


def segment_number(name: str) -> int | None:
    """The number in a segment's file name, `None` for other files."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


def list_segments(folder: Path) -> list[tuple[int, Path]]:
    """(number, path) of every segment there, in order."""
    with os.scandir(folder) as entries:
        found = [
            (number, Path(entry.path)) for entry in entries if (number := segment_number(entry.name)) is not None
        ]
    return sorted(found)


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines with their newline. A line without one is the last: unfinished, or `LONGEST` octets and no line."""
    while line := file.readline(LONGEST):
        yield line
        if not line.endswith(b"\n"):
            return


def sync_folder(folder: Path) -> None:
    """Make created, renamed and removed names durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a small file as a whole, durably."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    try:
        write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    temporary.replace(path)
    sync_folder(path.parent)


def write_all(descriptor: int, data: bytes) -> None:
    """Write every octet, or raise `OSError`; some may have been written then."""
    done = os.write(descriptor, data)
    while done < len(data):  # a disk that fills up takes a part, and refuses the rest on the next call
        done += os.write(descriptor, memoryview(data)[done:])


class Segments:
    """The open segment of one instance and the way to the next."""

    def __init__(self, folder: Path, *, number: int, descriptor: int, size: int, limit: int, age: float) -> None:
        self.folder = folder
        self.number = number
        """Of the open segment."""
        self.size = size
        """Octets of the open segment that are durable."""
        self.limit = limit
        """Octets at which the next segment begins."""
        self.age = age
        """Seconds after which the next segment begins."""
        self._descriptor = descriptor
        self._path = folder / segment_name(number)
        self._identity = _identity(os.fstat(descriptor))
        self._since = time.monotonic()

    @classmethod
    def open(cls, folder: Path, *, limit: int, age: float, number: int | None = None) -> Segments:
        """Continue in segment ``number``, or begin the first one."""
        if number is None:
            return cls(folder, number=1, descriptor=_create(folder, 1), size=0, limit=limit, age=age)
        descriptor = os.open(folder / segment_name(number), _FLAGS)
        size = os.fstat(descriptor).st_size
        return cls(folder, number=number, descriptor=descriptor, size=size, limit=limit, age=age)

    def append(self, data: bytes) -> None:
        """Write whole lines and make them durable. Raises `OSError`; nothing counts as written then."""
        if self.size and (self.size + len(data) > self.limit or time.monotonic() - self._since > self.age):
            self.rotate()
        if data:
            write_all(self._descriptor, data)
        self._check(self.size + len(data))
        self.size += len(data)

    def _check(self, size: int) -> None:
        """Raise `SegmentLost` unless the open file is the one at its path and has the octets we gave it."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            raise SegmentLost(f"{self._path} is gone") from None
        if _identity(found) != self._identity:
            raise SegmentLost(f"{self._path} is another file now")
        if found.st_size != size:
            raise SegmentLost(f"{self._path} has {found.st_size} octets, not the {size} that were written")

    def rotate(self) -> None:
        """Begin the next segment."""
        descriptor = _create(self.folder, self.number + 1)
        self._close()
        self._take(self.number + 1, descriptor)

    def recover(self, data: bytes) -> None:
        """After a failure: cut the old segment to its durable octets, then write ``data`` to a new one.

        Raises `OSError` while the trouble lasts; the next try begins with cutting what this one left.
        """
        if self._descriptor >= 0:
            if os.fstat(self._descriptor).st_size > self.size:
                os.ftruncate(self._descriptor, self.size)
                os.fsync(self._descriptor)
            self._close()
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        number = max([self.number, *(number for number, _ in list_segments(self.folder))]) + 1
        descriptor = _create(self.folder, number)
        self._take(number, descriptor)
        try:
            write_all(descriptor, data)
            self._check(len(data))
        except OSError:
            # The records in it count as unwritten and come again, so the file must not stay as it is.
            with contextlib.suppress(OSError):
                self._path.unlink()
                self._close()
            raise
        self.size = len(data)

    def close(self) -> None:
        self._close()

    def _take(self, number: int, descriptor: int) -> None:
        self.number = number
        self.size = 0
        self._since = time.monotonic()
        self._descriptor = descriptor
        self._path = self.folder / segment_name(number)
        self._identity = _identity(os.fstat(descriptor))

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)


_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_DSYNC | os.O_CLOEXEC | os.O_NOFOLLOW


def _create(folder: Path, number: int) -> int:
    descriptor = os.open(folder / segment_name(number), _FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        sync_folder(folder)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
