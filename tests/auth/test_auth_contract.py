"""The contract suite finds the faults it is there for: each planted one fails its test."""

from __future__ import annotations

import asyncio

import pytest
from test_auth_catalog import TestFakeContract as Contract

from zapd.auth.backend import UNKNOWN, Outcome, Principal, Verdict
from zapd.errors import Unavailable
from zapd.testing import FakeBackend

ADA = Verdict(Outcome.ACCEPT, Principal("ada"))


class TakesAnyBeginning(FakeBackend):
    async def check(self, question):
        if question.username == "ada" and b"lovelace".startswith(question.password):
            return ADA
        return await super().check(question)


class TakesTheEmptyPassword(FakeBackend):
    async def check(self, question):
        return ADA if not question.password else await super().check(question)


class FoldsCase(FakeBackend):
    async def check(self, question):
        if question.username.lower() == "ada" and question.password == b"lovelace":
            return Verdict(Outcome.ACCEPT, Principal(question.username))
        return await super().check(question)


class BreaksOnOddNames(FakeBackend):
    async def check(self, question):
        question.username.encode("ascii")
        return await super().check(question)


class BreaksOnOddPasswords(FakeBackend):
    async def check(self, question):
        question.password.decode()
        return await super().check(question)


class NamesNobody(FakeBackend):
    async def check(self, question):
        verdict = await super().check(question)
        return Verdict(Outcome.ACCEPT) if verdict.outcome is Outcome.ACCEPT else verdict


class GrantsWhatNoReplyHolds(FakeBackend):
    async def check(self, question):
        verdict = await super().check(question)
        return (
            Verdict(Outcome.ACCEPT, Principal("ada", ("a,b",))) if verdict.outcome is Outcome.ACCEPT else verdict
        )


class SaysUnknownInAnOutage(FakeBackend):
    async def check(self, question):
        try:
            return await super().check(question)
        except Unavailable:
            return UNKNOWN


class BreaksInAnOutage(FakeBackend):
    async def check(self, question):
        try:
            return await super().check(question)
        except Unavailable:
            raise ConnectionError("away") from None


class TellsThePassword(FakeBackend):
    async def check(self, question):
        try:
            return await super().check(question)
        except Unavailable as error:
            raise Unavailable(f"{error}: {question.password!r} was not asked about") from None


class NeverHeals(FakeBackend):
    lost = False

    async def check(self, question):
        self.lost = self.lost or self.failure is not None
        if self.lost:
            raise Unavailable("its connection is gone")
        return await super().check(question)


class MixesQuestionsUp(FakeBackend):
    async def check(self, question):
        self.last = question
        await asyncio.sleep(0)
        return await super().check(self.last)


class IsInTheWayOnceCancelled(FakeBackend):
    busy = False

    async def check(self, question):
        if self.busy:
            return Verdict(Outcome.REJECT)
        self.busy = True
        await asyncio.sleep(0)
        self.busy = False
        return await super().check(question)


class NeedsATask(FakeBackend):
    async def check(self, question):
        async with asyncio.timeout(1):
            return await super().check(question)


class LeavesATaskBehind(FakeBackend):
    async def start(self):
        self.task = asyncio.ensure_future(asyncio.sleep(60))
        await super().start()


FLAWS = {
    TakesAnyBeginning: "test_parts_of_a_proof_prove_nothing",
    TakesTheEmptyPassword: "test_an_empty_password_proves_nothing",
    FoldsCase: "test_another_spelling_is_nobody_else",
    BreaksOnOddNames: "test_hostile_names_are_only_names",
    BreaksOnOddPasswords: "test_hostile_passwords_are_only_passwords",
    NamesNobody: "test_a_right_proof_is_accepted_with_a_name",
    GrantsWhatNoReplyHolds: "test_what_it_grants_fits_into_a_reply",
    SaysUnknownInAnOutage: "test_a_broken_source_refuses_nobody_for_good",
    BreaksInAnOutage: "test_a_broken_source_refuses_nobody_for_good",
    NeverHeals: "test_it_heals_without_a_restart",
    MixesQuestionsUp: "test_questions_at_once_are_not_mixed_up",
    IsInTheWayOnceCancelled: "test_questions_given_up_do_no_harm",
    NeedsATask: "test_it_can_be_driven_by_hand",
    LeavesATaskBehind: "test_a_failed_start_can_be_closed_and_repeated",
}


@pytest.mark.parametrize("flawed", FLAWS, ids=lambda flawed: flawed.__name__)
async def test_a_planted_fault_is_found(flawed, tmp_path, monkeypatch):
    """The test that is meant to find it fails, and passes for the fake without the fault."""
    monkeypatch.setattr("zapd.testing.contract.PATIENCE", 0.1)

    def suite(kind):
        class Planted(Contract):
            async def make(self, context):
                return kind.from_settings("fake", {"users": {"ada": "lovelace"}}, context)

        return Planted()

    for folder in ("good", "bad"):
        (tmp_path / folder).mkdir()
    await getattr(suite(FakeBackend), FLAWS[flawed])(tmp_path / "good")
    with pytest.raises((Exception, pytest.fail.Exception)):
        await getattr(suite(flawed), FLAWS[flawed])(tmp_path / "bad")
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()


async def test_a_password_told_is_found(tmp_path, caplog, capfd):
    """An error that quotes the password fails the suite."""

    class Planted(Contract):
        async def make(self, context):
            return TellsThePassword.from_settings("fake", {"users": {"ada": "lovelace"}}, context)

    await Contract().test_its_trouble_shows_no_password(tmp_path, caplog, capfd)
    with pytest.raises(AssertionError):
        await Planted().test_its_trouble_shows_no_password(tmp_path, caplog, capfd)
