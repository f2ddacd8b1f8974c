"""The connecting side: it comes back by itself, and keeps nothing without a bound."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest
from support.net_handlers import Answering
from support.net_wire import until

from zapd.errors import LocalProtocolError
from zapd.net.address import TcpAddress
from zapd.net.admission import Admission
from zapd.net.dealer import Dealer, DealerLimits, Down
from zapd.net.limits import PeerLimits
from zapd.net.peer import Peer
from zapd.net.router import Router
from zapd.zmtp.mechanisms.null import NullClient, NullServer
from zapd.zmtp.mechanisms.plain import PlainClient, PlainServer

BOTH_LOOPS = True
QUICK = DealerLimits(backoff_first=0.02, backoff_most=0.1, connect_timeout=2.0)


def echo(peer: Peer, messages: list[list[bytes]]) -> None:
    peer.send_messages(messages)


async def test_it_waits_for_a_server_and_comes_back_after_a_loss(tmp_path: Path) -> None:
    """Started before its server and left by it, the dealer connects again each time."""
    got: list[list[bytes]] = []
    downs: list[Down] = []
    ups = 0

    def up() -> None:
        nonlocal ups
        ups += 1

    address = f"ipc://{tmp_path}/z"
    dealer = Dealer(address, NullClient(), got.extend, on_up=up, on_down=downs.append, limits=QUICK)
    dealer.start()
    await until(lambda: downs)
    assert not dealer.up
    assert not dealer.send_messages([[b"nobody there"]])
    assert dealer.refused == 1
    for number in range(2):
        router = Router(echo)
        await router.listen(address, NullServer())
        assert await dealer.wait_up(5)
        assert dealer.send_messages([[b"%d" % number]])
        await until(lambda: len(got) == number + 1)  # noqa: B023
        before = len(downs)
        await router.close()
        await until(lambda: len(downs) > before)  # noqa: B023
        assert downs[before].was_up
    assert ups == 2
    assert got == [[b"0"], [b"1"]]
    await dealer.close()


async def test_waits_grow_up_to_a_bound() -> None:
    """Each wait is longer than half the one before would allow, and none is longer than the most."""
    downs: list[Down] = []
    probe = Router(echo)
    address = await probe.listen("tcp://127.0.0.1:0", NullServer())
    await probe.close()  # nobody listens there now
    dealer = Dealer(address, NullClient(), lambda messages: None, on_down=downs.append, limits=QUICK)
    dealer.start()
    await until(lambda: len(downs) >= 6)
    waits = [down.retry_in for down in downs]
    assert all(0.01 <= wait <= 0.1 for wait in waits)
    assert max(waits[:2]) <= 0.04
    assert min(waits[4:]) >= 0.05
    assert "127.0.0.1" in downs[0].reason
    await dealer.close()


async def test_a_refusal_slows_it_down_but_does_not_end_it() -> None:
    """400 may heal when somebody approves the key: it goes on asking, seldom."""
    handler = Answering(400)
    downs: list[Down] = []
    router = Router(echo)
    address = await router.listen("tcp://127.0.0.1:0", PlainServer(), Admission(handler, "lab"))
    dealer = Dealer(address, PlainClient(b"me", b"pw"), lambda messages: None, on_down=downs.append, limits=QUICK)
    dealer.start()
    await until(lambda: downs)
    assert downs[0].status == 400
    assert downs[0].retry_in >= 0.05
    assert not downs[0].was_up
    handler.reply = Answering(200).reply
    assert await dealer.wait_up(5)
    await dealer.close()
    await router.close()


async def test_the_window_bounds_what_is_unsent() -> None:
    """Against a server that does not read, messages are refused instead of kept."""
    loop = asyncio.get_running_loop()
    router = Router(echo)
    address = await router.listen("tcp://127.0.0.1:0", NullServer())
    limits = DealerLimits(window=100_000, peer=PeerLimits(unsent=1_000_000))
    dealer = Dealer(address, NullClient(), lambda messages: None, limits=limits)
    dealer.start()
    assert await dealer.wait_up(5)
    (peer,) = router.peers
    peer._stop_reading()
    end = loop.time() + 5
    while dealer.send_messages([[bytes(50_000)]]) and loop.time() < end:
        await asyncio.sleep(0)
    assert dealer.refused == 1
    assert dealer.up
    assert dealer.peer is not None
    assert dealer.peer.unsent <= 250_000
    await dealer.close(0.05)
    await router.close(0.05)


async def test_the_server_of_an_ipc_socket_must_be_who_it_should_be(tmp_path: Path) -> None:
    """Somebody else's process at the path is not spoken to."""
    downs: list[Down] = []
    router = Router(echo)
    address = await router.listen(f"ipc://{tmp_path}/z", NullServer())
    for allowed in (os.getuid() + 1, os.getuid()):
        dealer = Dealer(
            address,
            NullClient(),
            lambda messages: None,
            on_down=downs.append,
            limits=QUICK,
            server_uids=frozenset({allowed}),
        )
        dealer.start()
        assert await dealer.wait_up(0.2) is (allowed == os.getuid())
        await dealer.close()
    assert "runs as uid" in downs[0].reason
    await router.close()


async def test_a_server_that_never_greets_is_given_up_in_time() -> None:
    """The handshake's deadline holds for our own side too."""
    downs: list[Down] = []
    limits = DealerLimits(peer=PeerLimits(handshake_deadline=0.05), backoff_first=0.01, backoff_most=0.02)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # the kernel accepts, nobody speaks
        address = TcpAddress(*silent.getsockname())
        dealer = Dealer(address, NullClient(), lambda messages: None, on_down=downs.append, limits=limits)
        dealer.start()
        await until(lambda: len(downs) >= 2)
        assert downs[0].reason == "the handshake was not over in time"
        await dealer.close()


async def test_starting_twice_is_a_mistake() -> None:
    """One keeper a dealer."""
    dealer = Dealer("tcp://127.0.0.1:1", NullClient(), lambda messages: None)
    assert not await dealer.wait_up(0.01)
    dealer.start()
    with pytest.raises(LocalProtocolError):
        dealer.start()
    await dealer.close()
