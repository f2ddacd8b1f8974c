"""zapd ping: one real question to a real endpoint."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq
from support.cli_server import run
from zmq.utils import z85

from zapd.cli.agent import key_file

METADATA = b"\x0dX-Zapd-Groups\x00\x00\x00\x07traders"


@contextmanager
def libzmq_handler(secret_key: bytes | None, *, answers: bool = True) -> Iterator[tuple[str, list[list[bytes]]]]:
    """A ROUTER of libzmq that grants every question, or takes and never answers it; CURVE with a secret key."""
    context = zmq.Context()
    socket = context.socket(zmq.ROUTER)
    socket.linger = 0
    if secret_key is not None:
        socket.curve_server = True
        socket.curve_secretkey = secret_key
    socket.bind("tcp://127.0.0.1:*")
    asked: list[list[bytes]] = []
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            if socket.poll(20):
                parts = socket.recv_multipart()
                asked.append(parts)
                cut = parts.index(b"", 1) + 1
                if answers:
                    socket.send_multipart(
                        [*parts[:cut], b"1.0", parts[cut + 1], b"200", b"OK", b"alice", METADATA]
                    )

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield socket.last_endpoint.decode().rstrip("\0"), asked
    finally:
        stop.set()
        thread.join(5)
        context.destroy(linger=0)


@pytest.fixture
def pair() -> tuple[bytes, bytes]:
    return zmq.curve_keypair()


def agent_key(path: Path, endpoint: str, server_public: bytes) -> str:
    """An agent's key file for one endpoint."""
    public, secret = zmq.curve_keypair()
    endpoints = [{"address": endpoint, "server_keys": [server_public.decode()]}]
    path.write_text(key_file("edge-1", public.decode(), secret.decode(), endpoints))
    path.chmod(0o600)
    return str(path)


def test_ping_asks_as_an_agent_does(tmp_path: Path, pair: tuple[bytes, bytes]) -> None:
    """Over CURVE with the agent's keys: one request with its fresh question id, and the answer with its time."""
    with libzmq_handler(pair[1]) as (endpoint, asked):
        keys = agent_key(tmp_path / "agent.key", endpoint, pair[0])
        found = json.loads(run("ping", endpoint, "--keys", keys, "--domain", "orders", "--json").stdout)
    assert (found["status"], found["user_id"]) == (200, "alice")
    assert found["metadata"] == {"X-Zapd-Groups": "traders"}  # as applications must spell it
    assert found["answered_ms"] > 0
    (parts,) = asked
    assert len(parts[1]) == 16
    assert parts[2:9] == [b"", b"1.0", b"1", b"orders", b"127.0.0.1", b"", b"CURVE"]
    assert len(parts[9]) == 32


def test_ping_asks_about_each_mechanism() -> None:
    """Over NULL on loopback, about NULL, PLAIN with a password from standard input, a named key, a principal."""
    with libzmq_handler(None) as (endpoint, asked):
        run("ping", endpoint, "--mechanism", "NULL", "--address", "192.0.2.7")
        printed = run("ping", endpoint, "--mechanism", "PLAIN", "--username", "bob", text="hush\n")
        key = zmq.curve_keypair()[0].decode()
        run("ping", endpoint, "--key", key)
        run("ping", endpoint, "--mechanism", "GSSAPI", "--principal", "ada@EXAMPLE.ORG")
    assert [parts[8:] for parts in asked] == [
        [b"NULL"],
        [b"PLAIN", b"bob", b"hush"],
        [b"CURVE", z85.decode(key)],
        [b"GSSAPI", b"ada@EXAMPLE.ORG"],
    ]
    assert asked[0][6] == b"192.0.2.7"
    assert "hush" not in printed.stdout + printed.stderr
    assert "200" in printed.stdout


def test_ping_believes_nobody_without_the_right_key(tmp_path: Path, pair: tuple[bytes, bytes]) -> None:
    """A server that cannot prove its key gets no question, and ping ends with 1."""
    stranger = zmq.curve_keypair()
    with libzmq_handler(stranger[1]) as (endpoint, asked):
        keys = agent_key(tmp_path / "agent.key", endpoint, pair[0])
        run("ping", endpoint, "--keys", keys, "--timeout", "0.5", code=1)
    assert asked == []


def test_ping_ends_when_no_answer_comes(tmp_path: Path) -> None:
    """Nobody there, and somebody who never answers: exit code 1 and which of the two it was."""
    with libzmq_handler(None, answers=False) as (endpoint, _):
        refused = run("ping", endpoint, "--timeout", "0.3", code=1).stderr
    assert "did not answer within 0.3 s" in refused
    assert "cannot be reached" in run("ping", endpoint, "--timeout", "0.3", code=1).stderr


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["tcp://192.0.2.1:9027"], 2, "name the agent's file with --keys"),
        (["nonsense"], 2, "write tcp://host:port or ipc://path"),
        (["tcp://127.0.0.1:1", "--mechanism", "PLAIN"], 2, "PLAIN needs --username"),
        (["tcp://127.0.0.1:1", "--mechanism", "GSSAPI"], 2, "GSSAPI needs --principal"),
        (["tcp://127.0.0.1:1", "--keys", "/nowhere/agent.key"], 2, "zapd agent enroll"),
        (["tcp://127.0.0.1:1", "--domain", "sn\x1bow"], 1, "printable ASCII"),
    ],
)
def test_ping_refuses_what_cannot_be_asked(words: list[str], code: int, told: str) -> None:
    """What is wrong with the question is told before anything is sent."""
    assert told in run("ping", *words, code=code).stderr


def test_ping_leaves_no_loop_behind() -> None:
    """It may be called from a program again and again."""
    with libzmq_handler(None) as (endpoint, _):
        for _ in range(3):
            run("ping", endpoint, "--mechanism", "NULL")
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
