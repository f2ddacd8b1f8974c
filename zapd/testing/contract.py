"""The contract of every backend, as tests. See `zapd.testing`."""
# ruff: noqa: S101 - a contract suite asserts

from __future__ import annotations

import asyncio
import re
import traceback
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

import pytest
from structlog.testing import capture_logs

from zapd.auth.authority import Authority
from zapd.auth.backend import Backend, BackendContext, Outcome, Question, Verdict
from zapd.auth.grant import Grants
from zapd.auth.hashing import HashPool, HashPoolFull
from zapd.auth.policy import Link, Policy, Rule
from zapd.errors import ConfigurationError, Unavailable
from zapd.testing.fakes import ask, started
from zapd.testing.hostile import HOSTILE_NAMES, HOSTILE_PASSWORDS, elsewhere
from zapd.zap import Asker, Status, Suspended, ZapRequest, first_step
from zapd.zap.request import CREDENTIALS

PATIENCE: Final = 30.0
"""Seconds after which something that must end has not."""


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

    async def mend_source(self, context: BackendContext, backend: Backend) -> bool:
        """Give back what `break_source` took. False where that is not possible."""
        return False

    async def hang_source(self, context: BackendContext, backend: Backend) -> bool:
        """Let what a running backend draws on take questions and never answer. False where there is nothing."""
        return False

    def from_memory(self) -> Question | None:
        """A question that it answers without waiting for anything; None where there is none."""
        return None

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
            apart = [elsewhere(question) for question in questions]
            verdicts = await asyncio.gather(*(backend.check(question) for question in apart))
            accepted = [verdict.outcome is Outcome.ACCEPT for verdict in verdicts]
            assert accepted == [True, False, False] * 4

    async def test_the_same_at_once_is_never_refused(self, tmp_path: Path) -> None:
        """The very same right proof many times at once, from one place: each is accepted, or heard "not now"."""
        async with self.running(tmp_path) as (backend, _):
            outcomes = await asyncio.gather(*(self._said(backend, self.accepted()) for _ in range(8)))
            assert set(outcomes) <= {Outcome.ACCEPT, Outcome.UNAVAILABLE}

    async def test_questions_given_up_do_no_harm(self, tmp_path: Path) -> None:
        """After many questions that were cancelled half-way the next one is answered, and no task of theirs lives
        on."""
        async with self.running(tmp_path) as (backend, _):
            before = asyncio.all_tasks()
            tasks = [asyncio.ensure_future(backend.check(elsewhere(self.accepted()))) for _ in range(20)]
            await asyncio.sleep(0)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            left = asyncio.all_tasks() - before
            if left:
                _, left = await asyncio.wait(left, timeout=PATIENCE)
            assert not left
            # What was begun may have to end first.
            assert await self._heard_at_last(backend) is Outcome.ACCEPT

    async def test_what_memory_knows_costs_no_task(self, tmp_path: Path) -> None:
        """An answer from memory is there with the first step: nothing is waited for."""
        question = self.from_memory()
        if question is None:
            pytest.skip("it always has to wait for something")
        async with self.running(tmp_path) as (backend, _):
            assert not isinstance(first_step(backend.check(question)), Suspended)

    async def test_two_of_a_kind_are_apart(self, tmp_path: Path) -> None:
        """Closing one backend leaves another of its type at work."""
        (tmp_path / "other").mkdir()
        async with self.running(tmp_path) as (backend, _):
            async with self.running(tmp_path / "other") as (other, _):
                assert (await other.check(self.accepted())).outcome is Outcome.ACCEPT
            assert (await backend.check(elsewhere(self.accepted()))).outcome is Outcome.ACCEPT

    async def test_what_it_grants_fits_into_a_reply(self, tmp_path: Path) -> None:
        """Name, groups and attributes of whom it accepts keep the rules of a ZAP reply."""
        async with self.running(tmp_path) as (backend, _):
            verdict = await backend.check(self.accepted())
            assert verdict.principal is not None
            assert Grants().without_key(verdict.principal).status is Status.GRANTED

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

    async def test_an_empty_password_proves_nothing(self, tmp_path: Path) -> None:
        """Whoever it is about, a password of nothing or of blanks is none."""
        example = self.accepted()
        if example.mechanism != "PLAIN":
            pytest.skip("for passwords")
        async with self.running(tmp_path) as (backend, _):
            for name in (example.username, self.unknown().username):
                for password in (b"", b" ", b"\0"):
                    question = elsewhere(example, username=name, password=password)
                    assert await self._said(backend, question) is not Outcome.ACCEPT

    async def test_hostile_passwords_are_only_passwords(self, tmp_path: Path) -> None:
        """Passwords that are code, or no text at all, are wrong: a definite no, and no error."""
        example = self.accepted()
        if example.mechanism != "PLAIN":
            pytest.skip("for passwords")
        async with self.running(tmp_path) as (backend, _):
            for password in HOSTILE_PASSWORDS:
                outcome = await self._said(backend, elsewhere(example, password=password))
                assert outcome in {Outcome.REJECT, Outcome.LOCKED, Outcome.UNKNOWN}

    async def test_hostile_names_are_only_names(self, tmp_path: Path) -> None:
        """Names that are code, patterns or paths to somebody else are names of strangers here, and no error."""
        example = self.accepted()
        if not example.username:
            pytest.skip("for names")
        async with self.running(tmp_path) as (backend, _):
            for name in HOSTILE_NAMES:
                outcome = (await backend.check(elsewhere(example, username=name))).outcome
                assert outcome in {Outcome.UNKNOWN, Outcome.REJECT}

    async def test_another_spelling_is_nobody_else(self, tmp_path: Path) -> None:
        """A name in other letters, with blanks, or in look-alikes is a stranger's, or gives the very same
        principal: nobody has two names here."""
        example = self.accepted()
        if not example.username:
            pytest.skip("for names")
        name = example.username
        wide = "".join(chr(ord(each) + 0xFEE0) if "!" <= each <= "~" else each for each in name)
        async with self.running(tmp_path) as (backend, _):
            known = (await backend.check(example)).principal
            for other in {name.upper(), name.title(), name + " ", " " + name, name + ".", wide} - {name}:
                verdict = await backend.check(elsewhere(example, username=other))
                assert verdict.outcome is not Outcome.ACCEPT or verdict.principal == known

    async def test_no_verdict_shows_a_password(self, tmp_path: Path) -> None:
        """Neither a verdict nor the backend itself shows a password when printed."""
        questions = [q for q in (self.accepted(), self.rejected()) if q is not None and q.password]
        async with self.running(tmp_path) as (backend, _):
            for question in questions:
                shown = repr(await backend.check(question)) + repr(backend) + repr(question)
                assert question.password.decode() not in shown

    async def test_a_broken_source_refuses_nobody_for_good(self, tmp_path: Path) -> None:
        """When what it draws on is away, a valid user hears yes from memory or "cannot tell", never no; and it
        is said as the world's trouble, not met as a bug."""
        async with self.running(tmp_path) as (backend, context):
            if not await self.break_source(context, backend):
                pytest.skip("nothing to break")
            assert await self._said(backend, self.accepted()) in {Outcome.ACCEPT, Outcome.UNAVAILABLE}

    async def test_it_heals_without_a_restart(self, tmp_path: Path) -> None:
        """When what it draws on is back, the same backend answers as before."""
        async with self.running(tmp_path) as (backend, context):
            if not await self.break_source(context, backend):
                pytest.skip("nothing to break")
            await self._said(backend, self.accepted())
            if not await self.mend_source(context, backend):
                pytest.skip("nothing to mend")
            assert await self._heard_at_last(backend) is Outcome.ACCEPT

    async def test_its_trouble_shows_no_password(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Neither the log, nor an error, nor what it prints has a password in it when its source is away."""
        questions = [q for q in (self.accepted(), self.rejected()) if q is not None and q.password]
        if not questions:
            pytest.skip("for passwords")
        told: list[str] = []
        with capture_logs() as logs:
            async with self.running(tmp_path) as (backend, context):
                if not await self.break_source(context, backend):
                    pytest.skip("nothing to break")
                for question in questions:
                    try:
                        told.append(repr(await backend.check(question)))
                    except Exception as error:  # noqa: BLE001 - whatever it is, it must not tell
                        told += [repr(error), *traceback.format_exception(error)]
                told.append(str(getattr(backend, "problem", "")))
        told += [repr(logs), caplog.text, *capfd.readouterr()]
        for question in questions:
            assert not [text for text in told if question.password.decode() in text]

    async def test_a_source_that_hangs_is_waited_for_no_longer_than_the_deadline(self, tmp_path: Path) -> None:
        """zapd answers 300 (or from memory), its loop goes on meanwhile, and the backend can still be closed."""
        example = self.accepted()
        pool = HashPool()
        context = BackendContext(base_dir=tmp_path, hash_pool=pool, deadline=0.3)
        handle = await started(await self.make(context), "it")
        try:
            assert handle.backend is not None
            if not await self.hang_source(context, handle.backend):
                pytest.skip("nothing that hangs")
            rule = Rule(
                example.domain,
                frozenset({example.mechanism}),
                (Link("it"),),
                allow=("ipc", "0.0.0.0/0", "::/0"),
                deadline=0.4,
                backend_deadline=0.3,
            )
            authority = Authority(Policy((rule,)), {"it": handle})
            request = _request(example)
            async with asyncio.timeout(PATIENCE):
                for _ in range(3):
                    assert (await authority.decide(request)).status in {Status.TRY_AGAIN, Status.GRANTED}
        finally:
            async with asyncio.timeout(PATIENCE):
                await handle.aclose()
            await pool.aclose()

    async def test_a_failed_start_can_be_closed_and_repeated(self, tmp_path: Path) -> None:
        """When its source is away it may fail to start; it is tried again then, and must start once the source is
        back; closed it gives back every task."""
        before = asyncio.all_tasks()
        pool = HashPool()
        context = BackendContext(base_dir=tmp_path, hash_pool=pool)
        backend = await self.make(context)
        try:
            if await self.break_source(context, backend):
                for _ in range(2):
                    try:
                        await backend.start()
                    except Exception as error:  # noqa: BLE001 - shown as the reason, whatever it is
                        assert str(error), "the reason is shown to people"
                if await self.mend_source(context, backend):
                    await backend.start()
                    assert await self._heard_at_last(backend) is Outcome.ACCEPT
        finally:
            await backend.aclose()
            await pool.aclose()
        left = asyncio.all_tasks() - before
        if left:
            _, left = await asyncio.wait(left, timeout=PATIENCE)
        assert not left

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

    @staticmethod
    async def _said(backend: Backend, question: Question) -> Outcome:
        """What it says; that it has no room, or that its source is away, may be raised too."""
        try:
            return (await backend.check(question)).outcome
        except (Unavailable, HashPoolFull):
            return Outcome.UNAVAILABLE

    async def _heard_at_last(self, backend: Backend) -> Outcome:
        """What a right proof hears once it is not "not now" any more."""
        for _ in range(int(PATIENCE / 0.02)):
            outcome = await self._said(backend, elsewhere(self.accepted()))
            if outcome is not Outcome.UNAVAILABLE:
                break
            await asyncio.sleep(0.02)
        return outcome


def _request(question: Question) -> ZapRequest:
    """As it comes from an agent."""
    credentials = {
        "NULL": (),
        "PLAIN": (question.username.encode("utf-8"), question.password),
        "CURVE": (question.key,),
        "GSSAPI": (question.username.encode("utf-8"),),
    }[question.mechanism]
    local = re.fullmatch(r"ipc:uid=(\d+),gid=(\d+),pid=(\d+)", question.address)
    address = ":".join(("localhost", *local.groups())) if local else question.address
    asker = Asker("test", mechanisms=frozenset(CREDENTIALS))
    return ZapRequest(b"1", question.domain, address, b"", question.mechanism, credentials, asker=asker)
