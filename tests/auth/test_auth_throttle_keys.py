"""Penalties for keys: which one waits wherever it comes from, and whom that never holds up."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.auth_scene import ADA, EVE, curve, rule, scene
from support.throttle_scene import ELSEWHERE, HERE, Clock, throttle, waits

from zapd.auth.backend import Outcome, Principal, Question, Verdict
from zapd.auth.policy import Link
from zapd.auth.terms import Terms
from zapd.auth.throttle import Throttle
from zapd.auth.trace import Trace
from zapd.testing import FakeBackend

KEY, OTHER = b"k" * 32, b"o" * 32


@pytest.fixture
def clock() -> Clock:
    return Clock()


def away(number: int) -> str:
    """The address of one of many hosts."""
    return f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def refused(made: Throttle, address: str, key: bytes | str = KEY) -> str:
    """Come with a key that nobody knows; the reason for not asking, if nobody was asked."""
    attempt = made.attempt(address, "lab", key)
    reason = attempt.ask()
    if not reason:
        attempt.fail()
    return reason


def let_in(made: Throttle, address: str, key: bytes = KEY) -> str:
    """Come with a key that is good."""
    attempt = made.attempt(address, "lab", key)
    reason = attempt.ask()
    if not reason:
        attempt.succeed()
    return reason


def burden(made: Throttle, tries: int = 21) -> None:
    """The key is refused at so many addresses; by default at the first one too many."""
    for number in range(tries):
        assert refused(made, away(number)) == ""


def test_a_key_that_is_tried_from_everywhere_waits(clock):
    """Twenty addresses are free, the waits behind them double up to the longest, and another key is another
    matter."""
    made = throttle(clock, longest=20.0, forgive=1000.0)
    assert [refused(made, away(number)) for number in range(30)] == [""] * 21 + ["penalty_key"] * 9
    assert made.answered == {"address": 0, "name": 0, "account": 0, "key": 9}
    assert refused(made, HERE, OTHER) == ""
    later = [partial(refused, made, away(number)) for number in range(100, 107)]
    assert waits(clock, later) == [1, 2, 4, 8, 16, 20, 20]


def test_the_same_key_refused_again_at_its_address_is_no_new_try(clock):
    """Twenty hosts with an outdated key owe for twenty tries, however often they come."""
    made = throttle(clock)
    for _ in range(50):
        for number in range(20):
            assert refused(made, away(number)) == ""
    assert made.wrong == 20
    assert made.counts() == {"address": 20, "name": 0, "account": 0, "key": 1}


def test_a_host_whose_address_changes_does_not_wait(clock):
    """An outdated key that comes from another address every five minutes, for a day."""
    made = throttle(clock)
    for number in range(288):
        assert refused(made, away(number)) == ""
        clock.now += 300.0


@pytest.mark.parametrize(
    "addresses",
    [[f"2001:db8:1:{number:x}::1" for number in range(60)], [f"localhost:7:{n}:{n}" for n in range(60)]],
)
def test_one_network_and_one_local_user_are_one_address(clock, addresses):
    """A key that comes from all over an IPv6 /48, or from all processes of a user, comes from one place."""
    made = throttle(clock)
    assert {refused(made, address) for address in addresses} == {""}
    assert made.wrong == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.floats(0, 400), st.booleans()), max_size=300),
    st.integers(1, 5),
)
def test_one_address_never_makes_a_key_wait_elsewhere(steps, free):
    """Whatever one address tries, however long, with this key and with others, one after the other or at once:
    at another address somebody is asked about the key, always."""
    clock = Clock()
    made = throttle(clock, key_tries=free)
    flying = made.attempt(HERE, "lab", KEY)
    for number, pause, open_ in steps:
        clock.now += pause
        if open_:
            with flying:
                assert made.attempt(ELSEWHERE, "lab", KEY).look() is None
        refused(made, HERE, KEY if number < 30 else b"%032d" % number)
        assert made.attempt(ELSEWHERE, "lab", KEY).look() is None


def test_good_standing_outlives_what_the_world_tries(clock):
    """Where a key was let in it is asked about, whatever is tried with it elsewhere; where it is new it waits."""
    made = throttle(clock)
    let_in(made, HERE)
    burden(made)
    assert let_in(made, ELSEWHERE) == "penalty_key"
    assert let_in(made, HERE) == ""


def test_who_is_let_in_owes_nothing_any_more(clock):
    """A key that is good by now is good for everybody who has it; but once an hour, since it may be good for some
    of a rule's domains and not for others."""
    made = throttle(clock)
    burden(made)
    clock.now += 1.0
    assert let_in(made, ELSEWHERE) == ""
    assert made.counts()["key"] == 0
    for number in range(1000, 1021):
        refused(made, away(number))
    clock.now += 1.0
    assert let_in(made, HERE) == ""
    assert made.counts()["key"] == 1
    clock.now += 3600.0
    assert let_in(made, HERE) == ""
    assert made.counts()["key"] == 0


def test_a_key_is_asked_about_once_at_a_time_when_it_owes_much(clock):
    """The hosts that wait for a penalty's end do not all ask at once; those of a good key that come back together
    do."""
    made = throttle(clock)
    crowd = [made.attempt(away(number), "lab", KEY) for number in range(500)]
    for attempt in crowd:
        assert attempt.ask() == ""
        attempt.__enter__()
    for attempt in crowd:
        attempt.__exit__(None, None, None)
    assert made.idle
    burden(made)
    clock.now += 1.0
    with made.attempt(away(100), "lab", KEY):
        assert made.attempt(away(101), "lab", KEY).ask() == "penalty_key"
    assert made.attempt(away(101), "lab", KEY).ask() == ""


def test_a_realm_is_a_world_of_its_own(clock):
    """The same key behind another rule owes nothing."""
    made = throttle(clock)
    burden(made)
    assert made.attempt(HERE, "lab", KEY).ask() == "penalty_key"
    assert made.attempt(HERE, "orders", KEY).ask() == ""


def test_a_principal_is_a_proof_by_itself_as_a_key_is(clock):
    """What Kerberos has proved and nobody knows."""
    made = throttle(clock)
    for number in range(21):
        question = Question("lab", "GSSAPI", away(number), username="eve@EXAMPLE.ORG")
        made.about(question, "lab").fail()
    assert made.about(Question("lab", "GSSAPI", HERE, username="eve@EXAMPLE.ORG"), "lab").ask() == "penalty_key"
    assert made.about(Question("lab", "GSSAPI", HERE, username="ada@EXAMPLE.ORG"), "lab").ask() == ""


def test_what_is_good_at_some_addresses_alone_counts_at_the_address(clock):
    """A join token may be refused at a thousand addresses that are not its own."""
    made = throttle(clock)
    for number in range(1000):
        attempt = made.attempt(away(number), "joins", b"digest", here_only=True)
        assert attempt.ask() == ""
        attempt.fail()
    assert made.counts() == {"address": 1000, "name": 0, "account": 0, "key": 0}


def test_trusted_networks_earn_a_key_nothing(clock):
    """A proxy's many clients, and monitoring."""
    made = throttle(clock, trusted=("10.0.0.0/8",))
    burden(made, 500)
    assert made.idle
    for number in range(21):
        refused(made, f"192.0.2.{number}")
    assert refused(made, ELSEWHERE) == "penalty_key"
    assert refused(made, away(7)) == ""


def test_processes_that_share_the_secret_share_what_keys_owe(clock):
    """What one saw the other knows, and one that comes later too; no key is told."""
    told: list[Trace] = []
    one, other, late = (Throttle(Terms(), clock=clock, secret=b"s" * 32) for _ in range(3))
    one.on_trace = told.append
    burden(one)
    assert KEY not in b"".join(mark for trace in told for mark in trace[:5])
    other.take(told)
    assert refused(other, HERE) == "penalty_key"
    late.remember(other.remembered(1000, 1000))
    assert refused(late, HERE) == "penalty_key"
    assert late.counts() == one.counts()
    clock.now += 1.0
    del told[:]
    let_in(one, ELSEWHERE)
    other.take(told)
    assert other.counts()["key"] == 0, "that it is good by now the other hears as well"


def test_new_terms_are_in_force_at_once(clock):
    """A reload may free more addresses, or fewer; the same terms forgive nothing."""
    made = throttle(clock)
    burden(made)
    made.reload(Terms())
    assert refused(made, HERE) == "penalty_key"
    made.reload(Terms(key_tries=1))
    assert [refused(made, away(number)) for number in range(3)] == ["", "", "penalty_key"]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 200), st.integers(0, 30), st.floats(0, 200)), max_size=300))
def test_the_tables_keep_their_bound(steps):
    """Many keys from many addresses: no table grows beyond its bound, and what owes most stays."""
    clock = Clock()
    made = throttle(clock, entries=16)
    for address, key, pause in steps:
        clock.now += pause
        (refused if key else let_in)(made, away(address), b"%032d" % key)
        assert len(made._debts) <= 16 and made.in_good_standing <= 16


# -- at the single door ---------------------------------------------------------------------------------------


async def world(*rules, **backends):
    """A scene whose throttle goes by a clock of ours."""
    clock = Clock()
    made = throttle(clock)
    return await scene(*rules or (rule(cache_bad=0.0),), options={"throttle": made}, **backends), made, clock


async def refused_everywhere(here, key: bytes, reason: str = "unknown_key") -> None:
    for number in range(21):
        assert await here.said(curve(key, address=away(number))) == (400, reason)


@pytest.mark.parametrize("delay", [0.0, 0.001])
async def test_under_a_penalty_no_backend_is_asked(delay):
    """The answer is 300 with a reason of its own, whether the backend answers from memory or has to wait."""
    here, _, clock = await world()
    keys = here.backends["keys"]
    keys.delay = delay
    await refused_everywhere(here, EVE)
    asked = len(keys.asked)
    decision = await here.ask(curve(EVE, address=HERE))
    assert (int(decision.status), decision.reason, decision.asked) == (300, "penalty_key", False)
    assert len(keys.asked) == asked
    assert await here.said(curve(ADA, address=HERE)) == (200, "granted")
    clock.now += 1.0
    assert await here.said(curve(EVE, address=HERE)) == (400, "unknown_key")


@pytest.mark.parametrize("chain", [("keys",), ("directory", "keys")])
async def test_a_key_that_is_registered_meanwhile_passes_at_once(chain):
    """Whatever it owes from the time before, and whatever place its backend has in the chain."""
    keys, directory = FakeBackend(), FakeBackend()
    here, _, _ = await world(rule("lab", *map(Link, chain)), keys=keys, directory=directory)
    await refused_everywhere(here, EVE)
    assert await here.said(curve(EVE, address=HERE)) == (300, "penalty_key")
    keys.keys[EVE] = Principal("eve")
    here.handles["keys"].recall = lambda keys, _domain: [b"by heart" if key == EVE else None for key in keys]
    here.authority.forget()
    assert await here.said(curve(EVE, address=HERE)) == (200, "granted")
    assert await here.said(curve(EVE, address=away(3))) == (200, "granted")
    (step,) = [step for step in await here.authority.explain(curve(EVE)) if step.step == "penalty"]
    assert (step.verdict, step.detail) == ("ok", "penalty_key; a key known by heart passes")


async def test_a_key_that_must_be_asked_about_passes_in_good_standing():
    """A backend that has to wait knows it again: where it was let in before nobody notices what others did."""
    here, _, clock = await world(rule(cache_bad=0.0, cache_good=0.0))
    keys = here.backends["keys"]
    keys.delay = 0.001
    assert await here.said(curve(ADA, address=HERE)) == (200, "granted")
    known = keys.keys.pop(ADA)
    await refused_everywhere(here, ADA)
    keys.keys[ADA] = known
    assert await here.said(curve(ADA, address=ELSEWHERE)) == (300, "penalty_key")
    assert await here.said(curve(ADA, address=HERE)) == (200, "granted")
    assert await here.said(curve(ADA, address=ELSEWHERE)) == (200, "granted"), "it is good, and so owes nothing"
    assert clock.now == 1000.0


@pytest.mark.parametrize("said", ["locked", "not_yet", "unavailable"])
async def test_who_is_no_guesser_owes_nothing(said):
    """Revoked, pending, or in doubt: a key that comes from everywhere is answered so everywhere."""
    here, made, _ = await world()
    here.backends["keys"].verdict = Verdict(Outcome(said))
    for number in range(60):
        assert (await here.said(curve(EVE, address=away(number))))[1] != "penalty_key"
    assert made.idle and made.wrong == 0


async def test_waiting_for_approval_earns_nothing():
    """An unknown key from everywhere, in a domain that holds it for approval."""
    here, made, _ = await world(rule("lab", unknown_keys="pending"))
    for number in range(60):
        assert await here.said(curve(EVE, address=away(number))) == (300, "pending_approval")
    assert made.idle


async def test_an_explanation_names_the_penalty():
    """For how long, and that it is the key's."""
    here, _, _ = await world()
    await refused_everywhere(here, EVE)
    last = (await here.authority.explain(curve(EVE, address=HERE)))[-1]
    assert (last.step, last.verdict, last.detail, last.status) == (
        "penalty",
        "penalty_key",
        "for 1 s at most",
        300,
    )
