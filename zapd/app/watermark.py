"""The newest change of the registry that this zapd has on record, in a small file of its own.

A database restored from a backup has forgotten the newest changes, revocations among them, and would let in whom
they shut out (limits.md, R21). The change log's end alone cannot tell; compared with this file it can.
"""

from __future__ import annotations

from pathlib import Path

import structlog

from zapd.audit.segment import write_atomically
from zapd.errors import Unavailable

log = structlog.get_logger(__name__)


class Watermark:
    """A number that only rises, kept in ``path``."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._newest = self._read()

    def rise(self, sequence: int) -> None:
        """Remember a change that is on record. Blocks for a sync; what the disk refuses is logged, and missed."""
        if sequence <= self._newest:
            return
        self._newest = sequence
        try:
            write_atomically(self._path, b"%d\n" % sequence)
        except OSError as error:
            log.warning("the newest change could not be noted", file=str(self._path), reason=str(error))

    def check(self, last: int) -> None:
        """Raise `Unavailable` when a database whose change log ends at ``last`` is older than the record."""
        if last < self._newest:
            raise Unavailable(
                f"The database knows changes up to {last}, and change {self._newest} is on record: an older copy"
                " was put in its place, in which revoked keys are alive. Put the newest one back; or, to accept"
                f" this one, revoke again what must stay out and remove {self._path}, then start again."
            )

    def _read(self) -> int:
        try:
            text = self._path.read_bytes().strip()
        except FileNotFoundError:
            return 0
        # Unreadable is not the same as absent: nobody but us writes it, and always whole.
        return int(text) if text.isdigit() else 2**63 - 1
