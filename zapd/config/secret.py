"""Secrets that the configuration names and does not hold: ``file:PATH`` and ``env:NAME``.

A `Secret` is read when it is needed and not before, so that a reload sees a new one and a dump of the
configuration holds none. A file that others can read is refused: what they could read is no secret.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final, final

from zapd.errors import ConfigurationError

MAX_SECRET: Final = 64 * 1024
"""Octets; no secret of ours is longer."""


@final
class Secret:
    """Something that must not be shown. ``repr`` and ``str`` are ``***``; `reveal` alone gives it away."""

    __slots__ = ("_inline", "environment", "path")

    def __init__(self, *, path: Path | None = None, environment: str = "", inline: str = "") -> None:
        self.path = path
        """The file it is read from, or None."""
        self.environment = environment
        """The environment's variable it is read from, or empty."""
        self._inline = inline

    @classmethod
    def parse(cls, text: str, base: Path) -> Secret:
        """``file:PATH`` (a relative path starts at ``base``), ``env:NAME``, or the text itself."""
        scheme, _, rest = text.partition(":")
        if scheme == "file":
            return cls(path=base / rest)
        if scheme == "env":
            return cls(environment=rest)
        return cls(inline=text)

    @property
    def is_inline(self) -> bool:
        """It stands in the configuration itself."""
        return self.path is None and not self.environment

    def reveal(self) -> str:
        """The secret, read now, without the line end that editors add. Raises `ConfigurationError`."""
        if self.path is not None:
            return read_private(self.path).removesuffix("\n").removesuffix("\r")
        if self.environment:
            value = os.environ.get(self.environment)
            if not value:
                raise ConfigurationError(f"The environment has no {self.environment}: set it, or use file:PATH.")
            return value
        return self._inline

    def check(self) -> None:
        """Raise what `reveal` would raise, and forget what it would give."""
        self.reveal()

    def __repr__(self) -> str:
        return "***"

    def __reduce__(self) -> tuple[object, ...]:
        raise TypeError("a secret is not pickled")


def read_private(path: Path) -> str:
    """The text of a file that nobody else may read, judged by the open file itself.

    Raises `ConfigurationError` that names the file and the mend, never its content.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}; it must hold a secret that zapd can read.") from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigurationError(f"{path} is not a regular file; name the file that holds the secret.")
        # systemd grants its credentials through access lists, which show as group bits.
        if status.st_mode & 0o077 and not _is_credential(path):
            raise ConfigurationError(
                f"{path} holds a secret, and others can read or change it "
                f"(mode {stat.S_IMODE(status.st_mode):04o}): chmod 600 it, "
                "and replace the secret if somebody may have seen it."
            )
        # Root may be checking the configuration of a service that runs as somebody else.
        if os.geteuid() != 0 and status.st_uid not in (0, os.geteuid()):
            raise ConfigurationError(
                f"{path} holds a secret and belongs to another user (uid {status.st_uid}): chown it."
            )
        content = os.read(descriptor, MAX_SECRET + 1)  # a regular file is read whole, or up to the bound
    finally:
        os.close(descriptor)
    if len(content) > MAX_SECRET:
        raise ConfigurationError(f"{path} is longer than the {MAX_SECRET} octets that a secret may have.")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8 text.") from None
    if not text.strip():
        raise ConfigurationError(f"{path} is empty; write the secret into it.")
    return text


def _is_credential(path: Path) -> bool:
    """Whether systemd put it there for this service alone (systemd.exec, "LoadCredential=")."""
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return bool(directory) and path.parent == Path(directory or "")
