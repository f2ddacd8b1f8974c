"""The octets' road to a directory: TCP and TLS until a deadline, and what is said when it is barred.

A `Line` is a socket as an LDAP library sees it. Each wait on it ends at the asker's deadline, however slowly
octets trickle, and an answer has a bound in octets. Certificates and names are always checked, by Python's own
TLS. LDAP is not known here.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
from dataclasses import dataclass
from time import monotonic
from typing import Final

from zapd.errors import Unavailable

MAX_ANSWER: Final = 4 << 20
"""Octets that a server may send in answer to one request."""
MAX_TEXT: Final = 200
"""Characters of a server's own words that are shown."""
MAX_ADDRESSES: Final = 4
"""How many addresses of one name are tried."""


class Trouble(Unavailable):
    """A server cannot be asked, or says that it cannot answer. ``reason`` is a code for the journal."""

    def __init__(self, reason: str, text: str, *, stale: bool = False) -> None:
        super().__init__(text)
        self.reason = reason
        self.stale = stale
        """Whether a connection that was kept turned out to be dead, which says nothing of the server."""


class Doubt(Unavailable):
    """The servers answer, and what they say of one entry is not clear."""

    def __init__(self, reason: str, text: str, dn: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.dn = dn


@dataclass(frozen=True, slots=True)
class Place:
    """Where a server is, and how it is spoken to."""

    host: str
    port: int
    tls: bool = False
    """From the first octet (ldaps)."""
    start_tls: bool = False

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'ldaps' if self.tls else 'ldap'}://{host}:{self.port}"


class Line:
    """A socket as ldap3 sees it, with a deadline for all that one request takes, and a bound on the answer."""

    def __init__(self, raw: socket.socket, until: float) -> None:
        self._socket = raw
        self.ended = False
        """Whether the other side is gone."""
        self.start(until)

    def start(self, until: float) -> None:
        self._until = until
        self._room = MAX_ANSWER

    def secure(self, place: Place, tls: ssl.SSLContext) -> None:
        """TLS from here on, certificate and name checked. Raises `Trouble`."""
        try:
            self._wait()
            self._socket = tls.wrap_socket(self._socket, server_hostname=place.host)
        except ssl.SSLCertVerificationError as error:
            text = f"{place}: its certificate is refused: {error.verify_message}"
            raise Trouble("tls_failed", text) from None
        except TimeoutError:
            raise Trouble("directory_late", f"{place} does not finish the TLS handshake in time") from None
        except (OSError, ValueError) as error:
            raise Trouble("tls_failed", f"{place}: no TLS: {words(error)}") from None

    def recv(self, size: int) -> bytes:
        self._wait()
        try:
            data = self._socket.recv(size)
        except ConnectionError:
            self.ended = True
            raise
        self.ended = not data
        self._room -= len(data)
        if self._room < 0:
            raise OSError(f"an answer of more than {MAX_ANSWER >> 20} MiB")
        if not data:
            raise ConnectionResetError("closed by the server")
        return data

    def sendall(self, data: bytes) -> None:
        self._wait()
        try:
            self._socket.sendall(data)
        except ConnectionError:
            self.ended = True
            raise

    def quiet(self) -> bool:
        try:
            poller = select.poll()  # select knows no descriptor beyond 1023
            poller.register(self._socket, select.POLLIN)
            return not poller.poll(0)
        except (OSError, ValueError):  # closed
            return False

    def shutdown(self, how: int) -> None:
        self._socket.shutdown(how)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()

    def _wait(self) -> None:
        """Let the next call take what is left of the time."""
        left = self._until - monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(left)


def connect(place: Place, until: float) -> socket.socket:
    """A connected socket to one of the place's addresses."""
    trouble = "it has no address"
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)[:MAX_ADDRESSES]
    except (OSError, UnicodeError) as error:
        raise Trouble("directory_down", f"{place}: {words(error)}") from None
    for number, (family, kind, protocol, _, address) in enumerate(found):
        left = until - monotonic()
        if left <= 0:
            raise Trouble("directory_late", f"{place} cannot be reached in time")
        made = socket.socket(family, kind, protocol)
        try:
            made.settimeout(left / (len(found) - number))
            made.connect(address)
            # Without it Nagle and delayed acknowledgements cost 40 ms a bind.
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError as error:
            made.close()
            trouble = words(error)
        else:
            return made
    raise Trouble("directory_down", f"{place} cannot be reached: {trouble}")


def words(error: BaseException) -> str:
    """What an error says, fit to be shown."""
    strerror = getattr(error, "strerror", None)
    return shown(str(strerror or error) or type(error).__name__)


def shown(text: str) -> str:
    """A stranger's words: on one line, printable, not too long."""
    text = "".join(each if each.isprintable() else " " for each in text)
    return text if len(text) <= MAX_TEXT else text[:MAX_TEXT] + "…"
