"""Where connections come in. A listening socket takes newcomers a few at a time, and rests when there is no
descriptor for them; an entrance takes those that another process has accepted.

Accepting is done here and not by the loop's own server, because that neither lets anybody be refused before
memory is spent on him nor says when descriptors run out (R1).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable

from zapd.net.address import Address, IpcAddress
from zapd.net.sockets import file_identity, remove_ipc

_NO_DESCRIPTOR = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
REST = 0.1
"""Seconds without accepting after the system had no descriptor left."""
_SENT_AWAY = 4
"""Newcomers that are sent away at once count one in so many: they cost little. Were they left in the kernel's
queue, that would overflow, and honest clients would wait a second for their next SYN."""


class Entrance:
    """A place by which connections come in that somebody else has accepted: a name, and nothing to stop."""

    def __init__(self, address: Address, name: str = "") -> None:
        self.address = address
        """Where it listens, with the real port."""
        self.name = name or str(address)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"

    def pause(self, seconds: float | None = None) -> None:
        """Whoever accepts is not ours to stop."""

    def close(self) -> None:
        """There is nothing to close."""


class Listener(Entrance):
    """Takes connections and hands each to ``newcomer(listener, socket, socket address)``, which says whether it
    came in or was sent away."""

    def __init__(
        self,
        sock: socket.socket,
        address: Address,
        loop: asyncio.AbstractEventLoop,
        newcomer: Callable[[Listener, socket.socket, object], bool],
        failed: Callable[[Listener, bool], None],
        *,
        name: str = "",
        batch: int = 16,
    ) -> None:
        """At most ``batch`` come in in one turn of the loop. ``failed`` is called when a newcomer could not be
        taken: with True for want of a descriptor, with False for another error of the system."""
        super().__init__(address, name)
        self._sock = sock
        self._loop = loop
        self._newcomer = newcomer
        self._failed = failed
        self._batch = batch
        self._accepting = False
        self._closed = False
        self._rest: asyncio.TimerHandle | None = None
        self._identity = file_identity(address.path) if isinstance(address, IpcAddress) else None
        self.resume()

    def resume(self) -> None:
        """Accept (again)."""
        if self._rest is not None:
            self._rest.cancel()
            self._rest = None
        if not self._accepting and not self._closed:
            self._accepting = True
            self._loop.add_reader(self._sock, self._acceptable)

    def pause(self, seconds: float | None = None) -> None:
        """Leave newcomers in the kernel's queue: until `resume`, or for so long."""
        if self._accepting:
            self._accepting = False
            self._loop.remove_reader(self._sock)
        if seconds is not None and self._rest is None and not self._closed:
            self._rest = self._loop.call_later(seconds, self._rested)

    def close(self) -> None:
        """Stop listening, and take the ipc file away."""
        self.pause()
        self._closed = True
        if self._rest is not None:
            self._rest.cancel()
        self._sock.close()
        if isinstance(self.address, IpcAddress):
            remove_ipc(self.address.path, self._identity)

    def _rested(self) -> None:
        self._rest = None
        self.resume()

    def _acceptable(self) -> None:
        left = self._batch * _SENT_AWAY
        while left > 0 and self._accepting:
            try:
                sock, sockaddr = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _NO_DESCRIPTOR:
                    self.pause(REST)
                    self._failed(self, True)
                    return
                self._failed(self, False)  # that newcomer went away, or was ill; the next may be well
                left -= _SENT_AWAY
                continue
            sock.setblocking(False)
            left -= _SENT_AWAY if self._newcomer(self, sock, sockaddr) else 1
