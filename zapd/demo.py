"""``zapd demo``: the whole road in a throw-away folder, with real libzmq sockets on both sides.

It types the commands that a person would, starts the daemon as a process of its own, and puts a libzmq server
guarded by the agent beside it. Its exit code is 0 only when every step went as it must.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import zmq
from rich.console import Console
from zmq.utils.monitor import parse_monitor_message

import zapd.agent

PATIENCE = 10.0
"""Seconds that any single step may take."""


class DemoFailed(Exception):
    """A step did not go as it must; the text says which."""


class Demo:
    """One run, in ``folder``."""

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder = folder
        self._say = console
        self._zap_port = _free_port()
        self._admin_port = _free_port()

    def run(self) -> None:
        """Every step in order; `DemoFailed` at the first that went wrong."""
        self._zapd("init", ".")
        self._use_free_ports()
        with self._serving():
            alice_public, alice_secret = zmq.curve_keypair()
            mallory_public, mallory_secret = zmq.curve_keypair()
            self._zapd("agent", "enroll", "demo", "-o", "agent.key")
            self._zapd("key", "add", alice_public.decode(), "--user", "alice", "--group", "traders")
            with self._guarded_server() as (server, endpoint, server_public):
                self._heading("A client whose key zapd knows")
                self._expect_in(server, endpoint, server_public, alice_public, alice_secret)
                self._heading("A client whose key nobody registered")
                self._expect_refused(endpoint, server_public, mallory_public, mallory_secret, "mallory")
                self._heading("The known key, revoked: its next connection is refused")
                self._zapd("key", "revoke", alice_public.decode(), "--reason", "left the team", "--yes")
                self._expect_refused(endpoint, server_public, alice_public, alice_secret, "alice")
            self._heading("What the journal holds")
            self._show_journal()
        self._zapd("audit", "verify")

    # -- the daemon ------------------------------------------------------------------------------------------

    def _zapd(self, *words: str) -> None:
        """Type one command, as a person would, and show it with what it prints."""
        self._say.print(f"[bold]$ zapd {' '.join(words)}[/]", highlight=False)
        done = subprocess.run(  # noqa: S603 - our own program with our own words
            [sys.executable, "-m", "zapd", *words],
            cwd=self._folder,
            env=_clean_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self._say.print(done.stdout.rstrip(), markup=False, highlight=False)
        if done.returncode != 0:
            raise DemoFailed(f"zapd {' '.join(words)} ended with {done.returncode}: {done.stderr.strip()}")

    def _use_free_ports(self) -> None:
        configuration = self._folder / "zapd.toml"
        text = configuration.read_text()
        text = text.replace("127.0.0.1:9027", f"127.0.0.1:{self._zap_port}")
        configuration.write_text(text.replace("127.0.0.1:8027", f"127.0.0.1:{self._admin_port}"))

    @contextmanager
    def _serving(self) -> Iterator[None]:
        """``zapd serve`` beside us, until the block ends."""
        self._say.print("[bold]$ zapd serve &[/]", highlight=False)
        log = (self._folder / "serve.log").open("w")
        daemon = subprocess.Popen(
            [sys.executable, "-m", "zapd", "serve"],
            cwd=self._folder,
            env=_clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + PATIENCE
            while not _answers(self._admin_port):
                if daemon.poll() is not None or time.monotonic() > deadline:
                    raise DemoFailed("zapd serve did not start:\n" + (self._folder / "serve.log").read_text())
                time.sleep(0.05)
            yield
        finally:
            daemon.send_signal(signal.SIGTERM)
            try:
                daemon.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
            log.close()

    # -- the fleet -------------------------------------------------------------------------------------------

    @contextmanager
    def _guarded_server(self) -> Iterator[tuple[zmq.Socket[bytes], str, bytes]]:
        """A libzmq CURVE server as an application would write it: three lines of zapd."""
        self._say.print(
            "[dim]zapd.agent.start(context, keys='agent.key')\n"
            "zapd.agent.guard(socket, domain='default', secret_key=server_secret)\n"
            "socket.bind('tcp://127.0.0.1:*')[/]",
            highlight=False,
        )
        context = zmq.Context()
        server_public, server_secret = zmq.curve_keypair()
        try:
            zapd.agent.start(context, keys=self._folder / "agent.key")
            with context.socket(zmq.ROUTER) as server:
                zapd.agent.guard(server, domain="default", secret_key=server_secret)
                server.linger = 0
                server.bind("tcp://127.0.0.1:*")
                endpoint = server.getsockopt_string(zmq.LAST_ENDPOINT)
                yield server, endpoint, server_public
        finally:
            context.destroy(linger=0)

    def _expect_in(
        self, server: zmq.Socket[bytes], endpoint: str, server_public: bytes, public: bytes, secret: bytes
    ) -> None:
        with _client(endpoint, server_public, public, secret) as client:
            client.send(b"good morning")
            if not server.poll(int(PATIENCE * 1000)):
                raise DemoFailed("the registered client was not let in")
            frame = server.recv_multipart(copy=False)[-1]
            groups = frame.get("X-Zapd-Groups")
            self._say.print(
                f"[green]in[/]  the application reads {frame.bytes.decode()!r} from user"
                f" {frame.get('User-Id')!r}, groups {groups!r}",
                highlight=False,
            )
            if frame.get("User-Id") != "alice" or groups != "traders":
                raise DemoFailed("the application was not told who came")

    def _expect_refused(self, endpoint: str, server_public: bytes, public: bytes, secret: bytes, who: str) -> None:
        with _client(endpoint, server_public, public, secret) as client:
            status = _handshake_failure(client)
        if status != 400:
            raise DemoFailed(f"{who} was not refused with 400 (libzmq reported {status})")
        self._say.print(f"[red]out[/] libzmq tells {who}: ZAP status {status}", highlight=False)

    def _show_journal(self) -> None:
        lines = [
            line
            for segment in sorted(self._folder.glob("data/audit/*/*.jsonl"))
            for line in segment.read_text().splitlines()
        ]
        if not any('"auth.accept"' in line and '"alice"' in line for line in lines):
            raise DemoFailed("the journal does not hold alice's admission")
        if not any('"auth.reject"' in line for line in lines):
            raise DemoFailed("the journal does not hold a refusal")
        for line in lines:
            self._say.print(line, markup=False, highlight=False, soft_wrap=True)

    def _heading(self, text: str) -> None:
        self._say.print(f"\n[bold]{text}[/]", highlight=False)


def run() -> int:
    """Run the demo; 0 when all went as it must, 1 otherwise."""
    console = Console()
    with tempfile.TemporaryDirectory(prefix="zapd-demo-") as folder:
        try:
            Demo(Path(folder), console).run()
        except DemoFailed as failure:
            console.print(f"[bold red]demo failed:[/] {failure}", highlight=False)
            return 1
    console.print("\n[bold green]All went as it must.[/]")
    return 0


@contextmanager
def _client(endpoint: str, server_public: bytes, public: bytes, secret: bytes) -> Iterator[zmq.Socket[bytes]]:
    context = zmq.Context()
    try:
        with context.socket(zmq.DEALER) as client:
            client.linger = 0
            client.curve_serverkey = server_public
            client.curve_publickey = public
            client.curve_secretkey = secret
            client.connect(endpoint)
            yield client
    finally:
        context.destroy(linger=0)


def _handshake_failure(client: zmq.Socket[bytes]) -> int | None:
    """The status that libzmq reports when its server refuses; None when it does not."""
    with client.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_SUCCEEDED) as monitor:
        if not monitor.poll(int(PATIENCE * 1000)):
            return None
        event = parse_monitor_message(monitor.recv_multipart())
        client.disable_monitor()
    return event["value"] if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


def _clean_environment() -> dict[str, str]:
    """Ours, without what would lead the commands to another zapd."""
    return {name: value for name, value in os.environ.items() if not name.startswith("ZAPD_")}
