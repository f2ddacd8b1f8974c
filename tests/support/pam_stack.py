"""Real PAM services for tests, in a folder of their own: no root, nothing of the machine's is touched.

Imported by the test files that need it (``from support.pam_stack import ...``). Skips where the modules are not
installed, unless ``ZAPD_REQUIRE_COMPONENTS`` makes that a failure.
"""

from __future__ import annotations

import glob
import os
import subprocess
from pathlib import Path

import pytest

MODULES = (
    "/lib/*/security/pam_pwdfile.so",
    "/usr/lib/*/pam_wrapper/pam_matrix.so",
    "/lib/*/security/pam_debug.so",
)


class PamStack:
    """Services in ``folder``, and the files that they look into."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir()
        found = [next(iter(glob.glob(pattern)), "") for pattern in MODULES]
        missing = [pattern for pattern, path in zip(MODULES, found, strict=True) if not path]
        if missing:
            reason = f"no {', '.join(missing)} (apt-get install libpam-modules libpam-pwdfile libpam-wrapper)"
            if os.environ.get("ZAPD_REQUIRE_COMPONENTS"):
                pytest.fail(reason)
            pytest.skip(reason)
        self.pwdfile, self.matrix, self.debug = found
        self.users = folder / "users"
        self.hanging = folder / "hanging"
        self.seen = folder / "seen"
        # Whoever asks for a service that is not there would be let in by this one.
        self.service("other", "auth required pam_permit.so", "account required pam_permit.so")

    def service(self, name: str, *lines: str) -> str:
        (self.folder / name).write_text("\n".join(lines) + "\n")
        return name

    def add(self, **passwords: str) -> None:
        """Write the users that `zapd` knows."""
        text = ""
        for name, password in passwords.items():
            done = subprocess.run(
                ["openssl", "passwd", "-6", "-stdin"], input=password, capture_output=True, text=True, check=True
            )
            text += f"{name}:{done.stdout.strip()}\n"
        self.users.write_text(text)

    def zapd(self) -> str:
        """A service that checks hashes in a file, bars ``bob``, hangs while `hanging` is there, and writes down
        what it is told into `seen`."""
        script = self.folder / "script"
        script.write_text(
            f"#!/bin/sh\nenv > {self.seen}\nwhile [ -e {self.hanging} ]; do sleep 0.05; done\nexit 0\n"
        )
        barred = self.folder / "barred"
        barred.write_text("bob\n")
        script.chmod(0o755)
        return self.service(
            "zapd",
            f"auth optional pam_exec.so quiet {script}",
            f"auth required {self.pwdfile} pwdfile={self.users} nodelay",
            f"account required pam_listfile.so onerr=fail item=user sense=deny file={barred}",
        )
