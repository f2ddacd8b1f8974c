"""Secrets that can be recognised wherever they turn up, in whatever clothes."""

from __future__ import annotations

import base64
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import quote

from zapd.zmtp.keys import encode_key


def canary() -> str:
    """A password that nobody else has."""
    return "canary-" + secrets.token_hex(12)


def guises(secret: bytes) -> Iterator[bytes]:
    """The forms in which a secret could leak: plain, hex, base64 at each of its three alignments, Z85, URL."""
    yield secret
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    for lead in range(3):
        padded = base64.b64encode(bytes(lead) + secret + bytes(-(lead + len(secret)) % 3))
        # Only the characters that depend on the secret alone.
        core = padded[4 if lead else 0 : len(padded) - 4]
        yield core
        yield core.replace(b"+", b"-").replace(b"/", b"_")
    if len(secret) == 32:
        yield encode_key(secret).encode()
    yield quote(secret).encode()
    yield repr(secret)[2:-1].encode()


class Hunt:
    """Looks for secrets in octets, and says where it found which."""

    def __init__(self, named: dict[str, bytes]) -> None:
        self._guises = [
            (name, guise) for name, secret in named.items() for guise in set(guises(secret)) if len(guise) >= 16
        ]
        self.found: list[str] = []
        self.searched = 0

    def through(self, where: str, octets: bytes | str) -> None:
        if isinstance(octets, str):
            octets = octets.encode()
        self.searched += len(octets)
        self.found += [f"{name} in {where}" for name, guise in self._guises if guise in octets]

    def through_files(self, folder: Path, *, but: Iterable[Path] = ()) -> None:
        """Every file below a folder, but those whose own business the secrets are."""
        allowed = {path.resolve() for path in but}
        for path in folder.rglob("*"):
            if path.is_file() and path.resolve() not in allowed:
                self.through(str(path.relative_to(folder)), path.read_bytes())

    def through_process(self, pid: int) -> None:
        """What the system shows of a process and of its children."""
        for each in (pid, *_children(pid)):
            for name in ("cmdline", "environ", "comm", "status", "maps"):
                self.through(f"/proc/{each}/{name}", Path(f"/proc/{each}/{name}").read_bytes())


def _children(pid: int) -> list[int]:
    found: list[int] = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                status = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            if int(status.rpartition(")")[2].split()[1]) == pid:
                found += [int(entry), *_children(int(entry))]
    return found
