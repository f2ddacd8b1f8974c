"""The certificates backend in the fault matrix: its folder and its files in every state but the right one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.app_scene import ALICE, STRANGER, z85
from support.faults import Fault, Patient, Then, row


@row("certificates")
@contextmanager
def certificates(folder: Path, _fixture: Callable[[str], Any]) -> Iterator[Patient]:
    certs, whole = folder / "certs", f'curve\n    public-key = "{z85(ALICE).decode()}"\n'
    file = certs / "alice.key"

    def heal() -> None:
        if certs.is_dir():
            certs.chmod(0o755)
            shutil.rmtree(certs)
        certs.unlink(missing_ok=True)
        certs.mkdir()
        fresh = certs / ".fresh"
        fresh.write_text(whole)
        fresh.replace(file)

    def put_a_file_there() -> None:
        shutil.rmtree(certs)
        certs.write_text(whole)

    def unmount() -> None:
        shutil.rmtree(certs)
        certs.mkdir()

    def add_many_that_are_none() -> None:
        for number in range(2000):
            (certs / f"{number}.key").write_bytes(os.urandom(64))

    heal()
    faults = {
        "folder missing": Fault(lambda: shutil.rmtree(certs), Then.SOON),
        "a file in its place": Fault(put_a_file_there, Then.SOON),
        "not mounted": Fault(unmount, Then.SOON),
        "file half-written": Fault(lambda: file.write_text(whole[:30]), Then.ANSWERS),
        "file full of garbage": Fault(lambda: file.write_bytes(os.urandom(4096)), Then.ANSWERS),
        "2000 files of garbage": Fault(add_many_that_are_none, Then.ANSWERS),
    }
    if os.geteuid():  # root reads everything
        faults["no permission"] = Fault(lambda: certs.chmod(0), Then.SOON)
    yield Patient(
        table=f'type = "certificates"\npath = "{certs}"\ninterval = "100ms"\nmax_age = "1s"\n',
        good=(ALICE,),
        unknown=(STRANGER,),
        faults=faults,
        heal=heal,
        mechanism="CURVE",
    )
