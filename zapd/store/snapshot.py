"""The registry as memory wants it: every key in two strings of octets, read as fast as the driver can.

A million keys must load in seconds and fit beside everything else, so the database itself joins what is known
of a key into one *packed record*, and rows go from the driver's cursor straight into a dict. No object is made
for a key before it is asked for; and since such a dict holds nothing but octets, the garbage collector never
walks through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Select,
    Text,
    cast,
    func,
    literal,
    select,
    type_coerce,
)

from zapd.store.domains import Grant
from zapd.store.keys import KeyState
from zapd.store.tables import keys, users
from zapd.store.users import UserState

NEVER: Final = float("inf")
"""The expiry of what does not expire, in seconds since 1970."""

_SEPARATOR: Final = "\x1f"
"""Between the fields of a packed record. No field can hold it: names are printable, and JSON escapes it.

What differs from key to key comes first; the rest (state, domains, groups) many keys share: it is read once."""
SEPARATOR: Final = _SEPARATOR.encode()

_ROWS: Final = 10_000
"""Rows fetched at once."""

_CHUNK: Final = 500
"""Names in one question: well below every driver's bound on parameters."""


class KeyFacts(NamedTuple):
    """What a packed record says. Times are seconds since 1970."""

    user: str
    not_before: float
    expires: float
    mark: str
    """The fingerprint: 43 characters of ordinary base64."""
    attributes: tuple[tuple[str, str], ...]
    state: KeyState
    grant: Grant
    groups: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UserFacts:
    """What is known of a user."""

    name: str
    hash: str = field(repr=False)
    state: UserState
    expires: float
    grant: Grant
    groups: tuple[str, ...]
    attributes: tuple[tuple[str, str], ...]


def load_keys(connection: Connection) -> dict[bytes, bytes]:
    """Every key: its 32 octets and its packed record."""
    found: dict[bytes, bytes] = {}
    query = select(keys.c.public_key, _packed(connection))
    statement = str(query.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True}))
    # The driver's own cursor, in the same transaction: a row object for each key would double the time. On
    # PostgreSQL a named one, which fetches piece by piece, each piece a statement with its own deadline.
    named = {"name": "zapd_keys"} if connection.dialect.name == "postgresql" else {}
    driver: Any = connection.connection.driver_connection
    with closing(driver.cursor(**named)) as cursor:
        cursor.execute(statement)
        while rows := cursor.fetchmany(_ROWS):
            found.update(rows)
    return found


def load_some_keys(connection: Connection, fingerprints: Iterable[str]) -> dict[bytes, bytes]:
    """The keys with these fingerprints (43 characters), as `load_keys`."""
    found: dict[bytes, bytes] = {}
    for chunk in _chunks(fingerprints):
        query = select(keys.c.public_key, _packed(connection)).where(keys.c.fingerprint.in_(chunk))
        found.update((bytes(key), bytes(record)) for key, record in connection.execute(query))
    return found


def unpack(record: bytes) -> KeyFacts:
    """Read a packed record: user, expires and not-before (microseconds since 1970, or nothing), the fingerprint's
    base64, attributes, and what many keys share."""
    user, expires, not_before, mark, attributes, shared = record.split(SEPARATOR, 5)
    return KeyFacts(
        user.decode("utf-8"),
        int(not_before) / 1e6 if not_before else 0.0,
        int(expires) / 1e6 if expires else NEVER,
        mark.decode("ascii"),
        read_attributes(attributes),
        *read_shared(shared),
    )


def load_users(connection: Connection, names: Iterable[str] | None = None) -> dict[str, UserFacts]:
    """Users by name: all, or those of ``names`` that are there."""
    if names is None:
        return {facts.name: facts for facts in _users(connection, select(users))}
    return {
        facts.name: facts
        for chunk in _chunks(names)
        for facts in _users(connection, select(users).where(users.c.name.in_(chunk)))
    }


def _users(connection: Connection, query: Select[tuple[object, ...]]) -> Iterable[UserFacts]:
    for row in connection.execute(query):
        yield UserFacts(
            row.name,
            row.hash,
            UserState(row.state),
            NEVER if row.expires is None else row.expires.timestamp(),
            Grant.of(row.domains),
            row.groups,
            row.attributes,
        )


def _packed(connection: Connection) -> ColumnElement[bytes]:
    """SQL for the packed record of a key, in octets."""
    fields: Sequence[ColumnElement[str]] = (
        type_coerce(keys.c.user, Text),
        func.coalesce(cast(keys.c.expires, Text), ""),
        func.coalesce(cast(keys.c.not_before, Text), ""),
        # Ordinary base64, as fingerprints are shown: no question has to hash its key for it.
        func.replace(func.replace(type_coerce(keys.c.fingerprint, Text), "-", "+"), "_", "/"),
        type_coerce(keys.c.attributes, Text),
        type_coerce(keys.c.state, Text),
        type_coerce(keys.c.domains, Text),
        type_coerce(keys.c.groups, Text),
    )
    joined = fields[0]
    for column in fields[1:]:
        joined = joined + literal(_SEPARATOR) + column
    if connection.dialect.name == "postgresql":
        return func.convert_to(joined, "UTF8", type_=LargeBinary)
    return cast(joined, LargeBinary)


@lru_cache(maxsize=4096)
def read_shared(shared: bytes) -> tuple[KeyState, Grant, tuple[str, ...]]:
    """State, domains and groups: few different ones are shared by many keys."""
    state, domains, groups = shared.decode("utf-8").split(_SEPARATOR)
    return (
        KeyState(state),
        Grant.of(msgspec.json.decode(domains, type=list[str])),
        tuple(msgspec.json.decode(groups, type=list[str])),
    )


@lru_cache(maxsize=4096)
def read_attributes(text: bytes) -> tuple[tuple[str, str], ...]:
    """A key's attributes."""
    return tuple(_decode_attributes(text).items())


_decode_attributes: Final = msgspec.json.Decoder(dict[str, str]).decode


def _chunks(names: Iterable[str]) -> Iterable[Sequence[str]]:
    wanted = list(names)
    for start in range(0, len(wanted), _CHUNK):
        yield wanted[start : start + _CHUNK]
