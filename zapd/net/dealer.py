"""The connecting side: one address, kept connected, with nothing queued that has no bound.

A dealer connects, and connects again after every loss: soon the first time, then ever later with jitter, so
that a fleet that lost its server does not come back as one. While there is no connection, `Dealer.send_messages`
refuses: what to do with the message then (give up, ask again on ``on_up``) is its owner's to know. The window
bounds what has been handed over and not yet taken by the system.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from zapd.errors import LocalProtocolError, ZapdError
from zapd.net.address import Address, IpcAddress, parse_address, peer_credentials
from zapd.net.ending import Ending
from zapd.net.limits import PeerLimits
from zapd.net.peer import Peer
from zapd.zmtp.connection import Connection
from zapd.zmtp.handshake import CredentialsLike, Mechanism
from zapd.zmtp.limits import DEFAULT_LIMITS, Limits

_FINAL = frozenset({400, 500})
_random = random.SystemRandom()


@dataclass(frozen=True, slots=True)
class DealerLimits:
    """How long to wait, and how much to keep. Seconds and octets."""

    peer: PeerLimits = field(default_factory=PeerLimits)
    connect_timeout: float = 5.0
    """For what the mechanism needs, the name and the TCP connection; the handshake has its own deadline."""
    backoff_first: float = 0.1
    backoff_most: float = 10.0
    """Waits double from the first to this one, each shortened at random by up to a half."""
    steady_after: float = 1.0
    """A connection that lived so long starts the waits anew."""
    window: int = 1024 * 1024
    """Unsent octets beyond which messages are refused."""


@dataclass(frozen=True, slots=True)
class Down:
    """Why there is no connection."""

    reason: str
    """For logs, without secrets."""
    status: int | None = None
    """The status of the ERROR that the server answered with: 400 says that it knows us not."""
    was_up: bool = False
    retry_in: float = 0.0
    """Seconds until the next attempt."""


class Dealer:
    """A reconnecting client of one endpoint."""

    def __init__(
        self,
        address: Address | str,
        mechanism: Mechanism | Callable[[], Mechanism | Awaitable[Mechanism]],
        on_messages: Callable[[Sequence[list[bytes]]], None],
        *,
        on_up: Callable[[], None] | None = None,
        on_down: Callable[[Down], None] | None = None,
        socket_type: str = "DEALER",
        identity: bytes = b"",
        limits: DealerLimits | None = None,
        engine_limits: Limits = DEFAULT_LIMITS,
        server_uids: frozenset[int] | None = None,
    ) -> None:
        """The callbacks run in the loop and must not block. ``on_messages(messages)``: all that one read brought.

        ``mechanism`` is a client's, for all connections, or a callable that gives one for each, at once or awaited
        as `zapd.net.kerberos.KerberosInitiator` is. ``server_uids``: over ipc, the users that the server may run
        as (None is any).
        """
        self.address = parse_address(address) if isinstance(address, str) else address
        self.last_down: Down | None = None
        """Why the last attempt or connection ended."""
        self.attempts = 0
        """Connections tried."""
        self.refused = 0
        """Messages not taken: no connection, or a full window."""
        self._mechanism = mechanism if callable(mechanism) else lambda: mechanism
        self._on_messages = on_messages
        self._on_up = on_up
        self._on_down = on_down
        self._socket_type = socket_type
        self._identity = identity
        self._limits = limits or DealerLimits()
        self._engine_limits = engine_limits
        self._server_uids = server_uids
        self._peer: Peer | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._lost: asyncio.Event | None = None
        self._up: asyncio.Event | None = None

    def __repr__(self) -> str:
        return f"<Dealer {self.address} {'up' if self.up else 'down'}>"

    @property
    def up(self) -> bool:
        """Connected and let in."""
        return self._peer is not None and self._peer.ready

    @property
    def peer(self) -> Peer | None:
        """The connection there is, in whatever state."""
        return self._peer

    def start(self) -> None:
        """Begin to connect, in the running loop. `LocalProtocolError` when it was started before."""
        if self._keeper is not None:
            raise LocalProtocolError("this dealer was started before")
        self._lost, self._up = asyncio.Event(), asyncio.Event()
        self._keeper = asyncio.get_running_loop().create_task(self._keep_connected())

    async def wait_up(self, within: float) -> bool:
        """Whether it is up, waiting at most so many seconds."""
        if self._up is None:
            return False
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._up.wait(), within)
        return self.up

    def send_messages(self, messages: Sequence[Sequence[bytes]]) -> bool:
        """Send whole messages; all of them, or none and False: there is no connection, or the window is full."""
        peer = self._peer
        if peer is not None and peer.unsent <= self._limits.window and peer.send_messages(messages):
            return True
        self.refused += len(messages)
        return False

    async def close(self, drain: float = 1.0) -> None:
        """Close for good; ``drain`` seconds for the server to read what is unsent."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await keeper
        peer = self._peer
        if peer is None or self._lost is None:
            return
        peer.close()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._lost.wait(), drain)
        peer.abort()

    # Staying connected

    async def _keep_connected(self) -> None:
        loop = asyncio.get_running_loop()
        backoff = self._limits.backoff_first
        lost = self._lost
        while lost is not None:
            self.attempts += 1
            lost.clear()
            began = loop.time()
            trouble = ""
            try:
                async with asyncio.timeout(self._limits.connect_timeout):
                    await self._connect(loop)
                await lost.wait()
            except TimeoutError:
                trouble = f"{self.address}: no connection within {self._limits.connect_timeout:g} s"
            except (OSError, ZapdError) as error:
                trouble = f"{self.address}: {error}"
            peer, self._peer = self._peer, None
            was_up = peer is not None and peer.was_ready
            if was_up and loop.time() - began >= self._limits.steady_after:
                backoff = self._limits.backoff_first
            status = peer.status if peer is not None else None
            if status in _FINAL:  # it may know us later, and nobody will restart us then; but do not press
                backoff = self._limits.backoff_most
            wait = backoff * _random.uniform(0.5, 1.0)
            backoff = min(backoff * 2, self._limits.backoff_most)
            self.last_down = Down(trouble or (peer.reason if peer is not None else ""), status, was_up, wait)
            if self._on_down is not None:
                loop.call_soon(self._on_down, self.last_down)  # whatever it does, the keeper goes on
            await asyncio.sleep(wait)

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> None:
        address = self.address
        made = self._mechanism()
        mechanism = await made if isinstance(made, Awaitable) else made

        def protocol() -> Peer:
            connection = Connection(
                mechanism, self._socket_type, identity=self._identity, limits=self._engine_limits
            )
            self._peer = Peer(
                connection, self, self._deliver, self._limits.peer, loop, remote_address=str(address)
            )
            self._deadline = loop.call_later(self._limits.peer.handshake_deadline, self._peer.too_late)
            return self._peer

        if isinstance(address, IpcAddress):
            transport, _ = await loop.create_unix_connection(protocol, str(address.path))
            self._check_server(transport)
        else:
            transport, _ = await loop.create_connection(protocol, address.host, address.port)
            sock: socket.socket = transport.get_extra_info("socket")
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    def _check_server(self, transport: asyncio.BaseTransport) -> None:
        """Whoever may put a socket at that path could be the server (R12b)."""
        if self._server_uids is None or self._peer is None:
            return
        uid = peer_credentials(transport.get_extra_info("socket"))[0]
        if uid not in self._server_uids:
            self._peer.abort(
                Ending.CLOSED, f"the server at {self.address} runs as uid {uid}, which is not allowed"
            )

    # What the peer tells (see `zapd.net.peer.Owner`)

    def _deliver(self, peer: Peer, messages: Sequence[list[bytes]]) -> None:
        self._on_messages(messages)

    def on_credentials(self, peer: Peer, credentials: CredentialsLike) -> None:
        """A client judges nobody; a server that asks for it is trusted by its key or its address."""
        peer.admit()

    def on_early_octets(self, peer: Peer, count: int) -> None:
        """One connection is bounded by its engine."""

    def on_answered(self, peer: Peer) -> None:
        """Nobody is served before it."""

    def on_ready(self, peer: Peer) -> None:
        """Connected."""
        self._end_deadline()
        if self._up is not None:
            self._up.set()
        if self._on_up is not None:
            self._on_up()

    def on_ended(self, peer: Peer) -> None:
        """Connected no more."""
        self._end_deadline()
        if self._up is not None:
            self._up.clear()

    def _end_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def on_lost(self, peer: Peer) -> None:
        """The keeper goes on."""
        if self._lost is not None:
            self._lost.set()
