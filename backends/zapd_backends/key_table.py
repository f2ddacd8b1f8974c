"""The registry's keys in memory, in the form in which they are asked for.

A key comes from the database as a packed record (`zapd.store.snapshot`). When it is first admitted its record is
replaced by a *ready* one, which takes no more room and needs no more work:

    0 | number of its grant (2) | expiry, microseconds since 1970, 18 digits | admission

So written, records sort by grant and then by expiry, and ready ones before packed ones: of many keys asked about
together, the least and the greatest record tell whether all are ready, share one grant, and none has expired.

Knows the clock only by what it is told, and no verdicts: those are `sql`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Final

from zapd.auth.admission import MARK, card_of, encode_admission
from zapd.auth.backend import Admission
from zapd.errors import InvalidInput
from zapd.store.domains import Grant
from zapd.store.keys import KeyState
from zapd.store.snapshot import NEVER, SEPARATOR, KeyFacts, read_attributes, read_shared, unpack

_READY: Final = 0
"""The first octet of a ready record. A packed one begins with a name, hence with nothing below 32."""
_GRANT: Final = 3
"""Octets up to the expiry: marker and number."""
_START: Final = _GRANT + 18
"""Where the admission begins."""
_NEVER: Final = b"9" * 18
_MOST_GRANTS: Final = 1 << 16
_SLICE: Final = 5_000
"""Records that `KeyTable.search` looks at without a pause: some milliseconds."""


class KeyTable:
    """Keys and what is known of them."""

    def __init__(self, records: dict[bytes, bytes]) -> None:
        """``records`` are packed, by the 32 octets of their keys; they become the table's own."""
        self._records = records
        self._numbers: dict[bytes, bytes] = {}
        """What keys share in packed form (`zapd.store.snapshot.read_shared`) to the beginning of their records."""
        self._shared: dict[bytes, tuple[Grant, tuple[str, ...]]] = {}

    def __len__(self) -> int:
        return len(self._records)

    def update(self, records: Mapping[bytes, bytes]) -> None:
        """Put packed records in the place of what was known of these keys."""
        self._records.update(records)

    def search(self, marks: Set[bytes]) -> Iterator[list[bytes]]:
        """Find the keys with these fingerprints (43 characters of ordinary base64), slice by slice through all
        that there are. Between two slices keys may be asked about, and none may come or go."""
        rows = iter(self._records.items())
        while some := list(islice(rows, _SLICE)):
            yield [key for key, record in some if _mark(record) in marks]

    def remove(self, keys: Iterable[bytes]) -> None:
        """Know these no more."""
        for key in keys:
            del self._records[key]

    def facts(self, key: bytes) -> KeyFacts | None:
        """All that is known of a key."""
        record = self._records.get(key)
        if record is None or record[0] != _READY:
            return None if record is None else unpack(record)
        expires, (grant, groups) = record[_GRANT:_START], self._shared[record[:_GRANT]]
        user, mark, _, attributes = card_of(record[_START:])
        return KeyFacts(
            user=user.decode("utf-8"),
            not_before=0.0,
            expires=NEVER if expires == _NEVER else int(expires) / 1e6,
            mark=mark.decode("ascii"),
            attributes=attributes,
            state=KeyState.ACTIVE,
            grant=grant,
            groups=groups,
        )

    def recall(self, keys: Sequence[bytes], domain: str, now: float) -> list[Admission | None]:
        """The admissions of those keys that are active and granted in this domain now, seconds since 1970."""
        records = list(map(self._records.get, keys))
        time = b"%018d" % int(now * 1e6)
        least, greatest = _extremes(records)
        if least[:_GRANT] == greatest[:_GRANT] and least and self._holds(least, domain, time):
            return [record[_START:] for record in records if record]
        return [self._recall(key, record, domain, time) for key, record in zip(keys, records, strict=True)]

    def _recall(self, key: bytes, record: bytes | None, domain: str, time: bytes) -> Admission | None:
        if record is not None and record[0] != _READY:
            record = self._make_ready(key, record, time)
        return record[_START:] if record is not None and self._holds(record, domain, time) else None

    def _holds(self, record: bytes, domain: str, time: bytes) -> bool:
        """Whether a record is ready, of this domain, and not expired."""
        if record[0] != _READY or record[_GRANT:_START] <= time:
            return False
        grant, _ = self._shared[record[:_GRANT]]
        return domain in grant.exact or grant.covers(domain)

    def _make_ready(self, key: bytes, packed: bytes, time: bytes) -> bytes | None:
        """The ready record of an active key; kept, unless it may have to be taken back when the clock is set."""
        user, expires, not_before, mark, attributes, shared = packed.split(SEPARATOR, 5)
        state, grant, groups = read_shared(shared)
        if state is not KeyState.ACTIVE or not_before.rjust(18, b"0") > time:
            return None
        number = self._numbers.get(shared)
        if number is None:
            if len(self._numbers) == _MOST_GRANTS:
                return None  # the long road answers as well
            number = bytes((_READY,)) + len(self._numbers).to_bytes(2, "big")
            self._numbers[shared] = number
            self._shared[number] = grant, groups
        try:
            admission = encode_admission((user, mark, groups, read_attributes(attributes)))
        except InvalidInput:
            return None
        if admission is None:
            return None
        record = number + (expires.rjust(18, b"0") if expires else _NEVER) + admission
        if not not_before:
            self._records[key] = record
        return record


def _mark(record: bytes) -> bytes:
    """The fingerprint, of a ready record or a packed one."""
    return record[MARK:] if record[0] == _READY else record.split(SEPARATOR, 4)[3]


def _extremes(records: list[bytes | None]) -> tuple[bytes, bytes]:
    """The least and the greatest; two empty ones where any is missing."""
    try:
        return min(records) or b"", max(records) or b""  # type: ignore[type-var]
    except TypeError:  # None does not sort
        return b"", b""
