"""The object an owner holds: one peer's whole protocol state.

(Contract for the rooms above; the engine's author completes it.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zapd.zmtp.events import Event
from zapd.zmtp.handshake import Mechanism
from zapd.zmtp.limits import DEFAULT_LIMITS, Limits


class Connection:
    """Bytes in, events out, bytes out; no socket, no clock."""

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
        raise NotImplementedError

    @property
    def ready(self) -> bool:
        """The handshake is over and traffic may flow."""
        raise NotImplementedError

    @property
    def closed(self) -> bool:
        """Failed or closed: nothing more will be taken or sent."""
        raise NotImplementedError

    def receive_data(self, data: bytes) -> None:
        """Take what arrived. A peer can never make this raise. Data after the end is ignored."""
        raise NotImplementedError

    def receive_eof(self) -> None:
        """The peer closed its side."""
        raise NotImplementedError

    def events(self) -> list[Event]:
        """What happened since the last call, in order."""
        raise NotImplementedError

    def data_to_send(self) -> bytes:
        """What must go out now, joined; empty when there is nothing."""
        raise NotImplementedError

    def accept(self) -> None:
        """Let the peer in. Only after `AuthenticationRequired`; else `LocalProtocolError`."""
        raise NotImplementedError

    def reject(self, status: int) -> None:
        """Refuse the peer: 400 and 500 go out as ERROR; 300 sends nothing. Then `ConnectionFailed` follows
        (its owner holds the transport open for a while after a 300). Keys and buffers are freed at once."""
        raise NotImplementedError

    def send_messages(self, messages: Iterable[Sequence[bytes]]) -> None:
        """Queue whole messages. `LocalProtocolError` unless `ready`."""
        raise NotImplementedError

    def send_ping(self, ttl: float = 0.0, context: bytes = b"") -> None:
        """Queue a PING; ``ttl`` in seconds, below 65.6 (libzmq counts in 16 bits of milliseconds)."""
        raise NotImplementedError

    def send_subscription(self, topic: bytes, *, subscribe: bool = True) -> None:
        """Queue SUBSCRIBE or CANCEL in the form that the peer's version wants."""
        raise NotImplementedError
