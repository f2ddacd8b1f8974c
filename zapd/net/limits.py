"""Every bound of the network in one place, and the numbers that it counts.

Seconds are seconds, sizes are octets. The engine's bounds on one peer are in `zapd.zmtp.limits`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from zapd.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class PeerLimits:
    """What one connection may take, and how long it may be silent."""

    handshake_deadline: float = 5.0
    """From the first moment to traffic, all together; no octet that arrives makes it longer (R1)."""
    held_shortest: float = 1.0
    held_longest: float = 5.0
    """After a 300 the connection stays open and silent for a random time between these two: libzmq comes back as
    soon as it is closed, and a pending device must not ask for handshakes without pause."""
    linger: float = 1.0
    """How long a refused peer may take to read its ERROR, and a closing one to read what is left."""
    write_high: int = 256 * 1024
    """More than this unsent, and nothing more is read from that peer until it has read."""
    unsent: int = 4 * 1024 * 1024
    """More than this unsent closes the connection."""
    stalled: float = 30.0
    """A peer that takes nothing off ``write_high`` for so long is closed."""
    ping_after: float = 30.0
    """Silence after which a PING goes out; 0 never. (A few libraries take a PING badly.)"""
    ping_timeout: float = 30.0
    """Silence after that PING which closes a peer that is known to answer PING (RFC 37, "heartbeating"). One
    that never answered any is left to TCP's own keep-alive."""

    def __post_init__(self) -> None:
        _refuse_nonsense(self)
        if self.held_longest < self.held_shortest:
            raise InvalidInput("held_longest is below held_shortest")


@dataclass(frozen=True, slots=True)
class NetLimits:
    """What all peers of one router may take together."""

    peer: PeerLimits = field(default_factory=PeerLimits)
    connections: int = 0
    """Open connections of every kind; 0 takes what the process may open, less ``descriptors_reserved``."""
    descriptors_reserved: int = 64
    """Descriptors kept back for files, databases and administration when ``connections`` is 0."""
    handshakes: int = 4096
    """Connections in handshake; one more closes the oldest of them."""
    handshakes_start: int = 1024
    """From here on newcomers are dropped at random, more often the nearer ``handshakes`` is."""
    handshakes_spared: int = 8
    """A source with fewer than this in handshake is spared that: it is not the flood."""
    known_sources: int = 4096
    """Sources remembered for a handshake that was completed lately: their newcomers are not sent away in a flood,
    and come first. One more forgets the oldest."""
    handshakes_per_ipv4: int = 64
    """Connections in handshake from one IPv4 address, and from one uid over ipc."""
    handshakes_per_ipv6_64: int = 64
    handshakes_per_ipv6_48: int = 256
    """The same for the networks that one IPv6 subscriber or site commonly has to himself."""
    handshake_octets: int = 16 * 1024 * 1024
    """What peers in handshake have sent, all together (an upper bound for what is kept of it); beyond it the
    oldest are closed."""
    handshake_steps: int = 8
    """Reads of strangers that are handled in one turn of the loop; the others wait while established peers are
    served (R2). While they wait too long, a share of the newcomers is sent away at once."""
    held: int = 4096
    """Connections held silent after a 300, or open until an ERROR has been read; one more closes the oldest of
    them early."""
    backlog: int = 4096
    """Connections that the kernel queues before they are accepted."""
    accept_batch: int = 16
    """Newcomers taken at a time, between which established peers are served."""
    failure_interval: float = 1.0
    """At most one failure is reported in so many seconds; the others are counted with the next."""

    def __post_init__(self) -> None:
        _refuse_nonsense(self)
        if self.handshakes_start > self.handshakes:
            raise InvalidInput("handshakes_start is above handshakes")


@dataclass(slots=True)
class NetCounters:
    """Plain numbers that only rise, for metrics."""

    accepted: int = 0
    """Connections taken from the kernel."""
    refused_per_source: int = 0
    """Closed at once: its source has too many in handshake."""
    refused_early: int = 0
    """Closed at once: random early drop."""
    refused_busy: int = 0
    """Closed at once: handshakes wait too long, so a share of the newcomers is sent away."""
    refused_uid: int = 0
    """Closed at once: an ipc peer of a uid that may not connect."""
    evicted_handshakes: int = 0
    """Closed in handshake to make room."""
    evicted_held: int = 0
    """Held after a 300 or an ERROR, and closed early to make room."""
    descriptors_exhausted: int = 0
    """Times the process had no descriptor left for a newcomer."""
    handshakes_ok: int = 0
    handshakes_deadline: int = 0
    """Handshakes not over in time."""
    handshakes_protocol: int = 0
    """Handshakes that broke the protocol, or offered another mechanism."""
    handshakes_refused: int = 0
    """Answered 400 or 500."""
    handshakes_held: int = 0
    """Answered 300."""
    handshakes_left: int = 0
    """The stranger went away by itself."""
    closed_protocol: int = 0
    """Established peers that broke the protocol."""
    closed_unread: int = 0
    """Established peers that did not read what we sent."""
    closed_silent: int = 0
    """Established peers that missed their heartbeat."""
    messages_received: int = 0
    accept_errors: int = 0
    """Newcomers lost to an error of the system other than want of descriptors."""


def _refuse_nonsense(limits: PeerLimits | NetLimits) -> None:
    may_be_zero = {
        "connections",
        "descriptors_reserved",
        "failure_interval",
        "handshakes_spared",
        "held_shortest",
        "ping_after",
    }
    for each in fields(limits):
        value = getattr(limits, each.name)
        if isinstance(value, int | float) and (value < 0 or (value == 0 and each.name not in may_be_zero)):
            raise InvalidInput(f"{each.name} = {value}: must be above zero")
