"""The listeners, where connections are accepted for the workers: this process reads nothing from them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence

import structlog

from zapd.admin.services.topology import Endpoint
from zapd.app.listening import endpoints, lines, name_of
from zapd.config import Config
from zapd.config.curve_key import read_curve_pair
from zapd.config.sections import ZapSection
from zapd.net.address import Address, IpcAddress
from zapd.net.listener import REST, Listener
from zapd.net.sockets import listen_ipc, listen_tcp

log = structlog.get_logger(__name__)

Hand = Callable[[int, socket.socket], bool]
"""Hands a connection that came by this ``[[zap]]``, numbers from 0, to a worker; False when nobody can take it."""


class Entrances:
    """Each ``[[zap]]`` of the configuration."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._hand: Hand = lambda _number, _connection: False
        self._listeners: list[Listener] = []
        self._public_key: bytes | None = None
        self.server_key = b""
        """The server's CURVE secret; empty where no endpoint needs it."""

    async def open(self) -> None:
        """Take every place: whoever comes waits in the kernel's queue. Raises `ZapdError` that says the mend."""
        config = self._config
        if any(section.mechanism == "CURVE" for section in config.zap):
            self._public_key, self.server_key = await asyncio.to_thread(read_curve_pair, config.curve_key_file)
        backlog = config.limits.backlog
        for number, (section, address) in enumerate(zip(config.zap, config.addresses(), strict=True)):
            bound: Address
            if isinstance(address, IpcAddress):
                bound, sock = address, listen_ipc(address, backlog, section.permissions, section.gid())
            else:
                sock, bound = listen_tcp(address, backlog)
            listener = Listener(
                sock,
                bound,
                asyncio.get_running_loop(),
                self._newcomer(number),
                _accept_failed,
                name=name_of(number + 1, section),
                batch=config.limits.accept_batch,
            )
            listener.pause()
            self._listeners.append(listener)

    def accept(self, hand: Hand) -> None:
        """Hand everybody who comes to ``hand``."""
        self._hand = hand
        for listener in self._listeners:
            listener.resume()

    def pause(self) -> None:
        """Leave newcomers in the kernel's queue: there is nobody to hand them to."""
        for listener in self._listeners:
            listener.pause()

    async def close(self) -> None:
        """Stop listening; socket files are removed."""
        for listener in self._listeners:
            listener.close()

    @property
    def listening(self) -> list[str]:
        """A line for each endpoint."""
        return lines(self._bound, self._public_key)

    def endpoints(self) -> Sequence[Endpoint]:
        """What an agent needs to connect."""
        return endpoints(self._bound, self._public_key)

    @property
    def _bound(self) -> list[tuple[Address, ZapSection]]:
        return [
            (listener.address, section)
            for listener, section in zip(self._listeners, self._config.zap, strict=True)
        ]

    def _newcomer(self, number: int) -> Callable[[Listener, socket.socket, object], bool]:
        def hand(listener: Listener, connection: socket.socket, _: object) -> bool:
            with connection:
                if not self._hand(number, connection):
                    listener.pause(REST)
            return True

        return hand


def _accept_failed(listener: Listener, no_descriptor: bool) -> None:
    if no_descriptor:
        log.warning("no descriptor is left to accept a connection with", listener=listener.name)
