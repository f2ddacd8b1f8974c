"""Imports: a file of many rows goes in whole, or not at all, or without the rows that cannot go in.

First every row is read and checked away from the database; what came of it waits in a temporary file. Then it is
held against what is there already; what is new, and an event for each row, is made beside the registry. One short
transaction moves it in. A dry run looks and writes nothing. However long the file, memory holds some hundreds of
rows (and who stands in which line).

The work is done in threads beside a daemon that decides, so they take a breath every few milliseconds: the
interpreter is the loop's first of all.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import IO, Final, Generic, Protocol, TypeVar

import msgspec
from sqlalchemy import Connection, Table

from zapd.admin.exchange.reading import Unreadable
from zapd.admin.services.changes import ChangeRoad, Many, Note
from zapd.errors import Forbidden, InvalidInput, Unavailable, ZapdError
from zapd.store.staging import Stage

Row = TypeVar("Row", contravariant=True)
Record = TypeVar("Record")

Rows = Callable[[], Iterator[tuple[int, Row | Unreadable]]]
"""Begins to read a file: (line, row), as `zapd.admin.exchange.reading.read_rows`."""

MAX_ROWS: Final = 250_000
_MEMORY: Final = 4 << 20
"""Octets of a temporary file before it goes to the disk."""
_AT_ONCE: Final = 200
"""Rows in one question to the database."""
_TOLD: Final = 50
"""Lines that a refusal names; a dry run names all."""
_BREATH: Final = 0.0003
_BETWEEN: Final = 32
"""Rows between two breaths: some 3 ms of work."""
_PATIENCE: Final = 120.0
"""Seconds for the questions of a dry run."""


class Action(StrEnum):
    ADD = "add"
    UNCHANGED = "unchanged"
    """It is there already, just so."""
    REFUSE = "refuse"


class ImportRefused(ZapdError):
    """Some rows cannot go in, so none did."""

    code = "import_refused"

    def __init__(self, message: str, lines: Sequence[tuple[str, str]]) -> None:
        super().__init__(message)
        self.lines = lines


class Entry(msgspec.Struct, frozen=True):
    """What is said of one row."""

    line: int
    action: Action
    name: str = ""
    """Of the key its fingerprint, of the user the name."""
    user: str = ""
    source: str = ""
    what: str = ""
    """Why it is refused."""


def _listing() -> IO[bytes]:
    return tempfile.SpooledTemporaryFile(_MEMORY)


@dataclass(slots=True)
class Tally:
    """How it went, and what is to be said of the rows."""

    dry_run: bool
    rows: int = 0
    added: int = 0
    unchanged: int = 0
    refused: int = 0
    listing: IO[bytes] = field(default_factory=_listing, repr=False)
    """`Entry` as JSON lines: all rows of a dry run, else those that were refused. The caller closes it."""


class Plan(Protocol[Row, Record]):
    """What differs between keys and users."""

    def read(self, row: Row) -> Record:
        """Check a row by itself. Raises `InvalidInput` and `Forbidden`."""
        ...

    def entry(self, line: int, record: Record) -> Entry:
        """Say whose it is; the action is `ADD`."""
        ...

    def judge(self, connection: Connection, records: Sequence[Record]) -> Sequence[str | None]:
        """For each: None when it is new, ``""`` when it is there just so, else why it cannot be."""
        ...

    @property
    def table(self) -> Table:
        """Where they go."""
        ...

    def write(self, stage: Stage, records: Sequence[Record], note: Note) -> None:
        """Insert, with an event each."""
        ...

    def check(self, stage: Stage) -> None:
        """Raise what would be wrong with the new ones now, but for their being there already."""
        ...


class Importer:
    """One import at a time."""

    def __init__(self, road: ChangeRoad) -> None:
        self._road = road
        self._busy = False

    async def run(
        self,
        rows: Rows[Row],
        plan: Plan[Row, Record],
        kind: type[Record],
        *,
        dry_run: bool = False,
        partial: bool = False,
    ) -> Tally:
        """Raises `ImportRefused`, which changed nothing, and `InvalidInput` for a file that is none."""
        if self._busy:
            raise Unavailable("Another import is under way. Try again when it is done.")
        self._busy = True
        try:
            with tempfile.SpooledTemporaryFile(_MEMORY) as spool:
                work = _Work(plan, kind, spool, Tally(dry_run), partial)
                try:
                    await asyncio.to_thread(work.prepare, rows)
                    if dry_run:
                        await self._road.read(work.look, patience=_PATIENCE)
                    else:
                        if work.bad and not partial:
                            work.refuse()
                        await self._road.change_many(Many([plan.table], work.enter, plan.check))
                except BaseException:
                    work.tally.listing.close()
                    raise
                return work.tally
        finally:
            self._busy = False


class _Work(Generic[Row, Record]):
    """The two steps of an import, each in a thread."""

    def __init__(
        self, plan: Plan[Row, Record], kind: type[Record], spool: IO[bytes], tally: Tally, partial: bool
    ) -> None:
        self._plan = plan
        self._spool = spool
        self._partial = partial
        self._decode = msgspec.msgpack.Decoder(tuple[Entry, kind | None]).decode  # type: ignore[valid-type]
        self._told: list[tuple[str, str]] = []
        self.tally = tally
        self.bad = 0

    def prepare(self, rows: Rows[Row]) -> None:
        """Read and check every row."""
        lines: dict[str, int] = {}
        encode = msgspec.msgpack.Encoder().encode
        for number, (line, row) in enumerate(rows(), 1):
            if number > MAX_ROWS:
                raise InvalidInput(f"An import has at most {MAX_ROWS:,} rows: cut the file in pieces.")
            if number % _BETWEEN == 0:
                time.sleep(_BREATH)
            source = getattr(row, "source", "")
            record: Record | None = None
            if isinstance(row, Unreadable):
                entry = Entry(line, Action.REFUSE, what=str(row))
            else:
                try:
                    record = self._plan.read(row)
                    entry = msgspec.structs.replace(self._plan.entry(line, record), source=source)
                    first = lines.setdefault(entry.name, line)
                    if first != line:
                        raise InvalidInput(f"the same as in line {first}")
                except (InvalidInput, Forbidden) as error:
                    record = None
                    entry = Entry(line, Action.REFUSE, source=source, what=str(error))
            if record is None:
                self.bad += 1
                self._tell(entry)
            octets = encode((entry, record))
            self._spool.write(len(octets).to_bytes(4, "big") + octets)

    def look(self, connection: Connection) -> None:
        """Look at what is there."""
        self._go_through(connection, lambda _new: None)

    def enter(self, stage: Stage, note: Note) -> None:
        """Look at what is there, write what is new. Raises `ImportRefused`."""
        self._go_through(stage.connection, lambda new: self._plan.write(stage, new, note))

    def _go_through(self, connection: Connection, write: Callable[[Sequence[Record]], None]) -> None:
        tally = self.tally
        for chunk in self._chunks():
            good = [record for _, record in chunk if record is not None]
            verdicts = iter(self._plan.judge(connection, good) if good else ())
            new: list[Record] = []
            for entry, record in chunk:
                tally.rows += 1
                verdict = entry.what if record is None else next(verdicts)
                if verdict is None and record is not None:
                    tally.added += 1
                    new.append(record)
                    self._list(entry)
                elif verdict == "" and record is not None:
                    tally.unchanged += 1
                    self._list(msgspec.structs.replace(entry, action=Action.UNCHANGED))
                else:
                    tally.refused += 1
                    refused = msgspec.structs.replace(entry, action=Action.REFUSE, what=verdict or "")
                    if record is not None:
                        self._tell(refused)
                    self._list(refused)
            if new:
                write(new)
            time.sleep(_BREATH)
        if tally.refused and not tally.dry_run and not self._partial:
            self.refuse()

    def refuse(self) -> None:
        """Raise."""
        many = max(self.bad, self.tally.refused)
        raise ImportRefused(
            f"{many} rows cannot go in, so nothing was imported. A dry run lists them all; 'partial' leaves them"
            " out and takes the rest.",
            self._told,
        )

    def _tell(self, entry: Entry) -> None:
        if len(self._told) < _TOLD:
            self._told.append((entry.source or f"line {entry.line}", entry.what))

    def _list(self, entry: Entry) -> None:
        if self.tally.dry_run or entry.action is Action.REFUSE:
            self.tally.listing.write(msgspec.json.encode(entry) + b"\n")

    def _chunks(self) -> Iterator[list[tuple[Entry, Record | None]]]:
        self._spool.seek(0)
        chunk: list[tuple[Entry, Record | None]] = []
        while size := self._spool.read(4):
            chunk.append(self._decode(self._spool.read(int.from_bytes(size, "big"))))
            if len(chunk) == _AT_ONCE:
                yield chunk
                chunk = []
        if chunk:
            yield chunk
