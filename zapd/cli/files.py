"""Writing files that must not be overwritten and must not be read by others."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

from zapd.errors import Conflict, InvalidInput, Unavailable


class NewFile:
    """A file of mode 0600 that appears whole under its name, or not at all, and never in the place of another.

    Entering makes sure that it can be written; `publish` writes it. Leaving without that leaves nothing behind.
    """

    def __init__(self, path: Path, *, mode: int = 0o600) -> None:
        self.path = path
        self._mode = mode
        self._temporary: Path | None = None
        self._descriptor = -1

    def __enter__(self) -> Self:
        if os.path.lexists(self.path):
            raise Conflict(
                f"{self.path} exists already and is not overwritten: move it away, or name another file."
            )
        try:
            self._descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)
        except OSError as error:
            raise InvalidInput(f"{self.path} cannot be written: {error.strerror}.") from None
        self._temporary = Path(name)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        if self._temporary is not None:
            self._temporary.unlink(missing_ok=True)

    def publish(self, text: str | Iterable[str]) -> None:
        """Write ``text``, or its pieces, and give the file its name. Raises `Conflict` when somebody took it."""
        self.publish_pieces(piece.encode() for piece in ((text,) if isinstance(text, str) else text))

    def publish_pieces(self, pieces: Iterable[bytes]) -> None:
        """The same with octets. What the pieces raise leaves no file behind."""
        if self._temporary is None:
            raise InvalidInput(f"{self.path} was not prepared.")
        try:
            with os.fdopen(self._descriptor, "wb", closefd=False) as file:
                for piece in pieces:
                    file.write(piece)
                file.flush()
                os.fchmod(self._descriptor, self._mode)
                os.fsync(self._descriptor)
            os.link(self._temporary, self.path)  # unlike a rename, fails where something stands already
        except FileExistsError:
            raise Conflict(f"{self.path} exists already and is not overwritten.") from None
        except OSError as error:
            raise Unavailable(f"{self.path} cannot be written: {error.strerror}.") from None


def write_new(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Write a file that was not there, with this mode. Raises `Conflict`, `InvalidInput`, `Unavailable`."""
    with NewFile(path, mode=mode) as file:
        file.publish(text)
