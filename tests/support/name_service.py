"""A name service that processes of this machine ask through glibc, and that a test can break.

`NameService` is the server, `build` compiles the NSS module that asks it (``nss_drill.c``). A process joins with
the environment that ``build`` gives; no root is needed and nothing of the machine's is touched. Skips where there
is no gcc, unless ``ZAPD_REQUIRE_COMPONENTS`` makes that a failure.
"""

from __future__ import annotations

import os
import shutil
import socketserver
import subprocess
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

SOURCE = Path(__file__).with_name("nss_drill.c")
ORDER = "drill files"
"""What the machine asks, in this order: glibc hears "there is none" last, whatever became of ``drill``."""


@dataclass(frozen=True)
class Person:
    """An account and its groups, by number."""

    name: str
    gid: int
    groups: tuple[int, ...] = ()


class NameService:
    """Knows accounts and groups. Leaving the block stops it."""

    def __init__(self, people: dict[int, Person], groups: dict[int, str]) -> None:
        self.people, self.groups = people, groups
        self.cut: dict[str, float] = {}
        """How many questions of which kind are hung up on."""
        self.lost = False
        """Whether questions are taken and never answered, not even after this ends."""
        self._end = threading.Event()
        self._server = _server(self)
        self.port: int = self._server.server_address[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, question: str) -> str:
        """What goes back; nothing at all where the service is broken."""
        kind, _, whom = question.partition(" ")
        if self.lost:
            self._end.wait()
            return ""
        if self.cut.get(kind, 0) > 0:
            self.cut[kind] -= 1
            return ""
        names = {person.name: number for number, person in self.people.items()}
        number = names.get(whom, -1) if kind in {"user", "groups"} else int(whom)
        person = self.people.get(number)
        if kind == "gid":
            found = self.groups.get(number, "")
        elif person is None:
            found = ""
        elif kind == "groups":
            found = " ".join(map(str, person.groups))
        else:
            found = f"{person.name} {number} {person.gid}"
        return f"drill {found}\n" if found else "none\n"


def build(folder: Path, port: int, order: str = ORDER) -> dict[str, str]:
    """The environment of a process that asks the name service at ``port`` on loopback, beside its machine's."""
    if shutil.which("gcc") is None:
        (pytest.fail if os.environ.get("ZAPD_REQUIRE_COMPONENTS") else pytest.skip)("no gcc")
    module, nsswitch = folder / "libnss_drill.so.2", folder / "nsswitch.conf"
    nsswitch.write_text(f"# of a test\npasswd: {order}\ngroup:\t{order} # and no more\n")
    defined = [f"-DPORT={port}", f'-DNSSWITCH="{nsswitch}"', f'-DORDER="{order}"']
    flags = [
        "-Wall",
        "-Wextra",
        "-Werror",
        "-shared",
        "-fPIC",
        "-fvisibility=hidden",
        f"-Wl,-soname,{module.name}",
    ]
    subprocess.run(["gcc", *flags, *defined, str(SOURCE), "-o", str(module), "-ldl"], check=True)
    return {"LD_PRELOAD": str(module)}


def _server(service: NameService) -> socketserver.ThreadingTCPServer:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(service.answer(self.rfile.readline().decode().strip()).encode())

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 256

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hung up is nothing to print."""

    return Server(("127.0.0.1", 0), Handler)
