"""Connections under CURVE: two of ours joined in memory, and one of ours at a blocking socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from support.curve_dialogue import make_client, make_server

from zapd.zmtp.connection import Connection
from zapd.zmtp.credentials import CurveCredentials
from zapd.zmtp.events import (
    AuthenticationRequired,
    ConnectionFailed,
    Event,
    HandshakeCompleted,
    MessagesReceived,
)
from zapd.zmtp.handshake import Mechanism
from zapd.zmtp.limits import DEFAULT_LIMITS, Limits

Some = TypeVar("Some")
Verdict = Callable[[CurveCredentials], int]


def yes(_: CurveCredentials) -> int:
    return 200


def decide(connection: Connection, event: Event, verdict: Verdict) -> None:
    """Answer a question of the engine's as ``verdict`` says."""
    if isinstance(event, AuthenticationRequired):
        assert isinstance(event.credentials, CurveCredentials)
        status = verdict(event.credentials)
        if status == 200:
            connection.accept()
        else:
            connection.reject(status)


@dataclass
class Joined:
    """A client and a server connection of ours, and all that happened to each."""

    client: Connection
    server: Connection
    verdict: Verdict = yes
    cut: int = 0
    """Deliver that many octets at a time; 0 is all at once."""
    client_events: list[Event] = field(default_factory=list)
    server_events: list[Event] = field(default_factory=list)

    @classmethod
    def new(
        cls,
        client: Mechanism | None = None,
        server: Mechanism | None = None,
        *,
        types: tuple[str, str] = ("DEALER", "ROUTER"),
        limits: Limits = DEFAULT_LIMITS,
        verdict: Verdict = yes,
        cut: int = 0,
    ) -> Joined:
        return cls(
            Connection(client or make_client(), types[0], limits=limits),
            Connection(server or make_server(), types[1], limits=limits),
            verdict,
            cut,
        )

    def pump(self) -> Joined:
        """Carry octets to and fro until nothing more happens."""
        while self.carry(self.client, self.server) | self.carry(self.server, self.client):
            pass
        return self

    def carry(self, source: Connection, target: Connection) -> bool:
        """What one has to say, to the other; whether there was anything."""
        data = source.data_to_send()
        step = self.cut or max(1, len(data))
        for at in range(0, len(data), step):
            target.receive_data(data[at : at + step])
        for connection, log in ((self.client, self.client_events), (self.server, self.server_events)):
            for event in connection.events():
                log.append(event)
                decide(connection, event, self.verdict)
            log.extend(connection.events())
        return bool(data)

    @property
    def ready(self) -> bool:
        return self.client.ready and self.server.ready


def only(kind: type[Some], events: Sequence[object]) -> list[Some]:
    """The events of one kind."""
    return [event for event in events if isinstance(event, kind)]


def messages(events: Sequence[Event]) -> list[list[bytes]]:
    """All messages received, in order."""
    return [message for event in only(MessagesReceived, events) for message in event.messages]


@dataclass
class Wire:
    """One connection of ours at a blocking socket, with a deadline for whatever it waits for."""

    connection: Connection
    socket: socket.socket
    verdict: Verdict = yes
    log: list[Event] = field(default_factory=list)
    ended: bool = False
    received: int = 0

    def until(self, done: Callable[[], bool], seconds: float = 10.0) -> None:
        """Carry octets until ``done()``; `AssertionError` with what happened when that takes too long."""
        deadline = time.monotonic() + seconds
        while True:
            for event in self.connection.events():
                self.log.append(event)
                decide(self.connection, event, self.verdict)
            if data := self.connection.data_to_send():
                self.socket.settimeout(seconds)
                try:
                    self.socket.sendall(data)
                except OSError:
                    self.ended = True
            if done():
                return
            if self.ended or time.monotonic() > deadline:
                raise AssertionError(f"it did not happen: {self.log}, ended={self.ended}")
            self.socket.settimeout(0.05)
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                continue
            except OSError:
                data = b""
            if data:
                self.received += len(data)
                self.connection.receive_data(data)
            else:
                self.ended = True
                self.connection.receive_eof()

    def flush(self) -> None:
        """Send what is queued."""
        self.until(lambda: True)

    def until_ready(self) -> HandshakeCompleted:
        """Through the handshake."""
        self.until(lambda: bool(self.happened(HandshakeCompleted)))
        return self.happened(HandshakeCompleted)[0]

    def until_failed(self, seconds: float = 10.0) -> ConnectionFailed:
        """To the bitter end."""
        self.until(lambda: bool(self.happened(ConnectionFailed)), seconds)
        return self.happened(ConnectionFailed)[0]

    def until_messages(self, count: int, seconds: float = 10.0) -> list[list[bytes]]:
        """So many messages."""
        self.until(lambda: len(messages(self.log)) >= count, seconds)
        return messages(self.log)

    def happened(self, kind: type[Some]) -> list[Some]:
        return only(kind, self.log)

    def close(self) -> None:
        self.socket.close()
