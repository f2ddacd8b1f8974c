"""The journal as the configuration wants it, and what a restart owes it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from zapd.admin.services.changes import ChangeRoad
from zapd.audit.checkpoint import make_head
from zapd.audit.instance import is_instance
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


async def journal_what_is_missing(road: ChangeRoad, journal: Journal, *, alone: bool) -> int:
    """Append the changes that a crash or a full disk kept out of the journal, once; how many.

    ``alone``: no other zapd uses this database, so what waits for any other journal waits for one that is gone.
    Raises `JournalUnavailable` and `zapd.errors.Unavailable`.
    """
    log = ChangeLog()
    rows = await road.read(lambda connection: log.unjournalled(connection, limit=_UNJOURNALLED))
    others = {row.instance for row in rows} - {"", journal.instance}
    inherited = {other for other in others if alone or await asyncio.to_thread(_is_here, journal.directory, other)}
    ours = [row for row in rows if row.instance not in others or row.instance in inherited]
    if not ours:
        return 0
    oldest = min(row.time.timestamp() for row in ours)
    known = await journal.recorded_changes([row.sequence for row in ours], since=oldest - 60.0)
    return await road.journal_missing(known.__contains__, inherited=inherited)


def _is_here(directory: Path, instance: str) -> bool:
    """Whether that journal is one of this folder's: given up for ours, or by now a worker's, which takes no
    changes. Nobody else's is here (`zapd.server.lifecycle.hold_folder`); what lies on other machines is theirs."""
    return is_instance(instance) and (directory / instance).is_dir()
