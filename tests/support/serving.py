"""A real zapd: the installed program, its own folder, ports that the kernel picked."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from zapd.cli.init import initialize
from zapd.zmtp.keys import encode_key, generate_keypair

PATIENCE = 20.0
START = 60.0
"""Seconds to come up: several processes may have to, on a machine that has other things to do."""


class Zapd:
    """``zapd init`` and ``zapd serve`` in ``folder``; leaving the block stops it."""

    def __init__(self, folder: Path, *, configuration: str | None = None, database: str | None = None) -> None:
        """``configuration`` replaces what init wrote; ports in it may be 0."""
        self.folder = folder
        initialize(folder, database)
        self.config = folder / "zapd.toml"
        text = configuration if configuration is not None else self.config.read_text()
        self.configure(text.replace("127.0.0.1:9027", "127.0.0.1:0").replace("127.0.0.1:8027", "127.0.0.1:0"))
        self.token = (folder / "admin.token").read_text().strip()
        self.process: subprocess.Popen[str] | None = None
        self.zap: list[str] = []
        self.admin = ""
        self.enroll_url = ""
        self.environment: dict[str, str] = {}
        """Variables that it runs with, beside the test's own."""

    def configure(self, text: str) -> None:
        self.config.write_text(text)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, *, env: Mapping[str, str] | None = None) -> None:
        """Returns once it listens, its addresses read from what it prints."""
        self.log = (self.folder / "serve.log").open("a")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "zapd", "serve", "-c", str(self.config)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **self.environment, **(env or {})},
        )
        lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=_read, args=(self.process, lines), daemon=True).start()
        self.zap = []
        while True:
            try:
                line = lines.get(timeout=START)
            except queue.Empty:
                self.stop(signal.SIGKILL)
                raise AssertionError(f"zapd did not start in {START:g} s: {self.logged()}") from None
            if not line:
                self.process.wait(PATIENCE)
                self.log.close()
                raise AssertionError(f"zapd did not start: {self.logged()}")
            words = line.split()
            if words[0] == "zap":
                self.zap.append(words[1])
            elif words[0] == "admin":
                self.admin = words[1]
            elif words[0] == "enroll":
                self.enroll_url = words[1]
            elif words[0] == "audit":
                return

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; its exit code."""
        if self.process is None:
            return 0
        process, self.process = self.process, None
        process.send_signal(number)
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise AssertionError(f"zapd did not stop: {self.logged()}") from None
        finally:
            self.log.close()
            if process.stdout is not None:
                process.stdout.close()
        return code

    def signal(self, number: int) -> None:
        assert self.process is not None
        self.process.send_signal(number)

    def logged(self) -> str:
        return (self.folder / "serve.log").read_text()

    def journal(self) -> str:
        return "".join(path.read_text() for path in sorted(self.folder.glob("data/audit/*/[0-9]*.jsonl")))

    def call(self, verb: str, path: str, body: object = None, *, token: str | None = None) -> httpx.Response:
        return httpx.request(
            verb,
            self.admin + path,
            json=body,
            headers={"Authorization": f"Bearer {self.token if token is None else token}"},
            timeout=PATIENCE,
        )

    def ask(self, verb: str, path: str, body: object = None) -> Any:
        """The call's answer; anything but 2xx fails the test."""
        answer = self.call(verb, path, body)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else None

    def add_key(self, public_key: bytes, user: str, **more: object) -> str:
        """Register a key (Z85 octets, as pyzmq gives them); its id."""
        made = self.ask("POST", "/v1/keys", {"public_key": public_key.decode(), "user": user, **more})
        return str(made["id"])

    def enroll(self, name: str, **more: object) -> Path:
        """Enrol an agent; the path of its key file."""
        public, secret = generate_keypair()
        made = self.ask("POST", "/v1/agents", {"name": name, "public_key": encode_key(public), **more})
        lines = [
            f'name = "{name}"',
            f'public_key = "{encode_key(public)}"',
            f'secret_key = "{encode_key(secret)}"',
        ]
        for endpoint in made["endpoints"]:
            keys = ", ".join(f'"{key}"' for key in endpoint["server_keys"])
            lines += ["[[endpoint]]", f'address = "{endpoint["address"]}"', f"server_keys = [{keys}]"]
        path = self.folder / f"{name}.key"
        path.touch(mode=0o600)
        path.write_text("\n".join(lines) + "\n")
        return path

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Type one command in the folder."""
        return subprocess.run(
            [sys.executable, "-m", "zapd", *words],
            cwd=self.folder,
            env={**os.environ, "ZAPD_URL": self.admin, "ZAPD_TOKEN": self.token},
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
    if process.stdout is not None:
        for line in process.stdout:
            lines.put(line)
    lines.put("")


@contextmanager
def serving(folder: Path, **options: Any) -> Iterator[Zapd]:
    with Zapd(folder, **options) as zapd:
        yield zapd
