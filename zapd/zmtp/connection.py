"""The object an owner holds: one peer's whole protocol state. Bytes in, events out, bytes out.

How it works. `receive_data` takes octets and `events` tells what they meant; `data_to_send` gives what must go
out. In between stands one `State`, and every change of it passes `_move`. Until the peer's 64 octets are
complete they gather in a `CommandReader`; then the mechanism's dialogue (a generator, see
`zapd.zmtp.handshake`) is resumed with each command until it returns a `Session`; from then on a decoder turns
traffic into messages and commands.

It owns no socket, no clock and no task: deadlines, heartbeats and back-pressure are its owner's. It waits for
a verdict (`AuthenticationRequired`) instead of asking anybody. A peer's octets never raise out of it; a
caller's misuse is `LocalProtocolError`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress

from zapd.errors import LocalProtocolError
from zapd.zmtp import commands
from zapd.zmtp.decoding import Batch, ClearDecoder, Decoder, Item, SealedDecoder
from zapd.zmtp.events import (
    AuthenticationRequired,
    ConnectionClosed,
    ConnectionFailed,
    Event,
    HandshakeCompleted,
    MessagesReceived,
    PingReceived,
    PongReceived,
    SubscriptionReceived,
)
from zapd.zmtp.framing import (
    CommandReader,
    encode_command,
    encode_messages,
    seal_command,
    seal_encoded,
    seal_messages,
)
from zapd.zmtp.greeting import GREETING_SIZE, Greeting, encode_greeting, mechanism_field, parse_greeting
from zapd.zmtp.handshake import Ask, BatchCipher, Handshake, Mechanism, PeerError, Send, Session, in_batches
from zapd.zmtp.limits import DEFAULT_LIMITS, Limits
from zapd.zmtp.metadata import PeerMetadata, own_metadata, read_metadata
from zapd.zmtp.run import Run
from zapd.zmtp.socket_types import PUBLISHERS, SUBSCRIBERS, compatible
from zapd.zmtp.state import OVER, Move, State, after

_REFUSALS = frozenset({400, 500})
_TRY_AGAIN = 300


class Connection:
    """One peer, from its first octet to its last.

    ``socket_type`` and ``identity`` are ours (RFC 23, "Socket-Type"); ``properties`` are more metadata to show
    the peer. Raises `zapd.errors.InvalidInput` when one of them is illegal.
    """

    __slots__ = (
        "_cipher",
        "_decoder",
        "_dialogue",
        "_events",
        "_greeting",
        "_limits",
        "_mechanism",
        "_out",
        "_publishes",
        "_reader",
        "_socket_type",
        "_state",
    )

    def __init__(
        self,
        mechanism: Mechanism,
        socket_type: str,
        *,
        identity: bytes = b"",
        properties: Iterable[tuple[str, bytes]] = (),
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        """Queues all 64 octets of our greeting at once."""
        self._mechanism = mechanism
        self._socket_type = socket_type
        self._publishes = socket_type in PUBLISHERS
        self._limits = limits
        self._state = State.GREETING
        self._greeting: Greeting | None = None
        self._reader = CommandReader(limits.handshake_command)
        # Not started before the peer's greeting has come: what goes ahead of it breaks libzmq.
        self._dialogue: Handshake = mechanism.handshake(own_metadata(socket_type, identity, properties))
        self._cipher: BatchCipher | None = None
        self._decoder: Decoder | None = None
        self._events: list[Event] = []
        self._out: list[bytes] = [encode_greeting(mechanism.name, as_server=mechanism.as_server)]

    # Looking at it

    @property
    def state(self) -> State:
        """Where it stands."""
        return self._state

    @property
    def ready(self) -> bool:
        """The handshake is over and traffic may flow."""
        return self._state is State.READY

    @property
    def closed(self) -> bool:
        """Failed or closed: nothing more will be taken or sent."""
        return self._state in OVER

    @property
    def greeting(self) -> Greeting | None:
        """The peer's greeting, once all of it has come."""
        return self._greeting

    # Bytes in, events out, bytes out

    def receive_data(self, data: bytes) -> None:
        """Take what arrived. A peer can never make this raise. Data after the end is ignored."""
        if self._decoder is not None:
            self._receive_traffic(self._decoder, data)
        elif self._state not in OVER:
            self._reader.feed(data)
            self._receive_handshake()

    def receive_eof(self) -> None:
        """The peer closed its side."""
        if self._decoder is not None:
            if self._decoder.between_messages:
                self._move(Move.LEAVE)
                self._forget()
                self._events.append(ConnectionClosed())
            else:
                self._fail("the peer left in the middle of a message")
        elif self._state not in OVER:
            self._fail("the peer left during the handshake")

    def events(self) -> list[Event]:
        """What happened since the last call, in order."""
        happened = self._events
        self._events = []
        return happened

    def data_to_send(self) -> bytes:
        """What must go out now, joined; empty when there is nothing. Still to be sent after a failure."""
        out = self._out
        if len(out) == 1:
            return out.pop()
        data = b"".join(out)
        out.clear()
        return data

    # The verdict

    def accept(self) -> None:
        """Let the peer in. Only after `AuthenticationRequired`; else `LocalProtocolError`."""
        self._move(Move.ACCEPT)
        self._resume(None)
        self._receive_handshake()

    def reject(self, status: int) -> None:
        """Refuse the peer: 400 and 500 go out as ERROR; 300 sends nothing. Then `ConnectionFailed` follows
        (its owner holds the transport open for a while after a 300). Keys and buffers are freed at once.

        Only after `AuthenticationRequired`; else `LocalProtocolError`.
        """
        if status not in _REFUSALS and status != _TRY_AGAIN:
            raise LocalProtocolError(f"a peer is refused with 300, 400 or 500, not {status}")
        if self._state is not State.VERDICT:
            raise LocalProtocolError("nobody waits for a verdict")
        if status in _REFUSALS:
            # RFC 27 names the codes; libzmq reads exactly these three digits as an authentication failure.
            self._out.append(encode_command(commands.encode_error(b"%d" % status)))
        self._fail("refused" if status in _REFUSALS else "refused for now", int(status))

    # Traffic

    def send_messages(self, messages: Iterable[Sequence[bytes]]) -> None:
        """Queue whole messages. `LocalProtocolError` unless `ready`, and for a message without parts."""
        if self._decoder is None:
            raise LocalProtocolError("messages can be sent only while the connection is ready")
        cipher = self._cipher
        self._out.append(encode_messages(messages) if cipher is None else seal_messages(messages, cipher))

    def send_encoded(self, octets: bytes) -> None:
        """Queue whole messages that are clear frames already (`zapd.zmtp.framing.encode_messages`), well formed;
        inside a cipher they are sealed as all others. `LocalProtocolError` unless `ready`."""
        if self._decoder is None:
            raise LocalProtocolError("messages can be sent only while the connection is ready")
        cipher = self._cipher
        self._out.append(octets if cipher is None else seal_encoded(octets, cipher))

    def send_ping(self, ttl: float = 0.0, context: bytes = b"") -> None:
        """Queue a PING; ``ttl`` in seconds, below 65.6 (libzmq counts in 16 bits of milliseconds); ``context``
        of at most 16 octets comes back in the PONG. `LocalProtocolError` beyond, and unless `ready`."""
        self._send_command(commands.encode_ping(ttl, context))

    def send_subscription(self, topic: bytes, *, subscribe: bool = True) -> None:
        """Queue SUBSCRIBE or CANCEL in the form that the peer's version wants: a command since 3.1, a message
        before. `LocalProtocolError` unless `ready` and a SUB or XSUB."""
        if self._socket_type not in SUBSCRIBERS:
            raise LocalProtocolError(f"a {self._socket_type} socket does not subscribe")
        if self._greeting is not None and self._greeting.speaks_commands:
            self._send_command(commands.encode_subscription(topic, subscribe=subscribe))
        else:
            self.send_messages([[bytes((subscribe,)) + topic]])

    def _send_command(self, body: bytes) -> None:
        if self._decoder is None:
            raise LocalProtocolError("commands can be sent only while the connection is ready")
        cipher = self._cipher
        self._out.append(encode_command(body) if cipher is None else seal_command(body, cipher))

    # Inside: the state

    def _move(self, move: Move) -> None:
        """The one place where the state changes."""
        self._state = after(self._state, move)

    def _fail(self, reason: str, status: int | None = None) -> None:
        """End it for cause; what is queued still goes out."""
        self._move(Move.FAIL)
        self._forget()
        self._events.append(ConnectionFailed(reason, status))

    def _forget(self) -> None:
        """Free keys and buffers: a refused peer may be kept waiting for seconds, and must cost nothing."""
        self._reader.take_rest()
        self._decoder = None
        self._cipher = None
        with suppress(Exception):  # a third party's clean-up; nothing depends on it
            self._dialogue.close()

    # Inside: the handshake

    def _receive_handshake(self) -> None:
        """Go on with what has come, as far as it leads."""
        reader = self._reader
        try:
            if self._state is State.GREETING and not self._greet(reader):
                return
            while self._state is State.HANDSHAKE:
                body = reader.next()
                if body is None:
                    return
                self._take_command(body)
        except PeerError as fault:
            self._fail(str(fault))
            return
        if self._state is State.VERDICT and reader.held > self._limits.handshake_command:
            self._fail(f"more than {self._limits.handshake_command} octets sent ahead of the verdict")

    def _greet(self, reader: CommandReader) -> bool:
        """Judge the peer's greeting; whether it is complete and the dialogue has begun."""
        greeting = parse_greeting(reader.peek(GREETING_SIZE))
        if greeting is None:
            return False
        reader.skip(GREETING_SIZE)
        self._greeting = greeting
        # The mechanism is ours to choose, never the peer's (CVE-2014-7202). Our own 64 octets are queued by
        # now, as RFC 23 wants, so the peer learns what we speak.
        ours = self._mechanism.name
        if greeting.mechanism != mechanism_field(ours):
            raise PeerError(f"mechanism mismatch: the peer wants {greeting.mechanism_name}, we speak {ours}")
        self._move(Move.GREET)
        self._resume(None)
        return True

    def _take_command(self, body: bytes) -> None:
        """One command of the peer's during the handshake."""
        plain_client = self._mechanism.name == "PLAIN" and not self._mechanism.as_server
        error = commands.decode_error(body, misspelt=plain_client)
        if error is None:
            self._resume(body)
        else:
            self._fail(f"the peer refused: {error.text}", error.status)

    def _resume(self, came: bytes | None) -> None:
        """Let the dialogue run to its next pause. Never raises: its faults end the connection."""
        said: list[bytes] = []
        try:
            step = self._dialogue.send(came)
            while isinstance(step, Send):
                said.append(encode_command(step.body))
                step = self._dialogue.send(None)
        except StopIteration as end:
            session: Session = end.value
        except Exception as fault:  # noqa: BLE001  (a third party's mechanism may break on a peer's octets)
            self._out += said
            self._fail(_blame(fault))
            return
        else:
            self._out += said
            if isinstance(step, Ask):
                self._move(Move.ASK)
                self._events.append(AuthenticationRequired(step.credentials))
            return
        self._complete(session, said)

    def _complete(self, session: Session, said: list[bytes]) -> None:
        """Judge the peer's metadata, then open the road. What the dialogue said last (the server's READY) was
        withheld until now: an illegal pair gets ERROR in its place."""
        try:
            peer = read_metadata(session.metadata, self._limits)
            cipher = None if session.cipher is None else in_batches(session.cipher)
        except Exception as fault:  # noqa: BLE001  (as in `_resume`: it may not even be a session)
            self._fail(_blame(fault))
            return
        if peer.socket_type and not compatible(self._socket_type, peer.socket_type):
            self._refuse_pair(peer)
            return
        self._out += said
        rest = self._reader.take_rest()
        self._cipher = cipher
        decoder = ClearDecoder(self._limits) if cipher is None else SealedDecoder(self._limits, cipher)
        self._decoder = decoder
        self._move(Move.COMPLETE)
        self._events.append(HandshakeCompleted(peer.socket_type, peer.identity, dict(peer.others)))
        if rest:
            self._receive_traffic(decoder, rest)

    def _refuse_pair(self, peer: PeerMetadata) -> None:
        # RFC 23: ERROR, then close. In PLAIN and CURVE it is the server's to send; NULL has no sides.
        if self._mechanism.as_server or self._mechanism.name == "NULL":
            self._out.append(encode_command(commands.encode_error(b"Socket-Type")))
        self._fail(f"a {peer.socket_type} socket cannot talk to a {self._socket_type}")

    # Inside: traffic

    def _receive_traffic(self, decoder: Decoder, data: bytes) -> None:
        """Turn traffic into events; what came whole before a fault is still delivered."""
        items: list[Item] = []
        try:
            try:
                decoder.feed(data, items)
            finally:
                for item in items:
                    if self._decoder is None:  # the command before ended it
                        break
                    if isinstance(item, bytes):
                        self._receive_command(item)
                    elif self._publishes:
                        self._receive_subscriptions(item)
                    else:
                        self._events.append(MessagesReceived(item))
        except Exception as fault:  # noqa: BLE001  (as in `_resume`: a third party's cipher)
            if self._decoder is not None:
                self._fail(_blame(fault))

    def _receive_subscriptions(self, batch: Batch | Run) -> None:
        """A publisher takes both forms of subscription from everybody, as libzmq does. An XPUB shows its
        application other messages too; a PUB has no use for them."""
        others: Batch = []
        for parts in batch:
            kind = parts[0][:1]
            if len(parts) == 1 and kind in (b"\0", b"\1"):
                if others:
                    self._events.append(MessagesReceived(others))
                    others = []
                if len(parts[0]) > self._limits.command:
                    raise PeerError(f"a topic longer than {self._limits.command} octets")
                self._events.append(SubscriptionReceived(parts[0][1:], kind == b"\1"))
            elif self._socket_type == "XPUB":
                others.append(parts)
        if others:
            self._events.append(MessagesReceived(others))

    def _receive_command(self, body: bytes) -> None:
        """A command amid traffic. Unknown ones are passed over: later versions may add some."""
        error = commands.decode_error(body)
        if error is not None:
            self._fail(f"the peer gave up: {error.text}", error.status)
            return
        name, data = commands.split_command(body)
        if name == b"PING":
            ttl, context = commands.decode_ping(data)
            self._send_command(commands.encode_pong(context))
            self._events.append(PingReceived(ttl))
        elif name == b"PONG":
            self._events.append(PongReceived(commands.decode_pong(data)))
        elif name in (b"SUBSCRIBE", b"CANCEL"):
            # libzmq would hand the body to any socket's application as if it were a message.
            if not self._publishes:
                raise PeerError(f"{name.decode()} sent to a {self._socket_type} socket")
            self._events.append(SubscriptionReceived(data, name == b"SUBSCRIBE"))


def _blame(fault: Exception) -> str:
    """Why it failed, for logs. What a third party's mechanism raised may hold a secret, so only its kind."""
    return str(fault) if isinstance(fault, PeerError) else f"the mechanism broke: {type(fault).__name__}"
