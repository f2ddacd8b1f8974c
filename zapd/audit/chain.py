"""How one event becomes one line of the journal, and how lines are chained.

A line is one JSON object of ASCII, ended by a newline, its only octet below 32:

    {"time":"2026-01-31T12:00:00.000001Z","instance":"5f…","sequence":7,"event":"auth.accept",…,"hash":"9c…"}

``hash`` is its last member: SHA-256 over the 32 octets of the previous hash and the line's own octets before
``,"hash"``, in hex. The hash before an instance's first line is the SHA-256 of the instance's id, so that no
line of one instance fits another. Knows nothing of files and durability.

`Chain.seal` runs on the event loop's thread for all decisions that came together: about 1.5 microseconds each,
most of them in OpenSSL.
"""

from __future__ import annotations

import hashlib
import re
import time
from binascii import hexlify
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from zapd.audit.event import AuditEvent

MAX_LINE = 65_536
"""Octets of the longest line. What would be longer has its texts cut, each with a mark."""

_HASH_MEMBER = b',"hash":"'
_TAIL = len(_HASH_MEMBER) + 64 + 2
"""Octets of ``,"hash":"<64 hex>"}`` at a line's end, the newline not counted."""

_sha256 = hashlib.sha256
_encode = msgspec.json.Encoder(enc_hook=str).encode
_NOT_ASCII = re.compile("[\x80-\U0010ffff]")
_HEX = frozenset(b"0123456789abcdef")


class Head(msgspec.Struct):
    """The members by which a line is put in its place."""

    instance: str
    sequence: int
    event: str
    time: str
    hash: str


decode_head = msgspec.json.Decoder(Head).decode


class BadLine(ValueError):
    """These octets are no line of a journal."""


@dataclass(frozen=True, slots=True)
class Link:
    """A place in the chain: the last record, or, with sequence 0, the beginning before the first."""

    sequence: int
    digest: bytes
    """32 octets."""


def genesis(instance: str) -> Link:
    """Where an instance's chain begins."""
    return Link(0, hashlib.sha256(instance.encode("ascii")).digest())


def split(line: bytes) -> tuple[bytes, bytes]:
    """(octets before ``,"hash"``, the 32 octets of the stored hash) of a line without its newline.

    Raises `BadLine`.
    """
    at = len(line) - _TAIL
    if at < 1 or line[at : at + len(_HASH_MEMBER)] != _HASH_MEMBER or line[-2:] != b'"}':
        raise BadLine("the line does not end with its hash")
    stored = line[-66:-2]
    if not _HEX.issuperset(stored):
        raise BadLine("the hash is not 64 hexadecimal digits")
    return line[:at], bytes.fromhex(stored.decode("ascii"))


def chained(previous: bytes, body: bytes) -> bytes:
    """The hash of a line whose octets before ``,"hash"`` are ``body``, after a line with hash ``previous``."""
    return hashlib.sha256(previous + body).digest()


def head_of(line: bytes) -> Head:
    """The members that place a line. Raises `BadLine`."""
    try:
        return decode_head(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadLine(f"not a record: {error}") from None


class Chain:
    """Renders events of one instance, each chained to the one before."""

    __slots__ = ("_before", "_clock", "_middle", "_second", "digest", "instance", "sequence")

    def __init__(self, instance: str, link: Link, clock: Callable[[], int] = time.time_ns) -> None:
        self.instance = instance
        self.sequence = link.sequence
        """Of the last line rendered."""
        self.digest = link.digest
        """Of the last line rendered."""
        self._clock = clock
        self._second = 0  # nanoseconds of the second that `_before` shows
        self._before = b""
        self._middle = b'Z","instance":"' + instance.encode("ascii") + b'","sequence":'

    def line(self, event: AuditEvent) -> bytes:
        """The event's line, newline included; the chain moves on by one."""
        try:
            members = _encode(event)
            if not members.isascii() or len(members) > MAX_LINE - 1024:
                members = _tame(event)
        except (UnicodeEncodeError, OverflowError, TypeError, ValueError):
            members = _tame(event)
        return self.seal(((members[1:-1],),))

    def seal(self, events: Iterable[tuple[bytes, ...]]) -> bytes:
        """Lines of one moment, joined: around each event's members as `line` would have rendered them, printable
        ASCII, well below `MAX_LINE`, without the braces; in as many pieces as it pleases whoever has them."""
        now = self._clock()
        within = now - self._second
        if not 0 <= within < 1_000_000_000:
            second, within = divmod(now, 1_000_000_000)
            self._second = second * 1_000_000_000
            self._before = time.strftime('{"time":"%Y-%m-%dT%H:%M:%S.', time.gmtime(second)).encode("ascii")
        begin = b"%b%06d%b" % (self._before, within // 1000, self._middle)
        sequence, digest = self.sequence, self.digest
        join, sha256 = b"".join, _sha256
        lines: list[bytes] = []
        for members in events:
            sequence += 1
            body = join((begin, b"%d," % sequence, *members))
            digest = sha256(digest + body).digest()
            lines += (body, _HASH_MEMBER, hexlify(digest), b'"}\n')
        self.sequence, self.digest = sequence, digest
        return join(lines)

    @property
    def link(self) -> Link:
        return Link(self.sequence, self.digest)


def _tame(event: AuditEvent) -> bytes:
    """Members of an event with hostile contents: printable ASCII alone, lone surrogates as U+FFFD, texts cut
    until the line is within `MAX_LINE`."""
    for cap in (8192, 1024, 128):
        tamed = msgspec.convert(_tame_value(msgspec.structs.asdict(event), cap, 0), AuditEvent)
        members = _NOT_ASCII.sub(_escape, _encode(tamed).decode("utf-8")).encode("ascii")
        if len(members) <= MAX_LINE - 1024:
            return members
    # Only dictionaries of thousands of members come here.
    small = AuditEvent(
        event=tamed.event,
        domain=tamed.domain,
        actor=tamed.actor,
        subject=tamed.subject,
        change=tamed.change,
        detail={"cut": f"{len(members)} octets were too many for one record"},
    )
    return _NOT_ASCII.sub(_escape, _encode(small).decode("utf-8")).encode("ascii")


def _tame_value(value: Any, cap: int, depth: int) -> Any:
    if isinstance(value, str):
        clean = value.encode("utf-8", "replace").decode("utf-8") if not _encodable(value) else value
        return clean if len(clean) <= cap else f"{clean[:cap]}…[{len(clean) - cap} more]"
    if isinstance(value, dict):
        if depth > 8:
            return _tame_value(str(value), cap, depth)
        return {
            _tame_value(str(name), cap, depth): _tame_value(inner, cap, depth + 1) for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        if depth > 8:
            return _tame_value(str(value), cap, depth)
        return [_tame_value(inner, cap, depth + 1) for inner in value]
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        return str(value)[:cap]
    if value is None or isinstance(value, int | float):
        return value
    return _tame_value(str(value), cap, depth)


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _escape(match: re.Match[str]) -> str:
    point = ord(match.group())
    if point < 0x10000:
        return f"\\u{point:04x}"
    point -= 0x10000
    return f"\\u{0xD800 + (point >> 10):04x}\\u{0xDC00 + (point & 0x3FF):04x}"
