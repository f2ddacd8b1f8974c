"""The README is run: every command as it stands, and its output compared.

What a reader copies by eye is copied here too: where a command prints a key, a fingerprint or an instance, the
README's example stands for it from then on. Times match any time, ``…`` matches any text, and alone on a line any
lines. Replaced is what needs the network or would meet other tests:

- ``make serve`` is what its recipe does once its packages are there: ``zapd init`` and ``zapd serve``.
- ``. .venv/bin/activate`` is the environment that runs the tests.
- The default ports, and the example's 5555, are free ones.
"""

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import zmq
from support.serving import serving

from zapd.agent.keyfile import read_keys
from zapd.zmtp.keys import encode_key

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
BLOCK = re.compile(r"(?:`(?P<file>\w+\.py)`:\n\n)?^```(?P<kind>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
PATIENCE = 20.0

Z85 = r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]"
TOKENS = {
    "fingerprint": rf"SHA256:[A-Za-z0-9+/]{{43}}(?!{Z85})",
    "key": rf"(?<!{Z85}){Z85}{{40}}(?!{Z85})",
    "instance": r"\b[0-9a-f]{16}\b",
    "time": r"\b\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(?:\.\d+)?Z",
    "version": r"(?<=zapd )\d\S*",
    "any": r"…",
    "space": r"\s+",
}
TOKEN = re.compile("|".join(f"(?P<{name}>{pattern})" for name, pattern in TOKENS.items()))
STAND_FOR_THEMSELVES = ("fingerprint", "key", "instance")


def blocks(kind: str) -> list[tuple[str, str]]:
    """(the file it is called in the text, or nothing; the block) for each of this kind."""
    return [(found["file"] or "", found["text"]) for found in BLOCK.finditer(README) if found["kind"] == kind]


def steps(block: str) -> Iterator[tuple[str, list[str]]]:
    """Each command with the lines that it prints."""
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        command, *printed = part.splitlines()
        yield command, printed


@dataclass
class Reader:
    """Somebody who types the README into a terminal, in ``folder``."""

    folder: Path
    known: dict[str, str] = field(default_factory=dict)
    """What the README's examples stand for here."""
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.ports = {number: str(free_port()) for number in ("9027", "8027", "5555")}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith("ZAPD_")}
        self.environment = clean | {"PATH": path}

    def here(self, text: str) -> str:
        """``text`` with the ports and the names of this run."""
        for example, actual in (self.ports | self.known).items():
            text = text.replace(example, actual)
        return text

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(self.here(text))

    def type(self, command: str, printed: list[str]) -> None:
        """Run one command; what it prints must be ``printed``."""
        if command == "make serve":
            shown = self.make_serve()
        elif command == ". .venv/bin/activate":
            assert re.search(r"^VENV\s+\?= \.venv$", MAKEFILE, re.MULTILINE)
            return
        elif command.endswith("&"):
            self.start(command.removesuffix("&").split())
            wait_for_port(int(self.ports["5555"]))
            return
        else:
            shown = self.run(command)
            # The search follows the journal by a moment.
            deadline = time.monotonic() + PATIENCE
            while command.startswith("zapd audit list") and time.monotonic() < deadline:
                if self.fits(printed, shown, dict(self.known)):
                    break
                time.sleep(0.2)
                shown = self.run(command)
        found = dict(self.known)
        assert self.fits(printed, shown, found), f"$ {command}\nprinted:\n{shown}\nand not:\n" + "\n".join(printed)
        self.known = found

    def run(self, command: str) -> str:
        done = subprocess.run(
            ["bash", "-c", self.here(command)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"$ {command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def start(self, words: list[str]) -> subprocess.Popen[str]:
        log = (self.folder / "started.log").open("a")
        with log:
            self.started.append(
                subprocess.Popen(
                    words,
                    cwd=self.folder,
                    env=self.environment,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                )
            )
        return self.started[-1]

    def make_serve(self) -> str:
        """What the target does, with this run's ports in the configuration between its two commands."""
        recipe = re.search(r"^serve:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)
        assert recipe is not None
        assert re.findall(r"/zapd (\w+)", recipe[1]) == ["init", "serve"]
        shown = self.run("zapd init")
        configuration = self.folder / "zapd.toml"
        configuration.write_text(self.here(configuration.read_text()))
        daemon = self.start(["zapd", "serve", "-c", "zapd.toml"])
        assert daemon.stdout is not None
        for line in daemon.stdout:
            shown += line
            if line.startswith("  audit"):
                break
        return shown

    def fits(self, printed: list[str], shown: str, known: dict[str, str]) -> bool:
        return lines_fit([self.here(line) for line in printed], shown.splitlines(), known)

    def close(self) -> None:
        for process in reversed(self.started):
            process.terminate()
            process.wait(PATIENCE)
            if process.stdout is not None:
                process.stdout.close()


def lines_fit(printed: list[str], shown: list[str], known: dict[str, str]) -> bool:
    """Whether ``shown`` is what ``printed`` describes; ``known`` learns what its examples stand for."""
    if not printed:
        return not shown
    first, *rest = printed
    if first == "…":
        for skip in range(len(shown) + 1):
            learned = dict(known)
            if lines_fit(rest, shown[skip:], learned):
                known.update(learned)
                return True
        return False
    return bool(shown) and line_fits(first, shown[0], known) and lines_fit(rest, shown[1:], known)


def line_fits(printed: str, shown: str, known: dict[str, str]) -> bool:
    pattern, examples, end = "", [], 0
    for token in TOKEN.finditer(printed.rstrip()):
        kind = token.lastgroup or ""
        pattern += re.escape(printed[end : token.start()])
        end = token.end()
        if kind in STAND_FOR_THEMSELVES:
            examples.append(token[0])
            pattern += f"({TOKENS[kind]})"
        else:
            pattern += {"any": ".*", "version": r"\S+"}.get(kind, TOKENS[kind])
    found = re.fullmatch(pattern + re.escape(printed.rstrip()[end:]), shown.rstrip())
    if found is None:
        return False
    for example, actual in zip(examples, found.groups(), strict=True):
        if example in known.values():  # it was said before what it stands for
            if example != actual:
                return False
        else:
            known[example] = actual
    return True


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nothing listens on {port}"
            time.sleep(0.05)


@contextmanager
def reading(folder: Path) -> Iterator[Reader]:
    reader = Reader(folder)
    try:
        yield reader
    finally:
        reader.close()


def test_every_command_does_what_the_readme_shows(tmp_path: Path) -> None:
    """From an empty folder to the first accepted key, its audit line, its revocation, and on to the last block."""
    with reading(tmp_path) as reader:
        for name, text in blocks("python"):
            if name:
                reader.write(name, text)
        console = [step for _, block in blocks("console") for step in steps(block)]
        assert len(console) > 10
        for command, printed in console:
            reader.type(command, printed)


def test_the_agents_code_runs_as_it_stands(tmp_path: Path) -> None:
    """The lines for an application guard a socket with what `zapd agent enroll` wrote."""
    (code,) = [text for name, text in blocks("python") if not name and "zapd.agent.guard" in text]
    with serving(tmp_path) as zapd_:
        zapd_.enroll("agent")
        names = "import zmq\nserver_secret = zmq.curve_keypair()[1]\n"
        end = "\nassert socket.last_endpoint\ncontext.destroy(linger=0)\n"
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", names + code.replace(":5555", ":*") + end],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 0, done.stderr


def test_the_rfcs_proxy_lets_in_whom_zapd_knows(tmp_path: Path) -> None:
    """The function for other languages, between a libzmq server without the agent and zapd."""
    (code,) = [text for name, text in blocks("python") if not name and "def proxy" in text]
    names: dict[str, Any] = {"zmq": zmq}
    exec(code, names)
    public, secret = zmq.curve_keypair()
    server_public, server_secret = zmq.curve_keypair()
    with serving(tmp_path) as zapd_:
        keys = read_keys(zapd_.enroll("proxy"))
        zapd_.add_key(public, "alice")
        pinned = (keys.endpoints[0].server_keys[0], keys.public_key, keys.secret_key)
        context: zmq.Context[Any] = zmq.Context()
        context.linger = 0

        def work() -> None:
            with suppress(zmq.ContextTerminated):
                names["proxy"](context, zapd_.zap[0], *(encode_key(key).encode() for key in pinned))

        thread = threading.Thread(target=work)
        thread.start()
        with context.socket(zmq.PULL) as server, context.socket(zmq.PUSH) as client:
            server.linger = client.linger = 0
            server.curve_server, server.curve_secretkey = True, server_secret
            server.zap_domain = b"default"
            server.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
            port = server.bind_to_random_port("tcp://127.0.0.1")
            client.curve_serverkey = server_public
            client.curve_publickey, client.curve_secretkey = public, secret
            client.connect(f"tcp://127.0.0.1:{port}")
            client.send(b"hello")
            assert server.poll(int(PATIENCE * 1000))
            assert server.recv(copy=False).get("User-Id") == "alice"
        context.term()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/deploy.md"])
def test_every_make_target_that_is_named_exists(page: str) -> None:
    """Nobody is told to make what cannot be made."""
    named = set(re.findall(r"(?:`|^\$ )make ([a-z]+)", (ROOT / page).read_text(), re.MULTILINE))
    assert named
    assert named <= set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))


def test_make_serve_writes_nothing_under_another_name(tmp_path: Path) -> None:
    """What it could not serve afterwards it does not make: the mend is said instead."""
    venv = tmp_path / "venv"
    (venv / "bin").mkdir(parents=True)
    for stamp in ("bin/python", ".server"):
        (venv / stamp).touch()
    words = ["make", "-C", str(ROOT), "serve", f"VENV={venv}", f"CONFIG={tmp_path}/new/other.toml"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert "make serve CONFIG=DIR/zapd.toml" in ended.stderr
    assert not (tmp_path / "new").exists()
