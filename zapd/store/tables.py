"""The registry's tables: the one picture of what zapd keeps in SQL.

Names are compared octet for octet. No table holds a secret in the clear: passwords are hashes, tokens are
SHA-256. The searchable copy of the journal is not here; it has tables, and on SQLite a file, of its own.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
)

from zapd.store.types import Moment, Pairs, Strings, name_text

metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "uq": "uq_%(table_name)s_%(column_0_name)s",
        "ix": "ix_%(table_name)s_%(column_0_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
    }
)

_Sequence = BigInteger().with_variant(Integer, "sqlite")
"""SQLite counts by itself only in a column whose type is INTEGER, which holds 64 bits there."""

keys = Table(
    "keys",
    metadata,
    Column("fingerprint", name_text(), primary_key=True, comment="43 characters of URL-safe base64"),
    Column("public_key", LargeBinary(32), nullable=False, unique=True),
    Column("user", name_text(), nullable=False, index=True),
    Column("state", Text, nullable=False),
    Column("not_before", Moment),
    Column("expires", Moment),
    Column("domains", Strings, nullable=False),
    Column("groups", Strings, nullable=False),
    Column("attributes", Pairs, nullable=False),
    Column("label", Text, nullable=False),
    Column("reason", Text, nullable=False, comment="why it was revoked or rejected"),
    Column("created", Moment, nullable=False),
    Column("updated", Moment, nullable=False),
    Column("version", Integer, nullable=False),
    Column("replaces", name_text(), comment="the fingerprint of the key that this one was rotated in for"),
    Column("replaced_by", name_text(), comment="the fingerprint of the key that was rotated in for this one"),
    Column("origin", name_text(), comment="join:ID or signin:DOMAIN; empty where an operator registered it"),
    CheckConstraint("state IN ('pending', 'active', 'revoked')", name="state"),
)
"""CURVE public keys and who holds them. A revoked key stays known as revoked; rows are deleted only of keys that
their holders signed in for and that have expired."""

Index(
    "ix_keys_not_active",
    keys.c.state,
    keys.c.fingerprint,
    sqlite_where=keys.c.state != "active",
    postgresql_where=keys.c.state != "active",
)
# The few that wait or are revoked, among a million: see `zapd.store.filters.in_state`.

Index("ix_keys_domains", keys.c.domains, keys.c.fingerprint)
# The few of one domain, among a million: see `KeyRegistry.granted_sets`.

Index(
    "ix_keys_enrolled",
    keys.c.expires,
    sqlite_where=keys.c.origin.is_not(None),
    postgresql_where=keys.c.origin.is_not(None),
)
# Those that end by themselves are looked for among them.

users = Table(
    "users",
    metadata,
    Column("name", name_text(), primary_key=True),
    Column("hash", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("expires", Moment),
    Column("domains", Strings, nullable=False),
    Column("groups", Strings, nullable=False),
    Column("attributes", Pairs, nullable=False),
    Column("created", Moment, nullable=False),
    Column("updated", Moment, nullable=False),
    Column("version", Integer, nullable=False),
    CheckConstraint("state IN ('enabled', 'disabled')", name="state"),
)
"""PLAIN users."""

agents = Table(
    "agents",
    metadata,
    Column("name", name_text(), primary_key=True),
    Column("fingerprint", name_text(), nullable=False, unique=True),
    Column("public_key", LargeBinary(32), nullable=False, unique=True),
    Column("state", Text, nullable=False),
    Column("domains", Strings, nullable=False),
    Column("mechanisms", Strings, nullable=False),
    Column("addresses", Strings, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created", Moment, nullable=False),
    Column("updated", Moment, nullable=False),
    Column("version", Integer, nullable=False),
    Column("previous_key", LargeBinary(32), comment="what the agent's key was before it was rotated"),
    Column("previous_until", Moment, comment="until when the previous key is good as well"),
    CheckConstraint("state IN ('active', 'revoked')", name="state"),
)
"""Enrolled bridges: who may ask at zapd's own door."""

tokens = Table(
    "tokens",
    metadata,
    Column("id", name_text(), primary_key=True),
    Column("name", name_text(), nullable=False),
    Column("hash", LargeBinary(32), nullable=False, unique=True, comment="SHA-256 of the token"),
    Column("role", Text, nullable=False),
    Column("domains", Strings, nullable=False),
    Column("expires", Moment),
    Column("created", Moment, nullable=False),
    Column("revoked", Moment),
    Column("last_used", Moment),
    CheckConstraint("role IN ('viewer', 'operator', 'admin')", name="role"),
)
"""Admin API tokens."""

joins = Table(
    "joins",
    metadata,
    Column("id", name_text(), primary_key=True),
    Column("hash", LargeBinary(32), nullable=False, unique=True, comment="SHA-256 of the token"),
    Column("user", name_text(), nullable=False),
    Column("domains", Strings, nullable=False),
    Column("groups", Strings, nullable=False),
    Column("attributes", Pairs, nullable=False),
    Column("label", Text, nullable=False),
    Column("addresses", Strings, nullable=False),
    Column("hints", Pairs, nullable=False, comment="what an exchange is told besides"),
    Column("uses", Integer, nullable=False, comment="how often it may be exchanged"),
    Column("used", Integer, nullable=False),
    Column("key_lifetime", Integer, comment="seconds that a key lives; empty is for ever"),
    Column("expires", Moment, nullable=False),
    Column("created", Moment, nullable=False),
    Column("created_by", name_text(), nullable=False),
    Column("revoked", Moment),
    Column("last_used", Moment),
    CheckConstraint("used >= 0 AND used <= uses", name="used"),
)
"""Join tokens: what a script may exchange for a registered key."""
bans = Table(
    "bans",
    metadata,
    Column("id", name_text(), primary_key=True),
    Column("kind", Text, nullable=False),
    Column("subject", name_text(), nullable=False, comment="an address rule, a fingerprint or a user's name"),
    Column("domains", Strings, nullable=False),
    Column("reason", Text, nullable=False),
    Column("expires", Moment, index=True),
    Column("created", Moment, nullable=False),
    Column("created_by", name_text(), nullable=False, comment="the name of the token that made it"),
    Column("version", Integer, nullable=False),
    UniqueConstraint("kind", "subject", "domains"),
    CheckConstraint("kind IN ('address', 'key', 'user')", name="kind"),
)
"""Who is shut out by hand. Rows go when a ban is taken back, or has long been over."""

sightings = Table(
    "sightings",
    metadata,
    Column("fingerprint", name_text(), primary_key=True, comment="as in keys"),
    Column("domain", name_text(), primary_key=True, comment="the ZAP domain that it knocked at"),
    Column("public_key", LargeBinary(32), nullable=False),
    Column("rule", name_text(), nullable=False, comment="the pattern that speaks for the domain", index=True),
    Column("source", name_text(), nullable=False, comment="who is behind the address", index=True),
    Column("address", Text, nullable=False),
    Column("agent", name_text(), nullable=False, index=True),
    Column("first_seen", Moment, nullable=False),
    Column("last_seen", Moment, nullable=False, index=True),
    Column("tries", Integer, nullable=False),
)
"""Unknown keys that a domain holds for approval, where and when they came. Bounded: see `zapd.store.sightings`."""

change_log = Table(
    "change_log",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=True),
    Column("kind", Text, nullable=False),
    Column("subject", Text, nullable=False),
    Column("time", Moment, nullable=False),
    Column("event", Text, nullable=False, comment="the whole audit event as JSON"),
    Column("instance", Text, nullable=False, comment="whose journal takes it; empty until one claims it"),
    Column("journalled", Boolean, nullable=False),
    sqlite_autoincrement=True,
)
"""Every change of the registry, in the order in which it took force. Sequences never go back."""

Index(
    "ix_change_log_waiting",
    change_log.c.sequence,
    sqlite_where=~change_log.c.journalled,
    postgresql_where=~change_log.c.journalled,
)

idempotency = Table(
    "idempotency",
    metadata,
    Column("sequence", _Sequence, primary_key=True, autoincrement=True),
    Column("token", name_text(), nullable=False, comment="the id of the token that asked"),
    Column("key", name_text(), nullable=False, comment="what the caller calls its request"),
    Column("request", LargeBinary(32), nullable=False, comment="a hash of it, keyed with the token itself"),
    Column("time", Moment, nullable=False, index=True),
    Column("status", Integer, comment="of the answer; empty until there is one to repeat"),
    Column("headers", Pairs, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("token", "key"),
    sqlite_autoincrement=True,
)
"""Requests that were carried out under an ``Idempotency-Key``, and what they were answered. Bounded in number and
age; holds no secret, neither asked nor answered."""
