"""The passwd backend in the fault matrix: its file in every state but the right one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.app_scene import plain_file
from support.faults import Fault, Patient, Then, row


@row("passwd")
@contextmanager
def passwd(folder: Path, _fixture: Callable[[str], Any]) -> Iterator[Patient]:
    file = folder / "users.passwd"

    def heal() -> None:
        if file.is_dir():
            file.rmdir()
        plain_file(file, ada="lovelace")

    def take_the_permission() -> None:
        file.chmod(0)
        os.utime(file)

    def put_a_folder_there() -> None:
        file.unlink()
        file.mkdir()

    heal()
    faults = {
        "file missing": Fault(file.unlink, Then.SOON),
        "a folder in its place": Fault(put_a_folder_there, Then.SOON),
        "file half-written": Fault(lambda: file.write_bytes(file.read_bytes()[:-9]), Then.ANSWERS),
        "file empty": Fault(lambda: file.write_bytes(b""), Then.ANSWERS),
        "file full of garbage": Fault(lambda: file.write_bytes(os.urandom(4096)), Then.ANSWERS),
    }
    if os.geteuid():  # root reads everything
        faults["no permission"] = Fault(take_the_permission, Then.SOON)
    yield Patient(
        table=f'type = "passwd"\npath = "{file}"\n',
        good=(b"ada", b"lovelace"),
        wrong=(b"ada", b"byron"),
        unknown=(b"eve", b"lovelace"),
        faults=faults,
        heal=heal,
    )
