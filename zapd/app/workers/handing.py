"""Connections handed from the parent, which accepted them, to a worker: descriptors over a unix socket (unix(7),
``SCM_RIGHTS``), each with two octets that say by which ``[[zap]]`` it came.

The kernel keeps whom it is from: the address of a tcp peer and the uid of an ipc peer are read in the worker.
"""

from __future__ import annotations

import socket
import struct

_ENDPOINT = struct.Struct("!H")


def hand_over(channel: socket.socket, endpoint: int, connection: socket.socket) -> bool:
    """Hand ``connection`` over; ours is still to be closed. False when the worker is gone, or too many wait."""
    try:
        socket.send_fds(channel, [_ENDPOINT.pack(endpoint)], [connection.fileno()])
    except OSError:
        return False
    return True


def take(channel: socket.socket) -> tuple[int, socket.socket | None] | None:
    """(number of the ``[[zap]]``, connection), or None at the end. The connection is None when this process has no
    descriptor left for it: then the kernel has closed it. Raises `BlockingIOError` while there is none."""
    octets, descriptors, _, _ = socket.recv_fds(channel, _ENDPOINT.size, 1)
    if len(octets) < _ENDPOINT.size:
        return None
    (endpoint,) = _ENDPOINT.unpack(octets)
    if not descriptors:
        return endpoint, None
    connection = socket.socket(fileno=descriptors[0])
    connection.set_inheritable(False)  # Python's recv_fds passes no flags on, MSG_CMSG_CLOEXEC among them
    connection.setblocking(False)
    return endpoint, connection
