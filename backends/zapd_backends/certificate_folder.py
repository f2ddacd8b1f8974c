"""A folder of certificates, looked at again and again without reading it again. Blocking: one thread at a time.

Each look costs one ``stat`` while nothing changed. When the folder's own time has, its names and inodes are
listed: what is gone is out at once, what is new or was replaced is read. Edits in place show in the files' own
times alone; those are looked at in turn, as often as costs a fiftieth of a core. Work that takes long is done in
slices, so that a removed certificate never waits for a hundred thousand others.

A file that cannot be used keeps what it last said while its content is what is wrong with it; one that cannot be
opened says nothing. What a key is let in as is the caller's to say.
"""

from __future__ import annotations

import math
import os
import stat
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from time import monotonic, time_ns
from typing import Final

from zapd.auth.backend import Admission, Card
from zapd.errors import InvalidInput, Unavailable
from zapd.store.certificate_file import MAX_FILE, Certificate, HoldsSecret, is_passed_over, parse_certificate

MAX_FILES: Final = 1_000_000
MAX_NAMED: Final = 5
"""How many files one message names."""
SLICE: Final = 0.5
"""Seconds that one look may spend on files."""
SHARE: Final = 50
"""Looking at all files' times takes at most one part in so many of a core."""
RARELY: Final = 60.0
"""Seconds after which it is begun in any case."""
BLURRED: Final = 50_000_000
"""Nanoseconds: a time as fresh as this may stand for two states."""
UNSETTLED: Final = 10.0
"""Seconds that a new file may take to become whole; until then a key that nobody knows may be its."""
AGAIN: Final = 1_000
"""Unsettled files that are read again with each look."""

Said = Admission | Card
Reader = Callable[[str, Certificate], Said]
"""What the certificate in a file of this name lets in. Raises `InvalidInput`."""


@dataclass(slots=True)
class Changes:
    """What one look found. Put in force whole, each builds on those before it."""

    put: dict[bytes, Said] = field(default_factory=dict)
    gone: set[bytes] = field(default_factory=set)
    files: int = 0
    """Certificates in force, or that were named as unusable."""
    more: bool = False
    """There is more to read at once."""
    unsure_until: float = 0.0
    """On `time.monotonic`: until then a key that is not known may be in a file that could not be read."""
    place: tuple[int, int] = (0, 0)
    """Which folder it is: device and inode."""
    problem: str = ""


@dataclass(slots=True)
class _File:
    inode: int
    signature: tuple[int, ...] | None = None
    """None where the next look must read it again."""
    key: bytes | None = None
    said: Said | None = None


class CertificateFolder:
    """See the module's text."""

    def __init__(self, path: Path, reader: Reader) -> None:
        self.path = path
        self._reader = reader
        self._files: dict[str, _File] = {}
        self._holders: dict[bytes, str | tuple[str, ...]] = {}
        """The file of each key; where there are several, the first by name speaks."""
        self._faults: dict[str, str] = {}
        self._unsure: dict[str, float] = {}
        self._secrets = 0
        self._open_to_all = False
        self._place = (0, 0)
        self._listed: tuple[int, int, int] | None = None
        self._urgent: dict[str, None] = {}
        self._sweeping: deque[str] = deque()
        self._sweep_cost = 0.0
        self._next_sweep = 0.0
        self._touched: set[bytes] = set()

    def look(self, names: Collection[str] = (), *, whole: bool = False) -> Changes:
        """Look again; ``names`` are files that are known to have changed. ``whole`` reads until nothing is left.

        Raises `Unavailable` when the folder cannot be read; what the last look found is then all that is known.
        """
        self._list()
        self._urgent.update(dict.fromkeys(name for name in names if name in self._files))
        self._urgent.update(dict.fromkeys(islice(self._unsure, AGAIN)))
        until = math.inf if whole else monotonic() + SLICE
        while self._urgent and monotonic() < until:
            name = next(iter(self._urgent))
            del self._urgent[name]
            self._read(name)
        if not self._urgent:
            self._sweep(until)
        changes = self._settle()
        if not changes.files:
            changes.problem = f"{self.path} holds no certificate: is it the right folder, and mounted?"
        return changes

    def _list(self) -> None:
        """Compare the folder's names and inodes with those known, if its own time says that it may be worth it."""
        try:
            found = self.path.stat()
            if not stat.S_ISDIR(found.st_mode):
                raise Unavailable(f"{self.path} is not a folder")
            self._open_to_all = bool(found.st_mode & stat.S_IWOTH)
            listed = (found.st_dev, found.st_ino, found.st_mtime_ns)
            if listed == self._listed:
                return
            now = time_ns()
            with os.scandir(self.path) as entries:
                present = {entry.name: entry.inode() for entry in islice(entries, MAX_FILES + 1)}
        except OSError as error:
            raise Unavailable(f"{self.path} cannot be read: {error.strerror}") from None
        if len(present) > MAX_FILES:
            raise Unavailable(f"{self.path} holds more than {MAX_FILES} files")
        self._secrets = sum(name.endswith("_secret") for name in present)
        for name in self._files.keys() - present.keys():
            self._remove(name)
        for name, inode in present.items():
            file = self._files.get(name)
            if file is None and not is_passed_over(name):
                self._files[name] = _File(inode)
                self._urgent[name] = None
            elif file is not None and file.inode != inode:
                file.inode = inode
                self._urgent[name] = None
        self._place = listed[:2]
        self._listed = listed if now - found.st_mtime_ns > BLURRED else None

    def _sweep(self, until: float) -> None:
        """Look at the times of files, one after the other."""
        began = monotonic()
        if not self._sweeping:
            if began < self._next_sweep:
                return
            self._sweeping.extend(self._files)
            self._sweep_cost = 0.0
        while self._sweeping and monotonic() < until:
            name = self._sweeping.popleft()
            file = self._files.get(name)
            if file is None:
                continue
            try:
                changed = _signature(os.stat(f"{self.path}/{name}")) != file.signature  # noqa: PTH116 - a tenth
            except OSError:
                changed = True
            if changed:
                self._read(name)
        ended = monotonic()
        self._sweep_cost += ended - began
        if not self._sweeping:
            self._next_sweep = ended + min(RARELY, SHARE * self._sweep_cost)

    def _read(self, name: str) -> None:
        file = self._files.get(name)
        if file is None:
            return
        now = time_ns()
        try:
            found, data = _contents(f"{self.path}/{name}")
        except FileNotFoundError:
            self._remove(name)
            return
        except OSError as error:
            self._fault(name, f"cannot be read: {error.strerror}", math.inf)
            self._say(name, file, None, None)
            file.signature = None
            return
        if not stat.S_ISREG(found.st_mode):
            self._remove(name)
            return
        file.signature = _signature(found) if abs(now - found.st_ctime_ns) > BLURRED else None
        try:
            certificate = parse_certificate(data)
            said = self._reader(name, certificate)
        except HoldsSecret as mistake:
            self._fault(name, str(mistake))
            self._say(name, file, None, None)
        except InvalidInput as mistake:
            kept = file.key is not None
            unsure = self._unsure.get(name) or monotonic() + UNSETTLED
            told = f"{mistake}{'; what it last said stays in force' if kept else ''}"
            self._fault(name, told, 0.0 if kept or unsure < monotonic() else unsure)
        else:
            self._faults.pop(name, None)
            self._unsure.pop(name, None)
            self._say(name, file, certificate.key, said)

    def _fault(self, name: str, why: str, unsure_until: float = 0.0) -> None:
        self._faults[name] = why
        if unsure_until:
            self._unsure[name] = unsure_until
        else:
            self._unsure.pop(name, None)

    def _say(self, name: str, file: _File, key: bytes | None, said: Said | None) -> None:
        """What a file says from now on."""
        if file.key == key and file.said == said:
            return
        if file.key is not None:
            self._touched.add(file.key)
            if file.key != key:
                self._let_go(file.key, name)
        if key is not None:
            self._touched.add(key)
            if file.key != key:
                self._hold(key, name)
        file.key, file.said = key, said

    def _remove(self, name: str) -> None:
        file = self._files.pop(name, None)
        if file is not None:
            self._say(name, file, None, None)
        self._faults.pop(name, None)
        self._unsure.pop(name, None)
        self._urgent.pop(name, None)

    def _hold(self, key: bytes, name: str) -> None:
        held = self._holders.get(key)
        if held is None:
            self._holders[key] = name
        else:
            self._holders[key] = tuple(sorted((name, *((held,) if isinstance(held, str) else held))))

    def _let_go(self, key: bytes, name: str) -> None:
        held = self._holders[key]
        left = tuple(each for each in ((held,) if isinstance(held, str) else held) if each != name)
        if left:
            self._holders[key] = left[0] if len(left) == 1 else left
        else:
            del self._holders[key]

    def _settle(self) -> Changes:
        """What all that happened comes to."""
        changes = Changes(files=len(self._files), more=bool(self._urgent), place=self._place)
        for key in self._touched:
            held = self._holders.get(key)
            said = None if held is None else self._files[held if isinstance(held, str) else held[0]].said
            if said is None:
                changes.gone.add(key)
            else:
                changes.put[key] = said
        self._touched.clear()
        changes.unsure_until = math.inf if self._urgent else max(self._unsure.values(), default=0.0)
        changes.problem = self._problem()
        return changes

    def _problem(self) -> str:
        told: list[str] = []
        if self._faults:
            named = sorted(islice(self._faults.items(), MAX_NAMED))
            told += [f"{_shown(name)} {why}" for name, why in named]
            if len(self._faults) > MAX_NAMED:
                told.append(f"and {len(self._faults) - MAX_NAMED} more files cannot be used")
        if self._secrets:
            told.append(f"{self._secrets} files with secret keys (…_secret) lie beside them: take them away")
        if self._open_to_all:
            told.append("everybody on this machine can put keys there: chmod o-w it")
        return f"{self.path}: {'; '.join(told)}" if told else ""


def _contents(path: str) -> tuple[os.stat_result, bytes]:
    """(its state, what is in it; nothing of what is no file). A pipe in a file's place holds nobody up."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        found = os.fstat(descriptor)
        data = b""
        if stat.S_ISREG(found.st_mode):
            while chunk := os.read(descriptor, MAX_FILE + 1 - len(data)):
                data += chunk
    finally:
        os.close(descriptor)
    return found, data


def _signature(found: os.stat_result) -> tuple[int, ...]:
    """Differs when the file was replaced or written to."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _shown(name: str) -> str:
    return repr(name.encode("utf-8", "backslashreplace").decode("utf-8"))
