"""The pam backend against a real PAM stack: the contract, what each code means, modules that hang and crash."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from support.pam_stack import PamStack
from zapd_backends.pam import PamBackend, PamSettings

from zapd.auth.backend import Backend, BackendBusy, BackendContext, Outcome, Principal, Question, Verdict
from zapd.errors import ConfigurationError, Unavailable
from zapd.testing import BackendContract, ask

PAGE = (Path(__file__).parents[2] / "docs/backends/pam.md").read_text()
PATIENCE = 20.0
ALICE = ask("alice", b"alice-Pw1")
WRONG = ask("alice", b"mistaken")


def command_line(number: int | str) -> str:
    try:
        return Path(f"/proc/{number}/cmdline").read_text()
    except OSError:  # it ended meanwhile
        return ""


def processes(words: str) -> list[int]:
    """Those with these words in their command line."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if words in command_line(path.name)]


@pytest.fixture
def stack(tmp_path: Path) -> PamStack:
    return PamStack(tmp_path / "pam.d")


def make(stack: PamStack, deadline: float = PATIENCE, **settings: object) -> PamBackend:
    context = BackendContext(stack.folder, None, deadline=deadline)
    return PamBackend.from_settings("machine", {"confdir": str(stack.folder), **settings}, context)


@asynccontextmanager
async def running(stack: PamStack, deadline: float = PATIENCE, **settings: object) -> AsyncIterator[PamBackend]:
    backend = make(stack, deadline, **settings)
    try:
        await backend.start()
        yield backend
    finally:
        await backend.aclose()


async def say(stack: PamStack, question: Question = ALICE, **settings: object) -> Verdict:
    async with running(stack, **settings) as backend:
        return await backend.check(question)


class TestPamContract(BackendContract):
    """The contract of every backend."""

    async def make(self, context: BackendContext) -> Backend:
        self.stack = PamStack(context.base_dir / secrets.token_hex(4))
        self.stack.add(alice="alice-Pw1", bob="bob-Pw1")
        self.stack.zapd()
        seconds = PATIENCE if context.deadline >= 0.8 else context.deadline
        settings = {"confdir": str(self.stack.folder)}
        return PamBackend.from_settings("machine", settings, replace(context, deadline=seconds))

    def accepted(self):
        return ALICE

    def rejected(self):
        return WRONG

    def unknown(self):
        return ask("eve", b"alice-Pw1")

    def barred(self):
        return ask("bob", b"bob-Pw1")

    async def break_source(self, context: BackendContext, backend: Backend) -> bool:
        self.stack.users.rename(self.stack.folder / "aside")
        return True

    async def mend_source(self, context: BackendContext, backend: Backend) -> bool:
        (self.stack.folder / "aside").rename(self.stack.users)
        return True

    async def hang_source(self, context: BackendContext, backend: Backend) -> bool:
        self.stack.hanging.touch()
        return True


@pytest.mark.parametrize(
    ("code", "in_auth", "in_account"),
    [
        ("auth_err", (Outcome.REJECT, "wrong_password"), (Outcome.LOCKED, "not_permitted")),
        ("user_unknown", (Outcome.UNKNOWN, ""), (Outcome.LOCKED, "no_account")),
        ("perm_denied", (Outcome.LOCKED, "not_permitted"), (Outcome.LOCKED, "not_permitted")),
        ("maxtries", (Outcome.LOCKED, "account_locked"), (Outcome.LOCKED, "account_locked")),
        ("new_authtok_reqd", (Outcome.LOCKED, "password_must_change"), (Outcome.LOCKED, "password_must_change")),
        ("authtok_expired", (Outcome.LOCKED, "password_expired"), (Outcome.LOCKED, "password_expired")),
        ("acct_expired", (Outcome.LOCKED, "account_expired"), (Outcome.LOCKED, "account_expired")),
        ("authinfo_unavail", (Outcome.UNAVAILABLE, "pam_error_9"), (Outcome.UNAVAILABLE, "pam_error_9")),
        ("system_err", (Outcome.UNAVAILABLE, "pam_error_4"), (Outcome.UNAVAILABLE, "pam_error_4")),
        ("abort", (Outcome.UNAVAILABLE, "pam_error_26"), (Outcome.UNAVAILABLE, "pam_error_26")),
    ],
)
async def test_what_each_code_means(stack, code, in_auth, in_account):
    """In each phase, as real modules say it: only a clear word about the user is a no."""
    stack.service("auth", f"auth required {stack.debug} auth={code}", "account required pam_permit.so")
    stack.service("account", "auth required pam_permit.so", f"account required {stack.debug} acct={code}")
    for service, expected in (("auth", in_auth), ("account", in_account)):
        async with running(stack, service=service) as backend:
            verdict = await backend.check(ALICE)
            assert (verdict.outcome, verdict.reason) == expected
            assert bool(backend.problem) is (verdict.outcome is Outcome.UNAVAILABLE)
    if "not_permitted" in in_account:
        verdict = await say(stack, service="account", denied="later")
        assert (verdict.outcome, verdict.reason) == (Outcome.NOT_YET, "not_permitted")


async def test_both_phases_are_asked(stack):
    """Another service's user passes the one and fails the other."""
    (stack.folder / "passdb").write_text("alice:alice-Pw1:zapd\nbob:bob-Pw1:elsewhere\n")
    line = f"required {stack.matrix} passdb={stack.folder}/passdb"
    stack.service("zapd", f"auth {line}", f"account {line}")
    async with running(stack) as backend:
        assert await backend.check(ALICE) == Verdict(Outcome.ACCEPT, Principal("alice"))
        verdict = await backend.check(ask("bob", b"bob-Pw1"))
        assert (verdict.outcome, verdict.reason) == (Outcome.LOCKED, "not_permitted")
        assert (await backend.check(ask("bob", b"mistaken"))).outcome is Outcome.REJECT


async def test_no_other_service_stands_in(stack):
    """Where the service has no file, "other" is not asked, although it would let everybody in."""
    backend = make(stack, service="missing")
    with pytest.raises(Unavailable, match=r"missing has no lines for account and auth, or is not there"):
        await backend.start()
    verdict = await backend.check(ALICE)
    assert (verdict.outcome, verdict.reason) == (Outcome.UNAVAILABLE, "pam_error_1")
    await backend.aclose()
    assert (await say(stack, service="other")).outcome is Outcome.ACCEPT


@pytest.mark.parametrize(
    ("lines", "speaks"),
    [
        ((), False),
        (("auth required pam_permit.so",), False),
        (("account required pam_permit.so", "#auth required pam_permit.so"), False),
        (("auth required pam_permit.so", "account include nothing"), False),
        (("@include {folder}/only-auth", "password required pam_permit.so"), False),
        (("account include {folder}/only-auth", "auth include {folder}/only-auth"), False),
        (("@include {folder}/itself", "auth required pam_permit.so"), False),
        (("auth requird pam_permit.so", "account required pam_permit.so"), False),
        (("auth required", "account required pam_permit.so"), False),
        (("auth required pam_permit.so", "acount required pam_deny.so", "account required pam_permit.so"), False),
        (("auth \\", " required pam_permit.so", "ACCOUNT required pam_permit.so"), True),
        (("@include {folder}/only-auth", "-account required pam_permit.so"), True),
        (("auth substack {folder}/only-auth", "account [success=ok default=bad] pam_permit.so"), True),
    ],
)
async def test_a_service_must_speak_for_both_phases(stack, lines, speaks):
    """What it does not say itself, or by what it includes, "other" would say: then nobody is admitted."""
    stack.service("only-auth", "auth required pam_permit.so")
    stack.service("itself", f"@include {stack.folder}/itself")
    stack.service("zapd", "auth required pam_permit.so", "account required pam_permit.so")
    async with running(stack) as backend:
        assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT
        stack.service("zapd", *(line.replace("{folder}", str(stack.folder)) for line in lines))
        expected = Outcome.ACCEPT if speaks else Outcome.UNAVAILABLE
        assert (await backend.check(ALICE)).outcome is expected


async def test_a_policy_that_changes_meanwhile_admits_nobody(stack):
    """An answer behind which the service's file is another one is none."""
    stack.add(alice="alice-Pw1")
    stack.zapd()
    async with running(stack) as backend:
        stack.hanging.touch()
        question = asyncio.ensure_future(backend.check(ALICE))
        async with asyncio.timeout(PATIENCE):
            while not stack.seen.exists():
                await asyncio.sleep(0.01)
        stack.service("zapd", (stack.folder / "zapd").read_text())
        stack.hanging.unlink()
        assert (await question).reason == "pam_error_1"
        assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT


async def test_a_module_that_is_missing_is_trouble(stack):
    """A service that names a module that is not there refuses nobody."""
    stack.service("zapd", "auth required pam_not_there.so", "account required pam_permit.so")
    assert (await say(stack)).outcome is Outcome.UNAVAILABLE


async def test_a_visible_prompt_gets_nothing(stack):
    """What a module would show on a screen is not answered with a password."""
    (stack.folder / "passdb").write_text("alice:alice-Pw1:zapd\n")
    line = f"required {stack.matrix} echo passdb={stack.folder}/passdb"
    stack.service("zapd", f"auth {line}", f"account {line}")
    assert (await say(stack)).outcome is Outcome.UNAVAILABLE


async def test_a_failure_is_not_delayed(stack):
    """A module that asks for a minute's delay behind a wrong password does not hold the process."""
    stack.add(alice="alice-Pw1")
    stack.zapd()
    text = (stack.folder / "zapd").read_text()
    stack.service("zapd", "auth optional pam_faildelay.so delay=60000000", text)
    assert (await say(stack, WRONG)).reason == "wrong_password"


async def test_modules_are_told_who_comes_and_no_secret(stack, monkeypatch):
    """User, service and peer; nothing of zapd's environment."""
    monkeypatch.setenv("ZAPD_TOKEN", "token-Pw1")
    stack.add(alice="alice-Pw1")
    stack.zapd()
    async with running(stack) as backend:
        for address, host in (
            ("192.0.2.7", "192.0.2.7"),
            ("2001:db8::7", "2001:db8::7"),
            ("ipc:uid=0", "localhost"),
        ):
            assert (await backend.check(ask("alice", b"alice-Pw1", address=address))).outcome is Outcome.ACCEPT
            seen = dict(line.split("=", 1) for line in stack.seen.read_text().splitlines() if "=" in line)
            assert (seen["PAM_USER"], seen["PAM_SERVICE"], seen["PAM_RHOST"]) == ("alice", "zapd", host)
            assert "Pw1" not in stack.seen.read_text()


async def test_a_module_that_hangs_is_killed_with_what_it_started(stack):
    """Its question is "cannot tell", the next one is answered, and nothing of it is left."""
    stack.add(alice="alice-Pw1")
    stack.zapd()
    async with running(stack, deadline=1.0, processes=1) as backend:
        async with asyncio.timeout(PATIENCE):
            while (await backend.check(ALICE)).outcome is not Outcome.ACCEPT:
                pass  # a loaded machine may take its time
            stack.hanging.touch()
            verdict = await backend.check(ALICE)
            assert (verdict.outcome, verdict.reason) == (Outcome.UNAVAILABLE, "pam_late")
            assert "does not answer in time" in backend.problem
            while processes(f"{stack.folder}/script"):
                await asyncio.sleep(0.02)
            stack.hanging.unlink()
            while (await backend.check(ALICE)).outcome is not Outcome.ACCEPT:
                pass
        assert backend.problem == ""


async def test_a_process_that_dies_is_replaced(stack):
    """Killed between two questions, or over one, it refuses nobody."""
    stack.add(alice="alice-Pw1")
    stack.zapd()
    async with running(stack, processes=1) as backend:
        for _ in range(2):
            (process,) = backend._processes._idle
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
            assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT
        (process,) = backend._processes._idle
        stack.hanging.touch()
        question = asyncio.ensure_future(backend.check(ALICE))
        async with asyncio.timeout(PATIENCE):
            while not processes(f"{stack.folder}/script"):
                await asyncio.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(Unavailable, match="died over a question"):
            await question
        stack.hanging.unlink()
        assert (await backend.check(ALICE)).outcome is Outcome.ACCEPT


async def test_a_process_may_start_slower_than_a_question_may_take(stack):
    """Whoever gives up meanwhile leaves the process to the next one, so that it is ready in the end."""
    stack.add(alice="alice-Pw1")
    stack.zapd()
    async with running(stack, deadline=1.0, processes=1) as backend:
        pool = backend._processes
        pool._words = ("/bin/sh", "-c", 'sleep 2; exec "$@"', "sh", *pool._words)
        (process,) = pool._idle
        os.kill(process.pid, signal.SIGKILL)
        await process.wait()
        assert (await backend.check(ALICE)).reason == "pam_late"
        async with asyncio.timeout(PATIENCE):
            while (await backend.check(ALICE)).outcome is not Outcome.ACCEPT:
                pass
    backend = make(stack, deadline=0.2)
    pool = backend._processes
    pool._words = ("/bin/sleep", "1000")
    assert (await backend.check(ALICE)).reason == "pam_late"
    await backend.aclose()  # one that starts is no hindrance
    assert not [task for task in asyncio.all_tasks() if "_spawn" in repr(task)]


async def test_many_questions_wait_their_turn_and_too_many_are_busy(stack):
    """More than processes wait; more than may wait hear so; each gets its own answer."""
    stack.add(alice="alice-Pw1")
    stack.zapd()
    async with running(stack, processes=2) as backend:
        questions = [ALICE, WRONG, ask("eve", b"alice-Pw1")] * 4
        said = [verdict.outcome for verdict in await asyncio.gather(*map(backend.check, questions))]
        assert said == [Outcome.ACCEPT, Outcome.REJECT, Outcome.UNKNOWN] * 4
        crowd = await asyncio.gather(*(backend.check(ALICE) for _ in range(100)), return_exceptions=True)
        assert [each for each in crowd if isinstance(each, BackendBusy)]
        assert all(isinstance(each, BackendBusy) or each.outcome is Outcome.ACCEPT for each in crowd)


@pytest.mark.parametrize(
    "name",
    ["root", "../x", "a/b", "a:b", "-x", ".", "..", "a b", "a,b", "a\tb", "x" * 256, "ali\u202ece"],
    ids=ascii,
)
async def test_names_that_no_account_has_are_unknown(stack, name):
    """Modules make paths and lines of names; root is nobody here. This stack would let all in; it is not asked."""
    assert (await say(stack, ask(name, b"x"), service="other")).outcome is Outcome.UNKNOWN


async def test_strangers_wait_as_long_as_others(stack):
    """Names that are unknown, and those that reach no module, take the time of a known one of late."""
    stack.add(alice="alice-Pw1")
    stack.zapd()
    async with running(stack) as backend:
        await backend.check(WRONG)
        assert len(backend._took) == 1
        backend._took[0] = 0.4
        for name in ("eve", "root", "a/b"):
            started = time.monotonic()
            assert (await backend.check(ask(name, b"x"))).outcome is Outcome.UNKNOWN
            assert time.monotonic() - started >= 0.39
        assert list(backend._took) == [0.4]


async def test_names_may_be_mapped(stack):
    """By a template, or one by one; the principal is the account."""
    stack.add(alice="alice-Pw1", zmq_alice="other-Pw1", root="root-Pw1")
    stack.zapd()
    async with running(stack, user="zmq_{user}", user_map={"al": "alice", "boss": "root"}) as backend:
        assert (await backend.check(ask("al", b"alice-Pw1"))).principal == Principal("alice")
        assert (await backend.check(ask("alice", b"other-Pw1"))).principal == Principal("zmq_alice")
        assert (await backend.check(ask("boss", b"root-Pw1"))).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "settings",
    [
        {"service": "../login"},
        {"service": ""},
        {"processes": 0},
        {"user": "zmq"},
        {"user": "{user}{name}"},
        {"denied": "maybe"},
        {"confdir": 3},
        {"pasword": "secret-7"},
    ],
)
def test_settings_are_checked(settings, tmp_path):
    """Each wrong one is named, and no value shown."""
    with pytest.raises(ConfigurationError, match=rf"backend\.machine: {next(iter(settings))}") as error:
        PamBackend.from_settings("machine", settings, BackendContext(tmp_path, None))
    assert "secret-7" not in str(error.value)


async def test_no_secret_is_told(stack):
    """No password in a log, a verdict, the backend or the arguments of a process."""
    stack.add(alice="alice-Pw1")
    stack.zapd()
    with capture_logs() as logs:
        async with running(stack) as backend:
            shown = [repr(await backend.check(question)) for question in (ALICE, ask("alice", b"alice-Pw1x"))]
            (process,) = backend._processes._idle
            shown.append(Path(f"/proc/{process.pid}/cmdline").read_text())
            stack.users.unlink()
            shown += [repr(await backend.check(ALICE)), backend.problem, repr(vars(backend)), repr(logs)]
    assert "alice-Pw1" not in "".join(shown)


@pytest.fixture
def machine_user() -> Iterator[str]:
    """A user of this machine's own, for pam_unix; taken away again."""
    if os.geteuid() != 0 or shutil.which("useradd") is None or shutil.which("chage") is None:
        pytest.skip("making users needs root and useradd")
    name = f"zapdtest{os.getpid()}"
    system("useradd", "-M", "-N", name)
    yield name
    system("userdel", name)


def system(*words: str, stdin: str = "") -> None:
    for _ in range(100):  # another test may hold the lock of /etc/passwd
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
        if "lock" not in done.stderr:
            break
        time.sleep(0.1)
    assert done.returncode == 0, done.stderr


async def test_the_machines_own_users(stack, machine_user):
    """pam_unix, as the service file of deploy/ asks it: right and wrong passwords, locked and expired accounts."""
    service = (Path(__file__).parents[2] / "deploy/zapd.pam").read_text()
    (stack.folder / "zapd").write_text(service)
    right = ask(machine_user, b"machine-Pw1")
    async with running(stack) as backend:
        assert (await backend.check(right)).outcome is Outcome.REJECT  # it has no password yet
        system("chpasswd", stdin=f"{machine_user}:machine-Pw1")
        assert await backend.check(right) == Verdict(Outcome.ACCEPT, Principal(machine_user))
        assert (await backend.check(ask(machine_user, b"mistaken"))).reason == "wrong_password"
        assert (await backend.check(ask(f"{machine_user}x", b"mistaken"))).outcome is Outcome.UNKNOWN
        system("chage", "-E", "2020-01-01", machine_user)
        assert (await backend.check(right)).reason == "account_expired"
        system("chage", "-E", "-1", "-d", "0", machine_user)
        assert (await backend.check(right)).reason == "password_must_change"
        system("chage", "-d", "2026-01-01", machine_user)
        assert (await backend.check(right)).outcome is Outcome.ACCEPT
        system("passwd", "-l", machine_user)
        assert (await backend.check(right)).outcome is Outcome.REJECT


def test_every_setting_is_in_the_page() -> None:
    """Each in the table, and no other."""
    table = PAGE.partition("## Settings")[2].partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == sorted(PamSettings.model_fields)
