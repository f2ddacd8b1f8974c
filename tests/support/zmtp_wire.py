"""An engine on a blocking socket, for speaking to a real libzmq; and a real ZAP handler in its context."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zmq

from zapd.zmtp.connection import Connection
from zapd.zmtp.events import AuthenticationRequired, ConnectionFailed, Event
from zapd.zmtp.limits import Limits

PATIENCE = 10.0
"""Seconds until a test gives up; never a measure of anything."""
RAISED = Limits(frame=1 << 23, message=1 << 24, parts=1000)

Judge = Callable[[AuthenticationRequired], int]
"""Gives the verdict; None where a test gives none."""


def admit(question: AuthenticationRequired) -> int:
    """Let everybody in."""
    return 200


class Wire:
    """Carries octets between one engine and one socket until something has happened."""

    def __init__(self, connection: Connection, sock: socket.socket, judge: Judge | None = admit) -> None:
        self.connection = connection
        self.happened: list[Event] = []
        self.at_end = False
        """The other side closed."""
        self.most = 1 << 16
        """Octets read at a time."""
        self._sock = sock
        self._judge = judge

    def flush(self) -> None:
        """Send what is queued; a peer that closed meanwhile is noticed when reading."""
        data = self.connection.data_to_send()
        if data:
            try:
                self._sock.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                self.at_end = True

    def step(self, timeout: float) -> bool:
        """One round; False when nothing came in time."""
        self.flush()
        self._sock.settimeout(timeout)
        try:
            data = self._sock.recv(self.most)
        except TimeoutError:
            return False
        except ConnectionResetError:
            data = b""
        if data:
            self.connection.receive_data(data)
        else:
            self.at_end = True
            self.connection.receive_eof()
        for event in self.connection.events():
            self.happened.append(event)
            if (
                isinstance(event, AuthenticationRequired)
                and self._judge is not None
                and not self.connection.closed
            ):
                status = self._judge(event)
                if status == 200:
                    self.connection.accept()
                else:
                    self.connection.reject(status)
        self.happened += self.connection.events()
        self.flush()
        return True

    def until(self, done: Callable[[Wire], bool]) -> Wire:
        """Go on until ``done``; a test that waits in vain fails here, with what did happen."""
        deadline = time.monotonic() + PATIENCE
        self.flush()
        while not done(self):
            left = deadline - time.monotonic()
            assert left > 0, f"in vain; it happened: {self.happened}"
            assert not self.at_end, f"the other side closed; it happened: {self.happened}"
            self.step(left)
        return self

    def until_ready(self) -> Wire:
        """Past the handshake."""
        return self.until(lambda wire: wire.connection.ready)

    def until_event(self, kind: type[Event]) -> Event:
        """The first event of that kind, taken out of `happened` with those before it."""
        self.until(lambda wire: any(isinstance(event, kind) for event in wire.happened))
        index = next(index for index, event in enumerate(self.happened) if isinstance(event, kind))
        event = self.happened[index]
        del self.happened[: index + 1]
        return event

    def until_messages(self, number: int) -> list[list[bytes]]:
        """That many messages."""
        from support.zmtp_pairs import messages_of

        self.until(lambda wire: len(messages_of(wire.happened)) >= number)
        found = messages_of(self.happened)
        self.happened.clear()
        return found

    def until_failed(self) -> ConnectionFailed:
        """The failure that ended it, whoever's it was."""
        deadline = time.monotonic() + PATIENCE
        while not self.connection.closed:
            assert time.monotonic() < deadline, f"in vain; it happened: {self.happened}"
            self.step(0.2)
        self.flush()
        last = self.happened[-1]
        assert isinstance(last, ConnectionFailed)
        return last

    def wait_for_close(self) -> None:
        """Until the other side has closed."""
        deadline = time.monotonic() + PATIENCE
        while not self.at_end:
            assert time.monotonic() < deadline, "the other side keeps the connection open"
            self.step(0.2)

    def close(self) -> None:
        self._sock.close()


@contextmanager
def calling(endpoint: str, connection: Connection, judge: Judge | None = admit) -> Iterator[Wire]:
    """An engine that connects to a libzmq socket bound at ``tcp://127.0.0.1:port``."""
    port = int(endpoint.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        yield Wire(connection, sock, judge)


class Listener:
    """Takes libzmq's connections, each with an engine of its own."""

    def __init__(self) -> None:
        self._sock = socket.create_server(("127.0.0.1", 0))
        self._accepted: list[socket.socket] = []
        self.endpoint = f"tcp://127.0.0.1:{self._sock.getsockname()[1]}"

    def accept(self, connection: Connection, judge: Judge | None = admit, timeout: float = PATIENCE) -> Wire:
        """The next connection; `TimeoutError` when none comes."""
        self._sock.settimeout(timeout)
        sock, _ = self._sock.accept()
        self._accepted.append(sock)
        return Wire(connection, sock, judge)

    def close(self) -> None:
        for sock in (self._sock, *self._accepted):
            sock.close()


@contextmanager
def listening() -> Iterator[Listener]:
    """A listener on a port of its own."""
    listener = Listener()
    try:
        yield listener
    finally:
        listener.close()


class Libzmq:
    """A libzmq context that keeps its sockets until the end, whether or not the test holds on to them."""

    def __init__(self) -> None:
        self._context = zmq.Context()
        self._sockets: list[zmq.Socket[bytes]] = []

    def socket(self, kind: int) -> zmq.Socket[bytes]:
        sock = self._context.socket(kind)
        sock.linger = 0
        self._sockets.append(sock)
        return sock

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._context.term()


@contextmanager
def libzmq() -> Iterator[Libzmq]:
    """A context whose sockets are gone afterwards."""
    context = Libzmq()
    try:
        yield context
    finally:
        context.close()


def bound(context: Libzmq, kind: int, **options: object) -> tuple[zmq.Socket[bytes], str]:
    """A libzmq server socket and where it is bound."""
    sock = _socket(context, kind, options)
    port = sock.bind_to_random_port("tcp://127.0.0.1")
    return sock, f"tcp://127.0.0.1:{port}"


def connected(context: Libzmq, kind: int, endpoint: str, **options: object) -> zmq.Socket[bytes]:
    """A libzmq client socket."""
    sock = _socket(context, kind, options)
    sock.connect(endpoint)
    return sock


def _socket(context: Libzmq, kind: int, options: dict[str, object]) -> zmq.Socket[bytes]:
    sock = context.socket(kind)
    sock.rcvtimeo = sock.sndtimeo = int(PATIENCE * 1000)
    for name, value in options.items():
        sock.setsockopt(getattr(zmq, name), value)
    return sock


@contextmanager
def zap_handler(context: Libzmq, judge: Callable[[list[bytes]], bytes]) -> Iterator[list[list[bytes]]]:
    """A real handler at ``inproc://zeromq.zap.01``; yields the requests that it has seen."""
    seen: list[list[bytes]] = []
    handler = context.socket(zmq.REP)
    handler.bind("inproc://zeromq.zap.01")
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            if handler.poll(50):
                request = handler.recv_multipart()
                seen.append(request)
                handler.send_multipart([b"1.0", request[1], judge(request), b"", b"somebody", b""])
        handler.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join(PATIENCE)
