"""Two engines wired together without a network, and a toy mechanism with a toy cipher."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from zapd.zmtp.commands import command, expect
from zapd.zmtp.connection import Connection
from zapd.zmtp.credentials import NullCredentials
from zapd.zmtp.events import Event, MessagesReceived
from zapd.zmtp.handshake import RECEIVE, Ask, Handshake, PeerError, Send, Session
from zapd.zmtp.mechanisms.null import NullClient
from zapd.zmtp.state import State


@dataclass
class Pair:
    """A client and a server engine; what happened to each is kept in order."""

    client: Connection
    server: Connection

    def __post_init__(self) -> None:
        self.client_events: list[Event] = []
        self.server_events: list[Event] = []
        self.to_server = b""
        self.to_client = b""

    def pump(self, *, piece: int = 0) -> None:
        """Carry octets both ways until both are silent; ``piece`` cuts them small."""
        while True:
            to_server, to_client = self.client.data_to_send(), self.server.data_to_send()
            self.to_server += to_server
            self.to_client += to_client
            feed(self.server, to_server, piece)
            feed(self.client, to_client, piece)
            self.client_events += self.client.events()
            self.server_events += self.server.events()
            if not to_server and not to_client:
                return

    def handshake(self, *, verdict: int = 200, piece: int = 0) -> Pair:
        """Run the handshake to its end, answering every question with ``verdict``."""
        self.pump(piece=piece)
        while self.server.state is State.VERDICT:
            if verdict == 200:
                self.server.accept()
            else:
                self.server.reject(verdict)
            self.pump(piece=piece)
        return self


def feed(connection: Connection, data: bytes, piece: int = 0) -> None:
    """Hand octets over whole, or in pieces."""
    if piece:
        for start in range(0, len(data), piece):
            connection.receive_data(data[start : start + piece])
    elif data:
        connection.receive_data(data)


def null_pair(ours: str = "ROUTER", theirs: str = "DEALER") -> Pair:
    """Two engines past a NULL handshake, their events forgotten."""
    pair = Pair(Connection(NullClient(), theirs), Connection(NullClient(), ours)).handshake()
    pair.client_events.clear()
    pair.server_events.clear()
    return pair


def messages_of(happened: Iterable[Event]) -> list[list[bytes]]:
    """All messages among the events."""
    return [message for event in happened if isinstance(event, MessagesReceived) for message in event.messages]


def merged(happened: Iterable[Event]) -> list[Event]:
    """Events with neighbouring batches made one: how octets were cut decides only where batches end."""
    result: list[Event] = []
    for event in happened:
        if isinstance(event, MessagesReceived) and result and isinstance(result[-1], MessagesReceived):
            result[-1] = MessagesReceived([*result[-1].messages, *event.messages])
        else:
            result.append(event)
    return result


class ToyCipher:
    """Turns every octet over and counts boxes, so that a lost or doubled one is seen."""

    def __init__(self) -> None:
        self.sealed = 0
        self.opened = 0

    def seal(self, flags: int, payload: bytes) -> bytes:
        self.sealed += 1
        return b"TOY" + (self.sealed % 256).to_bytes(1, "big") + bytes(0xFF - o for o in bytes((flags,)) + payload)

    def open(self, body: bytes) -> tuple[int, bytes]:
        self.opened += 1
        if len(body) < 5 or body[:3] != b"TOY" or body[3] != self.opened % 256:
            raise PeerError("bad box")
        clear = bytes(0xFF - octet for octet in body[4:])
        return clear[0], clear[1:]


class ToyServer:
    """A third party's mechanism: a knock, a verdict, metadata, and a cipher afterwards."""

    name = "TOY"
    as_server = True

    def handshake(self, metadata: bytes) -> Handshake:
        knock = yield RECEIVE
        theirs = expect(knock or b"", b"KNOCK")
        yield Ask(NullCredentials())
        yield Send(command(b"ENTER", metadata))
        return Session(theirs, ToyCipher())


class ToyClient:
    """The other side of it."""

    name = "TOY"
    as_server = False

    def handshake(self, metadata: bytes) -> Handshake:
        yield Send(command(b"KNOCK", metadata))
        enter = yield RECEIVE
        return Session(expect(enter or b"", b"ENTER"), ToyCipher())


def toy_pair(ours: str = "ROUTER", theirs: str = "DEALER", **settings: object) -> Pair:
    """Two engines past the toy handshake, their events forgotten."""
    pair = Pair(
        Connection(ToyClient(), theirs, **settings),  # type: ignore[arg-type]
        Connection(ToyServer(), ours, **settings),  # type: ignore[arg-type]
    ).handshake()
    pair.client_events.clear()
    pair.server_events.clear()
    return pair
