"""The local backend against this machine's accounts, and libzmq's ipc peers."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq
from support.app_scene import wait_for
from support.serving import PATIENCE, Zapd, serving
from zapd_backends import accounts, local
from zapd_backends.local import LocalBackend, LocalSettings

import zapd.agent
from zapd.agent.keyfile import read_keys
from zapd.auth.backend import Backend, BackendContext, Outcome, Principal, Question, Verdict
from zapd.errors import ConfigurationError, Unavailable
from zapd.testing import BackendContract

NOBODY_HAS = 4_000_000_000
ME = pwd.getpwuid(os.geteuid()).pw_name
"""Whose account runs the tests."""
ROOTS = tuple(sorted({grp.getgrgid(number).gr_name for number in os.getgrouplist("root", 0)}))
PAGE = (Path(__file__).parents[2] / "docs/backends/local.md").read_text()


def peer(number: int, address: str = "ipc:uid={},gid=0,pid=7") -> Question:
    return Question("lab", "NULL", address.format(number))


def make(**settings: object) -> LocalBackend:
    context = BackendContext(Path(), None, deadline=PATIENCE)  # type: ignore[arg-type]
    return LocalBackend.from_settings("peers", settings, context)


async def asked(question: Question, **settings: object) -> Verdict:
    backend = make(**settings)
    try:
        await backend.start()
        return await backend.check(question)
    finally:
        await backend.aclose()


class OtherLibc:
    """A C library whose name service fails."""

    def getpwuid_r(self, *_arguments: object) -> int:
        return errno.ECONNREFUSED


class TestLocalContract(BackendContract):
    """The contract of every backend."""

    @pytest.fixture(autouse=True)
    def _names(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        self.patch = monkeypatch
        self.released = threading.Event()
        yield
        self.released.set()

    async def make(self, context: BackendContext) -> Backend:
        return LocalBackend.from_settings("peers", {"deny": ["daemon"]}, context)

    def accepted(self) -> Question:
        return peer(0)

    def barred(self) -> Question:
        return peer(pwd.getpwnam("daemon").pw_uid)

    def unknown(self) -> Question:
        return peer(NOBODY_HAS)

    async def break_source(self, context: BackendContext, backend: Backend) -> bool:
        self.patch.setattr(accounts, "_libc", OtherLibc())
        return True

    async def mend_source(self, context: BackendContext, backend: Backend) -> bool:
        self.patch.undo()
        return True

    async def hang_source(self, context: BackendContext, backend: Backend) -> bool:
        self.patch.setattr(local, "name_of", lambda _number: self.released.wait(PATIENCE))
        return True


async def test_an_account_is_known_with_all_its_groups():
    """The principal is the account's name, its groups those that the machine gives it."""
    assert await asked(peer(0)) == Verdict(Outcome.ACCEPT, Principal("root", ROOTS), "granted")


@pytest.mark.parametrize("address", ["127.0.0.1", "2001:db8::7", "localhost", "ipc:uid=x,gid=0,pid=1", ""])
async def test_who_comes_over_a_network_is_unknown(address):
    """Only ipc tells who somebody is."""
    assert (await asked(peer(0, address))).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    ("settings", "outcome", "reason"),
    [
        ({"allow": ["root"]}, Outcome.ACCEPT, "granted"),
        ({"allow": "@root"}, Outcome.ACCEPT, "granted"),
        ({"allow": ["daemon", "@root"]}, Outcome.ACCEPT, "granted"),
        ({"allow": ["daemon"]}, Outcome.REJECT, "local_not_allowed"),
        ({"allow": ["@daemon", "Root"]}, Outcome.REJECT, "local_not_allowed"),
        ({"allow": ["root"], "deny": ["@root"]}, Outcome.LOCKED, "local_denied"),
        ({"deny": ["root"]}, Outcome.LOCKED, "local_denied"),
        ({"deny": ["daemon", "@daemon"]}, Outcome.ACCEPT, "granted"),
    ],
)
async def test_users_and_groups_are_allowed_and_denied(settings, outcome, reason):
    """Without allow every account may come; with it only those named, or in a group that is; deny wins."""
    verdict = await asked(peer(0), **settings)
    assert (verdict.outcome, verdict.reason) == (outcome, reason)
    assert verdict.principal == Principal("root", ROOTS)


async def test_a_name_service_that_fails_says_nothing_of_anybody(monkeypatch):
    """An account that cannot be looked up is no unknown one."""
    monkeypatch.setattr(accounts, "_libc", OtherLibc())
    with pytest.raises(Unavailable, match="Connection refused"):
        await asked(peer(0))


async def test_an_account_that_no_reply_can_name_is_a_doubt(monkeypatch):
    """A name or group with a control character or comma lets nobody in, and is told as that one's trouble."""
    monkeypatch.setattr(local, "groups_of", lambda _name: ("a,b",))
    verdict = await asked(peer(0))
    assert (verdict.outcome, verdict.principal, verdict.reason) == (
        Outcome.UNAVAILABLE,
        Principal("0"),
        "account_unusable",
    )


def test_long_accounts_are_read_whole():
    """Every account of this machine is found by its number, as the standard library finds it."""
    for account in pwd.getpwall():
        assert accounts.name_of(account.pw_uid) == pwd.getpwuid(account.pw_uid).pw_name
    assert accounts.name_of(NOBODY_HAS) is None
    assert accounts.name_of((1 << 32) - 1) is None


@pytest.mark.parametrize(
    "settings", [{"allow": [""]}, {"allow": ["a b"]}, {"deny": ["@"]}, {"deny": ["a,b"]}, {"users": ["root"]}]
)
def test_mistakes_are_named(settings):
    """A mistake names its setting."""
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        make(**settings)


def test_every_setting_and_reason_is_on_the_page():
    """docs/backends/local.md explains them."""
    for name in (*LocalSettings.model_fields, "local_denied", "local_not_allowed", "account_unusable"):
        assert f"`{name}`" in PAGE, name


HEAD = """
[[zap]]
listen = "tcp://127.0.0.1:0"
mechanism = "CURVE"
[admin]
listen = "127.0.0.1:0"
"""
VISITOR = """
import os, sys, zmq
import zmq.backend.cython
uid, address, says = int(sys.argv[1]), sys.argv[2], sys.argv[3]
context = zmq.Context()
if os.geteuid() != uid:
    os.setgroups([])
    os.setgid(uid)
    os.setuid(uid)
socket = context.socket(zmq.PUSH)
socket.linger = 10000
socket.reconnect_ivl = 50
socket.connect(address)
socket.send(says.encode())
sys.stdin.read()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that everybody may enter, for the socket."""
    made = Path(tempfile.mkdtemp(prefix="zapd-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


class Visitor:
    """A process of some user that knocks at an ipc socket."""

    def __init__(self, uid: int, address: str, says: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", VISITOR, str(uid), address, says],
            stdin=subprocess.PIPE,
        )

    def __enter__(self) -> Visitor:
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.communicate()


def reason(zapd_: Zapd, code: str) -> bool:
    return f'"reason":"{code}"' in zapd_.journal()


def test_libzmqs_ipc_peers_are_this_machines_users(tmp_path: Path, folder: Path) -> None:
    """Through the agent, with the page's configuration: a process is in as its user, with its groups, and the
    record says so; one of a user that is denied, or that no account belongs to, is not."""
    (text,) = [part.partition("```")[0] for part in PAGE.split("```toml\n")[1:2]]
    text = text.replace('"@zmq"', f'"{ME}"').replace('"guest"', '"daemon"')
    with serving(tmp_path / "z", configuration=HEAD + text) as zapd_:
        keys = read_keys(zapd_.enroll("edge-1"))
        context = zmq.Context()
        try:
            zapd.agent.start(context, keys, deadline=1.5)
            socket = context.socket(zmq.PULL)
            socket.linger = 0
            zapd.agent.guard(socket, domain="desk", mechanism="NULL", handshake=2.0)
            address = f"ipc://{folder}/desk.sock"
            socket.bind(address)
            (folder / "desk.sock").chmod(0o777)
            with Visitor(os.geteuid(), address, "mine"):
                assert socket.poll(int(PATIENCE * 1000))
                frame = socket.recv(copy=False)
            told = {name: frame.get(name) for name in ("User-Id", "X-Zapd-Groups")}
            groups = {grp.getgrgid(number).gr_name for number in os.getgrouplist(ME, pwd.getpwnam(ME).pw_gid)}
            assert (frame.bytes, told) == (b"mine", {"User-Id": ME, "X-Zapd-Groups": ",".join(sorted(groups))})
            assert f'"principal":"{ME}"' in zapd_.journal()
            if os.geteuid() == 0:
                with (
                    Visitor(pwd.getpwnam("daemon").pw_uid, address, "daemon"),
                    Visitor(pwd.getpwnam("nobody").pw_uid, address, "nobody"),
                    Visitor(NOBODY_HAS, address, "stranger"),
                ):
                    for code in ("local_denied", "local_not_allowed", "unknown_peer"):
                        assert wait_for(lambda code=code: reason(zapd_, code)), zapd_.journal()
                assert not socket.poll(100)
            socket.close()
        finally:
            context.destroy(linger=0)
