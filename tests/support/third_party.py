"""The third party's backend of ``tests/third_party``: installed as a user would, and the server it asks."""

from __future__ import annotations

import base64
import os
import shutil
import socketserver
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "third_party" / "linebook"


@pytest.fixture(scope="session")
def linebook_installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package in it, put there by pip; on PYTHONPATH it is as good as installed."""
    source = tmp_path_factory.mktemp("linebook") / "source"
    shutil.copytree(PACKAGE, source)
    target = source.with_name("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "--no-index", "--no-deps", "--no-build-isolation", "--target", str(target), str(source)],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def linebook(linebook_installed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, for every program that the test starts and for the test itself."""
    path = os.environ.get("PYTHONPATH", "")
    monkeypatch.setenv("PYTHONPATH", f"{linebook_installed}{os.pathsep if path else ''}{path}")
    monkeypatch.syspath_prepend(str(linebook_installed))
    return linebook_installed


@dataclass
class Book:
    """A running line server."""

    users: dict[str, str]
    groups: dict[str, str] = field(default_factory=dict)
    barred: set[str] = field(default_factory=set)
    secret: str = ""
    port: int = 0
    asked: int = 0

    def answer(self, words: list[bytes]) -> bytes:
        """What the server says to one line."""
        if words[:1] == [b"HELLO"]:
            return b"WELCOME" if words[1:] == [self.secret.encode()] else b"GO"
        self.asked += 1
        _, name, password = (b"" if word == b"-" else base64.b64decode(word) for word in words[1:])
        user = name.decode()
        if user not in self.users:
            return b"UNKNOWN"
        if self.users[user].encode() != password:
            return b"NO"
        if user in self.barred:
            return b"BARRED"
        groups = base64.b64encode(self.groups.get(user, ",").encode())
        return b"YES " + base64.b64encode(name) + b" " + groups


@contextmanager
def serving_book(book: Book, tls: ssl.SSLContext | None = None) -> Iterator[Book]:
    """Serve it on a port that the kernel picks."""

    class Talk(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            for line in self.rfile:
                self.wfile.write(book.answer(line.split()) + b"\n")

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

        def process_request_thread(self, request, client_address) -> None:  # type: ignore[no-untyped-def]
            try:
                if tls is not None:
                    request = tls.wrap_socket(request, server_side=True)
                self.finish_request(request, client_address)
            except OSError:
                pass  # clients come and go
            finally:
                self.shutdown_request(request)

    with Server(("127.0.0.1", 0), Talk) as server:
        book.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield book
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Certificates:
    """An authority, a server's certificate for 127.0.0.1 by it, and one by nobody."""

    ca: Path
    right: ssl.SSLContext
    wrong: ssl.SSLContext


def make_certificates(folder: Path) -> Certificates:
    """Written into ``folder`` with openssl."""

    def openssl(*words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, cwd=folder)

    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    name = ["-subj", "/CN=book", "-addext", "subjectAltName=IP:127.0.0.1"]
    openssl("req", "-x509", *curve, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=authority")
    openssl("req", *curve, "-keyout", "right.key", "-out", "right.csr", *name)
    openssl(
        *("x509", "-req", "-in", "right.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial"),
        *("-copy_extensions", "copy", "-days", "2", "-out", "right.pem"),
    )
    openssl("req", "-x509", *curve, "-keyout", "wrong.key", "-out", "wrong.pem", *name)
    contexts = []
    for kind in ("right", "wrong"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / f"{kind}.pem", folder / f"{kind}.key")
        contexts.append(context)
    return Certificates(folder / "ca.pem", *contexts)
