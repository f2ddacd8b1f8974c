"""What is remembered of dear decisions, for how long, and what makes it forgotten."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.auth_scene import knowing_ada, plain, rule, scene

from zapd.auth.authority import Authority
from zapd.auth.backend import Outcome, Principal, Question, Verdict
from zapd.auth.cache import DecisionCache
from zapd.auth.decision import Decision
from zapd.auth.gate import Keeping
from zapd.auth.memo import Memo
from zapd.auth.policy import Link, Policy
from zapd.testing import FakeBackend, started
from zapd.zap import REFUSED, Asker

NO = Decision(REFUSED, "no")
QUESTION = Question("lab", "PLAIN", "192.0.2.1", username="ada", password=b"lovelace")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def slow() -> FakeBackend:
    backend = knowing_ada()
    backend.delay = 0.001
    return backend


async def test_a_dear_yes_is_remembered():
    """A slow backend is asked once for the very same question, and the second answer says it is a memory."""
    world = await scene(keys=slow())
    first, second = await world.ask(plain()), await world.ask(plain())
    assert (first.status, second.status) == (200, 200)
    assert (first.cached, second.cached) == (False, True)
    assert first.reply is second.reply
    assert len(world.backends["keys"].asked) == 1


async def test_what_memory_answered_is_asked_again():
    """A backend that answers from memory is asked each time: a change shows at once."""
    world = await scene()
    await world.ask(plain())
    await world.ask(plain())
    assert len(world.backends["keys"].asked) == 2


@pytest.mark.parametrize(
    "other",
    [
        plain(password=b"lovelacE"),
        plain(name="adA"),
        plain(address="192.0.2.2"),
        plain(domain="lab2"),
        plain(name="ad", password=b"alovelace"),
    ],
)
async def test_another_question_is_another_entry(other):
    """A memory answers only the same domain, name, password and address."""
    world = await scene(rule("lab*"), keys=slow())
    await world.ask(plain())
    decision = await world.ask(other)
    assert not decision.cached
    assert len(world.backends["keys"].asked) == 2


async def test_another_agent_shares_the_memory_but_not_the_right_to_ask():
    """Askers share what backends said; one that may not ask gets nothing from memory."""
    world = await scene(keys=slow())
    await world.ask(plain())
    assert (await world.ask(plain(asker=Asker("agent-2")))).cached
    assert await world.said(plain(asker=Asker("agent-3", domains=("orders",)))) == (300, "asker_domain")


async def test_a_no_is_remembered_too_and_shorter():
    """A refusal is remembered as well; with its time at nought it is not."""
    world = await scene(keys=slow())
    await world.ask(plain(password=b"wrong"))
    assert (await world.ask(plain(password=b"wrong"))).cached
    world = await scene(rule(cache_bad=0.0, cache_good=0.0), keys=slow())
    for _ in range(2):
        assert not (await world.ask(plain(password=b"wrong"))).cached
        assert not (await world.ask(plain())).cached


@pytest.mark.parametrize(
    ("backends", "domain", "good", "bad"),
    [
        ((Keeping(),), {}, 10.0, 2.0),
        ((Keeping(cache_good=60.0, cache_bad=7.0),), {}, 60.0, 7.0),
        ((Keeping(cache_good=60.0, cache_bad=7.0),), {"cache_good": 5.0, "cache_bad": 0.0}, 5.0, 0.0),
        ((Keeping(cache_good=1.0, cache_bad=1.0),), {"cache_good": 5.0, "cache_bad": 5.0}, 1.0, 1.0),
        ((Keeping(cache_good=3.0, cache_bad=9.0), Keeping(cache_good=60.0, cache_bad=4.0)), {}, 3.0, 4.0),
    ],
)
async def test_each_backend_says_how_long(backends, domain, good, bad, monkeypatch):
    """Yes and no each have their time: that of the backends that had to wait, and a domain can only shorten it."""
    kept: list[float] = []
    names = [f"b{number}" for number in range(len(backends))]
    handles = {
        name: await started(FakeBackend(delay=0.001), name, keeping=keeping)
        for name, keeping in zip(names, backends, strict=True)
    }
    handles[names[-1]].backend.users["ada"] = b"lovelace"
    authority = Authority(Policy((rule("lab", *names, **domain),)), handles)
    put = authority.cache.put
    monkeypatch.setattr(
        authority.cache,
        "put",
        lambda key, decision, seconds, g: (kept.append(seconds), put(key, decision, seconds, g)),
    )
    await authority.decide(plain())
    await authority.decide(plain(password=b"byron"))
    assert kept == [good, bad]


async def test_a_memory_of_one_is_never_the_others():
    """Right and wrong of the same user in turns: each hears its own, from memory and from the backend."""
    world = await scene(keys=slow())
    for _ in range(3):
        assert (await world.ask(plain())).status == 200
        assert (await world.ask(plain(password=b"byron"))).status == 400
    assert len(world.backends["keys"].asked) == 2


async def test_nothing_is_remembered_past_its_own_end():
    """A verdict that says until when it holds is not repeated after that, whatever the cache's own time."""
    now = [1000.0]
    world = await scene(keys=slow(), options={"wall_clock": lambda: now[0]})
    backend = world.backends["keys"]
    backend.verdict = Verdict(Outcome.ACCEPT, Principal("ada"), until=1000.02)
    await world.ask(plain())
    await asyncio.sleep(0.03)
    backend.verdict = Verdict(Outcome.LOCKED, reason="expired")
    assert await world.said(plain()) == (400, "expired")
    backend.verdict = Verdict(Outcome.ACCEPT, Principal("ada"), until=999.0)
    world.authority.forget()
    await world.ask(plain())
    assert not (await world.ask(plain())).cached


async def test_forgetting_is_at_once():
    """After forget, or a new policy, the backend is asked again."""
    world = await scene(keys=slow())
    await world.ask(plain())
    world.authority.forget()
    assert not (await world.ask(plain())).cached
    world.authority.reload(Policy((rule(),)), world.handles)
    assert not (await world.ask(plain())).cached


async def test_what_was_said_before_a_change_is_not_remembered_after_it():
    """An answer under way when something changes is given, but never kept."""
    world = await scene()
    backend = world.backends["keys"]
    backend.delay = 0.05
    under_way = asyncio.ensure_future(world.ask(plain()))
    await asyncio.sleep(0.01)
    backend.users.clear()
    world.authority.forget()
    await under_way
    assert await world.said(plain()) == (400, "unknown_user")


@pytest.mark.parametrize(
    "verdict", [Verdict(Outcome.UNAVAILABLE), Verdict(Outcome.ACCEPT), None], ids=["away", "nonsense", "raises"]
)
async def test_what_a_failed_backend_said_is_not_remembered(verdict):
    """Once a failed backend is well, the next question hears the truth."""
    world = await scene(keys=slow())
    backend = world.backends["keys"]
    backend.verdict = verdict
    backend.failure = None if verdict else RuntimeError()
    assert (await world.ask(plain())).status == 300
    backend.verdict = backend.failure = None
    assert await world.said(plain()) == (200, "granted")


async def test_a_yes_beside_a_failed_backend_is_not_remembered():
    """While a backend is passed over, what the others say holds for that moment only."""
    link = Link("a", on_unavailable="next")
    world = await scene(
        rule("lab", link, "keys"), a=FakeBackend(verdict=Verdict(Outcome.UNAVAILABLE)), keys=slow()
    )
    await world.ask(plain())
    world.backends["a"].verdict = Verdict(Outcome.LOCKED)
    assert await world.said(plain()) == (400, "locked")


async def test_the_same_question_at_once_is_asked_once():
    """Twenty processes that come back together with one password cost one hash, and all are let in."""
    world = await scene()
    world.backends["keys"].delay = 0.05
    decisions = await asyncio.gather(*(world.ask(plain()) for _ in range(20)))
    assert {int(decision.status) for decision in decisions} == {200}
    assert len(world.backends["keys"].asked) == 1
    assert sum(not decision.cached for decision in decisions) == 1


async def test_nobody_joins_a_question_from_before_a_change():
    """A question that began after a change is not answered by one from before it."""
    world = await scene()
    backend = world.backends["keys"]
    backend.delay = 0.05
    before = asyncio.ensure_future(world.ask(plain()))
    await asyncio.sleep(0.01)
    world.authority.forget()
    after = asyncio.ensure_future(world.ask(plain()))
    await asyncio.gather(before, after)
    assert len(backend.asked) == 2


async def test_followers_outlive_a_leader_that_is_cancelled():
    """When the first asker goes away, those who waited for its answer get one all the same."""
    world = await scene()
    world.backends["keys"].delay = 0.05
    leader = asyncio.ensure_future(world.ask(plain()))
    await asyncio.sleep(0.01)
    followers = [asyncio.ensure_future(world.ask(plain())) for _ in range(2)]
    followers.append(asyncio.ensure_future(world.ask(plain())))
    await asyncio.sleep(0.01)
    followers.pop().cancel()
    leader.cancel()
    assert [int((await follower).status) for follower in followers] == [200, 200]
    assert len(world.backends["keys"].asked) == 2
    assert len(world.authority._flights) == 0


def test_entries_end_and_the_oldest_go_first():
    """An entry dies with its time, and over the bound the least recently used goes."""
    clock = Clock()
    cache = DecisionCache(2, clock)
    cache.put(b"a", NO, 10.0, 0)
    cache.put(b"b", NO, 20.0, 0)
    assert cache.get(b"a") is NO
    cache.put(b"c", NO, 20.0, 0)
    assert cache.get(b"b") is None
    assert cache.get(b"a") is NO
    clock.now += 10.0
    assert cache.get(b"a") is None
    assert cache.get(b"c") is NO
    assert (cache.hits, cache.misses) == (3, 2)


def test_an_older_generation_is_not_kept():
    """What was asked before a forget cannot be put in after it."""
    cache = DecisionCache()
    generation = cache.generation
    cache.forget()
    cache.put(b"a", NO, 10.0, generation)
    assert cache.get(b"a") is None


def test_keys_differ_with_each_process_and_part():
    """Another process, policy, password or place gives another key; another process of one ipc user does not."""
    cache = DecisionCache()
    assert DecisionCache().key(1, QUESTION) != cache.key(1, QUESTION)
    assert cache.key(2, QUESTION) != cache.key(1, QUESTION)
    one, two, three = (
        Question("lab", "PLAIN", f"ipc:uid={uid},gid=1,pid={pid}", username="a", password=b"b")
        for uid, pid in ((1, 5), (1, 6), (2, 5))
    )
    assert cache.key(1, one) == cache.key(1, two) != cache.key(1, three)


@given(st.tuples(*[st.text(max_size=3)] * 4), st.tuples(*[st.text(max_size=3)] * 4))
def test_no_two_questions_share_a_key(one, two):
    """However the parts are cut, different questions have different keys."""

    def question(parts):
        domain, address, name, password = parts
        return Question(domain, "PLAIN", address.encode("ascii", "replace").decode(), b"", name, password.encode())

    a, b = question(one), question(two)
    cache = DecisionCache()
    assert (cache.key(1, a) == cache.key(1, b)) == (a == b)


def test_a_memo_keeps_what_is_used_within_its_bound():
    """A flood cannot grow a memo, and what is asked for again stays."""
    memo: Memo[int, str] = Memo(10)
    memo.put(-1, "kept")
    for number in range(1000):
        memo.put(number, "x")
        assert memo.get(-1) == "kept"
        assert len(memo) <= 10
    memo.clear()
    assert memo.get(-1) is None
    assert len(memo) == 0
