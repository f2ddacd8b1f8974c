"""A connection's socket, and many sockets watched together.

The loop's own transports are made for few and long-lived connections: a task, a future and a handle of libuv for
each newcomer cost more than a whole NULL handshake, and whoever floods a listener makes us pay it. So connections
that we accept are carried here: a `Watch` is one epoll for many sockets, itself watched by the loop, and a
`SocketTransport` reads and writes at once, with no object made for an event. To its protocol it is an
`asyncio.Transport` like any other.

Epoll is asked for a bounded number of events a turn. What is left over waits in the kernel, first come first
served, and nothing of it is read meanwhile; so a watch's bound is also a pace (R2).
"""

from __future__ import annotations

import asyncio
import select
import socket
from typing import Any, Final

READ_SIZE: Final = 256 * 1024
"""Octets of one read."""
MOST: Final = 64
"""Sockets served in one turn of the loop."""
_IN: Final = select.EPOLLIN
_OUT: Final = select.EPOLLOUT
_READABLE: Final = select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR
_WRITABLE: Final = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
_HIGH: Final = 64 * 1024


class Watch:
    """Sockets that are watched together. Who made it has `serve` called whenever its epoll is readable."""

    def __init__(self, read_size: int = READ_SIZE) -> None:
        self._epoll = select.epoll()
        self._carried: dict[int, SocketTransport] = {}
        self._buffer = bytearray(read_size)
        self._window = memoryview(self._buffer)

    def fileno(self) -> int:
        """Of the epoll, to be watched itself."""
        return self._epoll.fileno()

    def close(self) -> None:
        """Watch no more. Twice does no harm."""
        self._epoll.close()
        self._carried.clear()

    def waiting(self) -> int:
        """How many have something for us now."""
        return len(self._epoll.poll(0, max(1, len(self._carried))))

    def serve(self, most: int = MOST) -> int:
        """Serve those who have something for us, the longest waiting first, at most so many; how many it were."""
        found = self._epoll.poll(0, most)
        carried = self._carried
        for descriptor, events in found:
            transport = carried.get(descriptor)
            if transport is None:  # one served before it has closed it
                continue
            try:
                transport.serve(events, self._buffer, self._window)
            except Exception as error:  # noqa: BLE001 - one connection's bug is not the others'
                transport.fail(error)
        return len(found)

    # For `SocketTransport`

    def begin(self, descriptor: int, transport: SocketTransport, mask: int) -> None:
        self._epoll.register(descriptor, mask)
        self._carried[descriptor] = transport

    def change(self, descriptor: int, mask: int) -> None:
        self._epoll.modify(descriptor, mask)

    def end(self, descriptor: int) -> None:
        if self._carried.pop(descriptor, None) is not None:  # else the watch was closed before its sockets
            self._epoll.unregister(descriptor)


class SocketTransport(asyncio.Transport):
    """One connected, non-blocking socket that is the transport's own from now on, reading from the start."""

    __slots__ = (
        "_closing",
        "_descriptor",
        "_eof",
        "_full",
        "_high",
        "_loop",
        "_mask",
        "_protocol",
        "_sock",
        "_unsent",
        "_wanted",
        "_watch",
    )

    def __init__(
        self, sock: socket.socket, protocol: asyncio.Protocol, watch: Watch, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Calls ``protocol.connection_made`` before it returns."""
        super().__init__()
        self._sock = sock
        self._descriptor = sock.fileno()
        self._protocol = protocol
        self._watch = watch
        self._loop = loop
        self._wanted = _IN
        """What is waited for."""
        self._mask = 0
        """What epoll was told; 0: not watched."""
        self._unsent = bytearray()
        self._high = _HIGH
        self._full = False
        self._eof = False
        self._closing = False
        protocol.connection_made(self)
        self._tell()

    def __repr__(self) -> str:
        return f"<SocketTransport {self._descriptor}{' closing' if self._closing else ''}>"

    # What `asyncio.Transport` promises, as far as it is used here

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """``socket``, or ``peername``."""
        match name:
            case "socket":
                return self._sock
            case "peername":
                return self._sock.getpeername()
            case _:
                return default

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return bool(self._wanted & _IN)

    def pause_reading(self) -> None:
        self._wanted &= ~_IN
        self._tell()

    def resume_reading(self) -> None:
        if not self._closing:
            self._wanted |= _IN
            self._tell()

    def get_write_buffer_size(self) -> int:
        return len(self._unsent)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """``low`` is taken to be 0: whoever was too slow has to catch up."""
        self._high = _HIGH if high is None else high

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send what the system takes now; the rest follows as it takes more. Nothing after the end."""
        if self._closing or self._eof:
            return
        if not self._unsent:
            try:
                sent = self._sock.send(data)
            except (BlockingIOError, InterruptedError):
                sent = 0
            except OSError as error:
                self._lose(error)
                return
            if sent == len(data):
                return
            data = memoryview(data)[sent:]
        self._unsent += data
        self._wanted |= _OUT
        self._tell()
        if not self._full and len(self._unsent) > self._high:
            self._full = True
            self._protocol.pause_writing()

    def write_eof(self) -> None:
        """Nothing more will be written; the peer is told when it has all that was."""
        if self._closing or self._eof:
            return
        self._eof = True
        if not self._unsent:
            self._shut()

    def can_write_eof(self) -> bool:
        return True

    def close(self) -> None:
        """Read no more, send what is unsent, and end."""
        if self._closing:
            return
        self._closing = True
        self._wanted &= ~_IN
        if self._unsent:
            self._tell()
        else:
            self._end(None)

    def abort(self) -> None:
        """End at once; what is unsent is lost."""
        self._lose(None)

    # For those who watch

    def move_to(self, watch: Watch) -> None:
        """Be watched there from now on."""
        if watch is self._watch:
            return
        if self._mask:
            self._watch.end(self._descriptor)
            self._mask = 0
        self._watch = watch
        if self._sock.fileno() >= 0:
            self._tell()

    def serve(self, events: int, buffer: bytearray, window: memoryview) -> None:
        """Something happened; ``buffer``, and the ``window`` on it, is lent for a read."""
        if events & _READABLE and self._wanted & _IN:
            try:
                size = self._sock.recv_into(buffer)
            except (BlockingIOError, InterruptedError):
                pass
            except OSError as error:
                self._lose(error)
                return
            else:
                if size:
                    self._protocol.data_received(window[:size].tobytes())
                elif not self._protocol.eof_received():
                    self.close()
        if events & _WRITABLE and self._unsent:
            self._send_rest()

    def fail(self, error: Exception) -> None:
        """The protocol broke: its connection ends, and the loop is told why."""
        self._loop.call_exception_handler(
            {"message": "a connection's protocol failed", "exception": error, "transport": self}
        )
        self._lose(error)

    # Inside

    def _send_rest(self) -> None:
        unsent = self._unsent
        try:
            sent = self._sock.send(unsent)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            self._lose(error)
            return
        del unsent[:sent]
        if unsent:
            return
        self._wanted &= ~_OUT
        if self._closing:
            self._end(None)
            return
        self._tell()
        if self._eof:
            self._shut()
        if self._full:
            self._full = False
            self._protocol.resume_writing()

    def _shut(self) -> None:
        try:
            self._sock.shutdown(socket.SHUT_WR)
        except OSError as error:  # the peer is gone already
            self._lose(error)

    def _tell(self) -> None:
        """Have epoll know what is waited for. A socket that nothing is waited for is not watched at all, since
        epoll tells of a peer that hung up whether it was asked or not."""
        wanted = self._wanted
        if wanted == self._mask:
            return
        if not self._mask:
            self._watch.begin(self._descriptor, self, wanted)
        elif wanted:
            self._watch.change(self._descriptor, wanted)
        else:
            self._watch.end(self._descriptor)
        self._mask = wanted

    def _lose(self, error: Exception | None) -> None:
        if self._sock.fileno() >= 0:
            self._end(error)

    def _end(self, error: Exception | None) -> None:
        self._closing = True
        self._wanted = 0
        self._tell()
        self._unsent.clear()
        self._sock.close()
        # Not within the call that ended it: the protocol may be in the middle of something.
        self._loop.call_soon(self._protocol.connection_lost, error)
