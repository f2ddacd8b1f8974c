"""The lobby: connections that are not peers yet, and who must leave when it is full (R1).

Two rooms. In *handshake* are strangers, bounded in all, for each source, and by what they have sent. *Held* are
those that were answered 300 and wait in silence, and for a moment those that were refused and read their ERROR.
Strangers are cheap to replace (a legitimate one needs milliseconds, a hostile one stays as long as it may), so it
is always the oldest that leaves, and each when its time is over. Established peers never stand here; but the lobby
remembers from where they came lately, because such an address is no part of a flood.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Callable

from zapd.net.ending import Ending
from zapd.net.limits import NetCounters, NetLimits
from zapd.net.peer import Peer
from zapd.net.waits import Waits

_random = random.SystemRandom()
_MAPPED = bytes(10) + b"\xff\xff"
_IPV4, _IPV6_64, _IPV6_48 = b"4", b"6", b"8"  # the first octet of a source says what kind it is


def tcp_source(host: str) -> tuple[bytes, ...]:
    """The networks that a numeric address counts for: itself for IPv4, its /64 and its /48 for IPv6."""
    host = host.partition("%")[0]
    if ":" not in host:
        return (_IPV4 + socket.inet_pton(socket.AF_INET, host),)
    packed = socket.inet_pton(socket.AF_INET6, host)
    if packed.startswith(_MAPPED):
        return (_IPV4 + packed[12:],)
    return (_IPV6_64 + packed[:8], _IPV6_48 + packed[:6])


def ipc_source(uid: int) -> tuple[bytes, ...]:
    """What an ipc peer counts for: its user."""
    return (b"u%d" % uid,)


class Lobby:
    """Counts strangers, and closes those that must make room."""

    def __init__(
        self,
        limits: NetLimits,
        counters: NetCounters,
        chance: Callable[[], float] = _random.random,
    ) -> None:
        """``chance`` gives numbers from 0 to 1 for the early drop."""
        self._limits = limits
        self._counters = counters
        self._chance = chance
        self._strangers: Waits[Peer] = Waits(limits.peer.handshake_deadline, self._end_late)
        self._known: dict[bytes, None] = {}  # by their last good handshake, oldest first
        self._held: dict[Peer, None] = {}
        self._sources: dict[bytes, int] = {}
        self._octets = 0

    def set_limits(self, limits: NetLimits) -> None:
        """Keep these bounds from now on; nobody who is in is sent away for them."""
        self._limits = limits
        self._strangers.seconds = limits.peer.handshake_deadline

    @property
    def in_handshake(self) -> int:
        return len(self._strangers)

    @property
    def held(self) -> int:
        return len(self._held)

    @property
    def octets(self) -> int:
        """What strangers have sent, all together."""
        return self._octets

    def knows(self, source: tuple[bytes, ...]) -> bool:
        """Whether a handshake from there was completed lately, and none has failed since."""
        return source[0] in self._known

    def has_place(self, source: tuple[bytes, ...]) -> bool:
        """Whether a newcomer from there may enter; counts the refusal when not."""
        limits, sources = self._limits, self._sources
        here = 0
        for key in source:
            here = max(here, mine := sources.get(key, 0))
            if mine >= self._bound(key):
                self._counters.refused_per_source += 1
                return False
        beyond = len(self._strangers) - limits.handshakes_start
        if beyond >= 0 and here >= limits.handshakes_spared:
            room = max(1, limits.handshakes - limits.handshakes_start)
            if self._chance() * room < beyond:
                self._counters.refused_early += 1
                return False
        return True

    def enter(self, peer: Peer) -> None:
        """A newcomer; the oldest stranger leaves when there are too many."""
        if len(self._strangers) >= self._limits.handshakes:
            self._evict(next(iter(self._strangers)))
        self._strangers.add(peer)
        for key in peer.source:
            self._sources[key] = self._sources.get(key, 0) + 1

    def add_octets(self, count: int) -> None:
        """Strangers have sent more; the oldest leave when it is too much."""
        self._octets += count
        while self._octets > self._limits.handshake_octets and self._strangers:
            self._evict(next(iter(self._strangers)))

    def let_in(self, peer: Peer) -> None:
        """It is a stranger no more, and its source is known for a while."""
        self.leave(peer)
        source = peer.source[0]
        self._known.pop(source, None)
        self._known[source] = None
        if len(self._known) > self._limits.known_sources:
            del self._known[next(iter(self._known))]

    def forget(self, peer: Peer) -> None:
        """Its handshake came to nothing: its source is known no more."""
        self._known.pop(peer.source[0], None)

    def leave(self, peer: Peer) -> None:
        """It is a stranger no more: let in, refused or gone. Twice does no harm."""
        if self._strangers.discard(peer):
            self._gone(peer)

    def _gone(self, peer: Peer) -> None:
        self._octets -= peer.early_octets
        for key in peer.source:
            left = self._sources[key] - 1
            if left:
                self._sources[key] = left
            else:
                del self._sources[key]

    def hold(self, peer: Peer) -> None:
        """Its verdict is out and its connection open; the longest held is closed when there are too many."""
        if len(self._held) >= self._limits.held:
            self._release(next(iter(self._held)))
        self._held[peer] = None

    def lost(self, peer: Peer) -> None:
        """Its transport is gone."""
        self._held.pop(peer, None)

    def make_room(self) -> bool:
        """Close one connection to free its descriptor: the longest held, else the oldest stranger. False when
        there is neither."""
        if self._held:
            self._release(next(iter(self._held)))
            return True
        if self._strangers:
            self._evict(next(iter(self._strangers)))
            return True
        return False

    def close(self) -> None:
        """Close everybody in here."""
        for peer in [*self._held, *self._strangers]:
            peer.abort()
        self._strangers.clear()

    def _bound(self, key: bytes) -> int:
        kind = key[:1]
        if kind == _IPV6_64:
            return self._limits.handshakes_per_ipv6_64
        if kind == _IPV6_48:
            return self._limits.handshakes_per_ipv6_48
        return self._limits.handshakes_per_ipv4

    def _end_late(self, peer: Peer) -> None:
        self._gone(peer)
        peer.too_late()

    def _evict(self, peer: Peer) -> None:
        self._counters.evicted_handshakes += 1
        peer.abort(Ending.CROWDED, "closed to make room for newcomers")
        self.leave(peer)

    def _release(self, peer: Peer) -> None:
        del self._held[peer]
        self._counters.evicted_held += 1
        peer.abort()
