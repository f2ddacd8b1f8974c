"""For tests, ours and strangers': fakes that behave, and the contract that every backend's tests subclass.

    class TestMyBackend(BackendContract):
        async def make(self, context): return MyBackend.from_settings("mine", {...}, context)
        def accepted(self): return ask("ada", b"secret")
        def rejected(self): return ask("ada", b"wrong")
        def unknown(self): return ask("nobody", b"secret")

Needs pytest and pytest-asyncio. Nothing of zapd imports this module.
"""
# ruff: noqa: S101 - a contract suite asserts

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Final, Self

import pytest

from zapd.auth.backend import UNKNOWN, Backend, BackendContext, Outcome, Principal, Question, Verdict
from zapd.auth.catalog import BackendHandle
from zapd.auth.gate import DEFAULT, Keeping
from zapd.auth.hashing import HashPool
from zapd.auth.last_good import LastGood
from zapd.errors import ConfigurationError
from zapd.zap import REFUSED, Suspended, ZapReply, ZapRequest, first_step
from zapd.zap.request import CREDENTIALS

_REJECTED: Final = Verdict(Outcome.REJECT, reason="wrong_password")


def ask(
    username: str = "", password: bytes = b"", *, key: bytes = b"", domain: str = "lab", address: str = "192.0.2.1"
) -> Question:
    """A question: PLAIN for a name, CURVE for a key."""
    mechanism = "CURVE" if key else "PLAIN"
    return Question(domain, mechanism, address, key=key, username=username, password=password)


@dataclass(slots=True)
class FakeBackend:
    """Knows the users and keys it is given; can be slow, broken, full, or of one opinion."""

    mechanisms: ClassVar[frozenset[str]] = frozenset(CREDENTIALS) - {"NULL"}

    users: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Names and passwords; a GSSAPI principal needs to be among the names only."""
    keys: dict[bytes, Principal] = field(default_factory=dict)
    verdict: Verdict | None = None
    """Said to every question, whatever it is."""
    delay: float = 0.0
    """Seconds before each answer; 0 answers from memory, without suspending."""
    failure: BaseException | None = None
    """Raised at each question, after the delay."""
    start_failure: BaseException | None = None
    """Raised by `start` while it is set."""
    asked: list[Question] = field(default_factory=list)
    started: int = 0
    closed: int = 0
    problem: str = ""
    _accepts: dict[object, Verdict] = field(default_factory=dict)

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Settings: ``users``, a table of names and passwords."""
        if settings.keys() - {"users"}:
            raise ConfigurationError(f"backend.{name}: a fake has users only")
        users = settings.get("users", {})
        if not isinstance(users, Mapping):
            raise ConfigurationError(f"backend.{name}: users is a table of names and passwords")
        return cls(users={str(user): str(password).encode() for user, password in users.items()})

    async def start(self) -> None:
        self.started += 1
        if self.start_failure is not None:
            raise self.start_failure

    async def check(self, question: Question) -> Verdict:
        self.asked.append(question)
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.failure is not None:
            raise self.failure
        if self.verdict is not None:
            return self.verdict
        if question.mechanism == "CURVE":
            principal = self.keys.get(question.key)
            return UNKNOWN if principal is None else self._accept(question.key, principal)
        password = self.users.get(question.username)
        if password is None:
            return UNKNOWN
        if question.mechanism == "PLAIN" and password != question.password:
            return _REJECTED
        return self._accept(question.username, Principal(question.username))

    async def aclose(self) -> None:
        self.closed += 1

    def _accept(self, who: object, principal: Principal) -> Verdict:
        known = self._accepts.get(who)
        if known is None or known.principal != principal:
            known = self._accepts[who] = Verdict(Outcome.ACCEPT, principal)
        return known


@dataclass(slots=True)
class FakeHandler:
    """Answers questions as it is told, and remembers them."""

    reply: ZapReply = REFUSED
    replies: dict[str, ZapReply] = field(default_factory=dict)
    """By domain; `reply` is for the others."""
    delay: float = 0.0
    failure: BaseException | None = None
    asked: list[ZapRequest] = field(default_factory=list)

    async def answer(self, request: ZapRequest) -> ZapReply:
        self.asked.append(request)
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.failure is not None:
            raise self.failure
        return self.replies.get(request.domain, self.reply)


async def started(backend: Backend, name: str = "fake", *, keeping: Keeping = DEFAULT) -> BackendHandle:
    """A handle for ``backend``, started."""
    last_good = LastGood(keeping.stale_if_error) if keeping.stale_if_error else None
    handle = BackendHandle(name, name, backend, keeping=keeping, last_good=last_good)
    await handle.start()
    return handle


HOSTILE_NAMES: Final = (
    "' OR '1'='1",
    '"; DROP TABLE users; --',
    "*",
    "*)(uid=*))(|(uid=*",
    "../../etc/passwd",
    "%s%n{0}",
    "a" * 255,
    "ａｄａ",  # full-width: looks like a name, and is another
    "e\u0301",
    ":",
    "#",
    " ",
)
"""Names that may be written into something by a careless backend."""


class BackendContract:
    """What every backend must do. Subclass it under a name that begins with ``Test``, and give the examples."""

    pytestmark = pytest.mark.asyncio

    async def make(self, context: BackendContext) -> Backend:
        """A new backend, not started, that knows the examples. ``context.base_dir`` is an empty folder."""
        raise NotImplementedError

    def accepted(self) -> Question:
        """A question whose proof is right."""
        raise NotImplementedError

    def unknown(self) -> Question:
        """A question about somebody the backend has never heard of."""
        raise NotImplementedError

    def rejected(self) -> Question | None:
        """A question about somebody known, with a wrong proof; None where there is no such thing (keys)."""
        return None

    def barred(self) -> Question | None:
        """A right proof of somebody who is barred; None where the backend knows no bar."""
        return None

    async def break_source(self, context: BackendContext, backend: Backend) -> bool:
        """Take away what a running backend draws on (its file, its server). False where there is nothing."""
        return False

    @asynccontextmanager
    async def running(self, base_dir: Path) -> AsyncIterator[tuple[Backend, BackendContext]]:
        """A started backend, closed at the end."""
        pool = HashPool()
        context = BackendContext(base_dir=base_dir, hash_pool=pool)
        backend = await self.make(context)
        try:
            await backend.start()
            yield backend, context
        finally:
            await backend.aclose()
            await pool.aclose()

    async def test_it_names_zap_mechanisms(self, tmp_path: Path) -> None:
        """The mechanisms it can answer are ZAP's, and there is at least one."""
        async with self.running(tmp_path) as (backend, _):
            assert isinstance(backend.mechanisms, frozenset)
            assert backend.mechanisms
            assert backend.mechanisms <= CREDENTIALS.keys()
            assert self.accepted().mechanism in backend.mechanisms

    async def test_a_right_proof_is_accepted_with_a_name(self, tmp_path: Path) -> None:
        """Whoever proves who they are is accepted, under a name that fits into a reply."""
        async with self.running(tmp_path) as (backend, _):
            verdict = await backend.check(self.accepted())
            assert verdict.outcome is Outcome.ACCEPT
            assert verdict.principal is not None
            assert 1 <= len(verdict.principal.name.encode()) <= 255

    async def test_a_wrong_proof_is_rejected(self, tmp_path: Path) -> None:
        """A wrong proof for a known name is refused for good."""
        question = self.rejected()
        if question is None:
            pytest.skip("there is no wrong proof here")
        async with self.running(tmp_path) as (backend, _):
            assert (await backend.check(question)).outcome in {Outcome.REJECT, Outcome.LOCKED}

    async def test_a_stranger_is_unknown(self, tmp_path: Path) -> None:
        """Somebody never heard of is UNKNOWN, so that the next backend may be asked."""
        async with self.running(tmp_path) as (backend, _):
            assert (await backend.check(self.unknown())).outcome is Outcome.UNKNOWN

    async def test_who_is_barred_stays_out(self, tmp_path: Path) -> None:
        """A bar holds although the proof is right."""
        question = self.barred()
        if question is None:
            pytest.skip("no bars here")
        async with self.running(tmp_path) as (backend, _):
            assert (await backend.check(question)).outcome in {Outcome.LOCKED, Outcome.NOT_YET}

    async def test_it_can_be_driven_by_hand(self, tmp_path: Path) -> None:
        """Run up to its first suspension outside any task, then on in a task of its own, it answers the same.

        Code before the first suspension that needs the current task fails here: see `Backend.check`.
        """
        async with self.running(tmp_path) as (backend, _):
            loop = asyncio.get_running_loop()
            answer: asyncio.Future[Verdict | Suspended[Verdict]] = loop.create_future()

            def drive() -> None:
                try:
                    answer.set_result(first_step(backend.check(self.accepted())))
                except Exception as error:  # noqa: BLE001 - shown by the test
                    answer.set_exception(error)

            loop.call_soon(drive)
            step = await answer
            verdict = await step.finish() if isinstance(step, Suspended) else step
            assert verdict.outcome is Outcome.ACCEPT

    async def test_questions_at_once_are_not_mixed_up(self, tmp_path: Path) -> None:
        """Many questions at once, each from its own address, each get their own answer."""
        async with self.running(tmp_path) as (backend, _):
            questions = [self.accepted(), self.unknown(), self.rejected() or self.unknown()] * 4
            apart = [
                Question(q.domain, q.mechanism, f"192.0.2.{number}", q.key, q.username, q.password)
                for number, q in enumerate(questions, 1)
            ]
            verdicts = await asyncio.gather(*(backend.check(question) for question in apart))
            accepted = [verdict.outcome is Outcome.ACCEPT for verdict in verdicts]
            assert accepted == [True, False, False] * 4

    async def test_a_question_given_up_does_no_harm(self, tmp_path: Path) -> None:
        """After a question that was cancelled half-way the next one is answered."""
        async with self.running(tmp_path) as (backend, _):
            q = self.accepted()
            elsewhere = Question(q.domain, q.mechanism, "192.0.2.77", q.key, q.username, q.password)
            task = asyncio.ensure_future(backend.check(elsewhere))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert (await backend.check(q)).outcome is Outcome.ACCEPT

    async def test_parts_of_a_proof_prove_nothing(self, tmp_path: Path) -> None:
        """A password cut short, made longer, or with NUL behind it is not the password."""
        right = self.accepted()
        if right.mechanism != "PLAIN":
            pytest.skip("for passwords")
        wrong = [right.password[:-1], right.password + b"x", right.password + b"\0", right.password + b"\0x", b""]
        async with self.running(tmp_path) as (backend, _):
            for number, password in enumerate(wrong):
                question = ask(right.username, password, domain=right.domain, address=f"192.0.2.{number + 1}")
                assert (await backend.check(question)).outcome is not Outcome.ACCEPT

    async def test_hostile_names_are_only_names(self, tmp_path: Path) -> None:
        """Names that are code, patterns or paths to somebody else are names of strangers here, and no error."""
        example = self.accepted()
        if example.mechanism == "CURVE":
            pytest.skip("for names")
        async with self.running(tmp_path) as (backend, _):
            for name in HOSTILE_NAMES:
                question = Question(example.domain, example.mechanism, "192.0.2.1", b"", name, example.password)
                assert (await backend.check(question)).outcome in {Outcome.UNKNOWN, Outcome.REJECT}

    async def test_no_verdict_shows_a_password(self, tmp_path: Path) -> None:
        """Neither a verdict nor the backend itself shows a password when printed."""
        questions = [q for q in (self.accepted(), self.rejected()) if q is not None and q.password]
        async with self.running(tmp_path) as (backend, _):
            for question in questions:
                shown = repr(await backend.check(question)) + repr(backend) + repr(question)
                assert question.password.decode() not in shown

    async def test_a_broken_source_refuses_nobody_for_good(self, tmp_path: Path) -> None:
        """When what it draws on is away, a valid user hears yes from memory or "cannot tell", never no."""
        async with self.running(tmp_path) as (backend, context):
            if not await self.break_source(context, backend):
                pytest.skip("nothing to break")
            try:
                outcome = (await backend.check(self.accepted())).outcome
            except Exception:  # noqa: BLE001 - the chain makes it UNAVAILABLE
                outcome = Outcome.UNAVAILABLE
            assert outcome in {Outcome.ACCEPT, Outcome.UNAVAILABLE}

    async def test_closing_needs_no_start(self, tmp_path: Path) -> None:
        """A backend that was never started can be closed."""
        pool = HashPool()
        backend = await self.make(BackendContext(base_dir=tmp_path, hash_pool=pool))
        await backend.aclose()
        await pool.aclose()

    async def test_an_unknown_setting_is_an_error(self, tmp_path: Path) -> None:
        """A setting that nobody knows is a mistake of the configuration, which names it or its kind."""
        pool = HashPool()
        context = BackendContext(base_dir=tmp_path, hash_pool=pool)
        backend = await self.make(context)
        with pytest.raises(ConfigurationError):
            type(backend).from_settings("it", {"no_such_setting": 1}, context)
        await backend.aclose()
        await pool.aclose()
