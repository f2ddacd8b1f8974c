"""Penalties for guessing: who waits, who does not, and that the memory has its bound."""

from __future__ import annotations

import sys
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.auth_scene import ADA, EVE, curve, knowing_ada, plain, rule, scene
from support.throttle_scene import ELSEWHERE, HERE, THIRD, Clock, throttle, waits

from zapd.auth.backend import Outcome, Verdict
from zapd.auth.debts import Debts
from zapd.auth.gate import Keeping
from zapd.auth.terms import Terms
from zapd.auth.throttle import Throttle
from zapd.auth.trace import Trace
from zapd.errors import ConfigurationError, Unavailable
from zapd.testing import FakeBackend
from zapd.zap import ZapRequest


@pytest.fixture
def clock() -> Clock:
    return Clock()


def guess(made: Throttle, number: int, name: str = "ada", address: str = HERE) -> str:
    """Try the wrong password of this number; the reason for not asking, if nobody was asked."""
    attempt = made.attempt(address, "lab", name, b"guess-%d" % number)
    reason = attempt.ask()
    if not reason:
        attempt.fail()
    return reason


def let_in(made: Throttle, name: str = "ada", address: str = HERE) -> str:
    """Try the right password."""
    attempt = made.attempt(address, "lab", name, b"right")
    reason = attempt.ask()
    if not reason:
        attempt.succeed()
    return reason


def test_waits_double_after_the_free_tries(clock):
    """Five wrong tries are free; the waits behind them are 1, 2, 4, … seconds, up to the longest."""
    made = throttle(clock, longest=20.0, forgive=1000.0)
    assert [guess(made, number) for number in range(6)] == [""] * 6
    later = [partial(guess, made, number) for number in range(10, 17)]
    assert waits(clock, later) == [1, 2, 4, 8, 16, 20, 20]


def test_waiting_makes_no_wait_longer(clock):
    """Whoever asks under a penalty is answered, and owes no more for it."""
    made = throttle(clock)
    for number in range(6):
        guess(made, number)
    assert {guess(made, number) for number in range(100, 300)} == {"penalty_name"}
    clock.now += 1.0
    assert guess(made, 300) == ""
    assert made.answered == {"address": 0, "name": 200, "account": 0, "key": 0}


def test_the_same_wrong_guess_is_no_new_one(clock):
    """A host with an old password owes for one try, however often it comes."""
    made = throttle(clock)
    assert [guess(made, 7) for _ in range(50)] == [""] * 50
    assert made.wrong == 1
    assert guess(made, 7, name="ADA") == ""
    assert made.wrong == 1


def test_spellings_of_a_name_are_one_name(clock):
    """A directory folds case and blanks, so each spelling must not have tries of its own."""
    made = throttle(clock)
    spellings = ["ada", "Ada", "ADA", " ada", "ada ", "aDa"]
    for number, name in enumerate(spellings):
        guess(made, number, name=name)
    assert guess(made, 99) == "penalty_name"


def test_a_realm_is_a_world_of_its_own(clock):
    """The same name behind another rule is somebody else, but for the address they share."""
    made = throttle(clock)
    for number in range(6):
        guess(made, number)
    assert guess(made, 6) == "penalty_name"
    assert made.attempt(HERE, "orders", "ada", b"x").ask() == ""


def test_an_address_that_tries_many_names_waits(clock):
    """Spraying one guess over many names costs the address, and nobody at another one."""
    made = throttle(clock)
    said = [guess(made, 1, name=f"user-{number}") for number in range(30)]
    assert said == [""] * 21 + ["penalty_address"] * 9
    assert guess(made, 1, name="user-99", address=ELSEWHERE) == ""


def test_good_standing_outlives_the_neighbours(clock):
    """Who was let in from an address is asked about, whatever others do there; who is new there waits."""
    made = throttle(clock)
    let_in(made, "ada")
    for number in range(21):
        guess(made, 1, name=f"user-{number}")
    assert let_in(made, "ada") == ""
    assert let_in(made, "bob") == "penalty_address"
    assert let_in(made, "bob", address=ELSEWHERE) == ""


def test_good_standing_is_no_licence_to_guess(clock):
    """At the owner's own address guesses at the owner's name wait, although the owner logs in between them."""
    made = throttle(clock)
    asked = 0
    for number in range(3600):
        let_in(made, "ada")
        asked += not guess(made, number)
        clock.now += 1.0
    assert asked <= made.terms.hourly(made.terms.tries) <= 30


def test_good_standing_ends(clock):
    """After the time that is set it must be earned again."""
    made = throttle(clock, standing=100.0)
    let_in(made, "ada")
    clock.now += 101.0
    for number in range(21):
        guess(made, 1, name=f"user-{number}")
    assert let_in(made, "ada") == "penalty_address"


def test_a_thousand_addresses_have_a_hundred_tries_at_a_name(clock):
    """By account alone there is a slow cap; the owner where it was let in before never feels it."""
    made = throttle(clock)
    let_in(made, "ada")
    asked = 0
    for number in range(7200):
        asked += not guess(made, number, address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
        clock.now += 0.5
        assert let_in(made, "ada") == "", "the owner is let in at once, every time"
    assert 50 < asked <= 100


def test_one_guess_from_everywhere_is_asked_once(clock):
    """A fleet with an old password costs the account one try and its backend few; at its place it may be tried
    again."""
    made = throttle(clock)
    said = [guess(made, 1, address=f"10.0.{number >> 8}.{number & 255}") for number in range(1000)]
    assert said[0] == "" and set(said[1:]) == {"penalty_account"}
    assert guess(made, 1, address="10.0.0.0") == ""
    assert let_in(made, "ada", address=THIRD) == ""


def test_one_address_never_locks_a_name_out_elsewhere(clock):
    """However long one address goes on, the account's bound is not reached."""
    made = throttle(clock)
    for number in range(4 * 3600):
        guess(made, number)
        clock.now += 1.0
        if not number % 600:
            assert made.attempt(ELSEWHERE, "lab", "ada", b"mine").ask() == ""


def test_a_success_from_a_good_address_resets_the_account(clock):
    """The world's tries at a name are forgiven when its owner comes from where it was before; once an hour."""
    made = throttle(clock)
    let_in(made, "ada")
    burst = made.terms.account_burst
    for number in range(burst):
        assert guess(made, number, address=f"10.0.0.{number}") == ""
    assert guess(made, 999, address=THIRD) == "penalty_account"
    let_in(made, "ada")
    assert guess(made, 999, address=THIRD) == ""


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("2001:db8:1::1", "2001:db8:1:ffff::9", True),
        ("2001:db8:1::1", "2001:db8:2::1", False),
        ("localhost:7:7:100", "localhost:7:9:200", True),
        ("localhost:7:7:100", "localhost:8:7:100", False),
    ],
)
def test_what_one_address_is(clock, first, second, same):
    """An IPv4 address, however it is written; an IPv6 /48; a local user, whatever its process."""
    made = throttle(clock)
    for number in range(6):
        guess(made, number, address=first)
    assert (guess(made, 77, address=second) == "penalty_name") is same


def test_trusted_networks_are_exempt(clock):
    """From there nothing is counted and nobody waits."""
    made = throttle(clock, trusted=("192.0.2.0/24", "ipc:uid=0"))
    for address in (HERE, "::ffff:192.0.2.77", "localhost:0:0:1"):
        assert {guess(made, number, address=address) for number in range(100)} == {""}
    assert made.idle
    with pytest.raises(ConfigurationError):
        throttle(clock, trusted=("nowhere",))


def test_an_address_that_tries_many_keys_waits(clock):
    """Unknown keys, one each: the address waits, and no account is touched."""
    made = throttle(clock)
    for number in range(21):
        attempt = made.attempt(HERE, "lab", number.to_bytes(32, "big"))
        assert attempt.ask() == ""
        attempt.fail()
    assert made.attempt(HERE, "lab", b"k" * 32).ask() == "penalty_address"
    assert made.counts() == {"address": 1, "name": 0, "account": 0, "key": 21}


def test_many_guesses_at_once_are_many(clock):
    """Guesses that are being asked about count as wrong until they are answered; the same one counts once."""
    made = throttle(clock)
    open_ = [made.attempt(HERE, "lab", "ada", b"%d" % number) for number in range(5)]
    for attempt in open_:
        assert attempt.ask() == ""
        attempt.__enter__()
    assert made.attempt(HERE, "lab", "ada", b"another").ask() == "penalty_name"
    assert made.attempt(HERE, "lab", "ada", b"3").ask() == ""
    for attempt in open_:
        attempt.__exit__(None, None, None)
    assert made.attempt(HERE, "lab", "ada", b"another").ask() == ""
    assert made.idle


def test_a_crowd_that_comes_back_with_one_password_is_let_in(clock):
    """A thousand hosts with the same right password, all at once and none of them known: nobody waits."""
    made = throttle(clock)
    crowd = [
        made.attempt(f"10.0.{number >> 8}.{number & 255}", "lab", "fleet", b"right") for number in range(1000)
    ]
    for attempt in crowd:
        assert attempt.ask() == ""
        attempt.__enter__()
    for attempt in crowd:
        attempt.succeed()
        attempt.__exit__(None, None, None)
    assert made.in_good_standing == 1000


def test_everything_is_forgiven_in_time(clock):
    """One wrong try each five minutes; then nothing is remembered."""
    made = throttle(clock)
    for number in range(3):
        guess(made, number)
    clock.now += 299.0
    assert made.counts() == {"address": 1, "name": 1, "account": 1, "key": 0}
    clock.now += 900.0
    assert set(made.counts().values()) == {0}
    assert made.idle


def test_processes_that_share_the_secret_share_penalties(clock):
    """What one saw the other knows, without a name, an address or a guess having been told."""
    told: list[Trace] = []
    one, other = (Throttle(Terms(), clock=clock, secret=b"s" * 32) for _ in range(2))
    one.on_trace = told.append
    let_in(one, "bob")
    for number in range(6):
        guess(one, number)
    marks = b"".join(mark for trace in told for mark in trace[:5])
    assert not any(word in marks for word in (b"ada", b"guess", HERE.encode()))
    other.take(told)
    assert guess(other, 99) == "penalty_name"
    assert other.in_good_standing == 1
    other.take(told)
    assert (one.wrong, other.wrong) == (6, 0), "what was counted there is not counted here"
    late = Throttle(Terms(), clock=clock, secret=b"s" * 32)
    late.remember(other.remembered(1000, 1000))
    assert guess(late, 99) == "penalty_name"
    assert (late.counts(), late.in_good_standing) == (one.counts(), 1)
    clock.now += 1.0
    assert guess(late, 99) == ""


def test_new_terms_begin_anew_and_the_same_ones_do_not(clock):
    """A reload that changes nothing forgives nothing."""
    made = throttle(clock)
    for number in range(6):
        guess(made, number)
    made.reload(Terms())
    assert guess(made, 9) == "penalty_name"
    made.reload(Terms(tries=9))
    assert guess(made, 9) == ""


# -- the table ------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 200), st.integers(0, 3), st.integers(0, 5), st.floats(0, 200)), max_size=300
    ),
    st.integers(1, 20),
)
def test_the_tables_keep_their_bound(steps, bound):
    """Whatever comes, from wherever, in whatever order: no table grows beyond its bound, no heap beyond twice."""
    clock = Clock()
    made = throttle(clock, entries=bound)
    for address, name, number, pause in steps:
        clock.now += pause
        where = f"10.0.0.{address}"
        if number:
            guess(made, number, name=f"user-{name}", address=where)
        else:
            let_in(made, f"user-{name}", address=where)
        debts = made._debts
        assert len(debts) <= bound and len(debts._order) <= 2 * bound + 33
        assert made.in_good_standing <= bound
    assert not made._open


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 40), st.floats(0, 120), st.booleans()), min_size=50, max_size=400))
def test_no_hour_sees_more_guesses_at_a_name_than_are_allowed(steps):
    """In any hour at most ``account_tries`` wrong guesses are asked about, resets by the owner included."""
    clock = Clock()
    made = throttle(clock, account_tries=20, tries=2, longest=3600.0, shortest=60.0)
    let_in(made, "ada", address=THIRD)
    asked: list[float] = []
    for number, (address, pause, owner) in enumerate(steps):
        clock.now += pause
        if owner:
            assert let_in(made, "ada", address=THIRD) == ""
        if not guess(made, number, address=f"10.0.0.{address}"):
            asked.append(clock.now)
            assert sum(clock.now - at < 3600 for at in asked) <= 20


def test_the_least_penalised_goes_first(clock):
    """A crowd of newcomers pushes out newcomers; who owes for many tries stays."""
    debts = Debts(64, clock)
    for number in range(8):
        debts.charge(b"worst", "name", b"%08d" % number, 300.0, 14)
    for number in range(10_000):
        clock.now += 0.01
        debts.charge(b"newcomer-%d" % number, "name", b"12345678", 300.0, 14)
    assert len(debts) == 64
    assert debts.get(b"worst") is not None


def test_a_full_table_takes_a_bounded_memory(clock):
    """Three hundred thousand debtors later it holds as many as it may, each below a few hundred octets."""
    made = throttle(clock, entries=2000)
    for number in range(20_000):
        guess(made, number, name=f"user-{number}", address=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    debts = made._debts
    assert len(debts) == 2000
    each = [sys.getsizeof(debt) + sys.getsizeof(debt.wrong) for debt in debts]
    assert max(each) < 600


# -- at the single door ---------------------------------------------------------------------------------------


async def world(**options: object):
    """A scene whose throttle goes by a clock of ours."""
    clock = Clock()
    made = throttle(clock)
    return await scene(rule("lab", cache_bad=0.0), options={"throttle": made, **options}), made, clock


async def test_under_a_penalty_no_backend_is_asked():
    """The answer is 300 with a reason of its own, at once, and it is not one that policy decided."""
    here, _, clock = await world()
    backend = here.backends["keys"]
    for number in range(6):
        assert await here.said(plain(password=b"%d" % number)) == (400, "wrong_password")
    asked = len(backend.asked)
    decision = await here.ask(plain(password=b"another"))
    assert (int(decision.status), decision.reason, decision.asked) == (300, "penalty_name", False)
    assert len(backend.asked) == asked
    clock.now += 1.0
    assert await here.said(plain()) == (200, "granted")


async def test_a_right_guess_is_not_told_from_memory():
    """The owner was let in a moment ago from the same address: under a penalty even the remembered yes is not
    given, or it would tell a guesser which guess is right."""
    here, _, _ = await world()
    backend = here.backends["keys"]
    backend.delay = 0.001
    assert await here.said(plain()) == (200, "granted")
    assert here.authority.recollect(plain()) is not None
    generation = here.authority.cache.generation
    for number in range(6):
        await here.ask(plain(password=b"%d" % number))
    assert here.authority.cache.generation > generation
    assert here.authority.recollect(plain()) is None
    assert await here.said(plain()) == (300, "penalty_name")


async def test_unknown_keys_wait_and_good_ones_pass():
    """A flood of unknown keys from one address: 300 without asking. A key known by heart is let in there."""
    here, _, _ = await world()
    keys = here.backends["keys"]
    for number in range(21):
        assert await here.said(curve(number.to_bytes(32, "big"))) == (400, "unknown_key")
    asked = len(keys.asked)
    assert await here.said(curve(EVE)) == (300, "penalty_address")
    assert len(keys.asked) == asked
    here.handles["keys"].recall = lambda keys, _domain: [b"by heart" if key == ADA else None for key in keys]
    assert await here.said(curve(ADA)) == (200, "granted")
    assert await here.said(curve(EVE)) == (300, "penalty_address")


async def test_a_key_that_must_be_asked_about_passes_in_good_standing():
    """Where a backend has to wait for its answer, a key that was let in from there before is asked about."""
    here, _, _ = await world()
    here.backends["keys"].delay = 0.001
    assert await here.said(curve(ADA)) == (200, "granted")
    for number in range(21):
        await here.ask(curve(number.to_bytes(32, "big")))
    assert await here.said(curve(EVE)) == (300, "penalty_address")
    assert await here.said(curve(ADA)) == (200, "granted")
    assert await here.said(curve(ADA, address="::ffff:192.0.2.1")) == (200, "granted")


@pytest.mark.parametrize("said", ["locked", "not_yet", "unavailable"])
async def test_who_is_no_guesser_owes_nothing(said):
    """Barred, pending, or in doubt: none of it is a wrong try."""
    here, made, _ = await world()
    here.backends["keys"].verdict = Verdict(Outcome(said))
    for number in range(30):
        await here.ask(plain(password=b"%d" % number))
        await here.ask(curve(number.to_bytes(32, "big")))
    assert made.idle and made.wrong == 0


async def test_what_policy_refuses_is_no_guess():
    """An unknown domain, a forbidden address, a form that nobody has."""
    here, made, _ = await world()
    for number in range(3):
        await here.ask(plain(domain=f"elsewhere-{number}"))
        await here.ask(plain(name=f"user-{number}", password=b""))
        await here.ask(curve(address="nowhere"))
    assert made.idle


async def test_agents_earn_nothing_at_zapds_own_door():
    """Where an agent comes from is not held to account, however often a stranger's key comes from there."""

    class Nobody:
        def lookup(self, public_key: bytes) -> None:
            return None

        def refusal(self, public_key: bytes) -> Verdict:
            return Verdict(Outcome.UNKNOWN)

    here, made, _ = await world(agents=Nobody())
    for number in range(50):
        key = number.to_bytes(32, "big")
        request = ZapRequest(b"1", "zapd.agents", HERE, b"", "CURVE", (key,))
        assert (await here.authority.decide_door(request)).status == 400
    assert made.idle


async def test_keys_held_for_approval_are_no_guesses():
    """In a domain that holds unknown keys they hear 300, and nobody waits for it."""
    clock = Clock()
    made = throttle(clock)
    here = await scene(rule("lab", unknown_keys="pending"), options={"throttle": made})
    for number in range(50):
        assert await here.said(curve(number.to_bytes(32, "big"))) == (300, "pending_approval")
    assert made.idle


async def test_an_earlier_yes_that_stands_in_gives_no_standing():
    """While the backend is away nobody earns anything."""
    backend = knowing_ada()
    backend.delay = 0.001
    made = throttle(Clock())
    here = await scene(
        rule("lab", cache_good=0.0), keeping=Keeping(stale_if_error=60.0), options={"throttle": made}, keys=backend
    )
    assert await here.said(plain()) == (200, "granted")
    made.reload(Terms(tries=6))
    backend.failure = Unavailable("away")
    assert await here.said(plain()) == (200, "granted_stale")
    assert made.in_good_standing == 0


async def test_a_fake_backend_shows_what_reaches_it():
    """One address, two thousand tries: some dozens reach the backend in an hour, the owner elsewhere is let in at
    once, every time."""
    here, _, clock = await world()
    backend: FakeBackend = here.backends["keys"]
    for number in range(2000):
        await here.ask(plain(password=b"%d" % number, address=ELSEWHERE))
        if not number % 100:
            assert await here.said(plain()) == (200, "granted")
        clock.now += 1.8
    assert sum(question.address == ELSEWHERE for question in backend.asked) <= 30
