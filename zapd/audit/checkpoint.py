"""Signed checkpoints: "instance I had record N with hash H at time T", at least each minute.

A checkpoint is kept beside the segments (``checkpoints.jsonl``) and sent to the *heads*: places that whoever can
rewrite the journal's folder cannot rewrite too. With a head, `verify` finds a tail that was cut off and a chain
that was re-sealed with the true key. A head that cannot be reached is a warning, never a reason to stop: the
next checkpoint covers what the missed one did.

`Checkpointer` has a thread of its own, so that a slow head delays no record.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec

from zapd.audit.chain import Link
from zapd.audit.segment import LONGEST, read_lines, write_all
from zapd.audit.signing import is_signed_by, public_text, sign
from zapd.errors import ConfigurationError

CHECKPOINTS = "checkpoints.jsonl"
HEAD_TIMEOUT = 5.0
"""Seconds that one head may take for one checkpoint."""

log = logging.getLogger("zapd.audit")


class _Members(msgspec.Struct):
    kind: str
    instance: str
    sequence: int
    hash: str
    time: str
    key: str = ""


_decode = msgspec.json.Decoder(_Members).decode


@dataclass(frozen=True, slots=True)
class Checkpoint:
    instance: str
    link: Link
    time: str
    key: str
    """The public half that signed it, as text; empty when unsigned."""
    line: bytes

    def signed_by(self, public_key: bytes) -> bool:
        return is_signed_by(self.line, public_key)


def utc(now: float) -> str:
    """A time as records write it."""
    second, fraction = divmod(now, 1)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second)) + f".{int(fraction * 1e6):06d}Z"


def checkpoint_line(instance: str, link: Link, seed: bytes | None, now: float) -> bytes:
    """The statement, signed where there is a key, newline included."""
    members: dict[str, object] = {
        "kind": "checkpoint",
        "instance": instance,
        "sequence": link.sequence,
        "hash": link.digest.hex(),
        "time": utc(now),
    }
    if seed is not None:
        members["key"] = public_text(seed)
    return sign(members, seed)


def parse_checkpoint(line: bytes) -> Checkpoint | None:
    """A checkpoint out of a line of a head; a line of syslog may have anything before it. `None` for others."""
    start = line.rfind(b'{"kind":"checkpoint"')
    if start < 0:
        return None
    try:
        members = _decode(line[start:])
        digest = bytes.fromhex(members.hash)
    except (msgspec.DecodeError, ValueError):
        return None
    if len(digest) != 32 or members.sequence < 1:
        return None
    link = Link(members.sequence, digest)
    return Checkpoint(members.instance, link, members.time, members.key, line[start:].rstrip(b"\n"))


def read_checkpoints(path: Path, end: int | None = None) -> Iterator[Checkpoint]:
    """Every checkpoint in a file, in its order, up to octet ``end``; nothing when there is no file."""
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:
        for line in read_lines(file):
            if end is not None and file.tell() > end:
                return
            if line.endswith(b"\n") and (found := parse_checkpoint(line)) is not None:
                yield found


def newest_checkpoints(path: Path, instance: str, public_key: bytes | None) -> list[Link]:
    """The newest records of an instance that the last part of a file says were durable.

    With a key only validly signed ones count, so that nobody can end an instance by writing into a head.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(0, end - 4 * LONGEST))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return []
    newest: list[Link] = []
    for line in reversed(lines):
        found = parse_checkpoint(line)
        if found is None or found.instance != instance:
            continue
        if public_key is not None and not found.signed_by(public_key):
            continue
        newest.append(found.link)
        if len(newest) == 3:
            break
    return newest


class Head(Protocol):
    """A place outside the journal's folder that keeps checkpoints. Blocking; raises `OSError`."""

    name: str

    def send(self, line: bytes) -> None: ...

    def remembered(self, instance: str, public_key: bytes | None) -> list[Link]:
        """What it can tell of an instance at start; nothing where it cannot be read back."""


class FileHead:
    """``file:PATH``: lines appended to a file, best on another machine's disk. Shared by all instances."""

    def __init__(self, path: Path) -> None:
        self.name = f"file:{path}"
        self.path = path

    def send(self, line: bytes) -> None:
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            write_all(descriptor, line)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def remembered(self, instance: str, public_key: bytes | None) -> list[Link]:
        return newest_checkpoints(self.path, instance, public_key)


class SyslogHead:
    """``syslog``: one message of facility authpriv for each checkpoint."""

    def __init__(self, address: str = "/dev/log") -> None:
        self.name = "syslog"
        self._address = address
        self._priority = (
            logging.handlers.SysLogHandler.LOG_AUTHPRIV << 3 | logging.handlers.SysLogHandler.LOG_NOTICE
        )

    def send(self, line: bytes) -> None:
        message = b"<%d>zapd[%d]: %b" % (self._priority, os.getpid(), line.rstrip(b"\n"))
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(HEAD_TIMEOUT)
            sender.connect(self._address)
            sender.send(message)

    def remembered(self, instance: str, public_key: bytes | None) -> list[Link]:
        return []


class HttpsHead:
    """``https://…``: each checkpoint is the body of a POST; any 2xx will do."""

    def __init__(self, url: str) -> None:
        self.name = url
        self._url = url

    def send(self, line: bytes) -> None:
        import httpx  # costs start-up time, and few use it

        try:
            answer = httpx.post(
                self._url, content=line, headers={"Content-Type": "application/json"}, timeout=HEAD_TIMEOUT
            )
        except httpx.HTTPError as error:
            raise OSError(f"{type(error).__name__}") from None
        if not answer.is_success:
            raise OSError(f"it answered {answer.status_code}")

    def remembered(self, instance: str, public_key: bytes | None) -> list[Link]:
        return []


def make_head(setting: str, base: Path = Path()) -> Head | None:
    """The head that ``[audit] head`` names; `None` for an empty setting. Raises `ConfigurationError`."""
    if not setting:
        return None
    if setting == "syslog":
        return SyslogHead()
    if setting.startswith("file:") and len(setting) > 5:
        return FileHead(base / setting[5:])
    if setting.startswith("https://"):
        return HttpsHead(setting)
    raise ConfigurationError(f'[audit] head is "syslog", "file:PATH" or "https://…", not {setting!r}')


class Checkpointer:
    """Signs and sends checkpoints in a thread of its own.

    ``after`` runs in that thread after each checkpoint, with the record it covers: retention lives there.
    """

    def __init__(
        self,
        *,
        seed: bytes | None,
        heads: Sequence[Head],
        clock: Callable[[], float] = time.time,
        after: Callable[[Path, Link], None] | None = None,
    ) -> None:
        self._seed = seed
        self._heads = tuple(heads)
        self._clock = clock
        self._after = after
        self._jobs: queue.SimpleQueue[tuple[Path, Link] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="zapd-checkpoints", daemon=True)
        self._failing: set[str] = set()
        self.sequence = 0
        """The last record that a checkpoint beside the segments covers."""
        self.failing: tuple[str, ...] = ()
        """Names of the heads that did not take the newest checkpoint."""

    def start(self) -> None:
        self._thread.start()

    def submit(self, folder: Path, link: Link) -> None:
        """Ask for a checkpoint of a durable record."""
        self._jobs.put((folder, link))

    def close(self, timeout: float) -> None:
        """Let what was asked for finish, at most ``timeout`` seconds."""
        self._jobs.put(None)
        if self._thread.is_alive():
            self._thread.join(timeout)

    def _run(self) -> None:
        ending = False
        while not ending:
            job = self._jobs.get()
            while job is not None:  # a slow head: only the newest matters
                try:
                    following = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if following is None:
                    ending = True
                    break
                job = following
            if job is None:
                return
            self._checkpoint(*job)

    def _checkpoint(self, folder: Path, link: Link) -> None:
        line = checkpoint_line(folder.name, link, self._seed, self._clock())
        local = FileHead(folder / CHECKPOINTS)
        if self._send(local, line):
            self.sequence = link.sequence
        for head in self._heads:
            self._send(head, line)
        self.failing = tuple(sorted(self._failing))
        if self._after is not None and self.sequence == link.sequence:
            try:
                self._after(folder, link)
            except OSError as error:
                log.warning("old segments of the journal could not be removed: %s", error)

    def _send(self, head: Head, line: bytes) -> bool:
        try:
            head.send(line)
        except OSError as error:
            if head.name not in self._failing:
                self._failing.add(head.name)
                log.warning("the journal's checkpoints do not reach %s: %s", head.name, error)
            return False
        if head.name in self._failing:
            self._failing.discard(head.name)
            log.info("the journal's checkpoints reach %s again", head.name)
        return True
