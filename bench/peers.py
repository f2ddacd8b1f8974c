"""Who is measured. A peer is a program that answers ZAP over tcp, ZMTP NULL, on a port it is given.

To add one, append a `Peer` to `PEERS`: what to do once before the run (`prepare`, not timed) and how to start it.
Every peer gets the same questions: CURVE, domain `DOMAIN`, keys drawn from `Site.keys`, `127.0.0.1`; and each must
say 200 to all of them, or the run fails.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

HERE = Path(__file__).parent
OUT = HERE / "out"
DOMAIN = "default"


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


def _nothing(site: Site) -> None:
    """Most peers need no preparation."""


@dataclass(frozen=True)
class Peer:
    """One way to answer."""

    name: str
    about: str
    command: Callable[[Site], list[str]]
    prepare: Callable[[Site], None] = _nothing
    environment: Mapping[str, str] = field(default_factory=dict)
    patience: float = 30.0
    """Seconds it may take until it listens."""


def compile_c(name: str, *packages: str) -> Path:
    """Build ``bench/NAME.c`` into ``bench/out``; raise `RuntimeError` with the compiler's words when it fails."""
    source, program = HERE / f"{name}.c", OUT / name
    OUT.mkdir(exist_ok=True)
    if program.exists() and program.stat().st_mtime > source.stat().st_mtime:
        return program
    flags: list[str] = []
    if packages:
        found = subprocess.run(
            ["pkg-config", "--cflags", "--libs", *packages], capture_output=True, text=True, check=False
        )
        if found.returncode:
            raise RuntimeError(found.stderr.strip())
        flags = found.stdout.split()
    done = subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-std=c11", "-o", program, source, *flags],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr.strip())
    return program


def program(name: str, *packages: str) -> Peer:
    """The part that all peers in C share; `dataclasses.replace` gives it a name."""

    def prepare(site: Site) -> None:
        compile_c(name, *packages)

    return Peer(
        name,
        "",
        command=lambda site: [str(compile_c(name, *packages)), site.endpoint],
        prepare=prepare,
    )


REP = "pyzmq REP"
ZAUTH = "czmq zauth"
REFERENCES = (REP, ZAUTH)
"""What the ratios are to."""

PEERS: list[Peer] = [
    Peer(
        REP,
        "a bare REP socket in Python that says 200 to everything",
        lambda site: [sys.executable, str(HERE / "peer_pyzmq.py"), site.endpoint],
    ),
    replace(
        program("peer_zauth", "libczmq", "libzmq"),
        name=ZAUTH,
        about="czmq's zauth actor, any CURVE key admitted, behind zmq_proxy",
    ),
    replace(
        program("peer_router", "libzmq"),
        name="C ROUTER",
        about="a ROUTER socket in C that says 200 to everything: what libzmq can carry",
    ),
]
