"""Endpoints as people write them: ``tcp://host:port`` and ``ipc://path``.

Parsing and judging only: nothing here resolves a name or opens a socket. `zap_address` and `credential_address`
say how a peer's address stands in a ZAP request, exactly as libzmq writes it (RFC 27, "The address").
"""

from __future__ import annotations

import ipaddress
import re
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from zapd.errors import InvalidInput

LONGEST_IPC_PATH = 107
"""Octets of a unix socket's path that Linux takes (``sun_path`` less its final NUL)."""

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_CREDENTIALS = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host and a port. ``host`` is ``*`` (every interface), a numeric address without brackets, or a name."""

    host: str
    port: int
    """0 lets the kernel choose; only for listening."""

    @property
    def is_public(self) -> bool:
        """Others than this machine can reach it: everything but loopback."""
        if self.host.lower().rstrip(".") == "localhost":  # RFC 6761 section 6.3
            return False
        ip = self.ip
        return ip is None or not ip.is_loopback

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        """The numeric address, an IPv4 address in IPv6 clothes unwrapped; None for ``*`` and for names."""
        try:
            ip = ipaddress.ip_address(self.host)
        except ValueError:
            return None
        if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
            return ip.ipv4_mapped
        return ip

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"tcp://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class IpcAddress:
    """A unix socket in the file system."""

    path: Path

    @property
    def is_public(self) -> bool:
        """Never: only this machine can reach it."""
        return False

    def __str__(self) -> str:
        return f"ipc://{self.path}"


Address = TcpAddress | IpcAddress


def parse_address(text: str, base: Path | None = None) -> Address:
    """Read an endpoint; a relative ipc path starts at ``base`` (the working directory where there is none).

    Raises `InvalidInput` that names the rule and the mend.
    """
    if not text.isprintable() or text != text.strip():
        raise InvalidInput(f"endpoint {text!r}: remove spaces and control characters around or inside it")
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "tcp":
        return _parse_tcp(text, rest)
    if separator and scheme == "ipc":
        return _parse_ipc(text, rest, base)
    raise InvalidInput(f"endpoint {text!r}: write tcp://host:port or ipc://path")


def _parse_tcp(text: str, rest: str) -> TcpAddress:
    host, colon, digits = rest.rpartition(":")
    if not colon or not host or (":" in host and not host.startswith("[")):
        raise InvalidInput(f"endpoint {text!r}: write tcp://host:port, an IPv6 host in brackets: tcp://[::1]:9027")
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 5 or int(digits) > 65535:
        raise InvalidInput(f"endpoint {text!r}: the port is a number from 0 to 65535")
    return TcpAddress(_parse_host(text, host), int(digits))


def _parse_host(text: str, host: str) -> str:
    if host == "*":
        return host
    if host.startswith("["):
        try:
            if not host.endswith("]"):
                raise ValueError
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise InvalidInput(f"endpoint {text!r}: {host} is not an IPv6 address in brackets") from None
    if re.fullmatch(r"[0-9.]+", host):  # never left to a resolver, which reads 127.1 and 010.0.0.1 its own way
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise InvalidInput(f"endpoint {text!r}: {host} is not an IPv4 address of four numbers") from None
    if len(host) > 253 or not _HOST_NAME.fullmatch(host):
        raise InvalidInput(f"endpoint {text!r}: {host} is neither a host name, an address nor *")
    return host


def _parse_ipc(text: str, rest: str, base: Path | None) -> IpcAddress:
    if not rest:
        raise InvalidInput(f"endpoint {text!r}: name the socket's path: ipc:///run/zapd/zap.sock")
    if rest == "*" or rest.startswith("@"):
        # Anybody may take an abstract name, and no file permission guards it.
        raise InvalidInput(f"endpoint {text!r}: abstract and made-up names are not supported; name a path")
    path = Path(rest) if base is None else base / rest
    if rest.endswith("/") or path.name in ("", ".", ".."):
        raise InvalidInput(f"endpoint {text!r}: the path names a directory; name a file in it")
    if len(str(path).encode()) > LONGEST_IPC_PATH:
        raise InvalidInput(
            f"endpoint {text!r}: {path} is longer than the {LONGEST_IPC_PATH} octets a socket may have"
        )
    return IpcAddress(path)


def zap_address(host: str) -> str:
    """A TCP peer's numeric address as ZAP writes it: no port, no scope (``fe80::1%eth0`` is ``fe80::1``)."""
    return host.partition("%")[0]


def credential_address(uid: int, gid: int, pid: int) -> str:
    """An ipc peer as libzmq writes it on Linux."""
    return f"localhost:{uid}:{gid}:{pid}"


def peer_credentials(sock: socket.socket) -> tuple[int, int, int]:
    """(uid, gid, pid) of the process at the other end of a unix socket, as the kernel saw it connect."""
    pid, uid, gid = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return uid, gid, pid
