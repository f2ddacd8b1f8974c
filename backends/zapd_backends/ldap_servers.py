"""Several servers that know the same, and connections to them that are kept for the next question.

A question goes to the first server of the list that is not aside. A server that fails is put aside, longer each
time, and asked again by one question when its pause is over; while all are aside each question tries them all the
same, so that healing is noticed at once. What is asked over a connection is not known here.
"""

from __future__ import annotations

import ssl
import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from time import monotonic
from typing import Final, TypeVar

from zapd_backends.ldap_driver import SUCCESS, Link
from zapd_backends.ldap_line import Doubt, Place, Trouble

T = TypeVar("T")

FIRST_PAUSE: Final = 1.0
LAST_PAUSE: Final = 15.0
"""Seconds that a server is left aside after a failure, doubled each time."""
IDLE: Final = 60.0
"""Seconds after which a kept connection is not used again."""


class Role(Enum):
    """What a connection is for. Never mixed: a proof leaves its connection bound as whoever came."""

    SERVICE = "service"
    PROOF = "proof"


@dataclass(frozen=True, slots=True)
class Service:
    """The account that zapd searches with; without a name it searches as nobody."""

    dn: str = ""
    password: bytes = field(default=b"", repr=False)


class Authorities:
    """Whom certificates must come from: a file, read again when it changes, or those that the system trusts."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._seen: tuple[int, int, int] | None = None
        self._context: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """Checks certificate and name; TLS 1.2 at least. Raises `Trouble` when the file cannot be used."""
        with self._lock:
            try:
                seen = None
                if self._path is not None:
                    status = self._path.stat()
                    seen = (status.st_ino, status.st_size, status.st_mtime_ns)
                if self._context is None or seen != self._seen:
                    self._context, self._seen = ssl.create_default_context(cafile=self._path), seen
            except OSError as error:  # ssl.SSLError is one
                words = error.strerror or error
                raise Trouble("tls_failed", f"{self._path} cannot be used as tls_ca: {words}") from None
            return self._context


class Server:
    """One server, its kept connections, and how it fared."""

    def __init__(self, place: Place, authorities: Authorities) -> None:
        self.place = place
        self._authorities = authorities
        self._kept: dict[Role, deque[tuple[Link, float]]] = {role: deque() for role in Role}
        self._pause = 0.0
        self.aside_until = 0.0
        self.trouble = ""
        """What it met last, if it met trouble."""

    def take(self, role: Role, until: float) -> Link:
        """A connection: one that was kept and is still good, else a new one. Raises `Trouble`."""
        kept = self._kept[role]
        while True:
            try:
                link, since = kept.pop()  # the newest: what is too many grows old
            except IndexError:
                break
            if monotonic() - since < IDLE and link.alive():
                return link
            link.close()
        tls = self._authorities.context() if self.place.tls or self.place.start_tls else None
        return Link.open(self.place, tls, until)

    def keep(self, role: Role, link: Link) -> None:
        self._kept[role].append((link, monotonic()))

    def drop(self) -> None:
        """Close what is kept."""
        for kept in self._kept.values():
            while kept:
                kept.popleft()[0].close()

    def fared(self, trouble: str = "") -> None:
        self.trouble = trouble
        if not trouble:
            self._pause = self.aside_until = 0.0
            return
        self._pause = min(max(FIRST_PAUSE, self._pause * 2), LAST_PAUSE)
        self.aside_until = monotonic() + self._pause

    def claim(self, seconds: float) -> None:
        """Whoever asks it after a pause is alone with it for so long."""
        if self.aside_until:
            self.aside_until = monotonic() + seconds


class Session:
    """One server's connections while one question is asked. Made by `Servers.ask`."""

    def __init__(self, server: Server, service: Service, until: float) -> None:
        self._server = server
        self._service = service
        self._links: dict[Role, Link] = {}
        self.until = until
        """Monotonic seconds: the server's time for this question."""
        self.place = server.place

    def proof(self) -> Link:
        """The connection that binds as whoever came."""
        return self._link(Role.PROOF)

    def service(self) -> Link:
        """The connection that searches as the service. Raises `Trouble`, also when the server refuses it."""
        link = self._link(Role.SERVICE)
        if self._service.dn and link.bound_as != self._service.dn:
            result = link.bind(self._service.dn, self._service.password, self.until)
            if result.code != SUCCESS:
                text = f"{self.place} refuses bind_dn and bind_password: {result.told}"
                raise Trouble("service_bind_refused", text)
        return link

    def _link(self, role: Role) -> Link:
        if role not in self._links:
            self._links[role] = self._server.take(role, self.until)
        return self._links[role]

    def end(self, *, good: bool) -> None:
        """Keep the connections for others, or close them."""
        for role, link in self._links.items():
            if good:
                self._server.keep(role, link)
            else:
                link.close()
        self._links.clear()


class Servers:
    """All of them. Its methods may be called in several threads."""

    def __init__(
        self, places: Sequence[Place], authorities: Authorities, service: Service, seconds: float
    ) -> None:
        """``seconds`` is what a question may take, all servers together."""
        self._servers = [Server(place, authorities) for place in places]
        self._service = service
        self._seconds = seconds
        self._lock = threading.Lock()
        self._closed = False

    def ask(self, work: Callable[[Session], T]) -> T:
        """What ``work`` makes of the first server that can answer. It may be begun anew on another. Raises
        `Trouble`, and the `Doubt` of ``work``."""
        until = monotonic() + self._seconds
        trouble = Trouble("directory_down", "closed")
        for server, ready in self._order():
            now = monotonic()
            # A ready server that hangs leaves as much time to each ready one behind it.
            try:
                return self._ask(server, work, now + (until - now) / max(1, ready))
            except Trouble as found:
                trouble = found
                server.fared(str(found))
                if monotonic() >= until:
                    break
        raise trouble

    @property
    def trouble(self) -> str:
        """What those met that could not answer when they were asked last."""
        return "; ".join(server.trouble for server in self._servers if server.trouble)

    def close(self) -> None:
        """Close what is kept, and keep nothing more."""
        self._closed = True
        for server in self._servers:
            server.drop()

    def _order(self) -> list[tuple[Server, int]]:
        """Ready servers first, each with how many ready ones are left; then those aside, as a last resort."""
        if self._closed:
            return []
        with self._lock:
            now = monotonic()
            ready = [server for server in self._servers if server.aside_until <= now]
            aside = sorted(
                (server for server in self._servers if server.aside_until > now),
                key=lambda server: server.aside_until,
            )
            for server in ready[:1]:
                server.claim(self._seconds)
        left = len(ready)
        return [(server, left - number) for number, server in enumerate(ready)] + [(server, 1) for server in aside]

    def _ask(self, server: Server, work: Callable[[Session], T], until: float) -> T:
        try:
            return self._once(server, work, until)
        except Trouble as found:
            if not found.stale:
                raise
        # A kept connection was dead: the others may be, too.
        server.drop()
        return self._once(server, work, until)

    def _once(self, server: Server, work: Callable[[Session], T], until: float) -> T:
        session = Session(server, self._service, until)
        good = False
        try:
            try:
                answer = work(session)
            except Doubt:
                good = True
                server.fared()
                raise
            good = True
            server.fared()
            return answer
        finally:
            session.end(good=good)
            if self._closed:  # meanwhile, by another thread
                server.drop()
