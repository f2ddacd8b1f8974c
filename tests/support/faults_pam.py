"""The pam backend in the fault matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.faults import HANGS, Fault, Patient, row
from support.pam_stack import PamStack


@row("pam")
@contextmanager
def machine(folder: Path, _fixture: Callable[[str], Any]) -> Iterator[Patient]:
    stack = PamStack(folder / "pam.d")
    stack.add(alice="alice-Pw1")
    service, users, aside = stack.folder / stack.zapd(), stack.users, stack.folder / "aside"
    text = service.read_text()

    def lose(path: Path) -> Callable[[], object]:
        return lambda: path.rename(aside)

    def heal() -> None:
        stack.hanging.unlink(missing_ok=True)
        if not users.exists():
            aside.replace(users)
        service.write_text(text)

    yield Patient(
        table=f'type = "pam"\nconfdir = "{stack.folder}"\n',
        good=(b"alice", b"alice-Pw1"),
        wrong=(b"alice", b"mistaken"),
        unknown=(b"eve", b"alice-Pw1"),
        faults={
            HANGS: Fault(stack.hanging.touch),
            "file of users missing": Fault(lose(users)),
            "service file missing": Fault(service.unlink),
            "module missing": Fault(lambda: service.write_text("auth required pam_not_there.so\n" + text)),
            "service file empty": Fault(lambda: service.write_text("")),
        },
        heal=heal,
    )
