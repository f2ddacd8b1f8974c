"""Many peers in, addressed messages out: the server side of the network.

A router has any number of listeners, each with its mechanism and its admission. Messages are given to
``on_messages`` as they come, all that one read brought at once and in the same call stack: the owner does its
work there and answers with `Peer.send_messages`, now or later. There is no queue between, so nothing can grow; a
peer that does not read its answers is not read from.

The router lets newcomers into the lobby (`zapd.net.lobby`) and from there to their places; it knows nothing of
what the messages mean. One per event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from zapd.errors import LocalProtocolError
from zapd.net.address import (
    Address,
    IpcAddress,
    TcpAddress,
    credential_address,
    parse_address,
    peer_credentials,
    zap_address,
)
from zapd.net.admission import Admission, Question
from zapd.net.ending import Ending
from zapd.net.failures import Failure, Failures
from zapd.net.heartbeat import Heartbeat
from zapd.net.limits import NetCounters, NetLimits, PeerLimits
from zapd.net.listener import REST, Entrance, Listener
from zapd.net.lobby import Lobby, ipc_source, tcp_source
from zapd.net.pace import Pace
from zapd.net.peer import Peer
from zapd.net.sockets import listen_ipc, listen_tcp
from zapd.net.transport import SocketTransport, Watch
from zapd.net.waits import Waits
from zapd.zap import Status, ZapReply
from zapd.zmtp.connection import Connection
from zapd.zmtp.handshake import CredentialsLike, Mechanism
from zapd.zmtp.limits import DEFAULT_LIMITS, Limits

_LAST_TURNS = 1.0
"""Seconds for the loop to let aborted transports go; it needs a turn or two."""

_MAY_STAY = frozenset({Ending.HELD, Ending.REFUSED, Ending.PROTOCOL})
"""Strangers whose connection outlives its end for a while: in silence, or to have its ERROR read."""

_BAD = frozenset({Ending.DEADLINE, Ending.REFUSED, Ending.PROTOCOL})
"""What an honest client's handshake does not end with."""

OnMessages = Callable[[Peer, Sequence[list[bytes]]], None]


@dataclass(slots=True)
class _Door:
    """What a listener asks of those who come."""

    mechanism: Callable[[], Mechanism]
    mechanism_name: str
    admission: Admission | None
    socket_type: str
    limits: Limits
    uids: frozenset[int] | None


class Router:
    """Listens, admits, and carries messages."""

    def __init__(
        self,
        on_messages: OnMessages,
        *,
        on_ready: Callable[[Peer], None] | None = None,
        on_gone: Callable[[Peer], None] | None = None,
        on_failure: Callable[[Failure], None] | None = None,
        limits: NetLimits | None = None,
    ) -> None:
        """The callbacks run in the loop and must not block.

        ``on_messages(peer, messages)``: whole messages, in order, each a list of parts.
        ``on_ready(peer)``: admitted; its first messages follow. ``on_gone(peer)``: an admitted peer ended.
        ``on_failure(failure)``: at most one in ``failure_interval``; never one for each stranger.
        """
        self.limits = limits or NetLimits()
        self.counters = NetCounters()
        self.peers: set[Peer] = set()
        """Who is admitted and connected."""
        self.lobby = Lobby(self.limits, self.counters)
        self._pace = Pace(self.limits.handshake_steps)
        self._established = Watch()
        self._beats = _beats(self.limits.peer)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_messages = on_messages
        self._on_ready = on_ready
        self._on_gone = on_gone
        self._failures = Failures(self.counters, on_failure)
        self._listeners: dict[Entrance, _Door] = {}
        self._questions: dict[Peer, Question] = {}
        self._open: set[Peer] = set()
        """Every connection that holds a descriptor."""
        self._most = self.limits.connections or _descriptors() - self.limits.descriptors_reserved
        self._emptied: asyncio.Event | None = None

    @property
    def connections(self) -> int:
        """Open connections of every kind."""
        return len(self._open)

    async def listen(
        self,
        address: Address | str,
        mechanism: Mechanism | Callable[[], Mechanism],
        admission: Admission | None = None,
        *,
        name: str = "",
        socket_type: str = "ROUTER",
        limits: Limits = DEFAULT_LIMITS,
        mode: int = 0o600,
        group: str | int | None = None,
        uids: frozenset[int] | None = None,
        reuse_port: bool = False,
    ) -> Address:
        """Listen, and say where: the address with its real port.

        ``mechanism`` serves all connections, or a callable gives one for each. Without an ``admission`` NULL lets
        everybody in and no other mechanism is taken. ``name`` is how `Peer.listener` and failures call it.
        ``mode``, ``group`` and ``uids`` (users that may connect; None is all that the mode lets through) are for
        ipc. ``reuse_port`` lets several processes share a tcp port.

        Raises `zapd.errors.ZapdError` that says the mend: address in use, no such address, no permission, an ipc
        path that somebody else could replace.
        """
        if isinstance(address, str):
            address = parse_address(address)
        door = _door(mechanism, admission, socket_type, limits, uids)
        bound: Address
        if isinstance(address, IpcAddress):
            bound, sock = address, listen_ipc(address, self.limits.backlog, mode, group)
        else:
            sock, bound = listen_tcp(address, self.limits.backlog, reuse_port=reuse_port)
        listener = Listener(
            sock,
            bound,
            self._begin(),
            self._newcomer,
            self._accept_failed,
            name=name,
            batch=self.limits.accept_batch,
        )
        self._listeners[listener] = door
        return bound

    def receive(
        self,
        address: Address,
        mechanism: Mechanism | Callable[[], Mechanism],
        admission: Admission | None = None,
        *,
        name: str = "",
        socket_type: str = "ROUTER",
        limits: Limits = DEFAULT_LIMITS,
        uids: frozenset[int] | None = None,
    ) -> Callable[[socket.socket], None]:
        """What to call with each connection, non-blocking, that another process accepts for us at ``address``.
        The rest is as for `listen`."""
        self._begin()
        entrance = Entrance(address, name)
        self._listeners[entrance] = _door(mechanism, admission, socket_type, limits, uids)

        def newcomer(sock: socket.socket) -> None:
            try:
                sockaddr = sock.getpeername()
            except OSError:  # it is gone already
                self.counters.accept_errors += 1
                sock.close()
                return
            self._newcomer(entrance, sock, sockaddr)

        return newcomer

    def set_limits(self, limits: NetLimits) -> None:
        """Keep these bounds for everybody who comes from now on. ``connections`` and ``backlog`` stay."""
        self.limits = limits
        self._beats = _beats(limits.peer)
        self.lobby.set_limits(limits)
        self._pace.set_steps(limits.handshake_steps)

    def stop_listening(self) -> None:
        """Take no newcomers any more; those who are in stay. Socket files are removed."""
        for listener in self._listeners:
            listener.close()

    async def close(self, drain: float = 1.0) -> None:
        """Stop listening, send strangers away, and give peers ``drain`` seconds to read what is unsent."""
        self.stop_listening()
        for peer in self._open - self.peers:
            peer.abort()
        for peer in list(self.peers):
            peer.close("shutting down")
        await self._wait_until_empty(drain)
        for peer in list(self._open):
            peer.abort()
        await self._wait_until_empty(_LAST_TURNS)
        self.lobby.close()
        self._pace.close()
        if self._loop is not None:
            self._loop.remove_reader(self._established.fileno())
        self._loop = None
        self._established.close()

    def _begin(self) -> asyncio.AbstractEventLoop:
        """The loop that runs, with all watches in it."""
        loop = self._loop
        if loop is None:
            self._loop = loop = asyncio.get_running_loop()
            self._pace.open(loop)
            loop.add_reader(self._established.fileno(), self._established.serve)
        return loop

    async def _wait_until_empty(self, within: float) -> None:
        if self._open:
            self._emptied = asyncio.Event()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._emptied.wait(), within)

    # Newcomers

    def _newcomer(self, listener: Entrance, sock: socket.socket, sockaddr: object) -> bool:
        """Let a newcomer into the lobby, or send it away; whether it came in."""
        self.counters.accepted += 1
        door = self._listeners[listener]
        try:
            remote_address, source, welcome = self._identify(listener, sock, sockaddr, door)
        except OSError:  # it is gone already
            self.counters.accept_errors += 1
            sock.close()
            return False
        known = self.lobby.knows(source)
        if not (welcome and self._has_place(source, known)):
            sock.close()
            return False
        if len(self._open) >= self._most and not self.lobby.make_room():
            # Nobody but admitted peers: the newcomer waits its turn in the kernel's queue next time.
            sock.close()
            listener.pause(REST)
            return False
        loop = self._begin()
        try:
            connection = Connection(door.mechanism(), door.socket_type, limits=door.limits)
        except BaseException:
            sock.close()
            raise
        peer = Peer(
            connection,
            self,
            self._deliver,
            self.limits.peer,
            loop,
            remote_address=remote_address,
            listener=listener,
            source=source,
            beats=self._beats,
        )
        self._open.add(peer)
        self.lobby.enter(peer)
        SocketTransport(sock, peer, self._pace.watch(nearly_in=known), loop)
        return True

    def _has_place(self, source: tuple[bytes, ...], known: bool) -> bool:
        """Whether a newcomer from there may try now; counts why not."""
        if not known and self._pace.sends_away():
            self.counters.refused_busy += 1
            return False
        return self.lobby.has_place(source)

    def _identify(
        self, listener: Entrance, sock: socket.socket, sockaddr: object, door: _Door
    ) -> tuple[str, tuple[bytes, ...], bool]:
        """How ZAP calls the newcomer, what it counts for, and whether its user may connect at all."""
        if isinstance(listener.address, TcpAddress):
            host = cast(tuple[str, int], sockaddr)[0]
            return zap_address(host), tcp_source(host), True
        uid, gid, pid = peer_credentials(sock)
        welcome = door.uids is None or uid in door.uids
        if not welcome:
            self.counters.refused_uid += 1
        return credential_address(uid, gid, pid), ipc_source(uid), welcome

    def _accept_failed(self, listener: Listener, no_descriptor: bool) -> None:
        if not no_descriptor:
            self.counters.accept_errors += 1
            return
        self.counters.descriptors_exhausted += 1
        for _ in range(self.limits.accept_batch):
            if not self.lobby.make_room():
                return

    # What peers tell (see `zapd.net.peer.Owner`)

    def _deliver(self, peer: Peer, messages: Sequence[list[bytes]]) -> None:
        self.counters.messages_received += len(messages)
        self._on_messages(peer, messages)

    def on_credentials(self, peer: Peer, credentials: CredentialsLike) -> None:
        """Put the login question to the listener's admission."""
        door = self._listeners[cast(Entrance, peer.listener)]
        if door.admission is None:
            peer.admit()
            return

        def verdict(reply: ZapReply) -> None:
            self._questions.pop(peer, None)
            if reply.status is Status.GRANTED:
                peer.admit(reply.user_id, reply.metadata)
            else:
                peer.refuse(int(reply.status))

        question = door.admission.ask(door.mechanism_name, credentials, peer.remote_address, verdict)
        if question is not None:
            self._questions[peer] = question

    def on_early_octets(self, peer: Peer, count: int) -> None:
        """Strangers' octets are bounded all together."""
        self.lobby.add_octets(count)

    def on_answered(self, peer: Peer) -> None:
        """It is nearly in, and comes before newcomers from now on."""
        peer.move_to(self._pace.watch(nearly_in=True))

    def on_ready(self, peer: Peer) -> None:
        """From stranger to peer, if the admission was asked."""
        if not peer.admitted and self._listeners[cast(Entrance, peer.listener)].admission is not None:
            peer.abort(Ending.PROTOCOL, "this listener's mechanism asks nobody: give it a server's side")
            return
        self.lobby.let_in(peer)
        peer.move_to(self._established)
        self.counters.handshakes_ok += 1
        self.peers.add(peer)
        if self._on_ready is not None:
            self._on_ready(peer)

    def on_ended(self, peer: Peer) -> None:
        """Free its place, count it, tell the owner."""
        question = self._questions.pop(peer, None)
        if question is not None:
            question.drop()
        known = peer in self.peers
        if known:
            self.peers.discard(peer)
        else:
            self.lobby.leave(peer)
            if peer.ending in _BAD:
                self.lobby.forget(peer)
            if peer.ending in _MAY_STAY:
                self.lobby.hold(peer)
        self._failures.count(peer, self.limits.failure_interval)
        if known and self._on_gone is not None:
            self._on_gone(peer)

    def on_lost(self, peer: Peer) -> None:
        """Its descriptor is free."""
        self._open.discard(peer)
        self.lobby.lost(peer)
        if self._emptied is not None and not self._open:
            self._emptied.set()


def _beats(limits: PeerLimits) -> Waits[Heartbeat] | None:
    """Where the first heartbeats of all who come under these bounds are waited for, if there are any."""
    return Waits(limits.ping_after, Heartbeat.beat) if limits.ping_after else None


def _door(
    mechanism: Mechanism | Callable[[], Mechanism],
    admission: Admission | None,
    socket_type: str,
    limits: Limits,
    uids: frozenset[int] | None,
) -> _Door:
    factory = mechanism if callable(mechanism) else lambda: mechanism
    name = factory().name
    if admission is None and name != "NULL":
        raise LocalProtocolError(f"a {name} listener needs an admission: who would judge its peers?")
    return _Door(factory, name, admission, socket_type, limits, uids)


def _descriptors() -> int:
    """How many descriptors this process may open; at least enough for one peer besides the reserve."""
    soft, _hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return 1 << 20 if soft == resource.RLIM_INFINITY else max(soft, 128)
