"""One connection: an `asyncio.Protocol` around one engine. It carries octets and time, and nothing else.

The road of traffic is `data_received` -> engine -> ``deliver`` (the owner's, synchronous) -> `send_messages` ->
one write for all that arrived together. No task, no queue, no value for each message. What is not traffic
(handshake, verdicts, heartbeats, endings) takes the slower road through `_take`.

A peer ends once. `Owner.on_ended` says so at that moment; the transport may live on for a while, held silent
after a 300 or lingering until an ERROR has been read, and `Owner.on_lost` says when its descriptor is free
again. The peer knows neither who else is connected nor how many: the router does.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import Protocol, cast

from zapd.net.ending import Ending
from zapd.net.heartbeat import Heartbeat
from zapd.net.limits import PeerLimits
from zapd.net.transport import SocketTransport, Watch
from zapd.net.waits import Waits
from zapd.zap import Status
from zapd.zmtp.connection import Connection
from zapd.zmtp.events import (
    AuthenticationRequired,
    ConnectionClosed,
    ConnectionFailed,
    Event,
    HandshakeCompleted,
    MessagesReceived,
    PingReceived,
    PongReceived,
)
from zapd.zmtp.handshake import CredentialsLike

_random = random.SystemRandom()


class _State(Enum):
    HANDSHAKE = 1
    ASKING = 2
    READY = 3
    ENDED = 4


_READY = _State.READY


class Owner(Protocol):
    """Who holds a peer: a router or a dealer. All of it is called from the loop and must not block."""

    def on_credentials(self, peer: Peer, credentials: CredentialsLike) -> None:
        """Decide, now or later, with `Peer.admit` or `Peer.refuse`."""

    def on_early_octets(self, peer: Peer, count: int) -> None:
        """So many octets came before the handshake was over. They are handled next, unless this ends the peer."""

    def on_answered(self, peer: Peer) -> None:
        """The engine has answered a command of the handshake, and waits for the next."""

    def on_ready(self, peer: Peer) -> None:
        """The handshake is over."""

    def on_ended(self, peer: Peer) -> None:
        """It is no peer any more; `Peer.ending` says why. Once."""

    def on_lost(self, peer: Peer) -> None:
        """Its transport is gone. Once, after `on_ended`."""


class Peer(asyncio.Protocol):
    """One connection of a router or a dealer."""

    __slots__ = (
        "_beats",
        "_connection",
        "_corked",
        "_deliver",
        "_flushing",
        "_heartbeat",
        "_limits",
        "_loop",
        "_now",
        "_owner",
        "_reading",
        "_stall_timer",
        "_state",
        "_timer",
        "_transport",
        "admitted",
        "context",
        "early_octets",
        "ending",
        "heard_at",
        "identity",
        "listener",
        "metadata",
        "reason",
        "remote_address",
        "socket_type",
        "source",
        "status",
        "user_id",
        "was_ready",
    )

    def __init__(
        self,
        connection: Connection,
        owner: Owner,
        deliver: Callable[[Peer, Sequence[list[bytes]]], None],
        limits: PeerLimits,
        loop: asyncio.AbstractEventLoop,
        *,
        remote_address: str,
        listener: object = None,
        source: tuple[bytes, ...] = (),
        beats: Waits[Heartbeat] | None = None,
    ) -> None:
        """``source`` is the owner's note of where the peer comes from. The handshake's deadline is the owner's to
        keep, with `too_late`. ``beats``: where first heartbeats of many peers are waited for."""
        self.remote_address = remote_address
        """As ZAP writes it: numeric, no port; ``localhost:uid:gid:pid`` over ipc."""
        self.listener = listener
        """The listener that took it; None on a dealer's side."""
        self.source = source
        self.admitted = False
        """Its owner has said yes."""
        self.user_id = b""
        """What the admission's 200 said."""
        self.metadata = b""
        """The admission's properties, encoded as ZMTP does (RFC 23)."""
        self.socket_type = ""
        self.identity = b""
        self.context: object = None
        """The owner's own; nothing here looks at it."""
        self.early_octets = 0
        self.heard_at = 0.0
        """When its last octets came, in the loop's time."""
        self.ending: Ending | None = None
        self.reason = ""
        """For logs, without secrets: why it ended."""
        self.status: int | None = None
        """The ZAP status of an ERROR sent or received, or of a verdict."""
        self.was_ready = False
        """At its end: whether the handshake had been completed."""
        self._connection: Connection | None = connection
        self._owner = owner
        self._deliver = deliver
        self._limits = limits
        self._loop = loop
        self._now = loop.time
        self._transport: asyncio.Transport | None = None
        self._state = _State.HANDSHAKE
        self._corked = False
        self._flushing = False
        self._reading = True
        self._beats = beats
        self._heartbeat: Heartbeat | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return f"<Peer {self.remote_address} {self.ending or self._state.name.lower()}>"

    @property
    def ready(self) -> bool:
        """Messages can be sent."""
        return self._state is _READY

    @property
    def unsent(self) -> int:
        """Octets written and not yet taken by the system."""
        return 0 if self._transport is None else self._transport.get_write_buffer_size()

    # What the owner does

    def send_messages(self, messages: Iterable[Sequence[bytes]]) -> bool:
        """Send whole messages, each a sequence of parts. False when the peer is gone: they are dropped.

        What is sent while its own messages are being delivered leaves in one write with everything else of that
        delivery; what is sent at other times leaves at the loop's next turn, together with whatever joins it.
        """
        connection = self._connection
        if connection is None or not connection.ready:  # it may have failed behind the messages in hand
            return False
        connection.send_messages(messages)
        self._leave()
        return True

    def send_encoded(self, octets: bytes) -> bool:
        """The same for messages that are clear frames already, well formed."""
        connection = self._connection
        if connection is None or not connection.ready:
            return False
        connection.send_encoded(octets)
        self._leave()
        return True

    def admit(self, user_id: bytes = b"", metadata: bytes = b"") -> None:
        """Let the peer in. Nothing happens when it is gone, or was answered already."""
        connection = self._connection
        if connection is None or connection.closed or self._state is not _State.ASKING:
            return
        self.admitted = True
        self.user_id = user_id
        self.metadata = metadata
        self._state = _State.HANDSHAKE
        connection.accept()
        self._let_read()
        self._pump()

    def refuse(self, status: int) -> None:
        """Refuse the peer: 400 and 500 send ERROR and close, 300 holds it in silence for a while (R1, limits).

        Nothing happens when it is gone, or was answered already.
        """
        connection = self._connection
        if connection is None or connection.closed or self._state is not _State.ASKING:
            return
        self._write(connection.data_to_send())
        connection.reject(status)
        last_words = connection.data_to_send()
        if status == Status.TRY_AGAIN:
            self._end(Ending.HELD, "to try again later", status)
            self._stop_reading()
            delay = _random.uniform(self._limits.held_shortest, self._limits.held_longest)
            self._timer = self._loop.call_later(delay, self._close_transport)
        else:
            self._end(Ending.REFUSED, "refused", status)
            self._linger(last_words)

    def too_late(self) -> None:
        """Its handshake should be over by now. Nothing happens when it is."""
        if self._state is _State.HANDSHAKE or self._state is _State.ASKING:
            self.abort(Ending.DEADLINE, "the handshake was not over in time")

    def move_to(self, watch: Watch) -> None:
        """Have its socket watched there, if it is one of ours to watch."""
        if isinstance(self._transport, SocketTransport):
            self._transport.move_to(watch)

    def close(self, reason: str = "closed by us") -> None:
        """Send what is queued, then close; the peer has ``linger`` seconds to read it."""
        connection = self._connection
        if connection is None:
            return
        last_words = connection.data_to_send() if self._state is _READY else b""
        self._end(Ending.CLOSED, reason)
        self._write(last_words)
        self._close_transport()

    def abort(self, ending: Ending = Ending.CLOSED, reason: str = "closed by us") -> None:
        """Close at once; what is unsent is lost. Works on held and lingering connections too."""
        self._end(ending, reason)
        self._cancel_timers()
        if self._transport is not None:
            self._transport.abort()

    # What the loop tells us

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the connection is open. Our greeting goes out whole, at once."""
        made = cast(asyncio.Transport, transport)
        self._transport = made
        if self._connection is None:  # closed by its owner meanwhile
            made.abort()
            return
        made.set_write_buffer_limits(high=self._limits.write_high)
        self._write(self._connection.data_to_send())

    def data_received(self, data: bytes) -> None:
        """asyncio: octets. This is the hot road."""
        connection = self._connection
        if connection is None:
            return
        if self._state is not _READY:
            self._early_data(connection, data)
            return
        self.heard_at = self._now()
        connection.receive_data(data)
        self._corked = True
        for event in connection.events():
            if type(event) is MessagesReceived:
                self._deliver(self, event.messages)
            else:
                self._take(event)
            if self._connection is None:
                return
        self._corked = False
        self._write(connection.data_to_send())

    def eof_received(self) -> None:
        """asyncio: the peer closed its side; asyncio then closes ours."""
        if self._connection is not None:
            self._connection.receive_eof()
            self._pump()

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the transport is gone."""
        self._end(
            Ending.LEFT, "the peer went away" if exc is None else f"the connection broke: {type(exc).__name__}"
        )
        self._cancel_timers()
        self._transport = None
        self._owner.on_lost(self)

    def pause_writing(self) -> None:
        """asyncio: too much is unsent. Who does not read is not read from."""
        self._stop_reading()
        if self._stall_timer is None and self._connection is not None:
            self._stall_timer = self._loop.call_later(self._limits.stalled, self._unread)

    def resume_writing(self) -> None:
        """asyncio: the peer has read."""
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
        self._let_read()

    # The slower road

    def _early_data(self, connection: Connection, data: bytes) -> None:
        self.early_octets += len(data)
        self._owner.on_early_octets(self, len(data))
        if self._connection is None:  # it has just been dropped to make room
            return
        connection.receive_data(data)
        self._pump()

    def _pump(self) -> None:
        connection = self._connection
        if connection is None or self._corked:  # whoever corked it goes on
            return
        self._corked = True
        while events := connection.events():
            for event in events:
                if type(event) is MessagesReceived:
                    self._deliver(self, event.messages)
                else:
                    self._take(event)
                if self._connection is None:
                    return
        self._corked = False
        out = connection.data_to_send()
        if out:
            self._write(out)
            if self._state is _State.HANDSHAKE:
                self._owner.on_answered(self)

    def _take(self, event: Event) -> None:
        match event:
            case AuthenticationRequired():
                self._state = _State.ASKING
                self._owner.on_credentials(self, event.credentials)
                if self._state is _State.ASKING:
                    self._stop_reading()  # nothing more is kept for a stranger than what came with his question
            case HandshakeCompleted():
                self._completed(event)
            case PingReceived():
                if self._heartbeat is not None:
                    self._heartbeat.pinged(event.ttl)
            case PongReceived():
                if self._heartbeat is not None:
                    self._heartbeat.answered()
            case ConnectionFailed():
                self._failed(event)
            case ConnectionClosed():
                self._end(Ending.LEFT, "the peer closed the connection")
                self._close_transport()
            case _:
                pass  # a subscription means nothing to the socket types here

    def _completed(self, event: HandshakeCompleted) -> None:
        self.socket_type = event.socket_type
        self.identity = event.identity
        self._state = _READY
        self.heard_at = self._now()
        self._heartbeat = Heartbeat(self, self._limits, self._loop, self._beats)
        self._heartbeat.start()
        self._owner.on_ready(self)

    def _failed(self, event: ConnectionFailed) -> None:
        last_words = b"" if self._connection is None else self._connection.data_to_send()
        self._end(Ending.PROTOCOL, event.reason, event.status)
        self._linger(last_words)

    def _leave(self) -> None:
        """See that what was queued goes out."""
        if not (self._corked or self._flushing):
            self._flushing = True
            self._loop.call_soon(self._flush_later)

    def _flush_later(self) -> None:
        self._flushing = False
        if self._connection is not None:
            self._write(self._connection.data_to_send())

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if not data or transport is None:
            return
        transport.write(data)
        if self._stall_timer is not None and transport.get_write_buffer_size() > self._limits.unsent:
            self._unread()

    def _stop_reading(self) -> None:
        if self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def _let_read(self) -> None:
        """Read again, unless something else still forbids it."""
        if self._reading or self._transport is None or self._transport.is_closing():
            return
        if self._stall_timer or self._state is _State.ASKING or self.ending is Ending.HELD:
            return
        self._reading = True
        self._transport.resume_reading()

    # Time

    def _unread(self) -> None:
        self.abort(Ending.UNREAD, "the peer does not read what it is sent")

    @property
    def reading(self) -> bool:
        """What the peer says is read; not while it is asked about, or does not read itself."""
        return self._reading

    def send_ping(self) -> None:
        """Ask for a sign of life."""
        if self._connection is not None and self._connection.ready:
            self._connection.send_ping()
            self._write(self._connection.data_to_send())

    def missed_heartbeat(self) -> None:
        """It gave none."""
        self.abort(Ending.SILENT, "the peer missed its heartbeat")

    # The end

    def _end(self, ending: Ending, reason: str, status: int | None = None) -> None:
        """Once: from now on it is no peer. The engine goes, with its keys and buffers."""
        if self.ending is not None:
            return
        self.was_ready = self._state is _READY
        self._state = _State.ENDED
        self._connection = None
        self.ending, self.reason, self.status = ending, reason, status
        self._cancel_timers()
        self._owner.on_ended(self)

    def _linger(self, last_words: bytes) -> None:
        """Say the last words, and leave the peer time to read them: a reset could take them from it."""
        transport = self._transport
        if transport is None or not last_words or transport.is_closing():
            self._close_transport()
            return
        transport.write(last_words)
        transport.write_eof()
        self._let_read()
        self._timer = self._loop.call_later(self._limits.linger, self.abort)

    def _close_transport(self) -> None:
        if self._transport is not None:
            self._transport.close()
            if self._transport.get_write_buffer_size():
                self._timer = self._loop.call_later(self._limits.linger, self.abort)

    def _cancel_timers(self) -> None:
        if self._heartbeat is not None:
            self._heartbeat.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._stall_timer is not None:
            self._stall_timer.cancel()
            self._stall_timer = None
