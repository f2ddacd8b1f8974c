"""The benchmark runs: its programs speak to a real libzmq and insist on right answers; each part has its table."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest
import zmq

from bench.chart import draw

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.xdist_group("bench")

Answerer = tuple[int, list[list[bytes]], list[bytes]]


def need(*libraries: str) -> None:
    """Skip where the programs in C cannot be built; fail where everything must be there."""
    missing = [tool for tool in ("gcc", "pkg-config") if shutil.which(tool) is None]
    if not missing:
        asked = {
            library: subprocess.run(["pkg-config", "--exists", library], check=False) for library in libraries
        }
        missing = [library for library, found in asked.items() if found.returncode]
    if missing:
        (pytest.fail if os.environ.get("ZAPD_REQUIRE_COMPONENTS") else pytest.skip)(f"missing: {missing}")


@pytest.fixture(scope="module")
def loadgen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need("libsodium")
    program = tmp_path_factory.mktemp("bench") / "loadgen"
    subprocess.run(
        [
            *("gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-std=c11"),
            *("-o", program, ROOT / "bench" / "loadgen.c", "-lsodium", "-lm"),
        ],
        check=True,
    )
    return program


@pytest.fixture
def answerer() -> Iterator[Answerer]:
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


def load(loadgen: Path, port: int, credentials: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [loadgen, "--in-flight", "16", "--warmup", "0.05", "--seconds", "0.3", *options, str(port), credentials],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_bytes(os.urandom(32 * 10))
    return path


def test_the_generator_asks_what_an_agent_asks(loadgen: Path, answerer: Answerer, keys: Path) -> None:
    """Questions are whole ZAP requests behind a 16-octet id, with keys from the file; every answer is counted."""
    port, seen, _ = answerer
    done = load(loadgen, port, keys)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["answers"] == result["granted"] > 0
    assert result["strange"] == 0
    for parts in seen:
        _, question_id, delimiter, *body = parts
        assert (len(question_id), delimiter) == (16, b"")
        assert body[:-1] == [b"1.0", b"1", b"default", b"127.0.0.1", b"", b"CURVE"]
        assert body[-1] in keys.read_bytes()
    assert len({parts[1] for parts in seen}) == len(seen)


def test_the_generator_can_ask_in_many_ways(loadgen: Path, answerer: Answerer, tmp_path: Path) -> None:
    """Several connections, domains and addresses, users with passwords, at a pace of its own."""
    port, seen, _ = answerer
    users = tmp_path / "users"
    users.write_text("ada lovelace\nalan turing\n")
    ways = [
        "--connections",
        "4",
        "--domain",
        "a",
        "--domain",
        "other",
        "--address",
        "::1",
        "--address",
        "10.1.2.3",
    ]
    done = load(loadgen, port, users, *ways, "--plain", "--rate", "500")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["answers"] > 0
    assert len({parts[0] for parts in seen}) == 4
    assert {parts[5] for parts in seen} == {b"a", b"other"}
    assert {parts[6] for parts in seen} == {b"::1", b"10.1.2.3"}
    assert {tuple(parts[8:]) for parts in seen} == {
        (b"PLAIN", b"ada", b"lovelace"),
        (b"PLAIN", b"alan", b"turing"),
    }


@pytest.mark.parametrize("status", [b"300", b"400", b"201"])
def test_the_generator_insists_on_200(loadgen: Path, answerer: Answerer, keys: Path, status: bytes) -> None:
    """One answer that is no 200 fails the run: speed bought with wrong answers does not count."""
    port, _, told = answerer
    told[0] = status
    assert load(loadgen, port, keys).returncode == 1


@pytest.mark.parametrize(
    ("parts", "peers"),
    [
        (["questions", "plain", "flat", "bulkhead"], ["zapd, relaxed"]),
        (["shapes", "latency"], ["C ROUTER"]),
        (["curve-link"], ["C ROUTER, CURVE", "zapd, off, CURVE"]),
        (["handshakes", "flood"], ["libzmq, C handler, CURVE", "zapd, relaxed, NULL"]),
    ],
)
def test_each_part_prints_its_table(parts: list[str], peers: list[str], tmp_path: Path) -> None:
    """A short run of each part ends with a table that names its peers, its figures as JSON, and no error."""
    need("libsodium", "libzmq")
    options = ["--rounds", "1", "--seconds", "0.1", "--warmup", "0.05", "--keys", "10", "--rate", "200"]
    options.append("--unpinned")
    for peer in peers:
        options += ["--only", peer]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *parts, *options, "--out", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for part in parts:
        assert f"== {part} ==" in done.stdout
        assert json.loads((tmp_path / f"{part}.json").read_text())["peers"]
    for peer in peers:
        assert f"\n{peer}" in done.stdout


def test_the_chart_is_drawn_of_what_was_measured() -> None:
    """Every peer of a result has its bar and its figure, and what comes out is well-formed XML."""
    rounds = [{"rate": 1000.0, "server_cpu": 0.5}, {"rate": 3000.0, "server_cpu": 1.0}]
    result = {
        "peers": {"a <peer>": {"rounds": rounds}, "zapd, strict": {"rounds": rounds[:1]}},
        "keys": 10,
        "in_flight": 128,
        "rounds": 2,
        "seconds": 3.0,
        "machine": "a machine",
    }
    drawing = ElementTree.fromstring(draw(result))
    words = [text.text for text in drawing.iter("{http://www.w3.org/2000/svg}text")]
    assert {"a <peer>", "zapd, strict", "2,000", "1,000", "a machine"} <= set(words)
