"""Connections that never finish their handshake, at every stage of it, with each octet counted."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterable

from support.hostile_wire import dial

from zapd.zmtp.connection import Connection
from zapd.zmtp.greeting import GREETING_SIZE, encode_greeting
from zapd.zmtp.mechanisms.curve import CurveClient

STAGES = ("silent", "half a greeting", "a greeting", "half a HELLO", "a HELLO", "a false INITIATE")


def opening(mechanism: CurveClient) -> bytes:
    """A valid greeting and HELLO for this server, as octets."""
    connection = Connection(mechanism, "DEALER")
    first = connection.data_to_send()
    connection.receive_data(encode_greeting("CURVE", as_server=True))
    return first + connection.data_to_send()


class HalfOpen:
    """One of them. What it received and sent stands in ``heard`` and ``said``."""

    def __init__(self, endpoint: str, stage: str, octets: bytes, source: str) -> None:
        """``octets``: what `opening` made."""
        self.said = self.heard = 0
        self.gone = False
        self.stage = stage
        self.rest = b""
        self.sock = dial(endpoint, source)
        self.sock.setblocking(False)
        cut = {
            "silent": 0,
            "half a greeting": 11,
            "a greeting": GREETING_SIZE,
            "half a HELLO": GREETING_SIZE + 100,
        }.get(stage, len(octets))
        self.say(octets[:cut])
        self.rest = octets[cut:]
        if stage == "a false INITIATE":
            self.say(b"\x06" + (292).to_bytes(8, "big") + b"\x08INITIATE" + bytes(283))

    def say(self, octets: bytes) -> None:
        """Send; a connection that zapd closed is only noted."""
        if not octets or self.gone:
            return
        try:
            self.said += self.sock.send(octets)
        except BlockingIOError:
            pass
        except OSError:
            self.gone = True

    def trickle(self) -> None:
        """One octet more of what comes next."""
        self.say(self.rest[:1])
        self.rest = self.rest[1:]

    def hear(self) -> None:
        """Read what is there."""
        try:
            while not self.gone and (data := self.sock.recv(4096)):
                self.heard += len(data)
            self.gone = True
        except BlockingIOError:
            pass
        except OSError:
            self.gone = True

    def close(self) -> None:
        self.sock.close()


def hear_all(many: Iterable[HalfOpen], seconds: float = 0.0) -> None:
    """Read from all that have something to say."""
    poller = select.poll()
    by_descriptor = {each.sock.fileno(): each for each in many if not each.gone}
    for descriptor in by_descriptor:
        poller.register(descriptor, select.POLLIN)
    for descriptor, _event in poller.poll(seconds * 1000):
        by_descriptor[descriptor].hear()


def knock(endpoint: str, octets: bytes, source: str) -> tuple[int, int]:
    """A whole HELLO as fast as can be, and away: (octets said, octets heard)."""
    with dial(endpoint, source) as sock:
        sock.settimeout(2.0)
        heard = 0
        try:
            sock.sendall(octets)
            while heard < GREETING_SIZE + 170 and (data := sock.recv(4096)):
                heard += len(data)
        except (TimeoutError, ConnectionError):
            pass
        with_reset(sock)
    return len(octets), heard


def with_reset(sock: socket.socket) -> None:
    """Let its closing leave no TIME_WAIT behind: a flood would run out of ports before zapd of anything."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
