"""Some of the journal's records: those that a caller seeks, or may see. For exports that are not whole ranges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from zapd.audit.export import walk_lines
from zapd.audit.instance import list_instances
from zapd.audit.segment import read_lines
from zapd.audit.sinks.follow import Record
from zapd.store.domains import Grant

STEP = 20_000
"""Records looked at between two signs of life."""


class Sought(msgspec.Struct, omit_defaults=True):
    """What is sought. `None` is no condition."""

    user: str | None = None
    """A principal or a PLAIN user name."""
    key: str | None = None
    address: str | None = None
    domain: str | None = None
    status: int | None = None
    event: str | None = None
    """A tag, or the beginning of some with a ``*``."""
    domains: tuple[str, ...] | None = None
    """Domain patterns beyond which nothing is shown; `None` shows all, also what has no domain."""
    instance: str = ""
    since: str = ""
    """As records write times, or any beginning of it."""
    until: str = ""

    @property
    def whole(self) -> bool:
        """Whether every record of the range is sought."""
        return all(getattr(self, name) is None for name in _CONDITIONS)


_CONDITIONS = ("user", "key", "address", "domain", "status", "event", "domains")


class Selected(Record):
    """A record, as far as anybody chooses by it or prints it."""

    trail: list[tuple[str, str, float]] = msgspec.field(default_factory=list)
    actor: str = ""
    subject: str = ""
    before: dict[str, object] | None = None
    after: dict[str, object] | None = None
    change: int = 0
    count: int = 0
    detail: dict[str, object] | None = None


_decode = msgspec.json.Decoder(Selected).decode


def select(directory: Path, sought: Sought) -> Iterator[tuple[Selected, bytes] | None]:
    """The records that fit, each with its line, an instance after the other; now and then None, so that whoever
    waits can leave. A line that is no record ends its instance. Blocks."""
    grant = None if sought.domains is None else Grant.of(sought.domains)
    since, until = sought.since.rstrip("Z"), sought.until.rstrip("Z")
    looked = 0
    for folder in list_instances(directory):
        if sought.instance and folder.name != sought.instance:
            continue
        for _, head, line in walk_lines(folder, since):
            looked += 1
            if looked % STEP == 0:
                yield None
            if until and head.time >= until:
                break
            if head.time >= since:
                try:
                    record = _decode(line)
                except msgspec.DecodeError:
                    continue
                if _fits(record, sought, grant):
                    yield record, line


def read_export(path: Path, sought: Sought) -> Iterator[tuple[Selected, bytes] | None]:
    """The same from an exported file of JSON lines; what is no record is passed over. Blocks."""
    grant = None if sought.domains is None else Grant.of(sought.domains)
    since, until = sought.since.rstrip("Z"), sought.until.rstrip("Z")
    with path.open("rb") as file:
        for line in read_lines(file):
            try:
                record = _decode(line)
            except msgspec.DecodeError:
                continue
            if since <= record.time and not (until and record.time >= until) and _fits(record, sought, grant):
                yield record, line


def _fits(record: Selected, sought: Sought, grant: Grant | None) -> bool:
    if grant is not None and (record.domain is None or not grant.covers(record.domain)):
        return False
    if sought.user is not None and sought.user not in (record.principal, record.username):
        return False
    if sought.event is not None and not (
        record.event.startswith(sought.event[:-1]) if sought.event.endswith("*") else record.event == sought.event
    ):
        return False
    return all(
        wanted is None or wanted == found
        for wanted, found in (
            (sought.key, record.key),
            (sought.address, record.address),
            (sought.domain, record.domain),
            (sought.status, record.status),
        )
    )
