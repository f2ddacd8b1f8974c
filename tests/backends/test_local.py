"""The local backend against this machine's accounts, a name service that breaks, and libzmq's ipc peers."""

from __future__ import annotations

import asyncio
import grp
import math
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import zmq
from structlog.testing import capture_logs
from support.app_scene import wait_for
from support.fault_proxy import BehindProxy, FaultProxy
from support.name_service import NameService, Person, build
from support.serving import PATIENCE, Zapd, serving
from zapd_backends import accounts
from zapd_backends.local import LocalBackend, LocalSettings

import zapd.agent
from zapd.agent.keyfile import read_keys
from zapd.auth.backend import Backend, BackendContext, Outcome, Principal, Question, Verdict
from zapd.errors import ConfigurationError, Unavailable
from zapd.testing import BackendContract

NOBODY_HAS = 4_000_000_000
ADA, EVE, STAFF, LAB = 70001, 70002, 70101, 70102
ME = pwd.getpwuid(os.geteuid()).pw_name
"""Whose account runs the tests."""
ROOTS = tuple(sorted({grp.getgrgid(number).gr_name for number in os.getgrouplist("root", 0)}))
PAGE = (Path(__file__).parents[2] / "docs/backends/local.md").read_text()


def peer(number: int, address: str = "ipc:uid={},gid=0,pid=7") -> Question:
    return Question("lab", "NULL", address.format(number))


def make(deadline: float = PATIENCE, **settings: object) -> LocalBackend:
    context = BackendContext(Path(), None, deadline=deadline)  # type: ignore[arg-type]
    return LocalBackend.from_settings("peers", settings, context)


async def asked(question: Question, **settings: object) -> Verdict:
    backend = make(**settings)
    try:
        await backend.start()
        return await backend.check(question)
    finally:
        await backend.aclose()


@dataclass
class Names:
    """A name service before ``files``, and what breaks the road to it."""

    service: NameService
    proxy: FaultProxy


@pytest.fixture(scope="module")
def drill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Names, dict[str, str]]]:
    with NameService({}, {}) as service, FaultProxy(service.port) as proxy:
        yield Names(service, proxy), build(tmp_path_factory.mktemp("drill"), proxy.port)


@pytest.fixture
def names(drill: tuple[Names, dict[str, str]], monkeypatch: pytest.MonkeyPatch) -> Names:
    """Asked by every process that starts from now on. Whole, with ``ada`` in two groups, the first her own."""
    found, environment = drill
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    found.service.people = {ADA: Person("ada", STAFF, (LAB,)), EVE: Person("eve", STAFF)}
    found.service.groups = {STAFF: "staff-drill", LAB: "lab-drill"}
    found.service.cut.clear()
    found.service.lost = False
    found.proxy.heal()
    return found


class TestLocalContract(BehindProxy, BackendContract):
    """The contract of every backend."""

    @pytest.fixture(autouse=True)
    def _names(self, names: Names) -> None:
        self.proxy = names.proxy

    async def make(self, context: BackendContext) -> Backend:
        return make(PATIENCE if context.deadline >= 0.8 else context.deadline, deny="eve")

    def accepted(self) -> Question:
        return peer(ADA)

    def barred(self) -> Question:
        return peer(EVE)

    def unknown(self) -> Question:
        return peer(NOBODY_HAS)


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


async def test_a_name_service_that_is_away_says_nothing_of_anybody(names: Names) -> None:
    """An account that cannot be looked up is no unknown one, although a service behind says that there is none;
    one of a service that answers is known all the same."""
    names.proxy.refuse()
    for number in (ADA, NOBODY_HAS):
        with pytest.raises(Unavailable, match="drill cannot be asked: Connection refused"):
            await asked(peer(number))
    assert await asked(peer(0)) == Verdict(Outcome.ACCEPT, Principal("root", ROOTS), "granted")


@pytest.mark.parametrize("kind", ["groups", "gid"])
@pytest.mark.parametrize(
    ("settings", "outcome"),
    [
        ({}, Outcome.ACCEPT),
        ({"allow": "ada"}, Outcome.ACCEPT),
        ({"allow": "eve"}, Outcome.REJECT),
        ({"deny": "ada"}, Outcome.LOCKED),
        ({"deny": "eve", "allow": ["ada", "@lab-drill"]}, Outcome.ACCEPT),
        ({"allow": "ada", "deny": ["ada", "@lab-drill"]}, Outcome.LOCKED),
        ({"allow": "eve", "deny": "@lab-drill"}, Outcome.REJECT),
        ({"allow": "@lab-drill"}, Outcome.UNAVAILABLE),
        ({"deny": "@lab-drill"}, Outcome.UNAVAILABLE),
        ({"deny": "@other"}, Outcome.UNAVAILABLE),
        ({"allow": "ada", "deny": "@lab-drill"}, Outcome.UNAVAILABLE),
    ],
)
async def test_groups_that_nobody_could_tell_decide_nothing(names, kind, settings, outcome):
    """Who may be in a group that was not told is neither let in nor refused where that group may decide; where it
    cannot he hears what he hears otherwise, and the trouble is shown."""
    names.service.cut[kind] = math.inf
    backend = make(**settings)
    try:
        if outcome is Outcome.UNAVAILABLE:
            with pytest.raises(Unavailable, match="drill cannot be asked"):
                await backend.check(peer(ADA))
        else:
            assert (await backend.check(peer(ADA))).outcome is outcome
        assert "drill cannot be asked" in backend.problem
        names.service.cut.clear()
        assert (await backend.check(peer(ADA))).principal == Principal("ada", ("lab-drill", "staff-drill"))
        assert not backend.problem
    finally:
        await backend.aclose()


@pytest.mark.parametrize("kind", ["uid", "groups", "gid"])
async def test_a_name_service_that_comes_back_between_two_questions_hides_nothing(names, kind):
    """glibc was told nothing, and who asked next was: nobody is unknown for it, or without his groups."""
    names.service.cut[kind] = 1
    verdict = await asked(peer(ADA), allow="@lab-drill")
    assert verdict == Verdict(Outcome.ACCEPT, Principal("ada", ("lab-drill", "staff-drill")), "granted")


async def test_answers_that_never_come_take_no_room(names: Names) -> None:
    """Look-ups that hang for good end at the deadline, however many there are, and no process asks as it starts:
    the next question is answered, although nothing that hung has returned."""
    backend = make(0.3)
    try:
        names.service.lost = True
        await backend.start()
        for _ in range(2):
            questions = (backend.check(peer(number)) for number in range(ADA, ADA + 8))
            said = await asyncio.gather(*questions, return_exceptions=True)
            assert {type(each) for each in said} == {Unavailable}
        names.service.lost = False
        assert await heard_at_last(backend) is Outcome.ACCEPT
    finally:
        await backend.aclose()


async def heard_at_last(backend: LocalBackend) -> Outcome:
    """What is heard of ``ada`` once a process has started."""
    while True:
        try:
            return (await backend.check(peer(ADA))).outcome
        except Unavailable:
            await asyncio.sleep(0.05)


async def test_an_account_may_be_in_many_groups(names: Names) -> None:
    """More than there is room for at first, all of them are told; one without a name is left out."""
    many = {number: f"g{number}" for number in range(71000, 71200)}
    names.service.groups = {STAFF: "staff-drill", **many}
    names.service.people[ADA] = Person("ada", STAFF, (*many, 71999))
    verdict = await asked(peer(ADA))
    assert verdict.principal == Principal("ada", tuple(sorted((*many.values(), "staff-drill"))))


@pytest.mark.parametrize("group", ["a,b", "x" * 2000])
async def test_an_account_that_no_reply_can_name_is_a_doubt(names, group):
    """A name or group with a comma, or too long, lets nobody in, and is told as that one's trouble."""
    names.service.groups[LAB] = group
    assert await asked(peer(ADA)) == Verdict(Outcome.UNAVAILABLE, Principal(str(ADA)), "account_unusable")


@pytest.mark.parametrize(
    ("count", "length", "why"),
    [(300, 240, "4096 are allowed"), (600, 2000, "more than 1 MiB")],
    ids=["a reply", "a process"],
)
async def test_groups_that_are_too_many_are_a_doubt_about_one_account(names, count, length, why):
    """Be it more than a reply or more than a process can carry: that account alone hears 300, the log and the list
    of backends say why, no process dies of it, and others are answered meanwhile."""
    many = {number: f"g{number}" + "x" * length for number in range(71000, 71000 + count)}
    names.service.groups = {STAFF: "staff-drill", **many}
    names.service.people[ADA] = Person("ada", STAFF, tuple(many))
    backend = make()
    try:
        await backend.start()
        [process] = backend._processes._idle
        with capture_logs() as logged:
            verdict = await backend.check(peer(ADA))
        assert verdict == Verdict(Outcome.UNAVAILABLE, Principal(str(ADA)), "account_unusable")
        assert why in backend.problem
        assert [why in line["reason"] for line in logged] == [True]
        assert (await backend.check(peer(0))).outcome is Outcome.ACCEPT
        assert backend._processes._idle == [process]
    finally:
        await backend.aclose()


async def test_a_configuration_is_read_as_glibc_reads_it(
    names: Names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service whose module is missing is passed over, and one that glibc is told not to ask makes no account."""
    for order, outcome in {
        "drill missing files": Outcome.ACCEPT,
        "files [NOTFOUND=return] drill": Outcome.UNKNOWN,
    }.items():
        folder = tmp_path / outcome.value
        folder.mkdir()
        monkeypatch.setenv("LD_PRELOAD", build(folder, names.proxy.port, order)["LD_PRELOAD"])
        assert (await asked(peer(ADA))).outcome is outcome
        assert (await asked(peer(NOBODY_HAS))).outcome is Outcome.UNKNOWN


def test_accounts_are_what_the_standard_library_finds():
    """Every account of this machine, by number and by name."""
    for account in pwd.getpwall():
        same = pwd.getpwuid(account.pw_uid)
        assert accounts.find_account(account.pw_uid) == accounts.Account(same.pw_name, same.pw_gid)
        assert accounts.find_account(account.pw_name) == accounts.Account(account.pw_name, account.pw_gid)
    assert accounts.find_account(NOBODY_HAS) is None
    assert accounts.find_account((1 << 32) - 1) is None
    assert accounts.find_account("no such account") is None


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
