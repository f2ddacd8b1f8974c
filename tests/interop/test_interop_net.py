"""Our router and admission before real libzmq clients, over tcp and ipc, with every mechanism."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zmq
import zmq.asyncio
from support.net_handlers import Answering
from support.net_wire import until
from zmq.utils import z85
from zmq.utils.monitor import recv_monitor_message

from zapd.net.admission import Admission
from zapd.net.dealer import Dealer
from zapd.net.limits import NetLimits, PeerLimits
from zapd.net.peer import Peer
from zapd.net.remote import RemoteHandler
from zapd.net.router import Router
from zapd.zap import Status, ZapReply, ZapRequest
from zapd.zmtp.handshake import Mechanism
from zapd.zmtp.mechanisms.curve import CurveClient, CurveServer
from zapd.zmtp.mechanisms.null import NullClient, NullServer
from zapd.zmtp.mechanisms.plain import PlainServer

pytestmark = pytest.mark.interop

SERVER_PUBLIC, SERVER_SECRET = (z85.decode(key) for key in zmq.curve_keypair())
CLIENT_PUBLIC, CLIENT_SECRET = (z85.decode(key) for key in zmq.curve_keypair())
HANDSHAKE_FAILED = zmq.Event.HANDSHAKE_FAILED_AUTH


def echo(peer: Peer, messages: list[list[bytes]]) -> None:
    peer.send_messages(messages)


def server_side(mechanism: str) -> Mechanism:
    match mechanism:
        case "PLAIN":
            return PlainServer()
        case "CURVE":
            return CurveServer(SERVER_SECRET, clock=time.monotonic)
        case _:
            return NullServer()


def secured(socket: zmq.asyncio.Socket, mechanism: str) -> None:
    if mechanism == "PLAIN":
        socket.plain_username, socket.plain_password = b"bob", b"secret"
    elif mechanism == "CURVE":
        socket.curve_publickey, socket.curve_secretkey = CLIENT_PUBLIC, CLIENT_SECRET
        socket.curve_serverkey = SERVER_PUBLIC


CREDENTIALS = {"NULL": (), "PLAIN": (b"bob", b"secret"), "CURVE": (CLIENT_PUBLIC,)}


class Clients:
    """Opens libzmq sockets, and closes them all."""

    def __init__(self) -> None:
        self.context = zmq.asyncio.Context()
        self.opened: list[zmq.asyncio.Socket] = []

    def open(self, kind: int, mechanism: str = "NULL") -> zmq.asyncio.Socket:
        socket = self.context.socket(kind)
        self.opened.append(socket)
        socket.ipv6 = True
        socket.reconnect_ivl = 20
        secured(socket, mechanism)
        return socket

    def watch(self, socket: zmq.asyncio.Socket) -> zmq.asyncio.Socket:
        """Its monitor."""
        monitor = socket.get_monitor_socket()
        self.opened.insert(0, monitor)
        return monitor

    def close(self) -> None:
        for socket in self.opened:
            socket.close(linger=0)
        self.context.term()


@pytest.fixture
async def clients() -> AsyncIterator[Clients]:
    made = Clients()
    yield made
    made.close()


@asynccontextmanager
async def running(router: Router) -> AsyncIterator[Router]:
    try:
        yield router
    finally:
        await router.close(0.2)


@pytest.mark.parametrize("mechanism", ["NULL", "PLAIN", "CURVE"])
@pytest.mark.parametrize("kind", [zmq.DEALER, zmq.REQ], ids=["DEALER", "REQ"])
@pytest.mark.parametrize("endpoint", ["tcp://127.0.0.1:0", "tcp://[::1]:0", "ipc"])
async def test_libzmq_is_admitted_and_served(
    clients: Clients, tmp_path: Path, endpoint: str, kind: int, mechanism: str
) -> None:
    """Every mechanism over every transport: the handler is asked as libzmq would ask, and messages come and go."""
    handler = Answering(200, b"bob")
    admitted: list[Peer] = []
    async with running(Router(echo, on_ready=admitted.append)) as router:
        endpoint = f"ipc://{tmp_path}/z" if endpoint == "ipc" else endpoint
        address = await router.listen(endpoint, server_side(mechanism), Admission(handler, "orders"))
        socket = clients.open(kind, mechanism)
        socket.connect(str(address))
        for number in range(3):
            sent = [b"%d" % number, b"", bytes(100_000)]
            await socket.send_multipart(sent)
            assert await asyncio.wait_for(socket.recv_multipart(), 10) == sent
        (request,) = handler.asked
        assert (request.mechanism, request.credentials) == (mechanism, CREDENTIALS[mechanism])
        assert (request.domain, request.request_id, request.identity) == ("orders", b"1", b"")
        local = f"localhost:{os.getuid()}:{os.getgid()}:{os.getpid()}"
        expected = local if endpoint.startswith("ipc") else ("::1" if "::1" in endpoint else "127.0.0.1")
        assert request.address == expected == admitted[0].remote_address
        assert admitted[0].user_id == b"bob"
        assert admitted[0].socket_type == ("REQ" if kind == zmq.REQ else "DEALER")


class Wavering:
    """300 for a while, then 200."""

    def __init__(self, refusals: int) -> None:
        self.refusals = refusals
        self.asked = 0

    async def answer(self, request: ZapRequest) -> ZapReply:
        self.asked += 1
        return ZapReply(Status.TRY_AGAIN if self.asked <= self.refusals else Status.GRANTED)


@pytest.mark.parametrize("mechanism", ["NULL", "PLAIN", "CURVE"])
async def test_a_client_that_got_300_comes_back_by_itself(clients: Clients, mechanism: str) -> None:
    """The application does nothing: its first message arrives once the answer has become 200."""
    handler = Wavering(2)
    limits = NetLimits(peer=PeerLimits(held_shortest=0.1, held_longest=0.2))
    async with running(Router(echo, limits=limits)) as router:
        address = await router.listen("tcp://127.0.0.1:0", server_side(mechanism), Admission(handler, "lab"))
        socket = clients.open(zmq.DEALER, mechanism)
        began = time.monotonic()
        socket.connect(str(address))
        await socket.send(b"patience")
        assert await asyncio.wait_for(socket.recv(), 10) == b"patience"
        assert handler.asked == 3
        assert time.monotonic() - began >= 0.2  # held in silence twice
        assert router.counters.handshakes_held == 2


@pytest.mark.parametrize("mechanism", ["NULL", "PLAIN", "CURVE"])
@pytest.mark.parametrize("status", [400, 500])
async def test_a_client_that_got_400_never_returns(clients: Clients, mechanism: str, status: int) -> None:
    """libzmq takes ERROR as final: it is asked about once, and its own monitor says why."""
    handler = Answering(status)
    async with running(Router(echo)) as router:
        address = await router.listen("tcp://127.0.0.1:0", server_side(mechanism), Admission(handler, "lab"))
        socket = clients.open(zmq.DEALER, mechanism)
        monitor = clients.watch(socket)
        socket.connect(str(address))
        failed = zmq.Event.HANDSHAKE_FAILED_AUTH | zmq.Event.HANDSHAKE_FAILED_PROTOCOL
        while not (event := await asyncio.wait_for(recv_monitor_message(monitor), 10))["event"] & failed:
            pass
        if event["event"] == zmq.Event.HANDSHAKE_FAILED_AUTH:
            assert event["value"] == status
        else:
            assert mechanism == "PLAIN"  # libzmq knows only its own misspelling of ERROR there
        await asyncio.sleep(0.4)  # twenty reconnect intervals
        assert len(handler.asked) == 1
        assert router.counters.accepted == 1


async def test_libzmq_with_another_mechanism_is_turned_away(clients: Clients) -> None:
    """A CURVE door takes neither NULL nor PLAIN, and asks nobody about them."""
    handler = Answering(200)
    async with running(Router(echo)) as router:
        address = await router.listen("tcp://127.0.0.1:0", server_side("CURVE"), Admission(handler, "lab"))
        for number, mechanism in enumerate(("NULL", "PLAIN")):
            clients.open(zmq.DEALER, mechanism).connect(str(address))
            await until(lambda: router.counters.accepted > number)  # noqa: B023
        await until(lambda: router.counters.handshakes_protocol + router.counters.handshakes_left >= 2)
        assert not handler.asked
        assert not router.peers


async def test_libzmqs_heartbeats_are_answered(clients: Clients) -> None:
    """Its PINGs get their PONGs, so an idle connection stays the same one."""
    async with running(Router(echo)) as router:
        address = await router.listen("tcp://127.0.0.1:0", server_side("CURVE"), Admission(Answering(200), "lab"))
        socket = clients.open(zmq.DEALER, "CURVE")
        socket.heartbeat_ivl, socket.heartbeat_timeout, socket.heartbeat_ttl = 30, 200, 300
        socket.connect(str(address))
        await until(lambda: router.peers)
        await asyncio.sleep(0.8)
        assert router.counters.accepted == 1
        assert len(router.peers) == 1


async def test_our_heartbeats_are_answered_by_libzmq(clients: Clients) -> None:
    """Our PINGs get libzmq's PONGs: an idle libzmq peer is not taken for dead."""
    limits = NetLimits(peer=PeerLimits(ping_after=0.05, ping_timeout=0.3))
    async with running(Router(echo, limits=limits)) as router:
        address = await router.listen("tcp://127.0.0.1:0", NullServer())
        clients.open(zmq.DEALER).connect(str(address))
        await until(lambda: router.peers)
        (peer,) = router.peers
        await asyncio.sleep(0.8)
        assert router.peers == {peer}
        assert peer._heartbeat.answers


@pytest.mark.parametrize("mechanism", ["NULL", "CURVE"])
async def test_our_dealer_speaks_to_libzmqs_router(clients: Clients, mechanism: str) -> None:
    """The other way round: libzmq serves, our dealer asks, and comes back after the server's restart."""
    got: list[list[bytes]] = []
    server = clients.open(zmq.ROUTER)
    if mechanism == "CURVE":
        server.curve_server, server.curve_secretkey = True, SERVER_SECRET
    port = server.bind_to_random_port("tcp://127.0.0.1")
    side = CurveClient(SERVER_PUBLIC, CLIENT_SECRET) if mechanism == "CURVE" else NullClient()
    dealer = Dealer(f"tcp://127.0.0.1:{port}", side, got.extend, identity=b"us")
    dealer.start()
    assert await dealer.wait_up(10)
    assert dealer.send_messages([[b"question", b""]])
    assert await asyncio.wait_for(server.recv_multipart(), 10) == [b"us", b"question", b""]
    await server.send_multipart([b"us", b"answer"])
    await until(lambda: got == [[b"answer"]])
    await dealer.close()


async def test_a_remote_handler_asks_a_libzmq_rep(clients: Clients) -> None:
    """Any REP that speaks ZAP can be the distant side: its reply decides."""
    server = clients.open(zmq.REP)
    port = server.bind_to_random_port("tcp://127.0.0.1")

    async def serve() -> None:
        while True:
            frames = await server.recv_multipart()
            await server.send_multipart([frames[0], frames[1], b"200", b"OK", frames[2] + b"-user", b""])

    serving = asyncio.create_task(serve())
    handler = RemoteHandler(f"tcp://127.0.0.1:{port}", NullClient())
    handler.start()
    assert await handler.dealer.wait_up(10)
    question = ZapRequest(b"77", "orders", "192.0.2.1", b"", "NULL", ())
    assert await handler.answer(question) == ZapReply(Status.GRANTED, b"orders-user", b"")
    serving.cancel()
    await handler.close()


async def test_a_listener_asks_a_distant_zapd_about_its_peers(clients: Clients) -> None:
    """Admission over a remote handler: a libzmq client is let in by the word of another process."""

    def decide(peer: Peer, messages: list[list[bytes]]) -> None:
        for question_id, delimiter, version, request_id, *_ in messages:
            peer.send_messages([[question_id, delimiter, version, request_id, b"200", b"OK", b"far", b""]])

    central = Router(decide)
    far = await central.listen("tcp://127.0.0.1:0", server_side("CURVE"), Admission(Answering(200), "zapd.agents"))
    handler = RemoteHandler(far, CurveClient(SERVER_PUBLIC, CLIENT_SECRET))
    handler.start()
    assert await handler.dealer.wait_up(10)
    admitted: list[Peer] = []
    async with running(central), running(Router(echo, on_ready=admitted.append)) as router:
        address = await router.listen("tcp://127.0.0.1:0", server_side("PLAIN"), Admission(handler, "orders"))
        socket = clients.open(zmq.DEALER, "PLAIN")
        socket.connect(str(address))
        await socket.send(b"hello")
        assert await asyncio.wait_for(socket.recv(), 10) == b"hello"
        assert admitted[0].user_id == b"far"
        await handler.close()
