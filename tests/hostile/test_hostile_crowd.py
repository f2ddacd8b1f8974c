"""Strangers at the admin port: they have no token, and keep nobody who has one from his work."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
from support.hostile_scene import Scene, status_of
from support.hostile_wire import wait_for

from zapd.app.http import CONNECTIONS, HEAD_DEADLINE

pytestmark = pytest.mark.xdist_group("hostile-crowd")
"""One worker, one zapd."""

HALF_A_HEAD = b"GET /healthz HTTP/1.1\r\nX-Slow: "
HALF_A_BODY = (
    b"POST /v1/keys HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99999\r\n\r\n{"
)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene.prepare(tmp_path_factory.mktemp("hostile-crowd"))
    try:
        yield scene
        scene.is_well()
    finally:
        scene.zapd.stop()


@contextmanager
def crowd(scene: Scene, number: int, says: bytes) -> Iterator[list[socket.socket]]:
    """So many connections that said this much."""
    host, _, port = scene.zapd.admin.removeprefix("http://").partition(":")
    made: list[socket.socket] = []
    try:
        for _ in range(number):
            sock = socket.create_connection((host, int(port)), 5)
            made.append(sock)
            with suppress(OSError):
                sock.sendall(says)
        yield made
    finally:
        for sock in made:
            sock.close()


@pytest.mark.parametrize("says", [b"", HALF_A_HEAD, HALF_A_BODY], ids=["silent", "half a head", "half a body"])
def test_a_revocation_goes_through_a_crowd_of_unfinished_requests(scene: Scene, says: bytes) -> None:
    """More connections than there is room for, none of them whole: an operator's work is done at once, supervisors
    and Prometheus are answered, and what is open stays bounded."""
    before = scene.descriptors()
    leaver = scene.add_key("leaver")
    with crowd(scene, CONNECTIONS + 100, says):
        assert scene.zapd.call("POST", f"/v1/keys/{scene.ids[leaver]}/revoke").status_code == 200
        for path in ("/healthz", "/readyz", "/metrics"):
            assert scene.zapd.call("GET", path).status_code == 200
        assert wait_for(lambda: scene.descriptors() <= before + CONNECTIONS + 10)
        with scene.stranger() as asking:
            assert status_of(asking.ask(scene.valid(b"1"))) == b"200"
    assert wait_for(lambda: scene.descriptors() <= before + 5)


def test_a_head_that_trickles_ends_at_its_deadline(scene: Scene) -> None:
    """One octet now and then makes it no longer."""
    with crowd(scene, 10, HALF_A_HEAD) as slow:
        began = time.monotonic()
        left = list(slow)
        while left:
            assert time.monotonic() - began < HEAD_DEADLINE + 10, "they are still there"
            time.sleep(0.5)
            for sock in list(left):
                try:
                    sock.sendall(b"x")
                except OSError:
                    left.remove(sock)


def test_what_is_no_http_fills_no_log(scene: Scene) -> None:
    """Strangers who speak something else are told so, and not one by one to the log."""
    before = len(scene.zapd.logged().splitlines())
    for says in (
        b"\x16\x03\x01 no HTTP\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
    ):
        with crowd(scene, 60, says) as strangers:
            for sock in strangers:
                sock.settimeout(5)
                with suppress(OSError):
                    sock.recv(4096)
    assert len(scene.zapd.logged().splitlines()) - before < 10


def test_an_endless_head_is_cut(scene: Scene) -> None:
    """Megabytes of header: refused within its bound."""
    with crowd(scene, 1, b"GET / HTTP/1.1\r\n") as (sock,):
        written = 0
        with suppress(OSError):
            while written < 4 << 20:
                written += sock.send(b"X-More: " + b"y" * 8000 + b"\r\n")
        assert written < 4 << 20
