"""Who may stand in the lobby, and who must leave it."""

from __future__ import annotations

import asyncio

import pytest

from zapd.net.limits import NetCounters, NetLimits
from zapd.net.lobby import Lobby, ipc_source, tcp_source
from zapd.net.loop import loop_factory
from zapd.net.peer import Peer
from zapd.zmtp.connection import Connection
from zapd.zmtp.handshake import CredentialsLike
from zapd.zmtp.mechanisms.null import NullServer


class Door:
    """An owner that does what the router does with its lobby."""

    def __init__(self, chance: float = 0.5, **limits: int) -> None:
        self.counters = NetCounters()
        self.limits = NetLimits(**limits)  # type: ignore[arg-type]
        self.lobby = Lobby(self.limits, self.counters, lambda: chance)

    def on_credentials(self, peer: Peer, credentials: CredentialsLike) -> None: ...

    def on_early_octets(self, peer: Peer, count: int) -> None: ...

    def on_answered(self, peer: Peer) -> None: ...

    def on_ready(self, peer: Peer) -> None: ...

    def on_ended(self, peer: Peer) -> None:
        self.lobby.leave(peer)

    def on_lost(self, peer: Peer) -> None: ...

    def come(self, source: tuple[bytes, ...]) -> Peer | None:
        """A newcomer from there, if there is place."""
        if not self.lobby.has_place(source):
            return None
        loop = asyncio.get_running_loop()
        connection = Connection(NullServer(), "ROUTER")
        peer = Peer(connection, self, print, self.limits.peer, loop, remote_address="?", source=source)
        self.lobby.enter(peer)
        return peer


def test_sources_are_the_networks_that_one_subscriber_has() -> None:
    """IPv4 counts by address, also in IPv6 clothes; IPv6 by its /64 and its /48; ipc by user."""
    assert tcp_source("192.0.2.1") == tcp_source("::ffff:192.0.2.1")
    assert tcp_source("192.0.2.1") != tcp_source("192.0.2.2")
    near, next_door, far = (tcp_source(f"2001:db8:{net}::1") for net in ("1:1", "1:2", "2:1"))
    assert tcp_source("2001:db8:1:1:ffff::%eth0") == near
    assert near[0] != next_door[0]
    assert near[1] == next_door[1]
    assert near[1] != far[1]
    sources = {*near, *tcp_source("192.0.2.1"), *ipc_source(1000), *ipc_source(10), *ipc_source(0)}
    assert len(sources) == 6


async def test_a_site_has_more_places_than_each_of_its_networks() -> None:
    """Each /64 has its bound, and all of a /48 together theirs."""
    door = Door(handshakes_per_ipv6_64=2, handshakes_per_ipv6_48=5)
    let_in = [[door.come(tcp_source(f"2001:db8:1:{net}::{host}")) for host in range(3)] for net in range(4)]
    assert [sum(peer is not None for peer in network) for network in let_in] == [2, 2, 1, 0]
    assert door.counters.refused_per_source == 7
    assert door.come(tcp_source("2001:db8:2::1"))
    door.lobby.close()


async def test_places_are_given_back_when_strangers_leave() -> None:
    """Counts end at nothing, whoever leaves, and leaving twice changes nothing."""
    door = Door(handshakes_per_ipv4=1)
    source = tcp_source("192.0.2.1")
    for _ in range(3):
        peer = door.come(source)
        assert peer
        assert not door.come(source)
        door.lobby.leave(peer)
        door.lobby.leave(peer)
        peer.abort()
    assert door.lobby.in_handshake == 0
    assert not door.lobby._sources


@pytest.mark.parametrize(("chance", "dropped"), [(0.0, True), (0.4, True), (0.6, False), (0.99, False)])
async def test_the_early_drop_grows_with_the_crowd_and_spares_the_small(chance: float, dropped: bool) -> None:
    """Half-way from start to end every second newcomer of a crowded source is dropped, and nobody else's."""
    door = Door(chance, handshakes=20, handshakes_start=10, handshakes_spared=2)
    for number in range(15):
        assert door.come(tcp_source(f"192.0.2.{number // 2}"))
    assert (door.come(tcp_source("192.0.2.0")) is None) is dropped
    assert door.counters.refused_early == dropped
    assert door.come(tcp_source("192.0.2.99"))
    door.lobby.close()


async def test_when_it_is_full_the_oldest_leaves() -> None:
    """A newcomer takes the place of whoever has been there longest."""
    door = Door(handshakes=3, handshakes_start=3)
    strangers = [door.come(tcp_source(f"192.0.2.{number}")) for number in range(5)]
    assert [peer.ending is None for peer in strangers if peer] == [False, False, True, True, True]
    assert door.counters.evicted_handshakes == 2
    assert door.lobby.make_room()
    assert door.lobby.in_handshake == 2
    door.lobby.close()
    assert not door.lobby.make_room()


async def test_where_somebody_came_in_from_is_known_for_a_while() -> None:
    """The newest sources are remembered, as many as the bound says, and a failure forgets its own."""
    door = Door(known_sources=2)
    peers = []
    for number in range(3):
        peer = door.come(tcp_source(f"192.0.2.{number}"))
        assert peer
        door.lobby.let_in(peer)
        peers.append(peer)
    assert [door.lobby.knows(tcp_source(f"192.0.2.{number}")) for number in range(4)] == [False, True, True, False]
    door.lobby.forget(peers[2])
    assert not door.lobby.knows(tcp_source("192.0.2.2"))
    for peer in peers:
        peer.abort()


def test_a_loop_is_made_with_or_without_uvloop(monkeypatch: pytest.MonkeyPatch) -> None:
    """uvloop where it is installed, asyncio's own elsewhere."""
    made = loop_factory()()
    made.close()
    monkeypatch.setitem(__import__("sys").modules, "uvloop", None)
    assert loop_factory() is asyncio.new_event_loop
