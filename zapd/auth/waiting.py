"""Unknown keys seen at the door, until somebody writes them down: a bounded notebook.

Deciding only notes (`Waiting.note`: no SQL, no task, a few looks into dicts); whoever writes takes what has come
together (`Waiting.take`). The bounds are those of the list itself (`zapd.store.sightings`), and so is the way to
make room: within a full bucket the fullest source gives first, the one seen longest ago. So a flood pushes out
its own, in memory as in SQL. Times are wall-clock seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Final

from zapd.auth.address import read_again, source_of
from zapd.auth.backend import Question
from zapd.auth.memo import Memo
from zapd.store.sightings import Bounds, Bucket, Sighting

_SOURCES: Final = 4096


class _Note:
    """One key at one domain, since it was last taken. Compared by identity."""

    __slots__ = ("address", "agent", "domain", "first", "key", "last", "rule", "source", "tries")

    def __init__(self, key: bytes, domain: str, rule: str, source: str, address: str, agent: str) -> None:
        self.key = key
        self.domain = domain
        self.rule = rule
        self.source = source
        self.address = address
        self.agent = agent
        self.first = 0.0
        self.last = 0.0
        self.tries = 0


class _Shelf:
    """One bucket's notes by their sources, so that the fullest source is known without a search."""

    __slots__ = ("_by_source", "_highest", "_levels", "size")

    def __init__(self) -> None:
        self._by_source: dict[str, dict[_Note, None]] = {}
        self._levels: dict[int, dict[str, None]] = {}
        """Sources by how many notes they have, and the longest there first."""
        self._highest = 0
        self.size = 0

    def add(self, note: _Note) -> None:
        """The newest of its source."""
        rows = self._by_source.setdefault(note.source, {})
        rows[note] = None
        self._move(note.source, len(rows) - 1, len(rows))
        self.size += 1

    def remove(self, note: _Note) -> None:
        rows = self._by_source[note.source]
        del rows[note]
        self._move(note.source, len(rows) + 1, len(rows))
        if not rows:
            del self._by_source[note.source]
        self.size -= 1

    def victim(self) -> _Note:
        """Who makes room."""
        source = next(iter(self._levels[self._highest]))
        return next(iter(self._by_source[source]))

    def _move(self, source: str, old: int, new: int) -> None:
        if old:
            level = self._levels[old]
            del level[source]
            if not level:
                del self._levels[old]
        if new:
            self._levels.setdefault(new, {})[source] = None
        if new > self._highest:
            self._highest = new
        elif self._highest not in self._levels:
            self._highest -= 1  # it moved by one, and it was the last one up there


class Waiting:
    """One for each process. Its methods are for the event loop's thread."""

    def __init__(self, bounds: Bounds | None = None, *, clock: Callable[[], float] = time.time) -> None:
        self.bounds = bounds or Bounds()
        """May be set anew."""
        self.evicted: dict[Bucket, int] = {"domain": 0, "source": 0, "agent": 0}
        """How many made room, by what was full; whoever writes them down adds its own."""
        self._clock = clock
        self._notes: dict[tuple[bytes, str], _Note] = {}
        self._shelves: dict[tuple[Bucket, str], _Shelf] = {}
        self._sources: Memo[str, str] = Memo(_SOURCES)

    def __len__(self) -> int:
        return len(self._notes)

    def note(self, question: Question, agent: str, rule: str) -> None:
        """An unknown key was asked about, in a domain that holds such keys for approval by this rule."""
        address = question.address
        source = self._sources.get(address) or self._sources.put(address, _source(address))
        now = self._clock()
        self._take_in(question.key, question.domain, rule, source, address, agent, now, now, 1)

    def put(self, seen: Iterable[Sighting]) -> None:
        """What another process noted, or what could not be written."""
        for each in seen:
            first, last = each.first_seen.timestamp(), each.last_seen.timestamp()
            named = (each.public_key, each.domain, each.rule, each.source, each.address, each.agent)
            self._take_in(*named, first, last, each.tries)

    def take(self, most: int) -> list[Sighting]:
        """The first that came, at most so many; they are forgotten here."""
        taken = []
        for note in list(islice(self._notes.values(), most)):
            self._forget(note)
            taken.append(
                Sighting(
                    public_key=note.key,
                    domain=note.domain,
                    rule=note.rule,
                    source=note.source,
                    address=note.address,
                    agent=note.agent,
                    first_seen=datetime.fromtimestamp(note.first, UTC),
                    last_seen=datetime.fromtimestamp(note.last, UTC),
                    tries=note.tries,
                )
            )
        return taken

    def _take_in(
        self,
        key: bytes,
        domain: str,
        rule: str,
        source: str,
        address: str,
        agent: str,
        first: float,
        last: float,
        tries: int,
    ) -> None:
        note = self._notes.get((key, domain))
        if note is None:
            note = self._notes[key, domain] = _Note(key, domain, rule, source, address, agent)
            note.first, note.last = first, last
        else:
            self._shelve(note, _Shelf.remove)  # and behind all others again, wherever it belongs now
            note.first = min(note.first, first)
            if last >= note.last:
                note.last = last
                note.rule, note.source, note.address, note.agent = rule, source, address, agent
        note.tries += tries
        self._shelve(note, _Shelf.add)
        self._make_room(note)

    def _make_room(self, note: _Note) -> None:
        for bucket, name, bound in (
            ("source", note.source, self.bounds.source),
            ("agent", note.agent, self.bounds.agent),
            ("domain", note.rule, self.bounds.domain),
        ):
            shelf = self._shelves.get((bucket, name))  # type: ignore[arg-type]  # they are Buckets
            while shelf is not None and shelf.size > bound:
                self._forget(shelf.victim())
                self.evicted[bucket] += 1  # type: ignore[index]

    def _forget(self, note: _Note) -> None:
        del self._notes[note.key, note.domain]
        self._shelve(note, _Shelf.remove)

    def _shelve(self, note: _Note, do: Callable[[_Shelf, _Note], None]) -> None:
        names: tuple[tuple[Bucket, str], ...]
        names = (("source", note.source), ("agent", note.agent), ("domain", note.rule))
        for name in names:
            shelf = self._shelves.get(name)
            if shelf is None:
                shelf = self._shelves[name] = _Shelf()
            do(shelf, note)
            if not shelf.size:
                del self._shelves[name]


def _source(text: str) -> str:
    address = read_again(text)
    return text if address is None else source_of(address)
