"""NULL: no security at all (RFC 23, "The NULL Mechanism").

    both:  READY = 05 "READY" metadata

Symmetric on the wire. The two sides differ only in that `NullServer` asks its owner first, so that an address
may be refused (RFC 27 has NULL among its mechanisms); the peer sees nothing until then. READY goes out
without waiting for the peer's: two sides that waited would wait for ever.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from zapd.zmtp.commands import encode_ready, expect
from zapd.zmtp.credentials import NullCredentials
from zapd.zmtp.handshake import RECEIVE, Ask, Handshake, Send, Session


@dataclass(frozen=True, slots=True)
class NullServer:
    """The side that asks whether the peer may come in."""

    name: ClassVar[str] = "NULL"
    as_server: ClassVar[bool] = False
    """NULL has no sides (RFC 23)."""

    def handshake(self, metadata: bytes) -> Handshake:
        yield Ask(NullCredentials())
        return (yield from _exchange(metadata))


@dataclass(frozen=True, slots=True)
class NullClient:
    """The side that asks nobody: a client, or a listener open to all."""

    name: ClassVar[str] = "NULL"
    as_server: ClassVar[bool] = False

    def handshake(self, metadata: bytes) -> Handshake:
        return (yield from _exchange(metadata))


def _exchange(metadata: bytes) -> Handshake:
    yield Send(encode_ready(metadata))
    body = yield RECEIVE
    return Session(expect(body or b"", b"READY"))
