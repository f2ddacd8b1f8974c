"""Whether a PAM service speaks for itself, in both phases.

Where a service has no file, or its file no line for a phase, libpam asks the service ``other``, which is somebody
else's policy and may let everybody in. So its file is read before each question, those that it includes as well,
and compared behind the answer: a policy that is being written admits nobody. What modules do is not known here.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SERVICE_DIRS: Final = ("/etc/pam.d", "/usr/lib/pam.d")
"""Where Linux-PAM looks, in this order."""
MAX_FILE: Final = 64 * 1024
MAX_FILES: Final = 32
"""That one service is made of; some include each other without end."""
PHASES: Final = frozenset({"auth", "account"})
_KINDS: Final = PHASES | {"password", "session"}
_CONTROLS: Final = frozenset({"required", "requisite", "sufficient", "optional"})

Signature = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, slots=True)
class Service:
    """What its files say at one moment."""

    phases: frozenset[str]
    """Those of `PHASES` that it has lines for."""
    sound: bool
    """Every line can be read. libpam answers "permission denied" in the place of one that cannot."""
    signature: Signature
    """Another one when a file was replaced or written to."""

    @property
    def complete(self) -> bool:
        return self.sound and self.phases == PHASES


def read_service(places: Sequence[str], name: str) -> Service:
    """The service as it stands."""
    reader = _Reader()
    phases = reader.phases([str(Path(place) / name) for place in places])
    return Service(frozenset(phases & PHASES), reader.sound, tuple(reader.files))


class _Reader:
    """Reads a service's file and what it includes."""

    def __init__(self) -> None:
        self.sound = True
        self.files: list[tuple[str, int, int, int]] = []

    def phases(self, paths: Sequence[str]) -> set[str]:
        """What the first of these files that is there has lines for."""
        found: set[str] = set()
        for line in self._lines(paths):
            words = line.split()
            phase = words[0].lower().removeprefix("-")
            control = words[1].lower() if len(words) > 1 else ""
            if phase == "@include" and control:
                found |= self._included(words[1])
            elif phase not in _KINDS or len(words) < 3:
                self.sound = False
            elif control in ("include", "substack"):
                found |= self._included(words[2]) & {phase}
            else:
                self.sound &= control in _CONTROLS or control.startswith("[")
                found.add(phase)
        return found

    def _included(self, name: str) -> set[str]:
        # libpam looks for these among the system's services, wherever the service itself lies.
        return self.phases([str(Path(place) / name) for place in SERVICE_DIRS])

    def _lines(self, paths: Sequence[str]) -> list[str]:
        """The lines that say something. No file, or too many of them, is not sound."""
        for path in paths if len(self.files) < MAX_FILES else ():
            try:
                with open(path, "rb", opener=_without_waiting) as file:
                    status = os.fstat(file.fileno())
                    text = file.read(MAX_FILE).decode("utf-8", "replace")
            except OSError:
                continue
            self.files.append((path, status.st_ino, status.st_size, status.st_mtime_ns))
            lines = (line.partition("#")[0].strip() for line in text.replace("\\\n", " ").splitlines())
            return [line for line in lines if line]
        self.sound = False
        return []


def _without_waiting(path: str, flags: int) -> int:
    # A pipe in the file's place would hold up an ordinary open until somebody writes to it.
    return os.open(path, flags | os.O_NONBLOCK)
