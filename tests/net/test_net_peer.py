"""One connection: heartbeats, back-pressure, and the bounds on what a peer may leave unread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from support.net_wire import RawPeer, command, greeting, message, ready, until

from zapd.errors import InvalidInput
from zapd.net.address import Address
from zapd.net.ending import Ending
from zapd.net.limits import NetLimits, PeerLimits
from zapd.net.peer import Peer
from zapd.net.router import Router
from zapd.zmtp.mechanisms.null import NullServer

BOTH_LOOPS = True


@asynccontextmanager
async def listening(router: Router) -> AsyncIterator[Address]:
    try:
        yield await router.listen("tcp://127.0.0.1:0", NullServer())
    finally:
        await router.close(0.1)


def port_of(peer: Peer) -> int:
    """The other side's port: tells two peers of one address apart."""
    assert peer._transport is not None
    port: int = peer._transport.get_extra_info("peername")[1]
    return port


def echo(peer: Peer, messages: list[list[bytes]]) -> None:
    peer.send_messages(messages)


class Gone:
    """Remembers how peers ended."""

    def __init__(self) -> None:
        self.endings: list[Ending | None] = []

    def __call__(self, peer: Peer) -> None:
        self.endings.append(peer.ending)


async def test_a_silent_peer_is_pinged_and_one_that_answers_stays() -> None:
    """PING goes out after silence; as long as PONG comes back the connection lives."""
    limits = NetLimits(peer=PeerLimits(ping_after=0.05, ping_timeout=0.1))
    gone = Gone()
    router = Router(lambda peer, messages: None, on_gone=gone, limits=limits)
    async with listening(router) as address:
        raw = await RawPeer.admitted(address)
        for _ in range(4):
            assert await raw.read_frame() == (4, b"\x04PING\0\0")
            raw.say(command(b"PONG"))
        assert not gone.endings
        assert await raw.read_frame() == (4, b"\x04PING\0\0")
        assert await raw.is_closed()  # known to answer, and now it does not
        await until(lambda: gone.endings == [Ending.SILENT])
        assert router.counters.closed_silent == 1
        await raw.close()


async def test_a_peer_that_never_knew_heartbeats_is_not_cut_for_its_silence() -> None:
    """Old libraries pass PING over without a PONG: they are left to TCP's keep-alive."""
    limits = NetLimits(peer=PeerLimits(ping_after=0.02, ping_timeout=0.02))
    router = Router(echo, limits=limits)
    async with listening(router) as address:
        raw = await RawPeer.admitted(address)
        assert await raw.read_frame() == (4, b"\x04PING\0\0")
        await asyncio.sleep(0.2)
        raw.say(message(b"still here"))
        assert await raw.read_frame() == (0, b"still here")
        await raw.close()


async def test_a_peers_own_time_to_live_is_honoured() -> None:
    """A peer that asked to be thought dead after its TTL is, and traffic of any kind keeps it (RFC 37)."""
    gone = Gone()
    router = Router(lambda peer, messages: None, on_gone=gone, limits=NetLimits(peer=PeerLimits(ping_after=0)))
    async with listening(router) as address:
        raw = await RawPeer.admitted(address)
        raw.say(command(b"PING", b"\x00\x02ctx"))  # 0.2 s
        assert await raw.read_frame() == (4, b"\x04PONGctx")
        for _ in range(6):
            await asyncio.sleep(0.05)
            raw.say(message(b"x"))
        assert not gone.endings
        assert await raw.is_closed()
        await until(lambda: gone.endings == [Ending.SILENT])
        await raw.close()


async def test_who_does_not_read_is_not_read_from_and_goes_on_when_he_reads() -> None:
    """A full write buffer stops reading from that peer; nothing is lost when it has drained."""
    limits = NetLimits(peer=PeerLimits(write_high=10_000))
    seen = 0

    def answer(peer: Peer, messages: list[list[bytes]]) -> None:
        nonlocal seen
        seen += len(messages)
        peer.send_messages([[bytes(2000)] for _ in messages])

    router = Router(answer, limits=limits)
    async with listening(router) as address:
        raw = await RawPeer.admitted(address)
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        asked = 0
        for _ in range(400):
            raw.say(message(bytes(250)) * 10)
            asked += 10
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        (peer,) = router.peers
        assert seen < asked
        assert not peer._reading
        raw.writer.transport.resume_reading()  # type: ignore[attr-defined]
        for _ in range(asked):
            await raw.read_message()
        assert seen == asked
        await raw.close()


async def test_a_reader_that_never_reads_is_closed_at_the_bound() -> None:
    """What is unsent has a hard bound, and reaching it ends that peer alone."""
    limits = NetLimits(peer=PeerLimits(write_high=1000, unsent=100_000))
    gone = Gone()
    router = Router(lambda peer, messages: None, on_gone=gone, limits=limits)
    async with listening(router) as address:
        raw = await RawPeer.admitted(address)
        other = await RawPeer.admitted(address)
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        port = raw.writer.get_extra_info("sockname")[1]
        victim = next(each for each in router.peers if port_of(each) == port)
        most = 0
        while victim.send_messages([[bytes(50_000)]]):
            await asyncio.sleep(0)
            most = max(most, victim.unsent)
        assert gone.endings == [Ending.UNREAD]
        assert most <= 200_000
        assert router.counters.closed_unread == 1
        assert len(router.peers) == 1
        await raw.close()
        await other.close()


async def test_a_reader_that_stops_below_the_bound_is_closed_after_a_while() -> None:
    """Nobody keeps a buffer of ours for ever: a stalled peer has its deadline too."""
    limits = NetLimits(peer=PeerLimits(write_high=1000, stalled=0.1))
    gone = Gone()
    router = Router(lambda peer, messages: None, on_gone=gone, limits=limits)
    async with listening(router) as address:
        raw = await RawPeer.admitted(address)
        raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
        (peer,) = router.peers
        while not peer.unsent:
            peer.send_messages([[bytes(100_000)]])
            await asyncio.sleep(0)
        await until(lambda: gone.endings == [Ending.UNREAD])
        await raw.close()


async def test_breaking_the_protocol_after_the_handshake_ends_the_peer() -> None:
    """What came before the fault is delivered; the fault ends the connection."""
    got: list[list[bytes]] = []
    gone = Gone()
    router = Router(lambda peer, messages: got.extend(messages), on_gone=gone)
    async with listening(router) as address:
        raw = await RawPeer.admitted(address)
        raw.say(message(b"well") + b"\xff\xff")
        assert await raw.is_closed()
        assert got == [[b"well"]]
        assert gone.endings == [Ending.PROTOCOL]
        assert router.counters.closed_protocol == 1
        await raw.close()


async def test_an_answer_to_what_stood_before_a_fault_is_refused_quietly() -> None:
    """The engine has failed already when the owner answers: False, no exception."""
    sent: list[bool] = []
    router = Router(lambda peer, messages: sent.append(peer.send_messages(messages)))
    async with listening(router) as address:
        raw = await RawPeer.admitted(address)
        raw.say(message(b"well") + b"\xff\xff")
        assert await raw.is_closed()
        assert sent == [False]
        await raw.close()


async def test_an_owner_may_close_a_peer_while_it_delivers() -> None:
    """What was answered leaves, the rest of the batch is not delivered, and the end is told once."""
    got: list[list[bytes]] = []
    gone = Gone()

    def answer_and_close(peer: Peer, messages: list[list[bytes]]) -> None:
        got.extend(messages)
        peer.send_messages([[b"farewell"]])
        peer.close("enough")
        assert not peer.send_messages([[b"too late"]])

    router = Router(answer_and_close, on_gone=gone)
    async with listening(router) as address:
        raw = await RawPeer.admitted(address)
        raw.say(message(b"one") + command(b"PING", b"\0\0") + message(b"two"))
        assert await raw.read_frame() == (4, b"\x04PONG")
        assert await raw.read_message() == [b"farewell"]
        assert await raw.reader.read() == b""
        assert gone.endings == [Ending.CLOSED]
        assert got == [[b"one"]]
        await raw.close()


async def test_an_illegal_socket_pair_is_told_by_error() -> None:
    """A PUB cannot talk to a ROUTER: it hears ERROR in place of READY, and is closed."""
    router = Router(lambda peer, messages: None)
    async with listening(router) as address:
        raw = await RawPeer.connect(address)
        raw.say(greeting() + ready(b"PUB"))
        said = await raw.reader.read()
        assert b"\x05ERROR" in said
        assert router.counters.handshakes_protocol == 1
        await raw.close()


@pytest.mark.parametrize("value", [{"handshake_deadline": 0}, {"linger": -1}, {"held_shortest": 6.0}])
def test_nonsense_limits_are_refused(value: dict[str, float]) -> None:
    """A bound of nothing, or one that crosses another, is a mistake with a name."""
    with pytest.raises(InvalidInput):
        PeerLimits(**value)  # type: ignore[arg-type]


def test_nonsense_router_limits_are_refused() -> None:
    """The early drop cannot start behind the end."""
    with pytest.raises(InvalidInput, match="handshakes_start"):
        NetLimits(handshakes=10, handshakes_start=11)
