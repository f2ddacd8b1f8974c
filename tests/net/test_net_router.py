"""The router: peers in, messages out, and strangers kept in their bounds; on asyncio and on uvloop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from support.net_handlers import Answering, Hanging
from support.net_wire import RawPeer, greeting, message, ready, until

from zapd.errors import Conflict, LocalProtocolError
from zapd.net.address import Address, TcpAddress
from zapd.net.admission import Admission
from zapd.net.dealer import Dealer
from zapd.net.ending import Ending
from zapd.net.failures import Failure
from zapd.net.limits import NetLimits, PeerLimits
from zapd.net.peer import Peer
from zapd.net.router import Router
from zapd.zmtp.connection import Connection
from zapd.zmtp.mechanisms.null import NullClient, NullServer
from zapd.zmtp.mechanisms.plain import PlainServer

BOTH_LOOPS = True


def echo(peer: Peer, messages: list[list[bytes]]) -> None:
    peer.send_messages(messages)


@asynccontextmanager
async def running(router: Router) -> AsyncIterator[Router]:
    try:
        yield router
    finally:
        await router.close()


async def test_a_dealer_of_ours_is_answered() -> None:
    """What our dealer sends comes back, in order, multipart and large messages too."""
    got: list[list[bytes]] = []
    async with running(Router(echo)) as router:
        address = await router.listen("tcp://127.0.0.1:0", NullServer())
        dealer = Dealer(address, NullClient(), got.extend)
        dealer.start()
        assert await dealer.wait_up(5)
        sent = [[b"%d" % number, b"", bytes(number)] for number in range(500)] + [[b"x" * 500_000]]
        assert dealer.send_messages(sent)
        await until(lambda: len(got) == len(sent))
        assert got == sent
        assert router.counters.handshakes_ok == 1
        assert router.counters.messages_received == 501
        await dealer.close()
        await until(lambda: router.connections == 0)


async def test_all_that_came_together_leaves_in_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    """One read may give several calls of ``on_messages`` (messages that lie alike come by themselves); its answers
    need one write all the same."""
    reads = 0

    def answer(peer: Peer, messages: Sequence[list[bytes]]) -> None:
        for parts in messages:
            peer.send_messages([parts])

    async with running(Router(answer)) as router:
        raw = await RawPeer.admitted(await router.listen("tcp://127.0.0.1:0", NullServer()))
        (peer,) = router.peers
        writes: list[int] = []
        transport: Any = peer._transport

        class Spy:
            def write(self, data: bytes) -> None:
                writes.append(len(data))
                transport.write(data)

            def __getattr__(self, name: str) -> Any:
                return getattr(transport, name)

        peer._transport = Spy()  # type: ignore[assignment]
        receive = Connection.receive_data

        def count(connection: Connection, data: bytes) -> None:
            nonlocal reads
            reads += 1
            receive(connection, data)

        monkeypatch.setattr(Connection, "receive_data", count)
        raw.say(message(b"a", b"b") * 100)
        for _ in range(100):
            assert await raw.read_message() == [b"a", b"b"]
        assert len(writes) == reads
        peer._transport = transport
        await raw.close()


async def test_answers_given_later_leave_together() -> None:
    """Answers sent one by one outside a delivery are joined at the loop's next turn."""
    async with running(Router(lambda peer, messages: None)) as router:
        raw = await RawPeer.admitted(await router.listen("tcp://127.0.0.1:0", NullServer()))
        (peer,) = router.peers
        for number in range(3):
            assert peer.send_messages([[b"%d" % number]])
        assert peer.unsent == 0
        assert [await raw.read_message() for _ in range(3)] == [[b"0"], [b"1"], [b"2"]]
        await raw.close()
        await until(lambda: not router.peers)
        assert not peer.send_messages([[b"too late"]])


async def test_ready_and_gone_are_told_once_each() -> None:
    """The owner learns of an admitted peer, with what the admission said, and of its end."""
    told: list[str] = []
    door = Admission(Answering(200, b"bob", b"\x01X\x00\x00\x00\x01y"), "lab")

    def on_ready(peer: Peer) -> None:
        peer.context = "mine"
        told.append(f"ready {peer.user_id.decode()} {peer.socket_type} {peer.remote_address} {peer.listener}")
        assert peer.metadata == b"\x01X\x00\x00\x00\x01y"

    def on_gone(peer: Peer) -> None:
        told.append(f"gone {peer.context} {peer.ending}")

    async with running(Router(echo, on_ready=on_ready, on_gone=on_gone)) as router:
        raw = await RawPeer.admitted(await router.listen("tcp://127.0.0.1:0", NullServer(), door, name="here"))
        await raw.close()
        await until(lambda: len(told) == 2)
    assert told == ["ready bob DEALER 127.0.0.1 <Listener here>", "gone mine left"]


async def test_messages_sent_with_the_handshake_are_not_lost() -> None:
    """RFC 23 lets a peer send right behind its READY; the question asked meanwhile does not eat it."""
    door = Admission(Answering(200, delay=0.02), "lab")
    async with running(Router(echo)) as router:
        raw = await RawPeer.connect(await router.listen("tcp://127.0.0.1:0", NullServer(), door))
        raw.say(greeting() + ready() + message(b"early"))
        await raw.read_greeting()
        await raw.read_frame()
        assert await raw.read_message() == [b"early"]
        await raw.close()


@pytest.mark.parametrize(
    "trickle", [b"", greeting()[:20], greeting() + b"\x04\xc8"], ids=["silent", "half", "greeted"]
)
async def test_a_slow_loris_ends_at_the_deadline(trickle: bytes) -> None:
    """One octet at a time, or none: the handshake's deadline is one, and absolute."""
    limits = NetLimits(peer=PeerLimits(handshake_deadline=0.25))
    failures: list[Failure] = []
    async with running(Router(echo, limits=limits, on_failure=failures.append)) as router:
        raw = await RawPeer.connect(await router.listen("tcp://127.0.0.1:0", NullServer()))
        began = asyncio.get_running_loop().time()

        async def drip() -> None:
            for octet in trickle + bytes(200 if trickle else 0):
                raw.say(bytes([octet]))
                await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        assert await raw.is_closed()
        assert asyncio.get_running_loop().time() - began >= 0.2
        dripping.cancel()
        assert router.counters.handshakes_deadline == 1
        assert [failure.ending for failure in failures] == [Ending.DEADLINE]
        assert router.lobby.in_handshake == 0
        assert router.lobby.octets == 0
        await raw.close()


async def test_half_open_strangers_are_bounded_and_a_legitimate_peer_gets_in() -> None:
    """Strangers beyond the bounds are turned away or make room, while another source is served."""
    limits = NetLimits(handshakes=40, handshakes_start=20, handshakes_per_ipv4=10)
    async with running(Router(echo, limits=limits)) as router:
        address = await router.listen("tcp://127.0.0.1:0", NullServer())
        strangers = [await RawPeer.connect(address, f"127.0.0.{2 + number % 8}") for number in range(200)]
        await until(lambda: router.counters.accepted == 200)
        assert router.lobby.in_handshake <= 40
        for _ in range(10):
            legitimate = await RawPeer.admitted(address, "127.0.0.99")
            legitimate.say(message(b"hello"))
            assert await legitimate.read_message() == [b"hello"]
            await legitimate.close()
        counters = router.counters
        assert counters.handshakes_ok == 10
        assert counters.refused_per_source + counters.refused_early + counters.evicted_handshakes >= 160
        for stranger in strangers:
            await stranger.close()
        await until(lambda: router.connections == 0)
        assert router.lobby.in_handshake == 0


async def test_one_source_cannot_take_all_places() -> None:
    """From one address no more than its share is in handshake; established peers do not count."""
    limits = NetLimits(handshakes_per_ipv4=3)
    async with running(Router(echo, limits=limits)) as router:
        address = await router.listen("tcp://127.0.0.1:0", NullServer())
        friends = [await RawPeer.admitted(address) for _ in range(5)]
        strangers = [await RawPeer.connect(address) for _ in range(5)]
        await until(lambda: router.counters.refused_per_source == 2)
        assert router.lobby.in_handshake == 3
        other = await RawPeer.admitted(address, "127.0.0.2")
        for raw in [*friends, *strangers, other]:
            await raw.close()


async def test_what_strangers_send_is_bounded_in_all() -> None:
    """Partial commands of all strangers together stay below the bound: the oldest leave."""
    limits = NetLimits(handshake_octets=20_000)
    async with running(Router(echo, limits=limits)) as router:
        address = await router.listen("tcp://127.0.0.1:0", NullServer())
        strangers = []
        for _ in range(12):
            raw = await RawPeer.connect(address)
            raw.say(greeting() + b"\x06" + (4000).to_bytes(8, "big") + bytes(3000))
            strangers.append(raw)
            await until(lambda: router.counters.accepted == len(strangers))
        await until(lambda: router.counters.evicted_handshakes >= 6)
        assert router.lobby.octets <= 20_000
        assert await strangers[0].is_closed()
        for raw in strangers:
            await raw.close()


async def test_strangers_take_turns_and_peers_are_served_between() -> None:
    """Of many that shake hands at once a few go on in each turn of the loop, and all get in."""
    turns = 0
    ready_in: list[int] = []
    router = Router(echo, on_ready=lambda peer: ready_in.append(turns), limits=NetLimits(handshake_steps=2))
    async with running(router):
        address = await router.listen("tcp://127.0.0.1:0", NullServer())
        newcomers = [await RawPeer.connect(address) for _ in range(20)]
        await until(lambda: router.lobby.in_handshake == 20)
        for raw in newcomers:
            raw.say(greeting() + ready() + message(b"hello"))
        while len(ready_in) < 20:
            turns += 1
            await asyncio.sleep(0)
        assert max(ready_in.count(turn) for turn in ready_in) <= 2
        for raw in newcomers:
            await raw.read_greeting()
            await raw.read_frame()
            assert await raw.read_message() == [b"hello"]
            await raw.close()


async def test_a_stranger_that_is_ended_before_its_turn_is_passed_over() -> None:
    """Whoever ended while it waited costs nothing, and the turn goes to the next."""
    router = Router(echo, limits=NetLimits(handshake_steps=1))
    async with running(router):
        address = await router.listen("tcp://127.0.0.1:0", NullServer())
        newcomers = [await RawPeer.connect(address) for _ in range(10)]
        await until(lambda: router.lobby.in_handshake == 10)
        for raw in newcomers:
            raw.say(greeting() + ready())
        while not router.peers:
            await asyncio.sleep(0)
        for peer in list(router._open - router.peers):
            peer.abort()
        await until(lambda: router.lobby.in_handshake == 0)
        last = await RawPeer.admitted(address)
        for raw in [*newcomers, last]:
            await raw.close()


async def test_whoever_came_in_lately_is_not_sent_away_in_a_flood() -> None:
    """While newcomers are sent away at random, an address with a good handshake behind it comes in; until one of
    its handshakes fails."""
    router = Router(echo)
    async with running(router):
        address = await router.listen("tcp://127.0.0.1:0", NullServer())
        first = await RawPeer.admitted(address, "127.0.0.2")
        router._pace.sends_away = lambda: True  # type: ignore[method-assign]
        again = await RawPeer.admitted(address, "127.0.0.2")
        stranger = await RawPeer.connect(address, "127.0.0.3")
        assert await stranger.is_closed()
        assert router.counters.refused_busy == 1
        bad = await RawPeer.connect(address, "127.0.0.2")
        bad.say(b"GET / HTTP/1.1\r\n")
        assert await bad.is_closed()
        unknown = await RawPeer.connect(address, "127.0.0.2")
        assert await unknown.is_closed()
        assert router.counters.refused_busy == 2
        for raw in (first, again, stranger, bad, unknown):
            await raw.close()


async def test_a_300_is_held_in_silence_then_closed_without_error() -> None:
    """Not one octet follows, not even for a stranger who goes on talking; then the connection is closed."""
    door = Admission(Answering(300), "lab")
    limits = NetLimits(peer=PeerLimits(held_shortest=0.2, held_longest=0.3))
    async with running(Router(echo, limits=limits)) as router:
        raw = await RawPeer.connect(await router.listen("tcp://127.0.0.1:0", NullServer(), door))
        raw.say(greeting())
        await raw.read_greeting()
        await until(lambda: router.lobby.held == 1)
        assert router.lobby.in_handshake == 0
        (held,) = router._open
        assert held._connection is None
        raw.say(ready() + bytes(1000))
        began = asyncio.get_running_loop().time()
        with suppress(ConnectionResetError):  # our octets were never read: the system says so with a reset
            assert await raw.reader.read() == b""
        assert asyncio.get_running_loop().time() - began >= 0.1
        await until(lambda: router.connections == 0)
        assert router.counters.handshakes_held == 1
        assert router.lobby.held == 0
        await raw.close()


@pytest.mark.parametrize("status", [400, 500])
async def test_a_refusal_is_said_with_error_and_closed(status: int) -> None:
    """400 and 500 leave as ERROR, whole, before the connection is closed."""
    door = Admission(Answering(status), "lab")
    async with running(Router(echo)) as router:
        raw = await RawPeer.connect(await router.listen("tcp://127.0.0.1:0", NullServer(), door))
        raw.say(greeting() + ready())
        await raw.read_greeting()
        assert await raw.read_frame() == (4, b"\x05ERROR\x03%d" % status)
        assert await raw.reader.read() == b""
        assert router.counters.handshakes_refused == 1
        await raw.close()
        await until(lambda: router.connections == 0)


async def test_the_longest_held_is_closed_early_when_places_run_short() -> None:
    """Held connections are bounded, and leave before any stranger does."""
    door = Admission(Answering(300), "lab")
    limits = NetLimits(held=2)
    async with running(Router(echo, limits=limits)) as router:
        address = await router.listen("tcp://127.0.0.1:0", NullServer(), door)
        held = []
        for number in range(3):
            raw = await RawPeer.connect(address)
            raw.say(greeting())
            held.append(raw)
            await until(lambda: router.counters.handshakes_held == number + 1)  # noqa: B023
        assert router.lobby.held == 2
        assert router.counters.evicted_held == 1
        assert await held[0].is_closed()
        for raw in held:
            await raw.close()


async def test_the_refused_who_stay_make_room_before_any_stranger() -> None:
    """Whoever got ERROR and does not leave holds a descriptor for a moment, and gives it to a newcomer first."""
    door = Admission(Answering(400), "lab")
    limits = NetLimits(connections=3, peer=PeerLimits(linger=30))
    async with running(Router(echo, limits=limits)) as router:
        refusing = await router.listen("tcp://127.0.0.1:0", NullServer(), door)
        open_to_all = await router.listen("tcp://127.0.0.1:0", NullServer())
        refused = [await RawPeer.connect(refusing) for _ in range(2)]
        for raw in refused:
            raw.say(greeting() + ready())
        await until(lambda: router.lobby.held == 2)
        stranger = await RawPeer.connect(open_to_all)
        await until(lambda: router.lobby.in_handshake == 1)
        peers = [await RawPeer.admitted(open_to_all) for _ in range(2)]
        assert router.counters.evicted_held == 2
        assert router.lobby.in_handshake == 1
        for raw in [*refused, stranger, *peers]:
            await raw.close()


async def test_bounds_can_change_while_it_runs() -> None:
    """New limits hold for whoever comes next."""
    async with running(Router(echo)) as router:
        address = await router.listen("tcp://127.0.0.1:0", NullServer())
        first = await RawPeer.connect(address)
        await until(lambda: router.lobby.in_handshake == 1)
        router.set_limits(NetLimits(handshakes_per_ipv4=1, handshake_steps=3))
        second = await RawPeer.connect(address)
        assert await second.is_closed()
        assert router.lobby.in_handshake == 1
        for raw in (first, second):
            await raw.close()


async def test_full_of_peers_a_newcomer_waits_and_full_of_strangers_the_oldest_leaves() -> None:
    """Admitted peers keep their places; a stranger gives his to the next newcomer."""
    limits = NetLimits(connections=3)
    async with running(Router(echo, limits=limits)) as router:
        address = await router.listen("tcp://127.0.0.1:0", NullServer())
        friends = [await RawPeer.admitted(address) for _ in range(2)]
        first = await RawPeer.connect(address)
        await until(lambda: router.lobby.in_handshake == 1)
        friends.append(await RawPeer.admitted(address))
        assert await first.is_closed()
        turned_away = await RawPeer.connect(address)
        assert await turned_away.is_closed()
        assert len(router.peers) == 3
        await friends.pop().close()
        await until(lambda: len(router.peers) == 2)
        friends.append(await RawPeer.admitted(address))
        for raw in [*friends, first, turned_away]:
            await raw.close()


async def test_failures_are_reported_at_a_bounded_rate() -> None:
    """Many failures make one report, and the next report counts them."""
    failures: list[Failure] = []
    limits = NetLimits(failure_interval=0.2)
    async with running(Router(echo, limits=limits, on_failure=failures.append)) as router:
        address = await router.listen("tcp://127.0.0.1:0", NullServer(), name="front")

        async def fail(times: int) -> None:
            for _ in range(times):
                raw = await RawPeer.connect(address)
                raw.say(b"GET / HTTP/1.1\r\n\r\n")
                assert await raw.is_closed()
                await raw.close()

        await fail(5)
        await asyncio.sleep(0.25)
        await fail(1)
        assert router.counters.handshakes_protocol == 6
        assert len(failures) < 6
        assert sum(failure.suppressed for failure in failures) + len(failures) == 6
        assert failures[0].listener == "front"
        assert failures[0].remote_address == "127.0.0.1"
        assert failures[0].reason


async def test_a_listener_without_admission_takes_null_alone() -> None:
    """A mechanism with credentials that nobody would judge is a mistake of the caller."""
    async with running(Router(echo)) as router:
        with pytest.raises(LocalProtocolError, match="needs an admission"):
            await router.listen("tcp://127.0.0.1:0", PlainServer())


async def test_an_admission_that_the_mechanism_never_asks_lets_nobody_in() -> None:
    """The client's side of NULL asks nothing: with an admission beside it the peer is cut, not let in."""
    ready_peers: list[Peer] = []
    handler = Answering(200)
    async with running(Router(echo, on_ready=ready_peers.append)) as router:
        raw = await RawPeer.connect(
            await router.listen("tcp://127.0.0.1:0", NullClient(), Admission(handler, "lab"))
        )
        raw.say(greeting() + ready() + message(b"let me"))
        assert await raw.is_closed()
        assert not ready_peers
        assert not handler.asked
        assert router.counters.messages_received == 0
        await raw.close()


async def test_a_stranger_that_leaves_takes_its_question_along() -> None:
    """A question whose peer is gone is stopped, and nothing of it stays."""
    handler = Hanging()
    door = Admission(handler, "lab", deadline=30)
    limits = NetLimits(peer=PeerLimits(handshake_deadline=0.2))
    async with running(Router(echo, limits=limits)) as router:
        raw = await RawPeer.connect(await router.listen("tcp://127.0.0.1:0", NullServer(), door))
        raw.say(greeting() + ready())
        await until(lambda: handler.asked == 1)
        await until(lambda: handler.stopped == 1)
        await until(lambda: door.open == 0)
        assert not router._questions
        await raw.close()


async def test_a_port_in_use_and_a_foreign_address_are_explained() -> None:
    """The error says what is wrong and what to do."""
    async with running(Router(echo)) as router:
        address = await router.listen("tcp://127.0.0.1:0", NullServer())
        with pytest.raises(Conflict, match="in use by another process"):
            await router.listen(address, NullServer())


@pytest.mark.parametrize("host", ["*", "[::]", "[::1]", "0.0.0.0", "localhost"])
async def test_every_way_to_listen_over_tcp(host: str) -> None:
    """The star serves both families on one socket, and addresses stand as libzmq writes them."""
    addresses: list[str] = []
    router = Router(echo, on_ready=lambda peer: addresses.append(peer.remote_address))
    async with running(router):
        bound = await router.listen(f"tcp://{host}:0", NullServer())
        assert isinstance(bound, TcpAddress)
        assert bound.port
        if host in ("*", "[::]", "[::1]"):
            await (await RawPeer.admitted(TcpAddress("::1", bound.port))).close()
            assert addresses.pop() == "::1"
        if host in ("*", "0.0.0.0", "localhost"):
            await (await RawPeer.admitted(TcpAddress("127.0.0.1", bound.port))).close()
            assert addresses.pop() == ("::ffff:127.0.0.1" if host == "*" else "127.0.0.1")


async def test_closing_lets_peers_read_what_is_unsent(tmp_path: Path) -> None:
    """`close` stops listening, drops strangers and drains; the socket file is gone afterwards."""
    router = Router(echo)
    path = tmp_path / "z.sock"
    address: Address = await router.listen(f"ipc://{path}", NullServer())
    raw = await RawPeer.admitted(address)
    stranger = await RawPeer.connect(address)
    await until(lambda: router.connections == 2)
    (peer,) = router.peers
    peer.send_messages([[bytes(900_000)]])
    closing = asyncio.create_task(router.close(5))
    assert await raw.read_message() == [bytes(900_000)]
    assert await raw.is_closed()
    assert await stranger.is_closed()
    await closing
    assert not path.exists()
    assert router.connections == 0
    await raw.close()
    await stranger.close()


async def test_closing_does_not_wait_for_who_never_reads() -> None:
    """The drain has its deadline."""
    router = Router(echo)
    raw = await RawPeer.admitted(await router.listen("tcp://127.0.0.1:0", NullServer()))
    raw.writer.transport.pause_reading()  # type: ignore[attr-defined]
    (peer,) = router.peers
    peer.send_messages([[bytes(1_000_000)]] * 20)
    async with asyncio.timeout(5):
        await router.close(0.1)
    assert router.connections == 0
    await raw.close()


async def test_an_owner_that_raises_loses_that_peer_alone() -> None:
    """A bug in ``on_messages`` ends the connection it was called for; others go on."""
    seen: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: seen.append(context))

    def buggy(peer: Peer, messages: list[list[bytes]]) -> None:
        if messages[0] == [b"bug"]:
            raise RuntimeError("a bug in the owner")
        peer.send_messages(messages)

    async with running(Router(buggy)) as router:
        address = await router.listen("tcp://127.0.0.1:0", NullServer())
        unlucky, other = await RawPeer.admitted(address), await RawPeer.admitted(address)
        unlucky.say(message(b"bug"))
        assert await unlucky.is_closed()
        other.say(message(b"well"))
        assert await other.read_message() == [b"well"]
        await until(lambda: len(router.peers) == 1)
        for raw in (unlucky, other):
            await raw.close()
    assert seen
