"""What the journal records: one value for each decision, change and happening of the service.

Tags follow the grammar ``subject.verb``; the list here is the only one. No field ever holds a secret: of a
CURVE key its fingerprint, of a PLAIN login its user name.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class Tag(StrEnum):
    """Every event there is."""

    AUTH_ACCEPT = "auth.accept"
    AUTH_REJECT = "auth.reject"
    AUTH_DEFER = "auth.defer"
    """Answered 300 after asking, or for a reason worth its own record."""
    AUTH_SUMMARY = "auth.summary"
    """Counts of 300s given without asking a backend: at most one a second for each domain and source."""
    AUTH_GAP = "auth.gap"
    """Counts of 300s given while the journal could not be written."""
    KEY_ADD = "key.add"
    KEY_CHANGE = "key.change"
    KEY_ROTATE = "key.rotate"
    """A key that another was rotated in for; that one has its own `KEY_ADD`."""
    KEY_REVOKE = "key.revoke"
    KEY_REMOVE = "key.remove"
    """A key that its holder had signed in for is forgotten: it had expired."""
    USER_ADD = "user.add"
    USER_CHANGE = "user.change"
    USER_PASSWORD = "user.password"
    USER_DISABLE = "user.disable"
    USER_ENABLE = "user.enable"
    USER_REMOVE = "user.remove"
    AGENT_ENROLL = "agent.enroll"
    AGENT_ROTATE = "agent.rotate"
    AGENT_REVOKE = "agent.revoke"
    BAN_ADD = "ban.add"
    BAN_REMOVE = "ban.remove"
    TOKEN_CREATE = "token.create"
    TOKEN_REVOKE = "token.revoke"
    JOIN_CREATE = "join.create"
    JOIN_REVOKE = "join.revoke"
    JOIN_USE = "join.use"
    """A join token was exchanged for a key, which has its own `KEY_ADD`."""
    JOIN_REFUSE = "join.refuse"
    """Somebody tried to, in vain."""
    SERVICE_START = "service.start"
    SERVICE_RELOAD = "service.reload"
    SERVICE_STOP = "service.stop"
    JOURNAL_BEGIN = "journal.begin"
    """First line of an instance: names the predecessor and its last hash, where there is one."""
    JOURNAL_RESUME = "journal.resume"
    """First line after a restart: says what was cut from an unfinished last line, if anything."""
    JOURNAL_RETIRE = "journal.retire"
    """Old segments went, by size or age; the signed stub names the last record that they held."""


class AuditEvent(msgspec.Struct, omit_defaults=True, frozen=True):
    """One happening. Time, instance, sequence and hash are added by the journal.

    A msgspec struct, not a dataclass: one is made for each decision, and this costs a tenth.
    """

    event: str
    domain: str | None = None
    mechanism: str = ""
    address: str = ""
    agent: str = ""
    principal: str = ""
    key: str = ""
    """Fingerprint, ``SHA256:…``."""
    username: str = ""
    status: int = 0
    reason: str = ""
    question_id: str = ""
    """Hex."""
    trail: tuple[tuple[str, str, float], ...] = ()
    """(backend, outcome, milliseconds)."""
    actor: str = ""
    subject: str = ""
    """What a change is about: a fingerprint, a user, an agent, a token's or a ban's id."""
    before: dict[str, object] | None = None
    after: dict[str, object] | None = None
    change: int = 0
    """The change log's sequence: makes journalling a change after a crash happen once."""
    count: int = 0
    detail: dict[str, object] | None = None
