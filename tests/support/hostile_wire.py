"""A peer made of a blocking socket and the project's own engine, which can also say what no engine would."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

from zapd.zmtp.connection import Connection
from zapd.zmtp.events import ConnectionFailed, MessagesReceived
from zapd.zmtp.handshake import Mechanism
from zapd.zmtp.mechanisms.null import NullClient

PATIENCE = 15.0
"""Seconds until a test gives up; never a measure of anything."""

Message = list[bytes]


class Ended(AssertionError):
    """zapd closed the connection, or never answered."""


def dial(endpoint: str, source: str | None = None) -> socket.socket:
    """A connected socket; ``source`` is the loopback address to come from."""
    scheme, _, rest = endpoint.partition("://")
    if scheme == "ipc":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.settimeout(PATIENCE)
        sock.connect(rest)
        return sock
    host, _, port = rest.rpartition(":")
    return socket.create_connection((host, int(port)), PATIENCE, None if source is None else (source, 0))


def raw_frame(body: bytes, flags: int = 0) -> bytes:
    """One frame as octets (RFC 23, "framing")."""
    if len(body) > 255:
        return bytes((flags | 2,)) + struct.pack(">Q", len(body)) + body
    return bytes((flags, len(body))) + body


def raw_message(parts: Sequence[bytes]) -> bytes:
    """A whole message as octets."""
    last = len(parts) - 1
    return b"".join(raw_frame(part, int(number < last)) for number, part in enumerate(parts))


class Stranger:
    """One connection past its handshake."""

    def __init__(
        self,
        endpoint: str,
        mechanism: Mechanism | None = None,
        *,
        source: str | None = None,
        socket_type: str = "DEALER",
    ) -> None:
        """Raises `Ended` when zapd does not let it in."""
        self.connection = Connection(mechanism or NullClient(), socket_type)
        self.at_end = False
        self.inbox: list[Message] = []
        self.failure: ConnectionFailed | None = None
        self.sent = 0
        self.heard = 0
        self.sock = dial(endpoint, source)
        deadline = time.monotonic() + PATIENCE
        while not self.connection.ready:
            self._step(deadline)
            if self.at_end or self.connection.closed:
                self.close()
                raise Ended(f"not let in: {self.failure}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def send(self, *messages: Sequence[bytes]) -> None:
        """Send whole messages in one write; that zapd has closed meanwhile shows when reading."""
        self.connection.send_messages(messages)
        self._flush()

    def say(self, octets: bytes) -> None:
        """Send octets as they are."""
        try:
            self.sock.sendall(octets)
        except OSError:
            self.at_end = True
        self.sent += len(octets)

    def read(self, count: int, within: float = PATIENCE) -> list[Message]:
        """The next ``count`` messages, out of the inbox; `Ended` when they do not come."""
        deadline = time.monotonic() + within
        while len(self.inbox) < count:
            if self.at_end:
                raise Ended(f"closed after {len(self.inbox)} of {count} replies: {self.failure}")
            self._step(deadline)
        found, self.inbox = self.inbox[:count], self.inbox[count:]
        return found

    def ask(self, message: Sequence[bytes], within: float = PATIENCE) -> Message:
        """One question and the next message that comes."""
        self.send(message)
        return self.read(1, within)[0]

    def linger(self, seconds: float) -> list[Message]:
        """Whatever comes within so long."""
        deadline = time.monotonic() + seconds
        with suppress(Ended):
            while not self.at_end:
                self._step(deadline)
        found, self.inbox = self.inbox, []
        return found

    def wait_for_close(self, within: float = PATIENCE) -> None:
        """Until zapd has closed."""
        deadline = time.monotonic() + within
        while not self.at_end:
            self._step(deadline)

    def close(self) -> None:
        self.sock.close()

    def _flush(self) -> None:
        data = self.connection.data_to_send()
        if data:
            self.say(data)

    def _step(self, deadline: float) -> None:
        self._flush()
        left = deadline - time.monotonic()
        if left <= 0:
            raise Ended(f"nothing came in time; {len(self.inbox)} messages before")
        self.sock.settimeout(left)
        try:
            data = self.sock.recv(1 << 18)
        except TimeoutError:
            raise Ended(f"nothing came in time; {len(self.inbox)} messages before") from None
        except OSError:
            data = b""
        self.heard += len(data)
        if data:
            self.connection.receive_data(data)
        else:
            self.at_end = True
            self.connection.receive_eof()
        for event in self.connection.events():
            if isinstance(event, MessagesReceived):
                self.inbox += event.messages
            elif isinstance(event, ConnectionFailed):
                self.failure = event


def question(
    request_id: bytes,
    domain: bytes,
    mechanism: bytes,
    credentials: Iterable[bytes] = (),
    *,
    address: bytes = b"127.0.0.1",
    envelope: Sequence[bytes] = (b"",),
) -> Message:
    """A ZAP request behind its envelope (RFC 27)."""
    return [*envelope, b"1.0", request_id, domain, address, b"", mechanism, *credentials]


def wait_for(condition: Callable[[], bool], within: float = PATIENCE) -> bool:
    """Whether the condition comes true in time."""
    deadline = time.monotonic() + within
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
