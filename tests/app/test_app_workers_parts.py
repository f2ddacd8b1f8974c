"""What parent and worker are made of: the channel, handing over, sharing of bounds, joined numbers."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.app_scene import CONFIGURATION
from support.workers_scene import WORKERS

from zapd.app.gauges import Joined
from zapd.app.registry import Registry
from zapd.app.restart import keeping_start_only, needs_restart, start_only
from zapd.app.watermark import Watermark
from zapd.app.workers import channel as channels
from zapd.app.workers.channel import LONGEST, Channel, Closed
from zapd.app.workers.handing import hand_over, take
from zapd.app.workers.joining import Counts
from zapd.app.workers.messages import Begin, CatchUp, Done, Failed, Load, Look, Message, Prepare, Report, Stop
from zapd.app.workers.sharing import share
from zapd.cli.init import initialize
from zapd.config import Config, load
from zapd.errors import ConfigurationError, Unavailable
from zapd.net.address import peer_credentials
from zapd.store.changes import ChangeLog
from zapd.store.engine import writing


@asynccontextmanager
async def pair(
    respond: Callable[[Message], Awaitable[Message]] | None = None, hear: Callable[[Message], None] | None = None
) -> AsyncIterator[tuple[Channel, Channel]]:
    """(one that asks, one that answers with ``respond``)."""
    ours, theirs = socket.socketpair()
    asking, answering = Channel(), Channel(respond, hear)
    await asking.open(ours)
    await answering.open(theirs)
    tasks = [asyncio.create_task(each.run()) for each in (asking, answering)]
    try:
        yield asking, answering
    finally:
        asking.close()
        answering.close()
        await asyncio.gather(*tasks)


async def test_questions_are_answered_out_of_order_and_failures_keep_their_kind() -> None:
    """A slow answer holds up no other; what the configuration is to blame for says so on the other side."""
    go = asyncio.Event()

    async def respond(question: Message) -> Message:
        match question:
            case CatchUp(sequence=1):
                await go.wait()
            case CatchUp(sequence=2):
                raise Unavailable("no database")
            case CatchUp(sequence=3):
                raise RuntimeError("a bug")
            case Prepare():
                raise ConfigurationError("line 3: nonsense")
        return Done()

    async with pair(respond) as (asking, _):
        slow = asyncio.create_task(asking.call(CatchUp(1), Done, within=20))
        assert await asking.call(Look(), Done, within=20) == Done()
        with pytest.raises(Unavailable, match="no database"):
            await asking.call(CatchUp(2), Done, within=20)
        with pytest.raises(Unavailable, match="RuntimeError"):
            await asking.call(CatchUp(3), Done, within=20)
        with pytest.raises(ConfigurationError, match="line 3"):
            await asking.call(Prepare(""), Done, within=20)
        with pytest.raises(Unavailable, match="no answer"):
            await asking.call(Look(), Report, within=20)
        go.set()
        assert await slow == Done()


async def test_an_answer_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not beyond its deadline, not beyond the other side's end; and no side works on any number of questions."""
    monkeypatch.setattr(channels, "MOST_QUESTIONS", 3)

    async def respond(question: Message) -> Message:
        await asyncio.Event().wait()
        return Done()

    async with pair(respond) as (asking, answering):
        with pytest.raises(TimeoutError):
            await asking.call(Look(), Done, within=0.01)
        waiting = [asyncio.create_task(asking.call(Look(), Done, within=20)) for _ in range(2)]
        await asyncio.sleep(0)  # both are on their way before the next
        with pytest.raises(Unavailable, match="too many"):
            await asking.call(Look(), Done, within=20)
        answering.close()
        for each in waiting:
            with pytest.raises(Closed):
                await each
        asking.tell(Stop())  # to nobody, and nothing happens
        with pytest.raises(Closed):
            await asking.call(Look(), Done, within=20)


@pytest.mark.parametrize(
    "octets",
    [struct.pack("!I", LONGEST + 1), struct.pack("!I", 4) + b"\xc1\xc1\xc1\xc1", struct.pack("!I", 1) + b"\x80"],
    ids=["too long", "no msgpack", "no frame"],
)
async def test_what_cannot_be_read_ends_the_channel(octets: bytes) -> None:
    """Nothing of it is taken, and nothing more is read."""
    heard: list[Message] = []
    ours, theirs = socket.socketpair()
    channel = Channel(hear=heard.append)
    await channel.open(theirs)
    with ours:
        ours.sendall(octets)
        await asyncio.wait_for(channel.run(), 20)
        assert ours.recv(100) == b""
    assert heard == []


async def test_what_wants_no_answer_goes_both_ways() -> None:
    """Load from a worker, as penalties may one day, comes as it was told."""
    heard: asyncio.Queue[Message] = asyncio.Queue()
    async with pair(hear=heard.put_nowait) as (telling, _):
        telling.tell(Load(3, 2, 1))
        telling.tell(Stop())
        assert await asyncio.wait_for(heard.get(), 20) == Load(3, 2, 1)
        assert await asyncio.wait_for(heard.get(), 20) == Stop()


def test_what_is_said_shows_no_secret() -> None:
    """Neither the server's key nor a configuration with a password in it."""
    begin = Begin(
        "1.0", 1, 2, "/etc/zapd.toml", "password = 'hunter2'", "password = 'hunter2'", b"s3cret" * 5, b"s3cret"
    )
    for shown in (repr(begin), str(begin), repr(Prepare("hunter2")), repr(Failed("hunter2"))):
        assert "hunter2" not in shown
        assert "s3cret" not in shown


def test_a_connection_that_is_handed_over_stays_whose_it_is(tmp_path: Path) -> None:
    """The taker reads from it, and the kernel says there who connected: tcp by address, ipc by uid."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            take(theirs)
        unix = socket.socket(socket.AF_UNIX)
        unix.bind(str(tmp_path / "sock"))
        unix.listen()
        with socket.create_server(("127.0.0.1", 0)) as tcp, unix:
            tcp_client = socket.create_connection(tcp.getsockname())
            ipc_client = socket.socket(socket.AF_UNIX)
            ipc_client.connect(str(tmp_path / "sock"))
            with tcp_client, ipc_client:
                for number, listener in ((0, tcp), (65_535, unix)):
                    accepted, _ = listener.accept()
                    with accepted:
                        assert hand_over(ours, number, accepted)
                first, second = take(theirs), take(theirs)
                assert first is not None
                assert second is not None
                assert (first[0], second[0]) == (0, 65_535)
                by_tcp, by_ipc = first[1], second[1]
                assert by_tcp is not None
                assert by_ipc is not None
                with by_tcp, by_ipc:
                    assert by_tcp.getpeername() == tcp_client.getsockname()
                    assert peer_credentials(by_ipc)[0] == os.geteuid()
                    assert not by_tcp.get_inheritable()
                    by_tcp.setblocking(True)
                    by_tcp.settimeout(20)
                    tcp_client.sendall(b"x")
                    assert by_tcp.recv(10) == b"x"
        ours.close()
        assert take(theirs) is None
        with socket.socket() as unwanted:
            assert not hand_over(theirs, 0, unwanted)


def configured(folder: Path, text: str) -> Config:
    path = folder / "zapd.toml"
    path.write_text(text)
    return load(path, check_files=False)


def test_workers_share_what_is_bounded_in_all(tmp_path: Path) -> None:
    """Together they keep the bound; a part is never too small to be of use, nor larger than the whole."""
    config = configured(tmp_path, WORKERS + "[limits]\nheld_total = 4001\nhandshakes_per_source = 5\n")
    limits = share(config, 2).limits
    assert (limits.held_total, limits.handshakes_per_source, limits.handshakes_total) == (2001, 5, 2048)
    assert (limits.max_in_flight, limits.connections, limits.hash_waiting) == (4096, 0, 32)
    assert limits.handshakes_start <= limits.handshakes_total
    many = share(config, 64).limits
    assert (many.handshakes_total, many.handshakes_per_site, many.hash_workers) == (64, 8, 1)
    assert (limits.handshake_deadline, limits.frame_size) == (5.0, 1 << 20), "what holds for one is not shared"
    assert share(config, 1).limits.model_dump(exclude={"hash_workers"}) == config.limits.model_dump(
        exclude={"hash_workers"}
    )


def test_a_later_configuration_keeps_what_only_a_start_reads(tmp_path: Path) -> None:
    """So that a replaced worker has exactly what its neighbours have after a reload."""
    started = configured(tmp_path, WORKERS)
    changed = configured(
        tmp_path,
        CONFIGURATION.replace("zap.sock", "other.sock").replace('drain = "5s"', 'drain = "6s"')
        + '[database]\nmax_staleness = "9s"\nurl = "sqlite:///other.db"\n'
        + "[limits]\nmax_in_flight = 7\nhandshakes_start = 77\n",
    )
    kept = keeping_start_only(started, changed)
    assert needs_restart(start_only(started), changed) != []
    assert needs_restart(start_only(started), kept) == []
    assert (kept.server.drain, kept.limits.handshakes_start) == (6.0, 77), "the rest is in force"


def test_a_configuration_is_what_was_read_not_what_stands_in_the_file_by_now(tmp_path: Path) -> None:
    """Workers are told the text; the file may hold half of an edit."""
    config = configured(tmp_path, CONFIGURATION)
    config.path.write_text("nonsense")
    assert load(config.path, text=config.text, check_files=False).sections == config.sections
    assert config.text not in repr(config)


def report(number: int) -> Report:
    """One worker's numbers."""
    return Report(
        parts=(),
        backends=(),
        decisions=(("orders", "CURVE", 200, "granted", number), (f"d{number}", "NULL", 400, "x", 1)),
        malformed=number,
        bugs=0,
        buckets=(number,) * 15,
        seconds=0.5,
        gauges=(
            ("zapd_network_events_total", "", {"accepted": number}),
            ("zapd_peers", "", {"": number}),
            ("zapd_journal_writable", "", {"": float(number != 2)}),
            ("zapd_registry_staleness_seconds", "", {"": number}),
            ("zapd_journal_sequence", "", {"": number}),
        ),
    )


def test_numbers_of_several_are_joined_as_they_mean() -> None:
    """Counters and sizes add up, of states the worst counts, and what those who ended have counted stays."""
    counts = Counts()
    counts.add(report(7), counters_only=True)
    again = Counts()
    again.add(counts.as_report())
    again.add(report(1))
    again.add(report(2))
    assert again.decisions.decisions["orders", "CURVE", 200, "granted"] == 10
    assert (again.decisions.malformed, again.decisions.seconds, again.decisions.buckets) == (10, 1.5, [10] * 15)
    gauges = {name: dict(values) for name, _, values in again.gauges()}
    assert gauges == {
        "zapd_network_events_total": {"accepted": 10},
        "zapd_peers": {"": 3},
        "zapd_journal_writable": {"": 0.0},
        "zapd_registry_staleness_seconds": {"": 2},
    }


def test_a_label_that_only_one_has_is_kept() -> None:
    """A backend that a worker has not built yet is no reason to lose the others' numbers."""
    joined = Joined()
    joined.add([("zapd_backend_questions_total", "", {"keys": 1.0})])
    joined.add([("zapd_backend_questions_total", "", {"keys": 2.0, "staff": 5.0})])
    assert list(joined.gauges()) == [("zapd_backend_questions_total", "", {"keys": 3.0, "staff": 5.0})]


async def test_a_change_that_cannot_be_read_stops_decisions_until_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that was told of a revocation and does not have it decides nothing; by itself it comes back."""
    await asyncio.to_thread(initialize, tmp_path)
    url = f"sqlite:///{tmp_path}/data/zapd.db"
    registry = Registry(url, tmp_path, 60.0, Watermark(tmp_path / "newest-change"))
    await registry.start()
    try:
        with writing(registry.engine) as connection:
            row = {"kind": "key", "subject": "x", "time": datetime.now(UTC), "event": "{}"}
            sequence = ChangeLog().append(connection, **row)
        with monkeypatch.context() as patch:
            patch.setattr(registry.feed, "_read", lambda: (_ for _ in ()).throw(OSError("too many open files")))
            with pytest.raises(Unavailable, match="too many open files"):
                await registry.reach(sequence)
            assert not registry.is_current()
            assert "not in force" in registry.problem
        async with asyncio.timeout(20):
            while not registry.is_current():
                await asyncio.sleep(0.01)
        assert registry.feed.position == sequence
        await registry.reach(sequence)
        with pytest.raises(Unavailable, match="does not hold it"):
            await registry.reach(sequence + 1)
        assert not registry.is_current(), "somebody knows of a change that our database has not"
    finally:
        await registry.aclose()
