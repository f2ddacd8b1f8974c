"""Files that hold a secret: whether others can read or change them. What they could read is no secret."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from zapd.errors import Unavailable


def is_private(path: Path) -> bool:
    """Raises `OSError` where there is no such file."""
    # systemd grants its credentials through access lists, which show as group bits.
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return not stat.S_IMODE(path.stat().st_mode) & 0o077 or (
        bool(directory) and path.parent == Path(directory or "")
    )


def check_private(path: Path) -> None:
    """Raises `Unavailable` with the mend, and `OSError` where there is no such file."""
    if not is_private(path):
        raise Unavailable(f"{path} holds a secret, and others can read or change it: chmod 600 it, and replace it")
