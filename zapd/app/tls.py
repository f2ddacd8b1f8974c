"""TLS in front of HTTP, with bounds of our own on handshakes.

A server of asyncio's gives a handshake a minute and takes any number of them: strangers who connect and say
nothing would take all descriptors. Here a handshake has one short deadline, and a newcomer too many takes the
place of whoever has been at it longest. It knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import structlog

from zapd.errors import ConfigurationError
from zapd.net.address import TcpAddress
from zapd.net.listener import Listener

log = structlog.get_logger(__name__)

HANDSHAKE = 5.0
"""Seconds from a connection's first moment to the end of its handshake, and again for saying goodbye."""

HANDSHAKES = 256
"""Under way at one time."""


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """For TLS 1.2 and 1.3. Raises `ConfigurationError`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key)
    except (OSError, ssl.SSLError) as error:
        raise ConfigurationError(f"the TLS files cannot be used: {error}") from None
    return context


class TlsFront:
    """Accepts for a server of HTTP, which hears of a connection when its handshake is over."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext, make: Callable[[], asyncio.Protocol]) -> None:
        """``make`` gives what speaks inside."""
        self.context = context
        """May be replaced: new connections take the new one."""
        self._sock = sock
        self._make = make
        self._listener: Listener | None = None
        self._under_way: dict[asyncio.Task[None], socket.socket] = {}
        """In the order in which they came."""

    def start(self, backlog: int) -> None:
        """Accept."""
        self._sock.listen(backlog)
        self._sock.setblocking(False)
        host, port = self._sock.getsockname()[:2]
        loop = asyncio.get_running_loop()
        self._listener = Listener(
            self._sock, TcpAddress(host, port), loop, self._newcomer, _accept_failed, name="admin"
        )

    def close(self) -> None:
        """Accept nobody any more; handshakes that are under way end."""
        if self._listener is not None:
            self._listener.close()
        for shaking in list(self._under_way):
            self._end(shaking)

    def _newcomer(self, _listener: Listener, connection: socket.socket, _address: object) -> bool:
        if len(self._under_way) >= HANDSHAKES:
            self._end(next(iter(self._under_way)))
        shaking = asyncio.create_task(self._shake(connection), name="zapd-tls")
        self._under_way[shaking] = connection
        shaking.add_done_callback(lambda done: self._under_way.pop(done, None))
        return True

    def _end(self, shaking: asyncio.Task[None]) -> None:
        connection = self._under_way.pop(shaking)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)  # cancelling alone would say goodbye first, and wait
        shaking.cancel()

    async def _shake(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # a stranger's fault, and no news
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make,
                connection,
                ssl=self.context,
                ssl_handshake_timeout=HANDSHAKE,
                ssl_shutdown_timeout=HANDSHAKE,
            )


def _accept_failed(listener: Listener, no_descriptor: bool) -> None:
    if no_descriptor:
        log.warning("no descriptor is left to accept a connection with", listener=listener.name)
