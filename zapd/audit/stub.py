"""What is left of segments that retention removed: one signed line, ``stub.json``, in the instance's folder.

It names the last record that went and its hash, so that the chain can be checked from there on, and the first
segment that was kept. Written before anything is removed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

from zapd.audit.chain import Link

STUB = "stub.json"


class _Members(msgspec.Struct):
    kind: str
    instance: str
    sequence: int
    hash: str
    first_segment: int
    time: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stub:
    instance: str
    link: Link
    """The last record that is no longer there."""
    first_segment: int
    """Number of the oldest segment kept; older files are on their way out."""
    time: str
    reason: str
    line: bytes
    """As it stands, for its signature."""


def stub_members(instance: str, link: Link, first_segment: int, time: str, reason: str) -> dict[str, object]:
    """What a stub says."""
    return {
        "kind": "stub",
        "instance": instance,
        "sequence": link.sequence,
        "hash": link.digest.hex(),
        "first_segment": first_segment,
        "time": time,
        "reason": reason,
    }


def read_stub(folder: Path) -> Stub | None:
    """The stub of an instance, `None` when nothing was ever removed or the file says nothing useful."""
    try:
        line = (folder / STUB).read_bytes()
        members = msgspec.json.decode(line, type=_Members)
        link = Link(members.sequence, bytes.fromhex(members.hash))
    except (FileNotFoundError, msgspec.DecodeError, ValueError):
        return None
    if members.kind != "stub" or len(link.digest) != 32:
        return None
    return Stub(members.instance, link, members.first_segment, members.time, members.reason, line)
