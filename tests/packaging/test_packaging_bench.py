"""The benchmark runs: its generator speaks to a real libzmq and insists on right answers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("bench")


@pytest.fixture(scope="module")
def loadgen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("gcc") is None:
        (pytest.fail if os.environ.get("ZAPD_REQUIRE_COMPONENTS") else pytest.skip)("missing: gcc")
    program = tmp_path_factory.mktemp("bench") / "loadgen"
    subprocess.run(
        ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-std=c11", "-o", program, ROOT / "bench" / "loadgen.c"],
        check=True,
    )
    return program


@pytest.fixture
def answerer() -> Iterator[tuple[int, list[list[bytes]], list[bytes]]]:
    """A ROUTER that answers as told: (its port, the questions it has seen, the status to give)."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    router.heartbeat_ivl = 20  # so that PING meets the generator in the midst of answers
    seen: list[list[bytes]] = []
    status = [b"200"]

    def serve() -> None:
        try:
            while True:
                parts = router.recv_multipart()
                if len(seen) < 100:
                    seen.append(parts)
                router.send_multipart([*parts[:3], b"1.0", parts[4], status[0], b"text", b"u" * 300, b""])
        except zmq.ContextTerminated:
            router.close(linger=0)

    thread = threading.Thread(target=serve)
    thread.start()
    yield port, seen, status
    context.term()
    thread.join(5)


def load(loadgen: Path, port: int, folder: Path) -> subprocess.CompletedProcess[str]:
    keys = folder / "keys"
    keys.write_bytes(os.urandom(32 * 10))
    return subprocess.run(
        [loadgen, "127.0.0.1", str(port), keys, "16", "0.05", "0.3", "default"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


def test_the_generator_asks_what_an_agent_asks(
    loadgen: Path, answerer: tuple[int, list[list[bytes]], list[bytes]], tmp_path: Path
) -> None:
    """Questions are whole ZAP requests behind a 16-octet id, with keys from the file; every answer is counted."""
    port, seen, _ = answerer
    done = load(loadgen, port, tmp_path)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["answers"] == result["granted"] > 0
    assert result["strange"] == 0
    keys = (tmp_path / "keys").read_bytes()
    for parts in seen:
        _, question_id, delimiter, *body = parts
        assert (len(question_id), delimiter) == (16, b"")
        assert body[:-1] == [b"1.0", b"1", b"default", b"127.0.0.1", b"", b"CURVE"]
        assert body[-1] in keys
    assert len({parts[1] for parts in seen}) == len(seen)


@pytest.mark.parametrize("status", [b"300", b"400", b"201"])
def test_the_generator_insists_on_200(
    loadgen: Path, answerer: tuple[int, list[list[bytes]], list[bytes]], tmp_path: Path, status: bytes
) -> None:
    """One answer that is no 200 fails the run: speed bought with wrong answers does not count."""
    port, _, told = answerer
    told[0] = status
    assert load(loadgen, port, tmp_path).returncode == 1


def test_the_whole_run_prints_its_table(loadgen: Path) -> None:
    """A short run of one peer ends with medians, ratios and the machine."""
    options = ["--rounds", "1", "--seconds", "0.2", "--keys", "10", "--only", "pyzmq REP"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    assert "answers/s" in done.stdout
    assert "pyzmq REP" in done.stdout
