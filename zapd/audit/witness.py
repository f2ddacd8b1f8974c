"""What remembers a record's hash from outside the chain: checkpoints, heads, a successor's first record.

Each source is a stream of links in rising order, held beside the walk through the records, so that neither is
ever in memory as a whole.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zapd.audit.chain import Link
from zapd.audit.checkpoint import Checkpoint, read_checkpoints


@dataclass(slots=True)
class Trust:
    """Reads checkpoints of one instance and keeps those that count."""

    instance: str
    public_key: bytes | None
    other_keys: int = 0
    """Signed by another key than the one given: they neither prove nor accuse."""
    unsigned: int = 0
    forged: Checkpoint | None = None
    """The first that names the given key and is not signed by it."""

    def links(self, path: Path, end: int) -> Iterator[Link]:
        key = public_text_of(self.public_key)
        for found in read_checkpoints(path, end):
            if found.instance != self.instance:
                continue
            if self.public_key is not None and not found.signed_by(self.public_key):
                if not found.key:
                    self.unsigned += 1
                elif found.key != key:
                    self.other_keys += 1
                elif self.forged is None:
                    self.forged = found
                continue
            yield found.link


def public_text_of(public_key: bytes | None) -> str:
    """The public half as checkpoints name it."""
    return "" if public_key is None else base64.b64encode(public_key).decode("ascii")


class Witness:
    """One source. `agrees` is called with each record, in order."""

    __slots__ = ("_coming", "_next", "agreed", "name", "out_of_order", "outside", "seen")

    def __init__(self, name: str, links: Iterable[Link], *, outside: bool) -> None:
        self.name = name
        self.outside = outside
        """It stands outside the journal's folder."""
        self.seen = 0
        """How many records it confirmed."""
        self.agreed = 0
        """The last record that it confirmed."""
        self.out_of_order = 0
        self._coming = iter(links)
        self._next: Link | None = next(self._coming, None)

    def start_after(self, sequence: int) -> None:
        """Skip what it says of records that retention removed."""
        while self._next is not None and self._next.sequence <= sequence:
            self._next = next(self._coming, None)

    def agrees(self, sequence: int, digest: bytes) -> bool:
        """Whether it remembers this record so, or not at all."""
        if self._next is None or self._next.sequence > sequence:
            return True
        while self._next is not None and self._next.sequence <= sequence:
            if self._next.sequence == sequence:
                if self._next.digest != digest:
                    return False
                self.seen += 1
                self.agreed = sequence
            else:
                self.out_of_order += 1
            self._next = next(self._coming, None)
        return True

    def furthest(self) -> int:
        """The last record that it still waits for, reading it to its end; 0 when it waits for none."""
        last = 0
        while self._next is not None:
            last = max(last, self._next.sequence)
            self._next = next(self._coming, None)
        return last
