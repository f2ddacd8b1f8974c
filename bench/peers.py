"""Who is measured. A peer is a program that listens on a tcp port it is given, and answers there.

To add one to the questions, append a `Peer` to `PEERS`: what to do once before the run (`prepare`, not timed) and
how to start it. Every peer gets the same questions, and each must say 200 to all of them, or the run fails.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE / "out"
DOMAIN = "default"
LIBRARIES = {
    "loadgen": ("libsodium",),
    "shakes": ("libsodium",),
    "flood": ("libsodium",),
    "peer_handler": ("libzmq",),
    "peer_router": ("libzmq",),
    "peer_zauth": ("libczmq", "libzmq"),
}
"""What the programs in C are built with, as pkg-config calls it."""


@dataclass(frozen=True)
class Site:
    """What a peer finds when it is prepared and started."""

    folder: Path
    """Its own, empty at first, gone after the run."""
    port: int
    """On 127.0.0.1, for it alone."""
    keys: Path
    """The registered public keys: 32 octets each, one behind the other."""

    @property
    def endpoint(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    @property
    def pair(self) -> Path:
        """A server's CURVE key pair, where `prepare` made one."""
        return self.folder / "pair"

    @property
    def clients(self) -> Path:
        """CURVE clients that it lets in, where `prepare` made some."""
        return self.folder / "clients"

    @property
    def users(self) -> Path:
        """PLAIN users that it lets in, where `prepare` made some."""
        return self.folder / "users"


def _nothing(site: Site) -> None:
    """Most peers need no preparation."""


def _no_environment(site: Site) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True)
class Peer:
    """One way to answer."""

    name: str
    about: str
    command: Callable[[Site], list[str]]
    prepare: Callable[[Site], None] = _nothing
    environment: Callable[[Site], Mapping[str, str]] = _no_environment
    patience: float = 60.0
    """Seconds it may take until it listens."""
    is_zapd: bool = False
    """It tells where its admin listener is, and is waited for until it is ready."""
    records: bool = False
    """It keeps a journal, and a copy of it in SQL."""


def compile_c(name: str) -> Path:
    """Build ``bench/NAME.c`` into ``bench/out``; raise `RuntimeError` with the compiler's words when it fails."""
    source, program = HERE / f"{name}.c", OUT / name
    OUT.mkdir(exist_ok=True)
    newest = max(each.stat().st_mtime for each in (source, *HERE.glob("*.h")))
    if program.exists() and program.stat().st_mtime > newest:
        return program
    found = subprocess.run(
        ["pkg-config", "--cflags", "--libs", *LIBRARIES[name]], capture_output=True, text=True, check=False
    )
    if found.returncode:
        raise RuntimeError(found.stderr.strip())
    made = OUT / f"{name}.{os.getpid()}"  # whole or not there, also for those who build at the same time
    done = subprocess.run(
        [
            "gcc",
            "-O2",
            "-Wall",
            "-Wextra",
            "-std=c11",
            "-o",
            made,
            source,
            *found.stdout.split(),
            "-lm",
            "-lpthread",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    made.replace(program)
    return program


def program(
    source: str, name: str, about: str, *arguments: str, prepare: Callable[[Site], None] = _nothing
) -> Peer:
    """A peer in C: ``SOURCE ENDPOINT ARGUMENT…``, of which ``{pair}`` is the path of its key pair."""

    def command(site: Site) -> list[str]:
        words = [each.format(pair=site.pair) for each in arguments]
        return [str(compile_c(source)), site.endpoint, *words]

    return Peer(name, about, command, prepare)


REP = "pyzmq REP"
ZAUTH = "czmq zauth"
ROUTER = "C ROUTER"
REFERENCES = (REP, ZAUTH, ROUTER)
"""What the ratios are to."""

C_ROUTER = program(
    "peer_router", ROUTER, "a ROUTER socket in C that says 200 to everything: what libzmq can carry"
)
PEERS: list[Peer] = [
    Peer(
        REP,
        "a bare REP socket in Python that says 200 to everything",
        lambda site: [sys.executable, str(HERE / "peer_pyzmq.py"), site.endpoint],
    ),
    program("peer_zauth", ZAUTH, "czmq's zauth actor, any CURVE key admitted, behind zmq_proxy"),
    C_ROUTER,
]
