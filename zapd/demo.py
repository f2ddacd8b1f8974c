"""``zapd demo``: the whole road in a throw-away folder, with real libzmq sockets on both sides.

It types the commands that a person would, starts the daemon as a process of its own, and puts a libzmq server
guarded by the agent beside it. Nothing is taken on trust: each step is checked in what libzmq reports and in the
journal, and the exit code is 0 only when every one went as it must. It leaves nothing behind, interrupted or not.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import zmq
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from zmq.utils.monitor import parse_monitor_message

import zapd.agent
from zapd.zmtp.keys import encode_key, fingerprint, generate_keypair

PATIENCE = 10.0
"""Seconds that any single step may take."""

_COLOURS = {200: "green", 300: "yellow", 400: "red"}
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class DemoFailed(Exception):
    """A step did not go as it must; the text says which."""


class Interrupted(BaseException):
    """A signal asks the demo to end before its end."""


class Person:
    """Somebody with a CURVE key pair."""

    def __init__(self, name: str) -> None:
        self.name = name
        public, secret = generate_keypair()
        self.public, self.secret = encode_key(public), encode_key(secret)
        self.fingerprint = fingerprint(public)


class Demo:
    """One run, in ``folder``."""

    def __init__(self, folder: Path, console: Console) -> None:
        self._folder = folder
        self._console = console
        self._steps = 0
        self._seen = 0
        """The last record that was shown."""
        self._environment = {
            name: value for name, value in os.environ.items() if not name.startswith("ZAPD_")
        }  # without what would lead the commands to another zapd

    def run(self) -> None:
        """Every step in order; `DemoFailed` at the first that went wrong."""
        alice, mallory = Person("alice"), Person("mallory")
        self._step("A zapd of its own, and an application that asks it")
        self._zapd("init")
        self._settle()
        with self._serving():
            self._zapd("agent", "enroll", "demo", "-o", "agent.key", show=("name", "domains", "file"))
            with self._application() as (server, address, server_key):
                self._step("Alice's key is registered: she gets in")
                self._zapd(
                    *("key", "add", alice.public, "--user", "alice", "--group", "traders"),
                    show=("fingerprint", "user", "groups"),
                )
                with _client(address, server_key, alice) as client:
                    self._expect_in(server, client)
                self._expect_record(200, "granted", alice)

                self._step("Nobody knows mallory's key: she does not")
                with _client(address, server_key, mallory) as client:
                    self._expect_out(client, mallory)
                self._expect_record(400, "unknown_key", mallory)

                self._step("Alice's key is revoked: her next connection is refused, without a restart")
                self._zapd(
                    *("key", "revoke", alice.fingerprint, "--reason", "left the team", "--yes"),
                    show=("user", "state", "reason"),
                )
                with _client(address, server_key, alice) as client:
                    self._expect_out(client, alice)
                self._expect_record(400, "revoked", alice)
        self._step("All of it is on record, each line chained to the one before")
        self._show_journal(alice, mallory)
        self._zapd("audit", "verify", show=("intact",))
        self._step("In a copy, somebody makes mallory's refusal an admission: it shows")
        self._tamper(mallory)
        self._zapd("audit", "verify", "forged", show=("BAD", "TAMPERED"), code=1)

    # -- the daemon ------------------------------------------------------------------------------------------

    def _zapd(self, *words: str, show: Sequence[str] = (), code: int = 0) -> None:
        """Type one command as a person would, and show it with the lines it prints that begin with ``show``."""
        self._command(shlex.join(("zapd", *words)))
        try:
            done = subprocess.run(  # noqa: S603 - our own program with our own words
                [sys.executable, "-m", "zapd", *words],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=3 * PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise DemoFailed(f"zapd {words[0]} did not end") from None
        lines = done.stdout.splitlines()
        self._print(*(line for line in lines if not show or line.startswith(tuple(show))))
        if done.returncode != code:
            raise DemoFailed(f"zapd {words[0]} ended with {done.returncode}: {done.stderr.strip() or lines[-1:]}")

    def _settle(self) -> None:
        """Ports that the kernel picks, and no checkpoints for the system's log: this record lives for seconds."""
        configuration = self._folder / "zapd.toml"
        text = configuration.read_text().replace('"strict"', '"strict"\nhead = ""', 1)
        for port in (":9027", ":8027"):
            text = text.replace(f"127.0.0.1{port}", "127.0.0.1:0")
        configuration.write_text(text)

    @contextmanager
    def _serving(self) -> Iterator[None]:
        """``zapd serve`` beside us, until the block ends."""
        self._command("zapd serve &")
        told, log = self._folder / "serve.out", self._folder / "serve.log"
        with told.open("w") as out, log.open("w") as err:
            daemon = subprocess.Popen(
                [sys.executable, "-m", "zapd", "serve"],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,  # an interrupt is ours to pass on, in order
            )
        try:
            _wait_until(lambda: "\n  audit" in told.read_text() or daemon.poll() is not None)
            lines = told.read_text().splitlines()
            admin = [line.split()[1] for line in lines if line.startswith("  admin")]
            if not admin:
                raise DemoFailed("zapd serve did not start: " + log.read_text().strip())
            self._print(*lines)
            self._environment["ZAPD_URL"] = admin[0]
            self._environment["ZAPD_TOKEN"] = (self._folder / "admin.token").read_text().strip()
            yield
        finally:
            code = _stopped(daemon)
        if code != 0:
            raise DemoFailed(f"zapd serve ended with {code}: {log.read_text().strip()}")

    # -- the fleet -------------------------------------------------------------------------------------------

    @contextmanager
    def _application(self) -> Iterator[tuple[zmq.Socket[bytes], str, bytes]]:
        """A libzmq CURVE server as an application would write it: two lines of zapd."""
        context = zmq.Context()
        server_key, secret = zmq.curve_keypair()
        try:
            self._code('zapd.agent.start(context, keys="agent.key")')
            zapd.agent.start(context, keys=self._folder / "agent.key")
            with context.socket(zmq.ROUTER) as server:
                server.linger = 0
                self._code('zapd.agent.guard(socket, domain="default", secret_key=server_secret)')
                zapd.agent.guard(server, domain="default", secret_key=secret)
                self._code('socket.bind("tcp://127.0.0.1:*")')
                server.bind("tcp://127.0.0.1:*")
                yield server, server.getsockopt_string(zmq.LAST_ENDPOINT), server_key
        finally:
            context.destroy(linger=0)

    def _expect_in(self, server: zmq.Socket[bytes], client: zmq.Socket[bytes]) -> None:
        client.send(b"good morning")
        if not server.poll(int(PATIENCE * 1000)):
            raise DemoFailed("the registered client was not let in")
        frame = server.recv_multipart(copy=False)[-1]
        user, groups = frame.get("User-Id"), frame.get("X-Zapd-Groups")
        if (user, groups) != ("alice", "traders"):
            raise DemoFailed(f"the application was told that {user!r} of {groups!r} came")
        said = frame.bytes.decode()
        self._outcome("IN ", "green", f"the application hears {said!r} from {user}, groups {groups}")

    def _expect_out(self, client: zmq.Socket[bytes], who: Person) -> None:
        status = _refusal(client)
        if status != 400:
            raise DemoFailed(f"{who.name} was not refused with 400: libzmq reported {status}")
        self._outcome("OUT", "red", f"libzmq tells {who.name}'s client: {status}, and it stays away")

    # -- the record ------------------------------------------------------------------------------------------

    def _records(self) -> list[dict[str, Any]]:
        """The journal, a line at a time; it was on disk before the replies left."""
        lines: list[dict[str, Any]] = []
        for segment in sorted(self._folder.glob("data/audit/*/[0-9]*.jsonl")):
            lines += map(json.loads, segment.read_text().splitlines())
        return lines

    def _expect_record(self, status: int, reason: str, who: Person) -> None:
        """Exactly one decision about ``who`` since the last one shown, and the right one."""
        found = [
            record
            for record in self._records()
            if record["sequence"] > self._seen and record.get("key") == who.fingerprint and "status" in record
        ]
        if [(record["status"], record["reason"]) for record in found] != [(status, reason)]:
            raise DemoFailed(f"the journal should hold {status} {reason} for {who.name} and holds {found}")
        record = found[0]
        self._seen = record["sequence"]
        asked = ", ".join(f"{name}: {outcome} in {ms:.2f} ms" for name, outcome, ms in record.get("trail", ()))
        line = Text(f"record {self._seen}: {record['event']} {status} {reason}", style=_COLOURS[status])
        self._console.print(Text("        ").append(line).append(f"  ({asked})" if asked else "", style="dim"))

    def _show_journal(self, *people: Person) -> None:
        names = {person.fingerprint: person.name for person in people}
        table = Table(box=None, pad_edge=False, header_style="bold")
        for heading in ("#", "TIME", "EVENT", "WHO", "STATUS", "REASON", "HASH"):
            table.add_column(heading, no_wrap=True)
        for record in self._records():
            who = record.get("principal") or names.get(record.get("key", ""), record.get("subject", ""))
            status = record.get("status", "")
            table.add_row(
                str(record["sequence"]),
                record["time"][11:19],
                record["event"],
                who[:10],
                Text(str(status), style=_COLOURS.get(status, "")),
                record.get("reason", ""),
                Text(record["hash"][:8] + "…", style="dim"),
            )
        self._console.print(Padding(table, (0, 0, 0, 3)))

    def _tamper(self, who: Person) -> None:
        shutil.copytree(self._folder / "data/audit", self._folder / "forged")
        (segment,) = (self._folder / "forged").glob("*/[0-9]*.jsonl")
        lines = segment.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines):
            if who.fingerprint.encode() in line:
                lines[number] = line.replace(b'"status":400', b'"status":200')
        segment.write_bytes(b"".join(lines))

    # -- what is shown ---------------------------------------------------------------------------------------

    def _step(self, title: str) -> None:
        self._steps += 1
        self._console.print(f"\n[bold cyan]{self._steps}[/]  [bold]{title}[/]", highlight=False)

    def _command(self, line: str) -> None:
        self._console.print(Text("   $ ", style="bold").append(line), soft_wrap=True)

    def _code(self, line: str) -> None:
        self._console.print(Text("   >>> ", style="dim").append(line, style="magenta"), soft_wrap=True)

    def _print(self, *lines: str) -> None:
        for line in lines:
            self._console.print(Text(f"     {line}", style="dim"), soft_wrap=True)

    def _outcome(self, word: str, colour: str, text: str) -> None:
        self._console.print(Text("   ").append(word, style=f"bold {colour}").append(f"  {text}"), soft_wrap=True)


def run() -> int:
    """Run the demo; 0 when all went as it must, 1 otherwise."""
    console = Console(highlight=False, emoji=False)
    began = time.monotonic()
    before = {number: signal.signal(number, _interrupt) for number in _SIGNALS}
    try:
        with tempfile.TemporaryDirectory(prefix="zapd-demo-") as folder:
            console.print(f"Everything happens in {folder}, which goes when the demo ends.", soft_wrap=True)
            Demo(Path(folder), console).run()
    except DemoFailed as failure:
        console.print(
            Text("\nThe demo failed: ", style="bold red").append(str(failure), style="not bold"), soft_wrap=True
        )
        return 1
    except Interrupted as interrupt:
        console.print(
            Text(f"\nStopped by {interrupt}; nothing is left behind.", style="bold yellow"), soft_wrap=True
        )
        return 1
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    console.print(f"\n[bold green]All went as it must[/], in {time.monotonic() - began:.1f} s.")
    console.print("Yours next: [bold]zapd init[/], [bold]zapd serve[/], and the first minute in README.md.")
    return 0


def _interrupt(number: int, _frame: FrameType | None) -> NoReturn:
    """The first signal ends the demo; others wait until what it made is gone, which takes a moment at most."""
    for each in _SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    raise Interrupted(signal.Signals(number).name)


def _stopped(daemon: subprocess.Popen[bytes]) -> int:
    """Stop it in order, or at all; its exit code."""
    daemon.terminate()
    with suppress(subprocess.TimeoutExpired):
        return daemon.wait(PATIENCE)
    daemon.kill()
    return daemon.wait()


@contextmanager
def _client(address: str, server_key: bytes, who: Person) -> Iterator[zmq.Socket[bytes]]:
    """A libzmq client that connects with ``who``'s keys."""
    context = zmq.Context()
    try:
        with context.socket(zmq.DEALER) as client:
            client.linger = 0
            client.curve_serverkey = server_key
            client.curve_publickey = who.public.encode()
            client.curve_secretkey = who.secret.encode()
            client.connect(address)
            yield client
    finally:
        context.destroy(linger=0)


def _refusal(client: zmq.Socket[bytes]) -> int | None:
    """The status that libzmq reports when its server refuses; None when it does not."""
    with client.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_SUCCEEDED) as monitor:
        if not monitor.poll(int(PATIENCE * 1000)):
            return None
        event = parse_monitor_message(monitor.recv_multipart())
        client.disable_monitor()
    status: int = event["value"]
    return status if event["event"] == zmq.EVENT_HANDSHAKE_FAILED_AUTH else None


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
