"""What follows a backend's answer, its deadline, and its failures."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs
from support.auth_scene import EVE, curve, knowing_ada, plain, rule, scene

from zapd.auth.backend import Outcome, Principal, Verdict
from zapd.auth.gate import Keeping
from zapd.auth.hashing import HashPoolFull
from zapd.auth.policy import Link
from zapd.errors import Unavailable
from zapd.testing import FakeBackend
from zapd.zap import Suspended, first_step

ACCEPTS = Verdict(Outcome.ACCEPT, Principal("second"))


def saying(outcome: Outcome, reason: str = "") -> FakeBackend:
    return FakeBackend(verdict=Verdict(outcome, reason=reason))


def accepting() -> FakeBackend:
    return FakeBackend(verdict=ACCEPTS)


@pytest.mark.parametrize(
    ("outcome", "said"),
    [
        (Outcome.ACCEPT, None),
        (Outcome.REJECT, (400, "rejected")),
        (Outcome.LOCKED, (400, "locked")),
        (Outcome.NOT_YET, (300, "not_yet")),
        (Outcome.UNKNOWN, (200, "granted")),
        (Outcome.UNAVAILABLE, (300, "backend_unavailable")),
    ],
)
async def test_what_follows_each_outcome(outcome, said):
    """With safe defaults only UNKNOWN lets the next backend speak."""
    if outcome is Outcome.ACCEPT:
        first, said = FakeBackend(verdict=Verdict(outcome, Principal("first"))), (200, "granted")
    else:
        first = saying(outcome)
    world = await scene(rule("lab", "a", "b"), a=first, b=accepting())
    assert await world.said(curve()) == said
    assert bool(world.backends["b"].asked) is (outcome is Outcome.UNKNOWN)


@pytest.mark.parametrize("outcome", [Outcome.LOCKED, Outcome.NOT_YET])
async def test_no_rule_softens_a_bar(outcome):
    """LOCKED and NOT_YET end the chain although every choice says next."""
    link = Link("a", on_unknown="next", on_reject="next", on_unavailable="next")
    world = await scene(rule("lab", link, "b"), a=saying(outcome), b=accepting())
    assert (await world.said(curve()))[0] == (400 if outcome is Outcome.LOCKED else 300)
    assert world.backends["b"].asked == []


@pytest.mark.parametrize(
    ("first", "link", "second", "said"),
    [
        (Outcome.REJECT, Link("a", on_reject="next"), Outcome.ACCEPT, (200, "granted")),
        (Outcome.REJECT, Link("a", on_reject="next"), Outcome.UNKNOWN, (400, "first")),
        (Outcome.REJECT, Link("a", on_reject="next"), Outcome.REJECT, (400, "second")),
        (Outcome.REJECT, Link("a", on_reject="next"), Outcome.UNAVAILABLE, (300, "second")),
        (Outcome.UNKNOWN, Link("a", on_unknown="stop"), Outcome.ACCEPT, (400, "unknown_key")),
        (Outcome.UNAVAILABLE, Link("a", on_unavailable="next"), Outcome.ACCEPT, (200, "granted")),
        (Outcome.UNAVAILABLE, Link("a", on_unavailable="next"), Outcome.UNKNOWN, (300, "first")),
        (Outcome.UNAVAILABLE, Link("a", on_unavailable="next"), Outcome.REJECT, (300, "first")),
        (Outcome.UNAVAILABLE, Link("a", on_unavailable="next"), Outcome.LOCKED, (400, "second")),
    ],
)
async def test_what_a_link_may_choose(first, link, second, said):
    """A link may go on after a no; while a backend is away, a later no stays in doubt."""
    last = accepting() if second is Outcome.ACCEPT else saying(second, "second")
    world = await scene(rule("lab", link, "b"), a=saying(first, "first"), b=last)
    assert await world.said(curve()) == said


async def test_the_trail_names_each_backend_in_order():
    """The decision tells which backends were asked, what they said, and how long it took."""
    world = await scene(rule("lab", "a", "b"), a=FakeBackend(), b=accepting())
    trail = (await world.ask(curve())).trail
    assert [(step.backend, step.outcome) for step in trail] == [("a", "unknown"), ("b", "accept")]
    assert all(step.milliseconds >= 0 for step in trail)


async def test_only_backends_for_the_mechanism_are_asked():
    """A backend that cannot answer a mechanism is passed by; with none left the answer is 300."""

    class KeysOnly(FakeBackend):
        mechanisms = frozenset({"CURVE"})

    world = await scene(rule("lab", "a"), a=KeysOnly())
    assert await world.said(plain()) == (300, "no_backend")
    assert await world.said(curve()) == (400, "unknown_key")


async def test_memory_answers_without_a_task():
    """A chain that memory can answer neither suspends nor needs a task; a slow one suspends."""
    world = await scene(rule("lab", "a", "b"), a=FakeBackend(), b=knowing_ada())
    decision = first_step(world.authority.decide(curve()))
    assert not isinstance(decision, Suspended)
    assert decision.status == 200
    world.backends["b"].delay = 0.01
    slow = first_step(world.authority.decide(curve()))
    assert isinstance(slow, Suspended)
    assert (await slow.finish()).status == 200


async def test_a_late_backend_is_unavailable():
    """Past its deadline a backend is given up and the answer is 300, in time."""
    world = await scene(rule("lab", backend_deadline=0.05, deadline=1.0))
    world.backends["keys"].delay = 30.0
    async with asyncio.timeout(5):
        assert await world.said(curve()) == (300, "deadline")
    assert world.handles["keys"].late == 1


async def test_the_plan_has_a_deadline_of_its_own():
    """Several slow backends together may take no longer than the plan allows."""
    patient = Link("a", on_unavailable="next"), Link("b", on_unavailable="next"), Link("c", on_unavailable="next")
    world = await scene(
        rule("lab", *patient, backend_deadline=0.1, deadline=0.12),
        **{name: FakeBackend(delay=30.0) for name in "abc"},
    )
    loop = asyncio.get_running_loop()
    before = loop.time()
    assert (await world.said(curve()))[0] == 300
    assert loop.time() - before < 5.0


async def test_a_backend_that_will_not_be_cancelled_holds_nobody_up():
    """A question past its deadline is answered although its backend goes on, and that counts as open."""
    gone_on = asyncio.Event()

    class Stubborn(FakeBackend):
        async def check(self, question):
            try:
                await asyncio.sleep(30)
            except asyncio.CancelledError:
                await gone_on.wait()
            return ACCEPTS

    world = await scene(rule("lab", "a", backend_deadline=0.02), a=Stubborn())
    async with asyncio.timeout(5):
        assert await world.said(curve()) == (300, "deadline")
    assert world.handles["a"].health().open == 1
    gone_on.set()
    await asyncio.sleep(0.01)
    assert world.handles["a"].health().open == 0


@pytest.mark.parametrize("delay", [0.0, 0.001])
@pytest.mark.parametrize(
    "failure", [RuntimeError("x"), KeyError(), asyncio.CancelledError(), TimeoutError(), StopAsyncIteration()]
)
async def test_an_exception_is_unavailable_and_counted(failure, delay):
    """Whatever a backend raises, at once or later, it is 300, a counter rises, and the log has the traceback."""
    world = await scene()
    world.backends["keys"].failure = failure
    world.backends["keys"].delay = delay
    with capture_logs() as logs:
        assert await world.said(curve()) == (300, "backend_error")
    assert world.handles["keys"].errors == 1
    (told,) = (line["exception"] for line in logs if line["event"] == "a backend failed")
    assert type(failure).__name__ in told
    assert "Traceback (most recent call last)" in told or told.endswith("cancelled itself")


@pytest.mark.parametrize("delay", [0.0, 0.001])
async def test_trouble_and_overload_are_no_bugs(delay):
    """Unavailable and a full hash pool are 300 without alarm; overload may be counted instead of recorded."""
    world = await scene()
    backend = world.backends["keys"]
    backend.delay = delay
    backend.failure = Unavailable("the directory is away")
    assert await world.said(curve()) == (300, "backend_unavailable")
    assert world.handles["keys"].health().last_error == "the directory is away"
    backend.failure = HashPoolFull()
    decision = await world.ask(curve())
    assert (decision.status, decision.reason, decision.asked) == (300, "hash_pool_full", False)
    assert world.handles["keys"].errors == 0


@pytest.mark.parametrize(
    "nonsense",
    [None, True, "accept", (Outcome.ACCEPT,), Verdict("accept"), Verdict(Outcome.ACCEPT), Verdict(None)],
)
async def test_nonsense_is_never_a_yes(nonsense):
    """An answer that is no sound verdict, or an acceptance of nobody, is the backend's bug: 300."""

    class Odd(FakeBackend):
        async def check(self, question):
            return nonsense

    world = await scene(rule("lab", "a"), a=Odd())
    assert await world.said(curve()) == (300, "backend_error")
    assert world.handles["a"].errors == 1


async def test_a_check_that_is_no_coroutine_is_a_bug():
    """A backend whose check is a plain function is UNAVAILABLE, not a crash."""

    class Plain(FakeBackend):
        def check(self, question):  # type: ignore[override]
            return ACCEPTS

    world = await scene(rule("lab", "a"), a=Plain())
    assert await world.said(curve()) == (300, "backend_error")


async def test_open_questions_are_bounded():
    """With as many slow questions open as may be, more are 300 at once, and keys known by heart go on."""

    class SlowPasswords(FakeBackend):
        async def check(self, question):
            if question.mechanism == "PLAIN":
                await asyncio.sleep(0.2)
            return await super().check(question)

    fakes = SlowPasswords(users={f"u{n}": b"x" for n in range(4)}, keys=knowing_ada().keys)
    world = await scene(rule("lab", "a"), keeping=Keeping(max_in_flight=2), a=fakes)
    open_questions = [asyncio.ensure_future(world.ask(plain(f"u{n}", b"x"))) for n in range(2)]
    await asyncio.sleep(0.02)
    full = await world.ask(plain("u3", b"x"))
    assert (full.status, full.reason, full.asked) == (300, "backend_busy", False)
    assert await world.said(curve()) == (200, "granted")
    assert [int((await task).status) for task in open_questions] == [200, 200]
    assert await world.said(plain("u3", b"x")) == (200, "granted")


async def test_the_bound_is_for_all_mechanisms_together():
    """What waits for one mechanism takes the places of another's, from the very first question of that one on."""
    fakes = FakeBackend(users={"ada": b"x"}, keys=knowing_ada().keys, delay=0.2)
    world = await scene(rule("lab", "a"), keeping=Keeping(max_in_flight=2), a=fakes)
    open_questions = [asyncio.ensure_future(world.ask(curve(key))) for key in (EVE, bytes(32))]
    await asyncio.sleep(0.02)
    for _ in range(2):
        full = await world.ask(plain("ada", b"x"))
        assert (full.status, full.reason, full.asked) == (300, "backend_busy", False)
    assert world.handles["a"].health().open == 2
    await asyncio.gather(*open_questions)
    assert await world.said(plain("ada", b"x")) == (200, "granted")


async def test_giving_a_question_up_frees_its_place():
    """A question whose asker went away is cancelled in the backend as well."""
    world = await scene(rule(deadline=60.0, backend_deadline=60.0))
    world.backends["keys"].delay = 30.0
    step = first_step(world.authority.decide(curve(EVE)))
    assert isinstance(step, Suspended)
    assert world.handles["keys"].health().open == 1
    step.close()
    await asyncio.sleep(0.01)
    assert world.handles["keys"].health().open == 0
