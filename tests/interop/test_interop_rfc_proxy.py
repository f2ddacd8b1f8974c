"""RFC 27's own proxy: ROUTER, DEALER and zmq_proxy in the application, and no code of ours."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import zmq
from support.agent_central import ZAP, Central, Pair, new_pair, wait_until

pytestmark = pytest.mark.interop


class ProxiedApp:
    """What an application in any language does: documented, and the same here in pyzmq."""

    def __init__(self, central: str, central_key: bytes | None, pair: Pair | None) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.visitors: zmq.Context[Any] = zmq.Context()
        self.visiting: list[zmq.Socket[Any]] = []
        front = self.context.socket(zmq.ROUTER)
        front.bind(ZAP)
        back = self.context.socket(zmq.DEALER)
        back.linger = 0
        if central_key is not None and pair is not None:
            back.setsockopt(zmq.CURVE_SERVERKEY, central_key)
            back.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
            back.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        back.connect(central)
        self.thread = threading.Thread(target=self._proxy, args=(front, back), daemon=True)
        self.thread.start()
        self.server = new_pair()
        self.socket = self.context.socket(zmq.PULL)
        self.socket.linger = 0
        self.socket.setsockopt(zmq.CURVE_SECRETKEY, self.server.secret)
        self.socket.setsockopt(zmq.CURVE_SERVER, 1)
        self.socket.zap_domain = b"orders"
        self.socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        self.socket.setsockopt(zmq.HANDSHAKE_IVL, 1000)
        self.socket.bind("tcp://127.0.0.1:*")
        self.address = self.socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")

    @staticmethod
    def _proxy(front: zmq.Socket[Any], back: zmq.Socket[Any]) -> None:
        try:
            zmq.proxy(front, back)
        except zmq.ContextTerminated:
            front.close(linger=0)
            back.close(linger=0)

    def visitor(self, pair: Pair, says: bytes) -> None:
        socket = self.visitors.socket(zmq.PUSH)
        socket.linger = 0
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server.public)
        socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public)
        socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret)
        socket.connect(self.address)
        socket.send(says)
        self.visiting.append(socket)

    def next_in(self, timeout: float = 8.0) -> bytes | None:
        return self.socket.recv() if self.socket.poll(int(timeout * 1000)) else None


@contextmanager
def proxied(central: str, central_key: bytes | None = None, pair: Pair | None = None) -> Iterator[ProxiedApp]:
    app = ProxiedApp(central, central_key, pair)
    try:
        yield app
    finally:
        for visitor in app.visiting:
            visitor.close()
        app.visitors.term()
        app.socket.close()
        app.context.term()
        app.thread.join(5)
        assert not app.thread.is_alive()


@pytest.mark.parametrize("secured", [True, False], ids=["CURVE", "loopback"])
def test_the_proxy_of_the_rfc(secured: bool) -> None:
    """Twenty friends get in and a stranger does not, through the proxy alone, on CURVE as well as loopback."""
    server, agent = new_pair(), new_pair()
    with Central(server=server if secured else None, agents={agent.public} if secured else None) as central:
        friends = [new_pair() for _ in range(20)]
        central.known |= {(friend.public,) for friend in friends}
        with proxied(central.address, server.public if secured else None, agent) as app:
            app.visitor(new_pair(), b"stranger")
            for number, friend in enumerate(friends):
                app.visitor(friend, b"%d" % number)
            assert {app.next_in() for _ in friends} == {b"%d" % number for number in range(20)}
            assert wait_until(lambda: len(central.asked) >= 21)
            assert app.next_in(0.2) is None
        # Envelopes: zapd's view of the proxy, libzmq's own connection, the delimiter. No question id here.
        assert {len(asked.envelope) for asked in central.asked} == {3}
        assert {asked.body[2] for asked in central.asked} == {b"orders"}


def test_the_proxy_without_a_central_admits_nobody() -> None:
    """The proxy is bound and nobody answers behind it: silence, and later, when zapd comes, the friend is in."""
    friend = new_pair()
    with Central() as central:
        central.known.add((friend.public,))
        central.stop()
        with proxied(central.address) as app:
            app.visitor(friend, b"friend")
            assert app.next_in(0.6) is None
            central.start()
            assert app.next_in() == b"friend"
