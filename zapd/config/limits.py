"""``[limits]``: every bound that zapd keeps, by name.

The defaults are those of the rooms that keep them (`zapd.zmtp.limits`, `zapd.net.limits`, the endpoint and the
hash pool); a test holds the two together. Nothing here may be switched off: a bound can be moved, not removed.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from zapd.config.values import Duration, Size, Whole

Count = Annotated[Whole, Field(ge=1, le=2**31)]
CountOrNone = Annotated[Whole, Field(ge=0, le=2**31)]
MiB = 1 << 20


class LimitsSection(BaseModel):
    """Every bound. The defaults suit a fleet of thousands."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True
    )

    backend_deadline: Duration = 0.8
    """How long one backend may take to answer a question."""
    plan_deadline: Duration = 1.0
    """How long all backends of a domain together may take; then the answer is 300."""
    agent_deadline: Duration = 2.0
    """How long the agents of this fleet wait for an answer. zapd only holds the order of times against it; it is
    set where an agent starts."""
    handshake_deadline: Duration = 5.0
    """From a connection's first moment to its first question, all together; no octet that arrives makes it
    longer."""

    connections: CountOrNone = 0
    """Open connections of every kind; 0 is what the process may open, less `descriptors_reserved`."""
    descriptors_reserved: CountOrNone = 64
    """Descriptors kept back for files, databases and administration when `connections` is 0."""
    handshakes_total: Count = 4096
    """Connections in handshake; one more closes the oldest of them."""
    handshakes_start: Count = 1024
    """From so many in handshake on, newcomers are dropped at random, more often the nearer `handshakes_total`
    is."""
    handshakes_spared: CountOrNone = 8
    """A source with fewer than this in handshake is spared the dropping at random: it is not the flood."""
    known_sources: Count = 4096
    """Sources remembered for a handshake that was completed lately: their newcomers are not sent away in a flood,
    and come first. One more forgets the oldest."""
    handshakes_per_source: Count = 64
    """Connections in handshake from one IPv4 address, one IPv6 /64, or one user over ipc."""
    handshakes_per_site: Count = 256
    """Connections in handshake from one IPv6 /48."""
    handshake_memory: Size = 16 * MiB
    """What all connections in handshake may have sent; beyond it the oldest are closed."""
    handshake_steps: Count = 8
    """Reads of strangers handled in one turn of the loop; the others wait while established peers are served.
    While newcomers wait longer than 10 ms, a share of those who come is sent away at once."""
    hold_min: Duration = 1.0
    """A connection that got 300 stays open and silent for a random time from this …"""
    hold_max: Duration = 5.0
    """… to this: libzmq comes back as soon as it is closed."""
    held_total: Count = 4096
    """Connections held silent; one more closes the oldest of them early."""
    linger: Duration = 1.0
    """How long a refused peer may take to read its ERROR, and a closing one what is left."""
    backlog: Count = 4096
    """Connections that the kernel queues before they are accepted."""
    accept_batch: Count = 16
    """Newcomers taken at a time, between which established peers are served."""
    failure_interval: Duration = 1.0
    """At most one failed handshake is logged in so long; the others are counted with the next."""

    write_high: Size = 256 * 1024
    """More than this unsent, and nothing more is read from that peer until it has read."""
    unsent: Size = 4 * MiB
    """More than this unsent closes the connection."""
    stalled: Duration = 30.0
    """A peer that takes nothing off `write_high` for so long is closed."""
    ping_after: Duration = 30.0
    """Silence after which a PING goes out; `"0s"` is never."""
    ping_timeout: Duration = 30.0
    """Silence after that PING which closes a peer that is known to answer PING."""

    handshake_command: Size = 4096
    """The largest command before the handshake is over."""
    command_size: Size = 4096
    """The largest command afterwards."""
    frame_size: Size = MiB
    """The largest frame of a message."""
    message_size: Size = MiB
    """The largest message, all frames together."""
    message_frames: Count = 64
    """Frames in one message."""
    properties: Count = 64
    """Metadata properties in one handshake."""

    max_in_flight_per_agent: Count = 1024
    """Questions of one connection that wait for a backend; one more is answered 300 at once."""
    max_in_flight: Count = 8192
    """The same for all connections together."""
    hash_workers: CountOrNone = 0
    """Password hashes worked on at a time; 0 is as many as there are cores."""
    hash_waiting: CountOrNone = 64
    """Password hashes that may wait for a worker; one more is answered 300 at once."""
    refusals_per_source: Count = 10
    """400s, and 300s after asking, that one IPv4 address, IPv6 /48 or local user is given in a second, each with
    its record; one more is answered 300 and counted."""
    refusals_per_agent: Count = 100
    """The same for all that one agent asks about."""
    penalty_entries: Count = 65_536
    """Addresses, names and keys that are remembered for wrong tries; and as many for having been let in."""

    pending_per_domain: Count = 1000
    """Unknown keys that wait for approval in one `[domain.…]`; one more takes the place of one from the source
    that has the most there."""
    pending_per_source: Count = 20
    """The same for one IPv4 address, one IPv6 /48, or one user over ipc, in all domains together."""
    pending_per_agent: Count = 200
    """The same for one agent that asks about them."""
    pending_lifetime: Duration = 30 * 86400.0
    """A key that waits and does not come again for so long is forgotten."""

    audit_followers: Count = 16
    """Callers of the admin API that follow the record at one time; one more gets 503."""
    audit_exports: Count = 2
    """Exports of the record at one time; one more gets 503."""

    joins: Count = 10_000
    """Join tokens that may still be exchanged; one more is refused."""
    signins: Count = 32
    """Sign-ins that are worked on at a time; one more gets 503."""
    signin_keys_per_user: Count = 8
    """Keys that one user has signed in for and that have not ended; one more is refused."""
