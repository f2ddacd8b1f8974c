"""zapd with two workers, and ways to look at them from outside."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import zmq
from prometheus_client.parser import text_string_to_metric_families
from support import app_scene
from support.app_scene import CONFIGURATION
from support.serving import Zapd

from zapd.agent.keyfile import read_keys

WORKERS = (
    CONFIGURATION.replace('drain = "5s"', 'drain = "5s"\nworkers = 2')
    + """
[[zap]]
listen = "tcp://127.0.0.1:0"
mechanism = "CURVE"
[[zap]]
listen = "ipc://data/closed.sock"
mechanism = "NULL"
domains = ["*"]
users = [4242]
"""
)


LONG = 60.0
"""Seconds after which waiting is given up; a worker that is replaced starts a whole zapd."""


def wait_for(condition: Callable[[], object]) -> bool:
    """Whether it came true in time."""
    return app_scene.wait_for(condition, LONG)


def pids(zapd: Zapd) -> dict[int, int]:
    """The newest process of each worker, by its number."""
    lines = [json.loads(line) for line in zapd.logged().splitlines() if '"a worker is up"' in line]
    return {line["number"]: line["pid"] for line in lines}


def alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def metrics(zapd: Zapd) -> dict[str, dict[str, float]]:
    """Each sample of the page by its name and its label ``name``."""
    found: dict[str, dict[str, float]] = {}
    for family in text_string_to_metric_families(zapd.call("GET", "/metrics").text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[sample.labels.get("name", "")] = sample.value
    return found


def spread(zapd: Zapd) -> list[float]:
    """How many admitted connections each worker has, the fewest first."""
    return sorted(metrics(zapd)["zapd_worker_peers"].values())


def journals(zapd: Zapd) -> Mapping[str, list[dict[str, Any]]]:
    """Every whole record, by instance."""
    return {
        folder.name: [
            json.loads(line)
            for path in sorted(folder.glob("[0-9]*.jsonl"))
            for line in path.read_bytes().splitlines(keepends=True)
            if line.endswith(b"\n")
        ]
        for folder in (zapd.folder / "data" / "audit").iterdir()
        if folder.is_dir()
    }


def recorded(zapd: Zapd, event: str) -> dict[str, int]:
    """How many records of this kind each instance has that has any."""
    counted = {
        instance: sum(record["event"] == event for record in records)
        for instance, records in journals(zapd).items()
    }
    return {instance: number for instance, number in counted.items() if number}


def knock(address: str, count: int) -> list[socket.socket]:
    """So many connections that say nothing."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return [socket.create_connection((host, int(port)), 10) for _ in range(count)]


def still_open(connections: Sequence[socket.socket]) -> int:
    """How many of them zapd has not closed."""
    found = 0
    for each in connections:
        each.setblocking(False)
        try:
            while octets := each.recv(4096):
                assert len(octets) <= 64, "a greeting, and nothing more"
        except BlockingIOError:
            found += 1
        except OSError:
            pass
    return found


class Enrolled:
    """An agent's connection over CURVE: a DEALER of libzmq, as a bridge has it."""

    def __init__(self, key_file: Path) -> None:
        keys = read_keys(key_file)
        endpoint = next(each for each in keys.endpoints if each.server_keys)
        self._context = zmq.Context()
        self.socket = self._context.socket(zmq.DEALER)
        self.socket.linger = 0
        self.socket.reconnect_ivl = 20
        self.socket.curve_serverkey = endpoint.server_keys[0]
        self.socket.curve_publickey = keys.public_key
        self.socket.curve_secretkey = keys.secret_key
        self.socket.connect(endpoint.address)

    def ask(self, key: bytes, domain: str = "orders") -> int:
        """One CURVE question; its status."""
        head = [b"", b"1.0", os.urandom(4), domain.encode(), b"127.0.0.1", b"", b"CURVE"]
        self.socket.send_multipart([*head, key])
        assert self.socket.poll(15_000), "no answer"
        return int(self.socket.recv_multipart()[3])

    def close(self) -> None:
        self.socket.close()
        self._context.term()


def ready(zapd: Zapd) -> bool:
    """Every worker is up, and this is what ``/readyz`` says."""
    return wait_for(lambda: zapd.call("GET", "/readyz").status_code == 200)
