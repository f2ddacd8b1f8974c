"""PLAIN users from a file of ``name:hash`` lines, such as htpasswd writes.

The file is looked at twice a second and read anew when it has changed, so whoever was taken out of it is out
within a second. A snapshot is taken whole or not at all: an edit that cannot be read keeps what was last good,
and says so; a file that is gone or unreadable answers "unavailable". Hashes are checked by zapd's pool, never
here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self

import structlog

from zapd.auth.backend import UNKNOWN, BackendContext, Outcome, Principal, Question, Verdict
from zapd.auth.hash_kinds import cost_of
from zapd.auth.hashing import HashPool
from zapd.errors import ConfigurationError, InvalidInput, Unavailable

log = structlog.get_logger(__name__)

INTERVAL: Final = 0.5
"""Seconds between two looks at the file."""
MAX_FILE: Final = 16 << 20
MAX_LINE: Final = 1024
MAX_NAME: Final = 255
"""Octets."""
MAX_MISTAKES: Final = 10
"""How many lines one message names."""

_WRONG: Final = Verdict(Outcome.REJECT, reason="wrong_password")
_AWAY: Final = Verdict(Outcome.UNAVAILABLE, reason="file_unreadable")

_BARRED: Final = ("!", "*")
"""A hash behind one of these is barred, as in shadow files."""

_Signature = tuple[int, int, int, int, int]


@dataclass(frozen=True, slots=True)
class Entry:
    """One line."""

    stored: str | None = field(repr=False)
    """The hash; None where there is only a bar."""
    barred: bool
    accept: Verdict
    lock: Verdict


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The file, read at one moment."""

    entries: dict[str, Entry]
    decoy: str | None = field(repr=False)
    """The dearest hash of the file: unknown names are checked against it, and cost what others cost."""
    signature: _Signature
    warning: str = ""


class PasswdBackend:
    """See the module's text; settings and outcomes are in ``docs/backends/passwd.md``."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"PLAIN"})

    def __init__(self, name: str, path: Path, pool: HashPool, forget: Callable[[], None] = lambda: None) -> None:
        self.name = name
        self.path = path
        self.problem = ""
        """What a person should mend; empty when all is well."""
        self._pool = pool
        self._forget = forget
        self._snapshot: Snapshot | None = None
        self._seen: _Signature | None = None
        self._watching: asyncio.Task[None] | None = None

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Settings: ``path``. Raises `ConfigurationError`."""
        unknown = sorted(settings.keys() - {"path"})
        if unknown:
            raise ConfigurationError(
                f"backend.{name}: unknown setting {unknown[0]!r}; a passwd backend has path only"
            )
        path = settings.get("path")
        if not isinstance(path, str) or not path or "\0" in path:
            raise ConfigurationError(f'backend.{name}: set path = "…", the file of name:hash lines')
        return cls(name, context.base_dir / path, context.hash_pool, context.forget)

    async def start(self) -> None:
        """Read the file. Raises `InvalidInput` that names the lines, or `Unavailable`."""
        self._take(await asyncio.to_thread(read_snapshot, self.path))
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def check(self, question: Question) -> Verdict:
        """ACCEPT, REJECT, LOCKED for a barred line, UNKNOWN; UNAVAILABLE while there is no file to read."""
        snapshot = self._snapshot
        if snapshot is None:
            return _AWAY
        entry = snapshot.entries.get(question.username)
        stored = snapshot.decoy if entry is None or entry.stored is None else entry.stored
        # Whoever it is, one hash is worked out: time does not tell a name that is there from one that is not.
        fits = await self._pool.verify(stored, question.password, slot=(question.address, question.username))
        if entry is None:
            return UNKNOWN
        if entry.barred:
            return entry.lock
        return entry.accept if fits and entry.stored is not None else _WRONG

    async def aclose(self) -> None:
        """Stop watching."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
            self._watching = None
        self._snapshot = None

    async def refresh(self) -> None:
        """Look at the file now, and read it if it has changed."""
        try:
            signature = await asyncio.to_thread(_signature_at, self.path)
            if self._snapshot is not None and signature == self._seen:
                return
            self._seen = signature
            self._take(await asyncio.to_thread(read_snapshot, self.path))
        except InvalidInput as mistake:
            kept = "; what was last good stays in force" if self._snapshot is not None else ""
            self._complain(f"{mistake}{kept}")
        except Unavailable as trouble:
            # No file is no list of users: nobody is admitted by it, and nobody refused for good.
            if self._snapshot is not None:
                self._snapshot = None
                self._forget()
            self._complain(str(trouble))

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                await self.refresh()
            except Exception:  # a watcher that died would leave a revoked user in force
                self._snapshot = None
                self._forget()
                log.exception("looking at a passwd file failed", backend=self.name)

    def _take(self, snapshot: Snapshot) -> None:
        """Put a snapshot in force."""
        if snapshot.decoy is not None:
            self._pool.note(snapshot.decoy)
        self._snapshot = snapshot
        self._seen = snapshot.signature
        self._forget()
        self._complain(snapshot.warning)
        log.info("passwd file read", backend=self.name, users=len(snapshot.entries))

    def _complain(self, text: str) -> None:
        if text and text != self.problem:
            log.warning("passwd file", backend=self.name, problem=text)
        self.problem = text


def read_snapshot(path: Path) -> Snapshot:
    """Read the file as it stands at one moment, even while it is being replaced. Blocking.

    Raises `InvalidInput` that names each mistake's line (never a hash), or `Unavailable`.
    """
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            before = os.fstat(file.fileno())
            if not stat.S_ISREG(before.st_mode):
                raise Unavailable(f"{path} is not a regular file")
            data = file.read(MAX_FILE + 1)
            after = os.fstat(file.fileno())
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from None
    if _signature(before) != _signature(after):
        raise InvalidInput(f"{path} changed while it was read; it will be read again")
    if len(data) > MAX_FILE:
        raise InvalidInput(f"{path} is larger than {MAX_FILE >> 20} MiB")
    warning = ""
    if before.st_mode & stat.S_IROTH:
        warning = f"{path} can be read by everybody on this machine: chmod o-r it"
    entries, decoy = _parse(path, data)
    return Snapshot(entries, decoy, _signature(before), warning)


def _parse(path: Path, data: bytes) -> tuple[dict[str, Entry], str | None]:
    if not data.endswith(b"\n"):
        # A file cut in the middle of being written must not become a list without its last users.
        raise InvalidInput(f"{path} is empty or does not end with a line break: half-written? end its last line")
    entries: dict[str, Entry] = {}
    mistakes: list[str] = []
    decoy: str | None = None
    dearest = -1.0
    for number, raw in enumerate(data[:-1].split(b"\n"), 1):
        line = raw.removesuffix(b"\r")
        if not line or line.startswith(b"#"):
            continue
        try:
            name, entry, seconds = _parse_line(line)
            if name in entries:
                raise InvalidInput("the name is there already")
        except InvalidInput as mistake:
            mistakes.append(f"line {number}: {mistake}")
            continue
        entries[name] = entry
        if seconds > dearest and entry.stored is not None:
            decoy, dearest = entry.stored, seconds
    if mistakes:
        more = f"; and {len(mistakes) - MAX_MISTAKES} more" if len(mistakes) > MAX_MISTAKES else ""
        raise InvalidInput(f"{path}: {'; '.join(mistakes[:MAX_MISTAKES])}{more}")
    return entries, decoy


def _parse_line(line: bytes) -> tuple[str, Entry, float]:
    """(name, entry, what a check costs in seconds)."""
    if len(line) > MAX_LINE:
        raise InvalidInput(f"longer than {MAX_LINE} octets")
    raw_name, colon, raw_hash = line.partition(b":")
    try:
        name, stored = raw_name.decode("utf-8"), raw_hash.decode("ascii")
    except UnicodeDecodeError:
        raise InvalidInput("the name is not UTF-8, or the hash not ASCII") from None
    if not colon or not stored:
        raise InvalidInput("no hash; a line is name:hash")
    if not name or len(raw_name) > MAX_NAME or not name.isprintable():
        raise InvalidInput(f"a name has 1 to {MAX_NAME} octets, none unprintable")
    barred = stored.startswith(_BARRED)
    stored = stored.lstrip("".join(_BARRED)) if barred else stored
    if ":" in stored:
        raise InvalidInput("more than name and hash")
    seconds = cost_of(stored).seconds if stored else 0.0
    principal = Principal(name)
    entry = Entry(
        stored or None,
        barred,
        accept=Verdict(Outcome.ACCEPT, principal),
        lock=Verdict(Outcome.LOCKED, principal, "disabled"),
    )
    return name, entry, seconds


def _without_waiting(path: str, flags: int) -> int:
    # A pipe in the file's place would hold up an ordinary open until somebody writes to it.
    return os.open(path, flags | os.O_NONBLOCK)


def _signature_at(path: Path) -> _Signature:
    try:
        return _signature(path.stat())
    except OSError as error:
        raise Unavailable(f"{path} cannot be read: {error.strerror}") from None


def _signature(found: os.stat_result) -> _Signature:
    """Differs when the file was replaced or written to."""
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
