"""Our own transport: what asyncio promises of one, over a real socket, on both loops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest
from support.net_wire import until

from zapd.net.transport import SocketTransport, Watch

BOTH_LOOPS = True


class Hearing(asyncio.Protocol):
    """Writes down what it is told."""

    def __init__(self, broken: bool = False) -> None:
        self.heard = b""
        self.told: list[str] = []
        self.lost: list[Exception | None] = []
        self._broken = broken

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.told.append("made")

    def data_received(self, data: bytes) -> None:
        if self._broken:
            raise RuntimeError("a bug")
        self.heard += data

    def eof_received(self) -> None:
        self.told.append("eof")

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append("lost")
        self.lost.append(exc)


@pytest.fixture
async def watch() -> Iterator[Watch]:
    """A watch that the running loop looks at."""
    loop = asyncio.get_running_loop()
    made = Watch()
    loop.add_reader(made.fileno(), made.serve)
    yield made
    loop.remove_reader(made.fileno())
    made.close()


def carried(watch: Watch, broken: bool = False) -> tuple[Hearing, SocketTransport, socket.socket]:
    """A protocol, its transport, and the other end."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    hearing = Hearing(broken)
    return hearing, SocketTransport(ours, hearing, watch, asyncio.get_running_loop()), theirs


async def read_all(end: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    got = b""
    while len(got) < size:
        got += await loop.sock_recv(end, 1 << 16)
    return got


async def test_octets_go_both_ways_and_the_end_is_told(watch: Watch) -> None:
    """What is sent arrives; the peer's end is told, and closes us too."""
    hearing, transport, theirs = carried(watch)
    theirs.send(b"hello")
    await until(lambda: hearing.heard == b"hello")
    transport.write(b"good day")
    assert await read_all(theirs, 8) == b"good day"
    theirs.close()
    await until(lambda: hearing.lost)
    assert hearing.told == ["made", "eof", "lost"]
    assert hearing.lost == [None]
    assert transport.is_closing()


async def test_what_the_system_does_not_take_is_sent_later_and_in_order(watch: Watch) -> None:
    """Writing more than fits pauses the protocol, and it goes on when everything is out."""
    hearing, transport, theirs = carried(watch)
    transport.set_write_buffer_limits(high=1000)
    sent = b"".join(b"%07d\n" % number for number in range(200_000))
    for start in range(0, len(sent), 100_000):
        transport.write(sent[start : start + 100_000])
    assert hearing.told == ["made", "pause"]
    assert transport.get_write_buffer_size() > 1000
    assert await read_all(theirs, len(sent)) == sent
    await until(lambda: hearing.told == ["made", "pause", "resume"])
    assert transport.get_write_buffer_size() == 0
    transport.abort()
    theirs.close()
    await until(lambda: hearing.lost)


async def test_closing_sends_what_is_unsent_and_aborting_does_not(watch: Watch) -> None:
    """A closed transport ends when the last octet is out; an aborted one at once."""
    sent = bytes(4_000_000)
    closed, transport, theirs = carried(watch)
    transport.write(sent)
    transport.close()
    transport.write(b"too late")
    assert not closed.lost
    assert len(await read_all(theirs, len(sent))) == len(sent)
    await until(lambda: closed.lost)
    aborted, transport, other = carried(watch)
    transport.write(sent)
    transport.abort()
    transport.abort()
    await until(lambda: aborted.lost)
    assert transport.get_write_buffer_size() == 0
    assert aborted.told.count("lost") == 1
    theirs.close()
    other.close()


async def test_the_end_of_writing_follows_the_last_octet(watch: Watch) -> None:
    """After write_eof the peer reads to the end, and may still answer."""
    hearing, transport, theirs = carried(watch)
    sent = bytes(1_000_000)
    transport.write(sent)
    transport.write_eof()
    transport.write_eof()
    transport.write(b"too late")
    assert await read_all(theirs, len(sent)) == sent
    assert await asyncio.get_running_loop().sock_recv(theirs, 1) == b""
    theirs.send(b"thanks")
    await until(lambda: hearing.heard == b"thanks")
    transport.close()
    theirs.close()
    await until(lambda: hearing.lost)


async def test_who_is_not_read_from_is_not_watched(watch: Watch) -> None:
    """A paused transport neither reads nor wakes anybody, even when the peer hangs up; resumed, it hears all."""
    hearing, transport, theirs = carried(watch)
    transport.pause_reading()
    assert not transport.is_reading()
    theirs.send(b"later")
    theirs.close()
    await asyncio.sleep(0.02)
    assert watch.waiting() == 0
    assert hearing.told == ["made"]
    transport.resume_reading()
    await until(lambda: hearing.lost)
    assert hearing.heard == b"later"
    transport.resume_reading()
    assert not transport.is_reading()


async def test_a_reset_is_told_with_its_reason(watch: Watch) -> None:
    """A broken connection says why, whether it is found out by reading or by writing."""
    hearing, transport, theirs = carried(watch)
    transport.pause_reading()
    theirs.close()
    transport.write(b"x")
    await until(lambda: hearing.lost)
    assert isinstance(hearing.lost[0], BrokenPipeError)
    assert transport.is_closing()


async def test_a_protocols_bug_ends_its_own_connection_alone(watch: Watch) -> None:
    """The loop hears of it, and the neighbour goes on."""
    failures: list[dict[str, object]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
    broken, _, one = carried(watch, broken=True)
    sound, transport, other = carried(watch)
    one.send(b"x")
    other.send(b"y")
    await until(lambda: broken.lost and sound.heard)
    assert [str(each["exception"]) for each in failures] == ["a bug"]
    transport.close()
    await until(lambda: sound.lost)
    one.close()
    other.close()


async def test_a_turn_serves_no_more_than_it_may_and_the_longest_waiting_first(watch: Watch) -> None:
    """What is left over waits unread, and nobody is passed over."""
    asyncio.get_running_loop().remove_reader(watch.fileno())
    three = [carried(watch) for _ in range(3)]
    for _, _, theirs in three:
        theirs.send(b"x")
    assert watch.waiting() == 3
    assert watch.serve(2) == 2
    assert [hearing.heard for hearing, _, _ in three] == [b"x", b"x", b""]
    three[0][2].send(b"y")
    assert watch.serve(1) == 1
    assert [hearing.heard for hearing, _, _ in three] == [b"x", b"x", b"x"]
    for _, transport, theirs in three:
        transport.abort()
        theirs.close()
    await asyncio.sleep(0)


async def test_a_transport_moves_from_one_watch_to_another(watch: Watch) -> None:
    """What came meanwhile is not lost, and the old watch knows it no more."""
    hearing, transport, theirs = carried(watch)
    other = Watch()
    theirs.send(b"x")
    transport.move_to(other)
    transport.move_to(other)
    assert watch.waiting() == 0
    assert other.serve() == 1
    assert hearing.heard == b"x"
    transport.abort()
    transport.move_to(watch)
    await asyncio.sleep(0)
    assert watch.waiting() == 0
    other.close()
    theirs.close()


async def test_what_it_can_tell_of_itself(watch: Watch) -> None:
    """Its socket and its peer's name, as asyncio's own."""
    hearing, transport, theirs = carried(watch)
    assert transport.get_extra_info("socket").family == socket.AF_UNIX
    assert transport.get_extra_info("peername") == ""
    assert transport.get_extra_info("cipher", "none") == "none"
    assert transport.can_write_eof()
    assert "closing" not in repr(transport)
    transport.close()
    transport.close()
    assert "closing" in repr(transport)
    theirs.close()
    await until(lambda: hearing.lost)
