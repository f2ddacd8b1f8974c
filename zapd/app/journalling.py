"""The journal as the configuration wants it, and what a restart owes it."""

from __future__ import annotations

from zapd.admin.services.changes import ChangeRoad
from zapd.audit.checkpoint import make_head
from zapd.audit.journal import Journal
from zapd.audit.retention import Retention
from zapd.audit.signing import load_signing_key
from zapd.config import Config
from zapd.store.changes import ChangeLog

_UNJOURNALLED = 100_000
"""Changes that are looked for in the journal at start: more than a disk full for a week leaves behind."""


async def open_journal(config: Config) -> Journal:
    """Open it; a disk that is full or read-only makes one that is not writable yet.

    Raises `ConfigurationError` for a key that cannot be used.
    """
    audit = config.audit
    seed = load_signing_key(config.journal_key_file) if config.journal_key_file.exists() else None
    head = make_head(audit.head, config.base_dir)
    return await Journal.open(
        config.journal_dir,
        durability=audit.durability,
        flush_interval=audit.flush_interval,
        signing_key=seed,
        heads=() if head is None else (head,),
        retention=Retention(config.journal_dir, max_size=audit.max_size, max_age=audit.retention, seed=seed),
    )


async def journal_what_is_missing(road: ChangeRoad, journal: Journal) -> int:
    """Append the changes that a crash or a full disk kept out of the journal, once; how many.

    Raises `JournalUnavailable` and `zapd.errors.Unavailable`.
    """
    log = ChangeLog()
    rows = await road.read(lambda connection: log.unjournalled(connection, limit=_UNJOURNALLED))
    if not rows:
        return 0
    oldest = min(row.time.timestamp() for row in rows)
    known = await journal.recorded_changes([row.sequence for row in rows], since=oldest - 60.0)
    return await road.journal_missing(known.__contains__)
