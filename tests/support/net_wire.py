"""Peers made of octets alone, for tests of the network: they do what no library would."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import Callable, Sequence

from zapd.net.address import Address, IpcAddress


def greeting(mechanism: bytes = b"NULL") -> bytes:
    """The 64 octets of a ZMTP 3.1 peer."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x01" + mechanism.ljust(20, b"\0") + bytes(32)


def frame(body: bytes, flags: int = 0) -> bytes:
    if len(body) > 255:
        return bytes([flags | 2]) + struct.pack(">Q", len(body)) + body
    return bytes([flags, len(body)]) + body


def message(*parts: bytes) -> bytes:
    return b"".join(frame(part, 1 if part_of_more else 0) for part, part_of_more in _with_more(parts))


def _with_more(parts: Sequence[bytes]) -> list[tuple[bytes, bool]]:
    return [(part, number < len(parts) - 1) for number, part in enumerate(parts)]


def command(name: bytes, data: bytes = b"") -> bytes:
    return frame(bytes([len(name)]) + name + data, 4)


def ready(socket_type: bytes = b"DEALER") -> bytes:
    return command(b"READY", b"\x0bSocket-Type" + struct.pack(">I", len(socket_type)) + socket_type)


class RawPeer:
    """A connection that says exactly what a test tells it to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, address: Address, source: str | None = None) -> RawPeer:
        if isinstance(address, IpcAddress):
            return cls(*await asyncio.open_unix_connection(str(address.path)))
        local = None if source is None else (source, 0)
        return cls(*await asyncio.open_connection(address.host, address.port, local_addr=local))

    @classmethod
    async def admitted(cls, address: Address, source: str | None = None) -> RawPeer:
        """One that has gone through NULL's handshake."""
        peer = await cls.connect(address, source)
        peer.writer.write(greeting() + ready())
        await peer.read_greeting()
        await peer.read_frame()
        return peer

    async def read_greeting(self) -> bytes:
        return await self.reader.readexactly(64)

    async def read_frame(self) -> tuple[int, bytes]:
        """(flags, body)"""
        flags, size = await self.reader.readexactly(2)
        if flags & 2:
            rest = await self.reader.readexactly(7)
            (size,) = struct.unpack(">Q", bytes([size]) + rest)
        return flags & ~2, await self.reader.readexactly(size)

    async def read_message(self) -> list[bytes]:
        parts = []
        while True:
            flags, body = await self.read_frame()
            parts.append(body)
            if not flags & 1:
                return parts

    def say(self, data: bytes) -> None:
        self.writer.write(data)

    async def is_closed(self, within: float = 5.0) -> bool:
        """Whether the other side closes or resets within so many seconds, whatever it says before."""
        try:
            async with asyncio.timeout(within):
                with contextlib.suppress(ConnectionError):
                    while await self.reader.read(65536):
                        pass
        except TimeoutError:
            return False
        return True

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def until(condition: Callable[[], object], within: float = 10.0) -> None:
    """Wait for a condition; fail when it does not come."""
    async with asyncio.timeout(within):
        while not condition():
            await asyncio.sleep(0.005)
