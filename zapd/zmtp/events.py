"""What the engine tells its owner."""

from __future__ import annotations

from dataclasses import dataclass

from zapd.zmtp.handshake import CredentialsLike
from zapd.zmtp.run import Run


@dataclass(frozen=True, slots=True)
class AuthenticationRequired:
    """The peer has shown its credentials; the engine waits for ``accept()`` or ``reject(status)``."""

    credentials: CredentialsLike


@dataclass(frozen=True, slots=True)
class HandshakeCompleted:
    """Traffic may flow."""

    socket_type: str
    """The peer's Socket-Type in upper case; empty when it named none (libzmq accepts that)."""
    identity: bytes
    metadata: dict[str, bytes]
    """The peer's other properties, names in lower case; ``user-id`` and ``peer-address`` are dropped
    (a peer could pass for somebody else with them)."""


@dataclass(frozen=True, slots=True)
class MessagesReceived:
    """Whole messages, in order, each a list of parts. One event for all that arrived together: a value for
    each message would cost the hot road more than the framing itself."""

    messages: list[list[bytes]] | Run
    """A `Run` where they lay alike on the wire, in clear."""


@dataclass(frozen=True, slots=True)
class SubscriptionReceived:
    """SUBSCRIBE or CANCEL, as a command or as the message form of 3.0."""

    topic: bytes
    subscribe: bool


@dataclass(frozen=True, slots=True)
class PingReceived:
    """The peer's heartbeat; the PONG is queued already."""

    ttl: float
    """Seconds after which the peer wants to be thought dead if nothing arrives; 0 is never (RFC 37)."""


@dataclass(frozen=True, slots=True)
class PongReceived:
    """The answer to our PING."""

    context: bytes


@dataclass(frozen=True, slots=True)
class ConnectionFailed:
    """The peer broke the protocol, refused us, or was refused. Send what is queued, then close."""

    reason: str
    """For logs; holds no secret."""
    status: int | None = None
    """The three-digit reason of an ERROR we got or sent (a ZAP status), where there was one."""


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The peer went away between messages, after the handshake."""


Event = (
    AuthenticationRequired
    | HandshakeCompleted
    | MessagesReceived
    | SubscriptionReceived
    | PingReceived
    | PongReceived
    | ConnectionFailed
    | ConnectionClosed
)
