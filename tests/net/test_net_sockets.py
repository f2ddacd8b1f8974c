"""Listening on a path: what stands there, who may replace it, and who may connect."""

from __future__ import annotations

import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.net_wire import RawPeer, message

from zapd.errors import Conflict, InvalidInput, ZapdError
from zapd.net.address import IpcAddress, parse_address
from zapd.net.peer import Peer
from zapd.net.router import Router
from zapd.net.sockets import listen_ipc
from zapd.zmtp.mechanisms.null import NullServer


def echo(peer: Peer, messages: list[list[bytes]]) -> None:
    peer.send_messages(messages)


def dead_socket(path: Path) -> None:
    """What a killed process leaves behind."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()


async def test_an_ipc_peer_is_named_by_its_process(tmp_path: Path) -> None:
    """Mode and group are as asked, and the peer is known by uid, gid and pid."""
    path = tmp_path / "zap.sock"
    names: list[str] = []
    router = Router(echo, on_ready=lambda peer: names.append(peer.remote_address))
    address = await router.listen(f"ipc://{path}", NullServer(), mode=0o660, group=os.getgid())
    assert stat.S_IMODE(path.lstat().st_mode) == 0o660
    assert path.lstat().st_gid == os.getgid()
    raw = await RawPeer.admitted(address)
    raw.say(message(b"hello"))
    assert await raw.read_message() == [b"hello"]
    assert names == [f"localhost:{os.getuid()}:{os.getgid()}:{os.getpid()}"]
    await raw.close()
    await router.close()
    assert not path.exists()


async def test_only_the_users_that_are_named_may_connect(tmp_path: Path) -> None:
    """A uid outside the list is closed at once, whatever the file's mode says."""
    router = Router(echo)
    address = await router.listen(f"ipc://{tmp_path}/z", NullServer(), uids=frozenset({os.getuid() + 1}))
    raw = await RawPeer.connect(address)
    assert await raw.is_closed()
    assert router.counters.refused_uid == 1
    await raw.close()
    await router.close()


def test_the_file_is_nobodys_before_it_is_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between bind and listen the socket has no permissions at all."""
    seen: list[int] = []
    chmod = Path.chmod

    def spy(path: Path, mode: int) -> None:
        seen.append(stat.S_IMODE(path.lstat().st_mode))
        chmod(path, mode)

    monkeypatch.setattr(Path, "chmod", spy)
    listen_ipc(IpcAddress(tmp_path / "z"), 1, 0o600).close()
    assert seen == [0]


def test_a_dead_socket_is_removed_and_a_live_one_is_not(tmp_path: Path) -> None:
    """A crash leaves a file behind that nobody answers at; a running service is never displaced."""
    path = tmp_path / "z"
    dead_socket(path)
    with listen_ipc(IpcAddress(path), 1), pytest.raises(Conflict, match="another process listens"):
        listen_ipc(IpcAddress(path), 1)
    assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "link", "dangling", "directory"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    """Files, links and directories in the way are refused and stay as they are."""
    path = tmp_path / "z"
    if kind == "file":
        path.write_text("precious")
    elif kind == "directory":
        path.mkdir()
    else:
        if kind == "link":
            dead_socket(tmp_path / "target")
        path.symlink_to(tmp_path / "target")
    with pytest.raises(ZapdError, match=r"in the way|is a link"):
        listen_ipc(IpcAddress(path), 1)
    assert path.is_symlink() or path.exists()


def test_a_directory_that_everybody_may_write_is_refused(tmp_path: Path) -> None:
    """Somebody else could put his socket there first."""
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o1777)
    with pytest.raises(InvalidInput, match="everybody may write"):
        listen_ipc(IpcAddress(tmp_path / "open" / "z"), 1)
    with pytest.raises(InvalidInput, match="directory does not exist"):
        listen_ipc(IpcAddress(tmp_path / "missing" / "z"), 1)


def test_an_unknown_group_is_explained(tmp_path: Path) -> None:
    """The mend is in the message, and no socket is left behind."""
    with pytest.raises(InvalidInput, match="no group 'no-such-group'"):
        listen_ipc(IpcAddress(tmp_path / "z"), 1, group="no-such-group")
    assert not (tmp_path / "z").exists()


async def test_a_file_that_took_our_place_is_not_removed(tmp_path: Path) -> None:
    """At the end only our own socket goes."""
    path = tmp_path / "z"
    router = Router(echo)
    await router.listen(f"ipc://{path}", NullServer())
    path.rename(tmp_path / "ours")
    path.write_text("another's")
    await router.close()
    assert path.read_text() == "another's"


async def test_a_name_cannot_be_listened_on() -> None:
    """Listening needs an address of this machine."""
    router = Router(echo)
    with pytest.raises(InvalidInput, match="numeric address"):
        await router.listen("tcp://example.org:1", NullServer())
    with pytest.raises(InvalidInput, match="no such address"):
        await router.listen("tcp://192.0.2.77:0", NullServer())
    await router.close()


EXHAUSTED = """
import asyncio, resource, socket, sys, time
from zapd.net.limits import NetLimits, PeerLimits
from zapd.net.router import Router
from zapd.net.loop import loop_factory
from zapd.zmtp.mechanisms.null import NullServer

async def main():
    router = Router(lambda peer, messages: peer.send_messages(messages), limits=NetLimits(connections=100_000))
    address = await router.listen("tcp://127.0.0.1:0", NullServer())
    print(address.port, flush=True)
    used = time.process_time()
    while await asyncio.to_thread(sys.stdin.readline) == "look\\n":
        now = time.process_time()
        print(router.counters.descriptors_exhausted, router.counters.evicted_handshakes, now - used, flush=True)
    await router.close()

resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
loop = asyncio.new_event_loop if sys.argv[1] == "asyncio" else loop_factory()
with asyncio.Runner(loop_factory=loop) as runner:
    runner.run(main())
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
async def test_without_descriptors_the_oldest_strangers_leave_and_nothing_spins(loop: str) -> None:
    """At EMFILE accepting rests, strangers make room, and a legitimate peer gets in; the CPU stays idle."""
    child = subprocess.Popen(
        [sys.executable, "-c", EXHAUSTED, loop], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child:
        port = int(child.stdout.readline())
        address = parse_address(f"tcp://127.0.0.1:{port}")
        strangers = [await RawPeer.connect(address) for _ in range(60)]
        legitimate = await RawPeer.admitted(address, "127.0.0.2")
        legitimate.say(message(b"hello"))
        assert await legitimate.read_message() == [b"hello"]
        print("look", file=child.stdin, flush=True)
        exhausted, evicted, cpu = child.stdout.readline().split()
        assert int(exhausted) >= 1
        assert int(evicted) >= 1
        assert float(cpu) < 1.0
        legitimate.say(message(b"still here"))
        assert await legitimate.read_message() == [b"still here"]
        for raw in [*strangers, legitimate]:
            await raw.close()
        child.stdin.close()
    assert child.returncode == 0
