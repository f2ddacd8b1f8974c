"""Opening the sockets to listen on, with every check made before anybody can connect.

An ipc socket is born without permissions, gets its owner and mode, and only then listens. What stands at its path
already is removed only when it is a socket, not a link, that nobody answers at (R12b). What goes wrong is a
`ZapdError` that says the mend.
"""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
from pathlib import Path

from zapd.errors import Conflict, InvalidInput, Unavailable, ZapdError
from zapd.net.address import IpcAddress, TcpAddress


def listen_tcp(address: TcpAddress, backlog: int, *, reuse_port: bool = False) -> tuple[socket.socket, TcpAddress]:
    """A listening, non-blocking socket, and where it listens: the port that the kernel chose when it was 0.

    ``*`` takes IPv6 and IPv4 on one socket where there is IPv6, and IPv4 alone elsewhere; ``[::]`` is IPv6 alone.
    """
    family, host, both = _where(address)
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if both else 1)
        # Accepted sockets inherit these two from it.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.bind((host, address.port))
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        raise _explain(error, str(address)) from error
    return sock, TcpAddress(address.host, sock.getsockname()[1])


def _where(address: TcpAddress) -> tuple[socket.AddressFamily, str, bool]:
    """Family, host and whether one socket serves both families."""
    if address.host == "*":
        if socket.has_dualstack_ipv6():
            return socket.AF_INET6, "::", True
        return socket.AF_INET, "0.0.0.0", False
    if address.host.lower().rstrip(".") == "localhost":
        return socket.AF_INET, "127.0.0.1", False
    if address.ip is None:
        raise InvalidInput(f"{address}: listen on a numeric address, localhost or *, not on a name")
    return (socket.AF_INET6 if ":" in address.host else socket.AF_INET), address.host, False


def listen_ipc(
    address: IpcAddress, backlog: int, mode: int = 0o600, group: str | int | None = None
) -> socket.socket:
    """A listening, non-blocking unix socket with ``mode`` and ``group``. `close_ipc` removes it again."""
    gid = _group_id(group)
    path = address.path
    _check_directory(path)
    _clear_the_way(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    bound = False
    try:
        os.fchmod(sock.fileno(), 0)  # Linux gives the file the socket's own mode: nobody's, until it is settled
        sock.bind(str(path))
        bound = True
        if gid is not None:
            os.chown(path, -1, gid, follow_symlinks=False)
        path.chmod(mode)
        sock.listen(backlog)
    except OSError as error:
        sock.close()
        if bound:
            path.unlink(missing_ok=True)
        raise _explain(error, str(address)) from error
    return sock


def file_identity(path: Path) -> tuple[int, int] | None:
    """Which file stands there, links not followed; None for none."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def remove_ipc(path: Path, identity: tuple[int, int] | None) -> None:
    """Remove our socket's file, unless another stands there by now."""
    if identity is not None and file_identity(path) == identity:
        with contextlib.suppress(OSError):
            path.unlink()


def _check_directory(path: Path) -> None:
    directory = path.parent
    try:
        status = directory.stat()
    except OSError as error:
        raise _explain(error, f"ipc://{path}") from error
    if not stat.S_ISDIR(status.st_mode):
        raise InvalidInput(f"ipc://{path}: {directory} is not a directory")
    if status.st_mode & stat.S_IWOTH:
        raise InvalidInput(
            f"ipc://{path}: everybody may write in {directory} and put a socket of his own there; "
            f"use a directory of the service's own (chmod 0750)"
        )
    if status.st_uid not in (0, os.geteuid()):
        raise InvalidInput(f"ipc://{path}: {directory} belongs to another user (uid {status.st_uid})")


def _clear_the_way(path: Path) -> None:
    """Remove a dead socket; refuse everything else that is in the way."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    except OSError as error:
        raise _explain(error, f"ipc://{path}") from error
    if stat.S_ISLNK(status.st_mode):
        raise InvalidInput(f"ipc://{path}: the path is a link; name the place itself")
    if not stat.S_ISSOCK(status.st_mode):
        raise Conflict(f"ipc://{path}: a file that is no socket is in the way; move it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        failure = probe.connect_ex(str(path))
    if failure == errno.ENOENT:
        return
    if failure != errno.ECONNREFUSED:  # connected, or its queue is full, or we may not even ask
        raise Conflict(f"ipc://{path}: another process listens there; stop it or choose another path")
    remove_ipc(path, (status.st_dev, status.st_ino))


def _group_id(group: str | int | None) -> int | None:
    if group is None or isinstance(group, int):
        return group
    try:
        return grp.getgrnam(group).gr_gid
    except KeyError:
        raise InvalidInput(f"there is no group {group!r} on this machine") from None


def _explain(error: OSError, address: str) -> ZapdError:
    match error.errno:
        case errno.EADDRINUSE:
            return Conflict(f"{address} is in use by another process; stop it or choose another address")
        case errno.EADDRNOTAVAIL:
            return InvalidInput(f"{address}: this machine has no such address")
        case errno.EACCES | errno.EPERM:
            return Unavailable(f"{address}: no permission to listen there, or to give it that group")
        case errno.ENOENT:
            return InvalidInput(f"{address}: the directory does not exist; make it first")
        case _:
            return Unavailable(f"{address}: {os.strerror(error.errno or 0)}")
