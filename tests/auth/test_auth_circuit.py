"""When a backend is left alone, when it is asked again, and what counts as its fault."""

from __future__ import annotations

import asyncio
import copy

import pytest
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from structlog.testing import capture_logs
from support.auth_scene import EVE, curve, knowing_ada, plain, scene
from support.auth_scene import rule as domain

from zapd.auth.backend import BackendBusy, Outcome, Principal, Verdict
from zapd.auth.circuit import Circuit, CircuitState
from zapd.auth.gate import Keeping
from zapd.auth.hashing import HashPoolFull
from zapd.auth.policy import Link
from zapd.errors import Unavailable
from zapd.testing import FakeBackend

PAUSE = 0.5
PATIENT = domain(deadline=60.0, backend_deadline=60.0)
NEVER = 3600.0


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class CircuitMachine(RuleBasedStateMachine):
    """Any order of questions, answers and pauses."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.circuit = Circuit(3, PAUSE, self.clock)
        self.probes = 0
        self.in_a_row = 0

    @rule()
    def time_passes(self) -> None:
        self.clock.now += PAUSE

    @rule()
    def a_question_fails(self) -> None:
        """One that was sent while the circuit was closed."""
        opened = self.circuit.failed(probe=False)
        self.in_a_row += 1
        assert opened is (self.in_a_row == 3)

    @rule()
    def a_question_succeeds(self) -> None:
        self.circuit.succeeded()
        self.probes = self.in_a_row = 0

    @rule()
    def somebody_asks(self) -> None:
        if self.circuit.is_open and self.circuit.probe():
            self.probes += 1

    @rule()
    def the_probe_fails(self) -> None:
        if self.probes:
            assert not self.circuit.failed(probe=True)
            self.probes -= 1

    @rule()
    def the_probe_is_given_up(self) -> None:
        if self.probes:
            self.circuit.undecided(probe=True)
            self.probes -= 1

    @invariant()
    def one_probe_at_a_time(self) -> None:
        assert self.probes <= 1
        assert (self.circuit.state is CircuitState.HALF_OPEN) is bool(self.probes)

    @invariant()
    def it_is_open_after_three_in_a_row(self) -> None:
        assert self.circuit.is_open is (self.in_a_row >= 3)

    @invariant()
    def whoever_asks_after_a_pause_may_probe(self) -> None:
        if self.circuit.is_open and not self.probes:
            later = copy.copy(self.circuit)
            later._clock = lambda: self.clock.now + PAUSE
            assert later.probe()


TestCircuit = CircuitMachine.TestCase


async def test_an_open_circuit_answers_at_once_and_asks_nobody():
    """After so many failures in a row nobody is sent there; the answer is 300 and says why."""
    world = await scene(keeping=Keeping(circuit_failures=3, circuit_pause=NEVER))
    backend = world.backends["keys"]
    backend.failure = Unavailable("it is away")
    with capture_logs() as logs:
        for _ in range(3):
            assert await world.said(curve()) == (300, "backend_unavailable")
        decision = await world.ask(curve())
    assert (decision.status, decision.reason, decision.asked) == (300, "circuit_open", False)
    assert len(backend.asked) == 3
    health = world.handles["keys"].health()
    assert (health.circuit, health.circuit_opened, health.last_error) == ("open", 1, "it is away")
    assert health.last_error_at > 0
    assert [line["reason"] for line in logs if line["event"] == "circuit open"] == ["it is away"]


async def test_the_first_question_behind_the_pause_finds_it_healed():
    """No restart, no timer: a real question is the probe, gets its real answer, and closes the circuit."""
    world = await scene(keeping=Keeping(circuit_failures=1, circuit_pause=0.001))
    backend = world.backends["keys"]
    backend.failure = Unavailable("it is away")
    assert await world.said(curve()) == (300, "backend_unavailable")
    backend.failure = None
    await asyncio.sleep(0.01)
    with capture_logs() as logs:
        assert await world.said(curve()) == (200, "granted")
        assert await world.said(curve()) == (200, "granted")
    assert world.handles["keys"].health().circuit == "closed"
    assert [line["event"] for line in logs] == ["circuit closed: the backend answers again"]


async def test_one_probe_at_a_time():
    """While one question finds out, all others are answered at once."""
    go = asyncio.Event()

    class Held(FakeBackend):
        async def check(self, question):
            if self.failure is None:
                await go.wait()
            return await super().check(question)

    world = await scene(
        PATIENT,
        keeping=Keeping(circuit_failures=1, circuit_pause=0.001),
        keys=Held(keys=knowing_ada().keys, failure=Unavailable("it is away")),
    )
    backend = world.backends["keys"]
    await world.ask(curve())
    backend.failure = None
    await asyncio.sleep(0.01)
    probe = asyncio.ensure_future(world.ask(curve()))
    await asyncio.sleep(0)
    assert world.handles["keys"].health().circuit == "half_open"
    assert {await world.said(curve(EVE)) for _ in range(5)} == {(300, "circuit_open")}
    go.set()
    assert (await probe).status == 200
    assert len(backend.asked) == 2


async def test_a_probe_given_up_lets_the_next_one_through():
    """A probe whose asker went away says nothing; the next question is the probe."""
    world = await scene(PATIENT, keeping=Keeping(circuit_failures=1, circuit_pause=0.001))
    backend = world.backends["keys"]
    backend.failure = Unavailable("it is away")
    await world.ask(curve())
    backend.failure, backend.delay = None, 30.0
    await asyncio.sleep(0.01)
    probe = asyncio.ensure_future(world.ask(curve()))
    await asyncio.sleep(0)
    probe.cancel()
    await asyncio.gather(probe, return_exceptions=True)
    assert world.handles["keys"].health().circuit == "open"
    backend.delay = 0.0
    assert await world.said(curve()) == (200, "granted")


async def test_a_late_backend_opens_the_circuit_and_a_hung_probe_delays_the_next_no_further():
    """Answers behind the deadline count as none; the pause runs from the beginning of the probe."""
    slow = domain(deadline=60.0, backend_deadline=0.02)
    world = await scene(slow, keeping=Keeping(circuit_failures=2, circuit_pause=0.02))
    backend = world.backends["keys"]
    backend.delay = 30.0
    for _ in range(2):
        assert await world.said(curve()) == (300, "deadline")
    assert world.handles["keys"].health().circuit == "open"
    await asyncio.sleep(0.03)
    assert await world.said(curve()) == (300, "deadline")  # the probe
    backend.delay = 0.0
    assert await world.said(curve()) == (200, "granted")  # at once: its deadline was as long as the pause
    assert world.handles["keys"].health().last_error.startswith("no answer within 0.02")


async def test_the_deadline_of_a_backend_is_its_own_where_it_is_shorter():
    """A domain gives it a minute, its own table less: then that counts."""
    world = await scene(PATIENT, keeping=Keeping(deadline=0.01))
    world.backends["keys"].delay = 30.0
    assert await world.said(curve()) == (300, "deadline")
    assert world.handles["keys"].health().late == 1


@pytest.mark.parametrize("outcome", [Outcome.REJECT, Outcome.UNKNOWN, Outcome.LOCKED, Outcome.NOT_YET])
async def test_a_refusal_is_an_answer(outcome):
    """However many are refused, the circuit stays closed; one refusal between failures begins the count anew."""
    world = await scene(keeping=Keeping(circuit_failures=2, circuit_pause=NEVER))
    backend = world.backends["keys"]
    for _ in range(5):
        backend.verdict = Verdict(Outcome.UNAVAILABLE)
        await world.ask(curve())
        backend.verdict = Verdict(outcome)
        await world.ask(curve())
    assert world.handles["keys"].health().circuit == "closed"
    assert len(backend.asked) == 10


@pytest.mark.parametrize(
    "failure",
    [Unavailable("away"), RuntimeError("bug"), Verdict(Outcome.UNAVAILABLE), Verdict(Outcome.ACCEPT), "nonsense"],
    ids=["unavailable", "an exception", "said so", "accepted nobody", "no verdict"],
)
async def test_what_counts_as_a_failure(failure):
    """The world's trouble, a bug, an answer that is none: each opens the circuit when it lasts."""
    world = await scene(keeping=Keeping(circuit_failures=2, circuit_pause=NEVER))
    backend = world.backends["keys"]
    if isinstance(failure, Exception):
        backend.failure = failure
    else:
        backend.verdict = failure
    for _ in range(2):
        assert int((await world.ask(curve())).status) == 300
    assert await world.said(curve()) == (300, "circuit_open")


@pytest.mark.parametrize(
    "failure",
    [HashPoolFull(), BackendBusy("full"), Verdict(Outcome.UNAVAILABLE, Principal("ada"), "hash_unusable")],
    ids=["hash pool", "busy", "cannot tell about this one"],
)
async def test_what_says_nothing_about_the_backend_opens_no_circuit(failure):
    """Too much at once, or a doubt about one account alone: a stranger who causes it shuts nobody else out."""
    world = await scene(keeping=Keeping(circuit_failures=1, circuit_pause=NEVER))
    backend = world.backends["keys"]
    if isinstance(failure, Exception):
        backend.failure = failure
    else:
        backend.verdict = failure
    for _ in range(5):
        assert int((await world.ask(curve())).status) == 300
    backend.failure = backend.verdict = None
    assert await world.said(curve()) == (200, "granted")


async def test_a_backend_that_got_no_time_is_not_to_blame():
    """When those before it have used up the plan's time, its being late is not its failure."""
    away = Link("a", on_unavailable="next")
    slow, quick = FakeBackend(delay=30.0), FakeBackend(delay=30.0)
    world = await scene(
        domain("lab", away, "b", deadline=0.5, backend_deadline=0.45),
        keeping=Keeping(circuit_failures=1, circuit_pause=NEVER),
        a=slow,
        b=quick,
    )
    assert int((await world.ask(curve())).status) == 300
    assert world.handles["a"].health().circuit == "open"
    assert world.handles["b"].health().circuit == "closed"


async def test_each_mechanism_has_a_circuit_of_its_own():
    """Passwords that cannot be checked shut no key out; health shows the worst."""

    class NoPasswords(FakeBackend):
        async def check(self, question):
            if question.mechanism == "PLAIN":
                raise Unavailable("the directory is away")
            return await super().check(question)

    world = await scene(
        keeping=Keeping(circuit_failures=1, circuit_pause=NEVER), keys=NoPasswords(keys=knowing_ada().keys)
    )
    await world.ask(plain())
    assert await world.said(plain()) == (300, "circuit_open")
    assert await world.said(curve()) == (200, "granted")
    assert world.handles["keys"].health().circuit == "open"


async def test_an_open_circuit_is_an_outage_to_the_chain():
    """What follows is what the domain says of an outage: the end, or the next one, whose no stays in doubt."""
    keeping = Keeping(circuit_failures=1, circuit_pause=NEVER)
    for link, said in ((Link("a"), (300, "circuit_open")), (Link("a", on_unavailable="next"), (200, "granted"))):
        world = await scene(domain("lab", link, "b"), keeping=keeping, a=knowing_ada(), b=knowing_ada())
        world.backends["a"].failure = Unavailable("away")
        await world.ask(curve())
        assert await world.said(curve()) == said
        assert int((await world.ask(curve(EVE))).status) == 300
