"""What a machine that has a journal may hold against it: the public half of its key, and the file of its head."""

from __future__ import annotations

from pathlib import Path

from zapd.audit.signing import load_signing_key, parse_public_key, public_text
from zapd.errors import ConfigurationError


def head_file(head: str, base: Path) -> Path | None:
    """The file that the configuration's checkpoints go to, where it is one."""
    return base / head.removeprefix("file:") if head.startswith("file:") else None


def public_key_of(path: Path) -> bytes | None:
    """The public half, 32 octets, of the signing key in a file; None where it cannot be read."""
    try:
        return parse_public_key(public_text(load_signing_key(path)))
    except ConfigurationError:
        return None
