"""Kerberos in our network: real tickets through router and dealer, and a KDC that is slow, away, or of no help."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import os
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
from support.gssapi_peer import gssapi_peer
from support.gssapi_scene import ALICE, Alice, alice, signed_in  # noqa: F401 - a fixture
from support.kdc import HOST_BASED, Kdc, KdcMaker, kdc, make_kdc  # noqa: F401 - fixtures
from support.net_handlers import Answering
from support.net_wire import RawPeer, greeting, until

from zapd.errors import InvalidInput, LocalProtocolError, Unavailable
from zapd.net.admission import Admission
from zapd.net.dealer import Dealer, DealerLimits, Down
from zapd.net.limits import NetLimits, PeerLimits
from zapd.net.peer import Peer
from zapd.net.router import Router
from zapd.zmtp.handshake import PeerError
from zapd.zmtp.mechanisms.gssapi import GSSAPI_LIMITS

if importlib.util.find_spec("gssapi"):  # without it the realm's fixtures skip, or fail where it must be there
    from zapd.net.kerberos import KerberosAcceptor, KerberosContext, KerberosInitiator

pytestmark = pytest.mark.interop

BOTH_LOOPS = True
QUICK = DealerLimits(backoff_first=0.02, backoff_most=0.1, connect_timeout=5.0)
IMPATIENT = DealerLimits(backoff_first=0.02, backoff_most=0.1, connect_timeout=0.2)


def echo(peer: Peer, messages: list[list[bytes]]) -> None:
    peer.send_messages(messages)


@asynccontextmanager
async def running(router: Router) -> AsyncIterator[Router]:
    try:
        yield router
    finally:
        await router.close(0.2)


@asynccontextmanager
async def connecting(dealer: Dealer) -> AsyncIterator[Dealer]:
    dealer.start()
    try:
        yield dealer
    finally:
        await dealer.close(0.2)


@pytest.mark.parametrize("plaintext", [False, True])
async def test_a_dealer_with_a_ticket_is_served(alice: Alice, plaintext: bool) -> None:  # noqa: F811
    """The handler is asked about its principal as libzmq would ask, and its messages come back."""
    handler, got, admitted = Answering(200, b"alice"), list[list[bytes]](), list[Peer]()
    async with running(Router(echo, on_ready=admitted.append)) as router:
        address = await router.listen(
            "tcp://127.0.0.1:0",
            alice.server(plaintext=plaintext),
            Admission(handler, "orders"),
            limits=GSSAPI_LIMITS,
        )
        initiator = KerberosInitiator(HOST_BASED, plaintext=plaintext)
        async with connecting(Dealer(address, initiator, got.extend, limits=QUICK)) as dealer:
            assert await dealer.wait_up(10)
            assert dealer.send_messages([[b"a", b"b" * 100_000], [b""]])
            await until(lambda: len(got) == 2)
    assert got == [[b"a", b"b" * 100_000], [b""]]
    assert [(asked.mechanism, asked.credentials) for asked in handler.asked] == [("GSSAPI", (ALICE,))]
    assert (admitted[0].user_id, admitted[0].socket_type) == (b"alice", "DEALER")


@pytest.mark.parametrize("status", [200, 300, 400, 500])
async def test_a_libzmq_client_gets_in_by_a_200_alone(alice: Alice, status: int) -> None:  # noqa: F811
    """Whatever else the handler says keeps it out, before any message of its own."""
    handler, heard = Answering(status), list[list[bytes]]()
    limits = NetLimits(peer=PeerLimits(held_shortest=0.05, held_longest=0.1))
    router = Router(lambda peer, messages: heard.extend(messages), limits=limits)
    async with running(router):
        address = await router.listen("tcp://127.0.0.1:0", alice.server(), Admission(handler, "orders"))
        options = {"RECONNECT_IVL": 20}
        with gssapi_peer("DEALER", alice.environment, service=HOST_BASED, options=options) as client:
            client.connect(str(address))
            client.send(b"hello")
            if status == 200:
                await until(lambda: heard)
            elif status == 300:
                await until(lambda: router.counters.handshakes_held >= 2)  # it comes back
                assert not heard
                handler.reply = Answering(200).reply
                await until(lambda: heard)
            else:
                await until(lambda: router.counters.handshakes_refused)
                await asyncio.sleep(0.3)
                assert router.counters.accepted == 1
    assert heard == ([[b"hello"]] if status in (200, 300) else [])
    assert not router.peers


async def test_a_refused_dealer_hears_the_status(alice: Alice) -> None:  # noqa: F811
    """As with every other mechanism."""
    downs: list[Down] = []
    async with running(Router(echo)) as router:
        address = await router.listen("tcp://127.0.0.1:0", alice.server(), Admission(Answering(400), "orders"))
        initiator = KerberosInitiator(HOST_BASED)
        async with connecting(
            Dealer(address, initiator, lambda messages: None, on_down=downs.append, limits=QUICK)
        ):
            await until(lambda: downs)
    assert (downs[0].status, downs[0].was_up) == (400, False)


async def test_without_a_ticket_a_dealer_says_so_and_waits_for_one(alice: Alice) -> None:  # noqa: F811
    """It does not even connect; after kinit it comes up by itself."""
    downs: list[Down] = []
    cache = os.environ["KRB5CCNAME"].removeprefix("FILE:")
    Path(cache).rename(f"{cache}.away")
    async with running(Router(echo)) as router:
        address = await router.listen("tcp://127.0.0.1:0", alice.server(), Admission(Answering(200), "orders"))
        initiator = KerberosInitiator(HOST_BASED)
        async with connecting(
            Dealer(address, initiator, lambda messages: None, on_down=downs.append, limits=QUICK)
        ) as dealer:
            await until(lambda: downs)
            assert f"no ticket for {HOST_BASED}: No Kerberos credentials available" in downs[0].reason
            assert router.counters.accepted == 0
            Path(f"{cache}.away").rename(cache)
            assert await dealer.wait_up(10)


async def test_a_dealer_with_a_key_of_its_own_needs_no_kinit(
    alice: Alice,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Tickets are fetched by its keytab and kept in memory, not in the credential cache of whoever runs it."""
    robot = f"robot/{os.urandom(4).hex()}"
    alice.kdc.add(robot)
    keytab = alice.kdc.write_keytab(tmp_path / "robot.keytab", robot)
    monkeypatch.setenv("KRB5CCNAME", f"FILE:{tmp_path / 'nobody'}")
    handler = Answering(200)
    async with running(Router(echo)) as router:
        address = await router.listen("tcp://127.0.0.1:0", alice.server(), Admission(handler, "orders"))
        for initiator in (
            KerberosInitiator(HOST_BASED, keytab=keytab),
            KerberosInitiator("zmq/localhost@ZAPD.TEST", keytab=keytab, principal=robot),
        ):
            async with connecting(Dealer(address, initiator, lambda messages: None, limits=QUICK)) as dealer:
                assert await dealer.wait_up(10)
    assert [asked.credentials for asked in handler.asked] == 2 * [(f"{robot}@ZAPD.TEST".encode(),)]
    assert not (tmp_path / "nobody").exists()
    with pytest.raises(Unavailable, match="no ticket for"):
        await KerberosInitiator(HOST_BASED, keytab=keytab, principal="bob")()


def threads_at_the_kdc() -> int:
    return sum(thread.name == "zapd-kerberos" for thread in threading.enumerate())


async def test_a_kdc_that_hangs_stops_neither_the_loop_nor_grows_threads(
    make_kdc: KdcMaker,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each attempt loses patience, one thread waits for all, and when the KDC is well the dealer comes up."""
    realm = make_kdc()
    realm.add("alice", "alice-Pw1")
    scene = signed_in(realm, monkeypatch)
    downs: list[Down] = []
    async with running(Router(echo)) as router:
        address = await router.listen("tcp://127.0.0.1:0", scene.server(), Admission(Answering(200), "orders"))
        realm.pause()
        initiator = KerberosInitiator(HOST_BASED)
        async with connecting(
            Dealer(address, initiator, lambda messages: None, on_down=downs.append, limits=IMPATIENT)
        ) as dealer:
            await until(lambda: len(downs) >= 4)
            assert threads_at_the_kdc() == 1
            assert "no connection within 0.2 s" in downs[0].reason
            realm.resume()
            assert await dealer.wait_up(30)
    assert router.counters.accepted == 1


def test_a_loop_that_ends_before_the_kdc_answers_leaves_nothing_behind(
    make_kdc: KdcMaker,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The thread's answer then goes nowhere, without a word; the next loop gets one of its own."""
    realm = make_kdc()
    realm.add("alice", "alice-Pw1")
    signed_in(realm, monkeypatch)
    initiator = KerberosInitiator(HOST_BASED)

    async def impatient() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(initiator(), 0.1)

    realm.pause()
    with caplog.at_level(logging.WARNING):
        asyncio.run(impatient())
        realm.resume()
        for thread in threading.enumerate():
            if thread.name == "zapd-kerberos":
                thread.join(30)
    assert not caplog.records
    assert asyncio.run(initiator()).initiate().step(b"")


async def test_dealers_that_share_an_initiator_have_contexts_of_their_own(alice: Alice) -> None:  # noqa: F811
    """Asked for at once, no first token is given twice."""
    initiator = KerberosInitiator(HOST_BASED)
    clients = await asyncio.gather(*(initiator() for _ in range(5)))
    assert len({client.initiate().step(b"") for client in clients}) == 5


async def test_strangers_with_large_tokens_are_bounded_all_together(alice: Alice) -> None:  # noqa: F811
    """Each may send 64 KiB before it is known, all of them no more than the router allows."""
    limits = NetLimits(handshake_octets=200_000)
    async with running(Router(echo, limits=limits)) as router:
        address = await router.listen(
            "tcp://127.0.0.1:0", alice.server(), Admission(Answering(200), "orders"), limits=GSSAPI_LIMITS
        )
        strangers = [await RawPeer.connect(address) for _ in range(8)]
        for stranger in strangers:
            stranger.say(greeting(b"GSSAPI") + b"\x06" + (65_000).to_bytes(8, "big") + bytes(60_000))
        await until(lambda: router.counters.evicted_handshakes >= 5)
        assert router.lobby.octets <= 200_000
        for stranger in strangers:
            await stranger.close()


# The contexts themselves


def test_what_is_no_name_is_refused(alice: Alice) -> None:  # noqa: F811
    """At once, or when the library looks at it."""
    assert repr(KerberosInitiator(HOST_BASED)) == f"<KerberosInitiator {HOST_BASED}>"
    with pytest.raises(InvalidInput, match="no name that Kerberos knows"):
        KerberosInitiator("")
    with pytest.raises(Unavailable, match="no ticket"):
        asyncio.run(KerberosInitiator(HOST_BASED, principal="two@@ats")())


def test_a_keytab_must_be_there_private_and_hold_the_key(alice: Alice, tmp_path: Path) -> None:  # noqa: F811
    """Each error names the file and the mend."""
    assert HOST_BASED not in repr(KerberosAcceptor(alice.kdc.keytab, HOST_BASED))
    assert str(alice.kdc.keytab) in repr(KerberosAcceptor(alice.kdc.keytab, "zmq/localhost@ZAPD.TEST"))
    with pytest.raises(Unavailable, match="missing: No such file"):
        KerberosAcceptor(tmp_path / "missing")
    with pytest.raises(Unavailable, match="No key table entry found matching http/localhost"):
        KerberosAcceptor(alice.kdc.keytab, "http@localhost")
    garbage = tmp_path / "garbage.keytab"
    garbage.write_text("garbage")
    for make in (KerberosAcceptor, lambda path: KerberosInitiator(HOST_BASED, keytab=path)):
        garbage.chmod(0o640)
        with pytest.raises(Unavailable, match="chmod 600"):
            make(garbage)
    garbage.chmod(0o600)
    with pytest.raises(Unavailable, match="no key to accept tickets with"):
        KerberosAcceptor(garbage)


def test_a_context_wraps_only_when_it_is_complete(alice: Alice) -> None:  # noqa: F811
    """Before, a caller's mistake; a peer's token then is the peer's."""
    context = KerberosAcceptor(alice.kdc.keytab)()
    assert not context.complete
    with pytest.raises(LocalProtocolError, match="nothing can be wrapped"):
        context.wrap(b"early")
    with pytest.raises(PeerError, match="a wrapped token was refused"):
        context.unwrap(b"early")


def test_a_mechanism_that_does_not_encrypt_is_not_used(alice: Alice) -> None:  # noqa: F811
    """Should the library say that it wrapped without encryption, nothing goes out."""
    lazy = SimpleNamespace(wrap=lambda content, encrypt: SimpleNamespace(message=content, encrypted=False))
    with pytest.raises(LocalProtocolError, match="without encryption"):
        KerberosContext(lazy).wrap(b"secret")


def test_a_name_with_hostile_characters_is_harmless_in_a_reason(alice: Alice) -> None:  # noqa: F811
    """Names in the library's words may be a stranger's."""
    from gssapi.exceptions import GSSError

    from zapd.net.kerberos import _reason

    class Hostile(GSSError):
        def get_all_statuses(self, code: int, is_maj: bool) -> list[str]:
            return ["Success"] if not is_maj else ["no\nkey for \x1b[31m‮bob", "x" * 500]

    text = _reason(Hostile(0, 0))
    assert text.startswith("no?key for ?[31m?bob; xxx")
    assert len(text) == 200


def test_without_the_library_the_error_names_the_extra() -> None:
    """The base install has everything but this module."""
    code = "import sys; sys.modules['gssapi'] = None; import zapd.net; import zapd.net.kerberos"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'zapd[kerberos]'" in done.stderr
