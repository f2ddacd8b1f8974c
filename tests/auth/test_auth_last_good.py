"""``stale_if_error``: who is still let in while a backend is away, and who is not."""

from __future__ import annotations

import asyncio

import pytest
from support.auth_scene import ADA, curve, knowing_ada, plain, rule, scene

from zapd.auth.backend import Outcome, Principal, Question, Verdict
from zapd.auth.gate import Keeping
from zapd.auth.hashing import HashPoolFull
from zapd.auth.last_good import LastGood
from zapd.auth.policy import Link, Policy
from zapd.errors import Unavailable
from zapd.testing import FakeBackend

KEPT = Keeping(stale_if_error=3600.0, cache_good=0.0, cache_bad=0.0, circuit_failures=0)
AWAY = Unavailable("it is away")
YES = Verdict(Outcome.ACCEPT, Principal("ada"))


def question(name="ada", password=b"lovelace", address="192.0.2.1", domain="lab", key=b""):
    return Question(domain, "CURVE" if key else "PLAIN", address, key, name, password)


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_by_default_nobody_is_let_in_during_an_outage():
    """Without the setting an outage is 300, whoever was let in just before."""
    world = await scene(keeping=Keeping(cache_good=0.0))
    assert await world.said(plain()) == (200, "granted")
    world.backends["keys"].failure = AWAY
    assert await world.said(plain()) == (300, "backend_unavailable")


@pytest.mark.parametrize("outage", ["trouble", "bug", "said so", "late", "circuit", "disabled"])
async def test_the_last_yes_stands_in_while_a_backend_is_away(outage):
    """Whatever kind of outage: the same question is let in, under a reason of its own, counted, in the trail;
    another password is 300."""
    kept = (
        KEPT if outage != "circuit" else Keeping(stale_if_error=3600.0, circuit_failures=1, circuit_pause=3600.0)
    )
    world = await scene(rule(deadline=60.0, backend_deadline=0.02), keeping=kept)
    backend, handle = world.backends["keys"], world.handles["keys"]
    assert await world.said(plain()) == (200, "granted")
    match outage:
        case "trouble":
            backend.failure = AWAY
        case "circuit":
            backend.failure = AWAY
            await world.ask(plain(name="eve"))
        case "bug":
            backend.failure = RuntimeError("x")
        case "said so":
            backend.verdict = Verdict(Outcome.UNAVAILABLE)
        case "late":
            backend.delay = 30.0
        case "disabled":
            await handle.aclose()
    decision = await world.ask(plain())
    assert (int(decision.status), decision.reason, decision.principal) == (200, "granted_stale", "ada")
    assert [step[:2] for step in decision.trail] == [("keys", "stale")]
    assert handle.health().stale == 1
    assert int((await world.ask(plain(password=b"byron"))).status) == 300
    assert int((await world.ask(plain(name="eve"))).status) == 300


async def test_it_is_not_remembered_as_an_answer():
    """A yes that stood in is never taken for a fresh one: once the backend answers, that counts at once."""
    world = await scene(keeping=KEPT)
    backend = world.backends["keys"]
    await world.ask(plain())
    backend.failure = AWAY
    assert await world.said(plain()) == (200, "granted_stale")
    backend.failure, backend.verdict = None, Verdict(Outcome.LOCKED, reason="disabled")
    assert await world.said(plain()) == (400, "disabled")
    backend.failure = AWAY
    assert int((await world.ask(plain())).status) == 300


@pytest.mark.parametrize("failure", [HashPoolFull(), None], ids=["hash pool full", "doubt about this one"])
async def test_too_much_at_once_is_no_outage(failure):
    """A flood cannot make an earlier yes be taken; nor can a doubt about the account itself."""
    world = await scene(keeping=KEPT)
    backend = world.backends["keys"]
    await world.ask(plain())
    backend.failure = failure
    backend.verdict = Verdict(Outcome.UNAVAILABLE, Principal("ada"), "changed_meanwhile")
    assert int((await world.ask(plain())).status) == 300


@pytest.mark.parametrize("outcome", [Outcome.REJECT, Outcome.LOCKED, Outcome.UNKNOWN, Outcome.NOT_YET])
async def test_a_credential_that_was_refused_since_is_not_let_in(outcome):
    """Once the backend has said anything but yes to it, an outage brings it back no more."""
    world = await scene(keeping=KEPT)
    backend = world.backends["keys"]
    await world.ask(plain())
    backend.verdict = Verdict(outcome)
    await world.ask(plain())
    backend.verdict, backend.failure = None, AWAY
    assert int((await world.ask(plain())).status) == 300


async def test_an_old_password_dies_with_the_new_one():
    """Whoever logs in with a new password takes the old one's place, wherever it was used from."""
    world = await scene(keeping=KEPT)
    backend = world.backends["keys"]
    await world.ask(plain())
    await world.ask(plain(address="192.0.2.9"))
    backend.users["ada"] = b"king"
    await world.ask(plain(password=b"king"))
    backend.failure = AWAY
    assert await world.said(plain(password=b"king")) == (200, "granted_stale")
    assert int((await world.ask(plain())).status) == 300
    assert int((await world.ask(plain(address="192.0.2.9"))).status) == 300


async def test_a_wrong_guess_takes_nothing_from_its_owner():
    """Somebody else's wrong password leaves the owner's last yes alone."""
    world = await scene(keeping=KEPT)
    await world.ask(plain())
    assert await world.said(plain(password=b"guess")) == (400, "wrong_password")
    world.backends["keys"].failure = AWAY
    assert await world.said(plain()) == (200, "granted_stale")


async def test_keys_too_and_each_domain_by_itself():
    """A key is let in where it was let in, and in no other domain or place."""
    world = await scene(rule("lab"), rule("orders"), keeping=KEPT)
    await world.ask(curve())
    world.backends["keys"].failure = AWAY
    assert await world.said(curve()) == (200, "granted_stale")
    assert int((await world.ask(curve(domain="orders"))).status) == 300
    assert int((await world.ask(curve(address="192.0.2.2"))).status) == 300


async def test_a_reload_forgets_it():
    """Under new rules nothing is let in by what was said under the old ones."""
    world = await scene(keeping=KEPT)
    await world.ask(plain())
    world.authority.reload(Policy((rule(),)), world.handles)
    world.backends["keys"].failure = AWAY
    assert int((await world.ask(plain())).status) == 300


async def test_a_backend_that_is_away_cannot_vouch_for_another():
    """What the first said no to and the second yes: while the first is away the second's yes does not stand in."""
    world = await scene(rule("lab", "a", "b"), keeping=KEPT, a=FakeBackend(), b=knowing_ada())
    assert await world.said(plain()) == (200, "granted")
    world.backends["a"].failure = AWAY
    assert int((await world.ask(plain())).status) == 300
    world = await scene(
        rule("lab", Link("a", on_unavailable="next"), "b"), keeping=KEPT, a=FakeBackend(), b=knowing_ada()
    )
    await world.ask(plain())
    world.backends["a"].failure = world.backends["b"].failure = AWAY
    assert await world.said(plain()) == (200, "granted_stale")


async def test_what_was_asked_before_a_change_is_not_kept_after_it():
    """A yes that was on its way when the backend said that something changed is given, and not kept."""
    world = await scene(rule(deadline=60.0, backend_deadline=60.0), keeping=KEPT)
    backend, handle = world.backends["keys"], world.handles["keys"]
    backend.delay = 0.05
    asked = asyncio.ensure_future(world.ask(plain()))
    await asyncio.sleep(0)
    handle.forget()
    assert (await asked).status == 200
    backend.delay, backend.failure = 0.0, AWAY
    assert int((await world.ask(plain())).status) == 300


def test_it_lasts_as_long_as_it_is_told():
    """Until its time is over, or the verdict's own end; each further yes begins it anew."""
    clock, wall = Clock(), Clock()
    last = LastGood(10.0, clock=clock, wall_clock=wall)
    last.note(question(), YES, last.generation)
    clock.now += 9
    last.note(question(), YES, last.generation)
    clock.now += 9
    assert last.recall(question()) is YES
    clock.now += 1
    assert last.recall(question()) is None
    last.note(question(), Verdict(Outcome.ACCEPT, Principal("ada"), until=1005.0), last.generation)
    assert last.recall(question()) is not None
    wall.now = 1005.0
    assert last.recall(question()) is None


def test_it_is_bounded():
    """Beyond its bound the account that was let in longest ago goes, with all its places."""
    last = LastGood(10.0, bound=4)
    for number in range(3):
        last.note(question(address=f"192.0.2.{number}"), YES, last.generation)
    last.note(question("eve"), YES, last.generation)
    assert len(last) == 4
    last.note(question("bob"), YES, last.generation)
    assert len(last) == 2
    assert last.recall(question(address="192.0.2.1")) is None
    assert last.recall(question("eve")) is YES
    last.note(question("bob"), Verdict(Outcome.LOCKED), last.generation)
    assert len(last) == 1
    last.forget()
    assert len(last) == 0


def test_a_refusal_meanwhile_outweighs_a_yes_on_its_way():
    """A yes asked for before the account was dropped is not kept after it."""
    last = LastGood(10.0)
    last.note(question(), YES, last.generation)
    before = last.generation
    last.note(question(), Verdict(Outcome.LOCKED), before)
    last.note(question(), YES, before)
    assert last.recall(question()) is None


def test_nothing_of_a_credential_is_kept():
    """Neither names nor passwords nor keys are in memory there, only keyed hashes."""
    last = LastGood(10.0)
    last.note(question(password=b"hush-hush"), YES, last.generation)
    last.note(question(key=ADA), YES, last.generation)
    held = repr({who: vars_of(account) for who, account in last._accounts.items()}).encode()
    assert b"hush-hush" not in held
    assert ADA not in b"".join(last._accounts)


def vars_of(account):
    return account.proof, account.places
