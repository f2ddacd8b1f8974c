"""Following the record of a running zapd, as its callers do: over HTTP, with nothing but the standard's rules."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from support.app_scene import ALICE, CONFIGURATION, STRANGER, Asking, wait_for, z85
from support.serving import PATIENCE, Zapd
from support.serving import serving as serve

from zapd.admin.api.streaming import Streamed
from zapd.app import http as room


class Listening:
    """One follower: what it was told, in a thread of its own."""

    def __init__(self, zapd: Zapd, *, token: str = "", last: str = "", **query: Any) -> None:
        self.events: list[dict[str, str]] = []
        self.over = False
        self._over = threading.Event()
        self._sock: Any = None
        headers = {"Authorization": f"Bearer {token or zapd.token}"} | ({"Last-Event-ID": last} if last else {})
        self._client = httpx.Client(base_url=zapd.admin, headers=headers, timeout=PATIENCE)
        self._query = query
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        with suppress(httpx.HTTPError, httpx.StreamError, OSError):
            while not self._over.is_set() and not self._hear():
                self._over.wait(0.1)
        self._client.close()
        self.over = True

    def _hear(self) -> bool:
        """Whether it was let in; 503 is to be tried again."""
        with self._client.stream("GET", "/v1/audit/stream", params=self._query) as answer:
            self._sock = answer.extensions["network_stream"].get_extra_info("socket")
            event: dict[str, str] = {}
            for line in answer.iter_lines() if answer.is_success and not self._over.is_set() else ():
                if line:
                    name, _, value = line.partition(":")
                    event[name] = value.removeprefix(" ")
                else:
                    self.events.append(event)
                    event = {}
            return answer.status_code != 503

    def close(self) -> None:
        """Hang up, as a process does that dies."""
        self._over.set()
        with suppress(OSError, AttributeError):
            self._sock.shutdown(socket.SHUT_RDWR)

    @property
    def records(self) -> list[dict[str, Any]]:
        return [json.loads(event["data"]) for event in self.events if "data" in event and "event" not in event]

    @property
    def last(self) -> str:
        """As a browser keeps it."""
        return [event["id"] for event in self.events if event.get("id")][-1]

    def hears(self, principal: str) -> bool:
        return any(record.get("principal") == principal for record in self.records)


@pytest.fixture(scope="module")
def zapd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zapd]:
    text = CONFIGURATION + "[limits]\naudit_followers = 3\n"
    with serve(tmp_path_factory.mktemp("follow"), configuration=text) as running:
        running.add_key(z85(ALICE), "alice", domains=["orders"])
        yield running


def token(zapd: Zapd, name: str, **more: object) -> tuple[str, str]:
    made = zapd.ask("POST", "/v1/tokens", {"name": name, "role": "viewer", **more})
    return made["id"], made["token"]


def test_a_follower_that_comes_back_misses_and_repeats_nothing(zapd: Zapd) -> None:
    """Through a broken connection and a restart of zapd, the records of each instance come in order without a
    hole, each once."""
    seen: list[dict[str, Any]] = []
    listener = Listening(zapd, since="2000-01-01T00:00:00Z")
    for round_ in range(1, 4):
        with Asking(zapd) as asking:
            for _ in range(5):
                assert asking.ask(ALICE) == 200
        here = listener

        before = sum(each.get("principal") == "alice" for each in seen)

        def granted(here: Listening = here, before: int = before) -> int:
            return before + sum(each.get("principal") == "alice" for each in here.records)

        assert wait_for(lambda granted=granted, round_=round_: granted() >= 5 * round_)  # type: ignore[misc]
        if round_ == 2:
            zapd.stop()
            zapd.start()
        here.close()
        assert wait_for(lambda here=here: here.over)  # type: ignore[misc]
        assert not [event for event in here.events if event.get("event")]
        seen += here.records
        listener = Listening(zapd, last=here.last)
    listener.close()
    assert [record["sequence"] for record in seen] == list(range(1, len(seen) + 1))
    assert seen[0]["event"] == "journal.begin"
    accepted = next(record for record in seen if record["event"] == "auth.accept")
    assert accepted["trail"][0].keys() == {"backend", "outcome", "milliseconds"}


def test_domains_and_revocation_hold_for_followers(zapd: Zapd) -> None:
    """A token of one domain hears of nothing else; revoked, its stream ends and says why, and so does no other."""
    ident, limited = token(zapd, "limited", domains=["lab"])
    theirs, ours = Listening(zapd, token=limited), Listening(zapd)
    assert wait_for(lambda: theirs.events and ours.events)
    with Asking(zapd) as asking:
        assert asking.ask(STRANGER) == 400
        assert asking.ask(mechanism="NULL", domain="lab") == 200
    assert wait_for(lambda: ours.hears("lab") and theirs.hears("lab"))
    assert {record["domain"] for record in theirs.records} == {"lab"}
    assert {record.get("domain") for record in ours.records} >= {"lab", "orders"}
    zapd.ask("DELETE", f"/v1/tokens/{ident}")
    assert wait_for(lambda: theirs.over)
    end = theirs.events[-1]
    assert (end["event"], json.loads(end["data"])["code"]) == ("end", "unauthenticated")
    assert not ours.over
    ours.close()
    wait_for(lambda: ours.over)


def test_there_is_a_bound_on_followers(zapd: Zapd) -> None:
    """One too many gets 503 at once; as soon as one of them is gone there is room again. Nonsense is refused."""
    several = [Listening(zapd) for _ in range(3)]
    assert wait_for(lambda: all(each.events for each in several))
    assert zapd.call("GET", "/v1/audit/stream").status_code == 503
    more = Listening(zapd)
    several[0].close()
    assert wait_for(lambda: more.events)
    for each in (*several, more):
        each.close()
    assert wait_for(lambda: zapd.run("audit", "tail", "--count", "1", "--since", "1d").returncode == 0)
    answer = httpx.get(
        zapd.admin + "/v1/audit/stream",
        headers={"Authorization": f"Bearer {zapd.token}", "Last-Event-ID": "x"},
        timeout=PATIENCE,
    )
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")


def test_tail_prints_what_comes(zapd: Zapd) -> None:
    """``zapd audit tail`` prints lines for people and JSON lines for programs, and stops where it is told to; a
    token that is not good ends it."""
    with Asking(zapd) as asking:
        assert asking.ask(ALICE) == 200
    printed = zapd.run("audit", "tail", "--since", "1d", "--event", "auth.*", "--user", "alice", "--count", "1")
    assert printed.returncode == 0, printed.stderr
    assert "auth.accept" in printed.stdout
    assert "alice" in printed.stdout
    lines = zapd.run("audit", "tail", "--since", "1d", "--count", "3", "--json").stdout.splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == [1, 2, 3]
    good, zapd.token = zapd.token, "zapd_" + "x" * 43
    try:
        refused = zapd.run("audit", "tail", "--count", "1")
    finally:
        zapd.token = good
    assert (refused.returncode, "--token-file" in refused.stderr) == (1, True)


@contextmanager
def endless(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, list[int], threading.Event]]:
    """A server whose one answer never ends: (port, octets made so far, whether the answer was closed)."""
    monkeypatch.setattr(room, "STALLED", 0.5)
    made, closed = [0], threading.Event()

    async def pieces() -> AsyncGenerator[bytes, None]:
        while True:
            made[0] += 65_536
            yield b"x" * 65_536

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await Streamed(pieces(), media_type="text/plain", close=closed.set)(scope, receive, send)

    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="off", http=room.BoundedHttp))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[sock])), daemon=True)
        thread.start()
        try:
            yield sock.getsockname()[1], made, closed
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


def test_a_slow_reader_is_dropped_and_never_buffered_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for an answer without an end and takes nothing costs what fits between two sockets, and is gone
    after a while; what the answer held is given back."""
    with endless(monkeypatch) as (port, made, closed), socket.create_connection(("127.0.0.1", port)) as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        stranger.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert closed.wait(PATIENCE)
        assert made[0] < 64 << 20


def test_a_reader_that_leaves_frees_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever hangs up half-way is noticed at once, not at the next record."""
    with endless(monkeypatch) as (port, _made, closed):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert stranger.recv(1000)
        assert closed.wait(PATIENCE)


def test_nothing_recorded_is_nothing_to_follow(tmp_path: Path) -> None:
    """With durability "off" the stream says so instead of being silent for ever."""
    text = CONFIGURATION.replace('head = ""', 'head = ""\ndurability = "off"')
    with serve(tmp_path, configuration=text) as running:
        answer = running.call("GET", "/v1/audit/stream")
        assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
