"""A real PostgreSQL for tests: one server a session, one fresh database a test.

Imported by the test files that need it (``from support.postgres import ...``). Skips where PostgreSQL is not
installed, unless ``ZAPD_REQUIRE_COMPONENTS`` makes that a failure.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import psycopg
import pytest
from psycopg import sql


@dataclass
class PostgresServer:
    """A running server."""

    host: str
    port: int
    process: subprocess.Popen[bytes]

    def url(self, database: str = "postgres") -> str:
        """As SQLAlchemy takes it."""
        return f"postgresql+psycopg://zapd:pgpw@{self.host}:{self.port}/{database}"

    def connect(self, database: str = "postgres") -> psycopg.Connection:
        return psycopg.connect(
            host=self.host,
            port=self.port,
            user="zapd",
            password="pgpw",
            dbname=database,
            connect_timeout=5,
            autocommit=True,
        )

    def pause(self) -> None:
        """Hang the whole server, as a stopped machine does."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for process in [self.process.pid, *map(int, children)]:
            with contextlib.suppress(ProcessLookupError):  # one that ended meanwhile
                os.kill(process, number)


def _find(tool: str) -> str | None:
    places = [os.environ.get("PATH", ""), *sorted(glob.glob("/usr/lib/postgresql/*/bin"), reverse=True)]
    return shutil.which(tool, path=":".join(places))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL of our own, without durability, on a port that the kernel picked."""
    initdb, postgres = _find("initdb"), _find("postgres")
    if initdb is None or postgres is None:
        reason = "PostgreSQL is not installed (apt-get install postgresql)"
        if os.environ.get("ZAPD_REQUIRE_COMPONENTS"):
            pytest.fail(reason)
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="zapd-pg-"))
    become: list[str] = []
    if os.getuid() == 0:  # the server refuses to run as root
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        become = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups", "--"]
    password = folder / "pw"
    password.write_text("pgpw")
    password.chmod(0o644)
    environment = dict(os.environ, LC_ALL="C")
    subprocess.run(
        [
            *become,
            initdb,
            *("-D", folder / "data", "-U", "zapd", "-A", "scram-sha-256", f"--pwfile={password}"),
            *("-E", "UTF8", "--locale=C", "-N"),
        ],
        check=True,
        capture_output=True,
        cwd="/",
        env=environment,
    )
    port = _free_port()
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": folder,
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
    }
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("ab") as log:
        process = subprocess.Popen(
            [*become, postgres, "-D", str(folder / "data"), *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd="/",
            env=environment,
        )
    server = PostgresServer("127.0.0.1", port, process)
    try:
        _wait(server, folder / "log")
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(20)
        shutil.rmtree(folder, ignore_errors=True)


_numbers = count(1)


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh, empty database; dropped afterwards."""
    name = f"test_{next(_numbers)}"
    with postgres_server.connect() as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield postgres_server.url(name)
    with postgres_server.connect() as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def _wait(server: PostgresServer, log: Path) -> None:
    for _ in range(400):  # an open port is not yet a server that takes questions
        if server.process.poll() is not None:
            raise RuntimeError(log.read_text(errors="replace"))
        try:
            server.connect().close()
            return
        except psycopg.OperationalError:
            time.sleep(0.03)
    raise TimeoutError(log.read_text(errors="replace"))
