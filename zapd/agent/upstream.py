"""One zapd as the agent sees it: a DEALER with a pinned key, remade whenever libzmq would give up.

libzmq reconnects by itself after a close or a time-out, but never again after an ERROR or a protocol fault
(RFC 23 leaves that open; libzmq treats both as final). An agent that is enrolled a minute later, or a zapd that
comes back with its right key, must not need an application's restart: so this room watches the socket's
monitor and makes a new DEALER, with growing pauses, under the next of the pinned keys.

It carries frames and knows nothing of ZAP. Whether a reply counts is not decided here.
"""

from __future__ import annotations

import errno
import logging
import os
import pwd
import random
import stat
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TypeAlias

import zmq
from zmq.utils.monitor import parse_monitor_message

from zapd.agent.keyfile import AgentKeys, Endpoint

log = logging.getLogger("zapd.agent")

SyncSocket: TypeAlias = "zmq.Socket[bytes]"
SyncContext: TypeAlias = "zmq.Context[SyncSocket]"

MAX_FRAME = 64 * 1024
"""A reply's frames are far smaller: metadata has at most 4 KiB (contract)."""
SEND_QUEUE = 1000
RECONNECT_MS = 100
RECONNECT_MAX_MS = 1000
HANDSHAKE_MS = 5000
HEARTBEAT_MS = 2000
HEARTBEAT_TIMEOUT_MS = 5000
CONNECT_TIMEOUT_MS = 2000
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 2.0
SUSPICION = 1.5
"""Seconds after a loss within which libzmq must have announced its next try."""
STALE = 10.0
"""Seconds without link and without any event: longer than every wait of libzmq's above."""
NEVER = float("inf")

_TRYING = zmq.EVENT_CONNECT_RETRIED | zmq.EVENT_CONNECT_DELAYED | zmq.EVENT_CONNECTED
_GIVEN_UP = zmq.EVENT_HANDSHAKE_FAILED_AUTH | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
_WATCHED = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_DISCONNECTED
    | zmq.EVENT_CLOSED
    | _GIVEN_UP
    | _TRYING
)


class Upstream:
    """A link to one zapd. Every method belongs to the agent's thread."""

    def __init__(
        self, context: SyncContext, number: int, endpoint: Endpoint, keys: AgentKeys | None, counters: Counter[str]
    ) -> None:
        self.number = number
        self.endpoint = endpoint
        self.socket: SyncSocket | None = None
        self.monitor: SyncSocket | None = None
        self.ready = False
        """The handshake is done, as far as the monitor has told."""
        self.blocked = True
        """The last send found no link; worth another try when the poll says so."""
        self.link = 0
        """Counts links: it moves on when one is lost. What was asked on an earlier one may have died with it."""
        self.first_link = 0
        """The first link of the socket in use."""
        self._context = context
        self._keys = keys
        self._counters = counters
        self._key_number = 0
        self._failures = 0
        self._open_at = 0.0
        self._suspect_at = NEVER
        self._heard_at = 0.0
        self._complaint = ""

    # --- time -----------------------------------------------------------------------------------------

    def tend(self, now: float) -> None:
        """Open the socket when it is time, and drop one on which libzmq has given up."""
        if self.socket is None:
            if now >= self._open_at:
                self._open(now)
        elif not self.ready and (now >= self._suspect_at or now - self._heard_at > STALE):
            self._lost_for_good(now, "libzmq stopped trying")

    def due(self) -> float:
        """When `tend` has something to do."""
        if self.socket is None:
            return self._open_at
        return NEVER if self.ready else min(self._suspect_at, self._heard_at + STALE)

    # --- frames ---------------------------------------------------------------------------------------

    def send(self, frames: list[bytes]) -> bool:
        """Hand over one message; False when there is no link that takes it now."""
        if self.socket is None or self.blocked:
            return False
        try:
            self.socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:
            self.blocked = True
            return False
        return True

    def receive(self) -> list[bytes] | None:
        """The next message, or None."""
        if self.socket is None:
            return None
        try:
            return self.socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return None

    # --- the monitor ----------------------------------------------------------------------------------

    def watch(self, now: float) -> None:
        """Take in what libzmq tells about the connection."""
        while self.monitor is not None:
            try:
                frames = self.monitor.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            event = parse_monitor_message(frames)
            self._heard_at = now
            self._take(int(event["event"]), int(event["value"]), now)

    def _take(self, event: int, value: int, now: float) -> None:
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self.ready = True
            self._failures = 0
            self._suspect_at = NEVER
            self._counters["links"] += 1
            self._say(logging.INFO, "connected")
        elif event & _GIVEN_UP:
            self._counters["handshakes_failed"] += 1
            if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
                self._lost_for_good(
                    now, f"it refused this agent ({value}): is the agent enrolled, and not revoked?"
                )
            else:
                self._lost_for_good(
                    now, f"the handshake broke (0x{value:x}): is that the right zapd and server key?"
                )
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            self._counters["handshakes_failed"] += 1
            if len(self.endpoint.server_keys) > 1 or self._by_file:
                self._lost_for_good(now, "the handshake was cut: perhaps it has another server key")
            else:
                self._say(logging.WARNING, "the handshake was cut: is that the right server key?")
        elif event == zmq.EVENT_DISCONNECTED:
            was_ready = self.ready
            self._unlink()
            self._suspect_at = now + SUSPICION
            if self._by_file:
                self._lost_for_good(now, "the connection is lost")
            elif was_ready:
                self._say(logging.WARNING, "the connection is lost")
        elif event == zmq.EVENT_CLOSED and self._by_file:
            self._lost_for_good(now, "nobody listens there")
        elif event & _TRYING:
            self._suspect_at = NEVER

    # --- opening and closing --------------------------------------------------------------------------

    @property
    def _by_file(self) -> bool:
        """Only the socket file's owner vouches for this zapd, so it is looked at before each single connection."""
        return self.endpoint.path is not None and not self.endpoint.secured

    def _open(self, now: float) -> None:
        self._heard_at = now
        self._suspect_at = NEVER
        if self._by_file:
            trouble = distrust(str(self.endpoint.path), self.endpoint.user)
            if trouble:
                self._pause(now)
                self._say(logging.WARNING, trouble)
                return
        try:
            self._connect()
        except zmq.ContextTerminated:
            raise
        except zmq.ZMQError as error:
            self._lost_for_good(now, f"no socket for it: {error.strerror}")

    def _connect(self) -> None:
        socket = self.socket = self._context.socket(zmq.DEALER)
        self.blocked = True
        socket.linger = 0
        socket.immediate = 1  # questions wait with us, never in a pipe to nobody
        socket.sndhwm = SEND_QUEUE
        socket.rcvhwm = SEND_QUEUE
        socket.maxmsgsize = MAX_FRAME
        socket.reconnect_ivl = -1 if self._by_file else RECONNECT_MS
        socket.reconnect_ivl_max = 0 if self._by_file else RECONNECT_MAX_MS
        socket.connect_timeout = CONNECT_TIMEOUT_MS
        socket.handshake_ivl = HANDSHAKE_MS
        socket.heartbeat_ivl = HEARTBEAT_MS
        socket.heartbeat_timeout = HEARTBEAT_TIMEOUT_MS
        socket.ipv6 = "[" in self.endpoint.address
        if self.endpoint.secured and self._keys is not None:
            server_keys = self.endpoint.server_keys
            socket.setsockopt(zmq.CURVE_PUBLICKEY, self._keys.public_key)
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._keys.secret_key)
            socket.setsockopt(zmq.CURVE_SERVERKEY, server_keys[self._key_number % len(server_keys)])
        watched = f"inproc://zapd.agent.monitor-{socket.FD}"
        socket.monitor(watched, _WATCHED)
        # Known before it is connected, which pyzmq's own get_monitor_socket() does the other way round: a context
        # that ends in between waits for this socket, too.
        self.monitor = self._context.socket(zmq.PAIR)
        self.monitor.connect(watched)
        socket.connect(self.endpoint.address)

    def _unlink(self) -> None:
        self.ready = False
        self.blocked = True
        self.link += 1

    def _pause(self, now: float) -> None:
        pause = min(FIRST_PAUSE * 2.0**self._failures, LONGEST_PAUSE)
        self._failures = min(self._failures + 1, 16)
        # Spread, so that a fleet does not return as one man. No secret hangs on this generator.
        self._open_at = now + pause * random.uniform(0.5, 1.0)  # noqa: S311

    def _lost_for_good(self, now: float, reason: str) -> None:
        """This socket is done; another one follows after a pause, under the next pinned key."""
        if not self.ready:
            self._key_number += 1
        self.close()
        self._pause(now)
        self._say(logging.WARNING, reason)

    def close(self) -> None:
        """Close at once; nothing lingers. Every link of this socket is over."""
        monitor, socket = self.monitor, self.socket
        self.monitor = self.socket = None
        if socket is not None:
            with suppress(zmq.ZMQError):
                socket.disable_monitor()
        for each in (monitor, socket):
            if each is not None:
                each.close(linger=0)
        self._unlink()
        self.first_link = self.link

    def _say(self, level: int, what: str) -> None:
        """Log a change of state once, not every repetition of it."""
        if what != self._complaint:
            self._complaint = what
            log.log(level, "zapd at %s: %s", self.endpoint.address, what)


def distrust(path: str, user: str | int | None) -> str:
    """Why the socket file of an ipc endpoint without keys is not believed; empty when it is (limits.md, R12).

    Whoever can make a file in its directory could stand in for zapd: so the path is no link, the directory is
    nobody's playground, and file and directory have one owner, or the ``user`` that was named.
    """
    try:
        file = os.lstat(path)
        directory = Path(path).parent.stat()
    except OSError as error:
        return "nobody listens there" if error.errno == errno.ENOENT else f"{path}: {error.strerror}"
    if not stat.S_ISSOCK(file.st_mode):
        return f"{path} is not a socket"
    if directory.st_mode & stat.S_IWOTH:
        return f"everybody may write to the directory of {path}: make it 0750"
    if user is not None:
        try:
            wanted = user if isinstance(user, int) else pwd.getpwnam(user).pw_uid
        except KeyError:
            return f"there is no user {user!r}"
        return "" if file.st_uid == wanted else f"{path} belongs to uid {file.st_uid}, not to {user}"
    if file.st_uid not in (0, os.geteuid(), directory.st_uid):
        return f"{path} belongs to uid {file.st_uid}, and its directory does not"
    return ""
