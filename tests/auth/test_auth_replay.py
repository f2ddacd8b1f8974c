"""Deciding the past anew, held against what really would be decided."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from support.auth_scene import AGENT, rule, scene

from zapd.audit.event import AuditEvent
from zapd.auth.backend import Outcome, Principal, Question, Verdict
from zapd.auth.differences import MOST_GROUPS, Differences
from zapd.auth.lanes import Lanes
from zapd.auth.policy import Link, Policy, Rule
from zapd.auth.replay import Anew, Replay
from zapd.auth.settling import Settling
from zapd.auth.terms import Terms
from zapd.auth.throttle import Throttle
from zapd.server.recorder import event_of
from zapd.testing import FakeBackend, started
from zapd.zap import Asker, ZapRequest
from zapd.zap.request import CREDENTIALS

WORDS = ("stop", "next")
EXEMPT = Terms(trusted=("0.0.0.0/0", "::/0", "ipc"))
"""What somebody owes for wrong tries is in no record."""
LOCAL = Asker("local:ipc://zap.sock", ("lab", "shop"), frozenset(CREDENTIALS))


def random_link(source: random.Random, name: str) -> Link:
    return Link(name, *(source.choice(WORDS) for _ in range(3)))  # type: ignore[arg-type]


def saying(outcome: Outcome) -> FakeBackend:
    return FakeBackend(verdict=Verdict(outcome, Principal("somebody") if outcome is Outcome.ACCEPT else None))


class Peers(FakeBackend):
    mechanisms = frozenset({"NULL"})


async def test_settling_is_what_a_chain_does() -> None:
    """For every kind of link and every word of three backends the slow rule asks the same backends as the quick
    one, in the same order, and comes to the same end."""
    source = random.Random(1)
    question = Question("lab", "CURVE", "192.0.2.1", b"k" * 32)
    for _ in range(400):
        links = [random_link(source, name) for name in "abc"]
        words = {name: source.choice(list(Outcome)) for name in "abc"}
        handles = {name: await started(saying(word), name) for name, word in words.items()}
        lanes = Lanes(Policy((rule("lab", *links),)), handles)
        answer = await lanes.find(AGENT, "lab", "CURVE").chain.ask(question)
        settling: Settling[str] = Settling(links)
        asked = []
        while (link := settling.asking) is not None:
            asked.append(link.backend)
            settling.take(words[link.backend], link.backend)
        told = f"{links} {words}"
        assert asked == [step.backend for step in answer.trail], told
        assert settling.result is not None
        assert settling.result[0] is answer.verdict.outcome, told
        assert [link.backend for link in settling.left] == [*"abc"][len(asked) :]
        assert bool(settling.why) or not settling.left
        for handle in handles.values():
            await handle.aclose()


def random_rules(source: random.Random) -> tuple[Rule, ...]:
    """Rules for two domains or one, of every kind."""
    rules = []
    for pattern in source.sample(["lab", "shop", "*"], source.randint(1, 3)):
        mechanisms = source.sample(["CURVE", "PLAIN", "NULL"], source.randint(1, 3))
        names = source.sample("abcn", source.randint(1, 4))
        rules.append(
            rule(
                pattern,
                *(random_link(source, name) for name in names),
                mechanisms=" ".join(mechanisms),
                allow=source.choice([("192.0.2.0/24",), ("192.0.2.0/24", "198.51.100.0/24")])
                if "NULL" in mechanisms
                else source.choice([(), ("192.0.2.0/24",)]),
                deny=source.choice([(), ("192.0.2.128/25",)]),
                unknown_keys=source.choice(["refuse", "pending"]),
                null_user=source.choice(["lab", "guest"]),
                refusal_tick=0.0001,
                cache_good=0.0,
                cache_bad=0.0,
            )
        )
    return tuple(rules)


def questions() -> list[ZapRequest]:
    found = []
    for domain in ("lab", "shop", "none"):
        for address in ("192.0.2.1", "192.0.2.200", "198.51.100.7", "nonsense"):
            for asker in (AGENT, LOCAL):
                found += [
                    ZapRequest(b"1", domain, address, b"", "CURVE", (b"k" * 32,), asker=asker),
                    ZapRequest(b"1", domain, address, b"", "PLAIN", (b"ada", b"x"), asker=asker),
                    ZapRequest(b"1", domain, address, b"", "PLAIN", (b"", b"x"), asker=asker),
                    ZapRequest(b"1", domain, address, b"", "NULL", (), asker=asker),
                ]
    return found


async def test_a_replay_says_what_really_would_be_decided() -> None:
    """Over many pairs of configurations: whatever a replay of the old one's record claims to know is exactly what
    an authority with the new rules and the same backends decides; the same rules decide everything the same."""
    source = random.Random(2)
    decidable = total = 0
    mechanisms = {name: frozenset({"CURVE", "PLAIN"}) for name in "abc"} | {"n": frozenset({"NULL"})}
    for _ in range(25):
        backends = {name: saying(source.choice(list(Outcome))) for name in "abc"}
        backends["n"] = Peers(verdict=saying(source.choice(list(Outcome))).verdict)
        old, new = random_rules(source), random_rules(source)
        before, after = [
            await scene(*rules, options={"throttle": Throttle(EXEMPT)}, **backends) for rules in (old, new)
        ]
        listeners = {LOCAL.name: LOCAL.domains}
        same, other = (Replay(Policy(rules), mechanisms, listeners) for rules in (old, new))
        asked = questions()
        then = await asyncio.gather(*map(before.ask, asked))
        now = await asyncio.gather(*map(after.ask, asked))
        for request, decision, really in zip(asked, then, now, strict=True):
            if not decision.asked:  # the record only counts it
                continue
            record = event_of(request, decision)
            assert same.decide(record).status == record.status, (old, record)
            anew = other.decide(record)
            total += 1
            if anew.decidable:
                decidable += 1
                assert (anew.status, anew.reason) == (int(really.status), really.reason) or (
                    anew.status == int(really.status) and record.trail
                ), (old, new, record, anew)
                if request.mechanism == "NULL" and anew.status == 200:
                    assert anew.principal == really.principal
        for world in (before, after):
            for handle in world.handles.values():
                await handle.aclose()
    assert total > 1000
    assert decidable > total / 2


@dataclass(frozen=True)
class Lab:
    """A replay of one rule, and a record of it."""

    replay: Replay
    record: AuditEvent

    @classmethod
    def of(cls, *backends: str, trail: Sequence[tuple[str, str, float]] = (), **more: object) -> Lab:
        settings = {"mechanism": "CURVE", "address": "192.0.2.1", "agent": "edge", "status": 200} | more
        reason = str(settings.pop("reason", "granted"))
        rules = (rule("lab", *backends, backend_deadline=0.5),)
        replay = Replay(Policy(rules), {name: frozenset({"CURVE", "PLAIN"}) for name in "abc"}, {})
        event = AuditEvent("auth.accept", domain="lab", trail=tuple(trail), reason=reason, **settings)  # type: ignore[arg-type]
        return cls(replay, event)

    def decide(self) -> Anew:
        return self.replay.decide(self.record)


def test_what_cannot_be_known_is_said() -> None:
    """A backend that was not asked, is set up otherwise, or has more time now; a listener that is gone; an answer
    from memory whose first is not there."""
    accepted = [("a", "accept", 1.0)]
    assert Lab.of("a", trail=accepted).decide() == Anew(200, "granted")
    assert Lab.of("b", "a", trail=accepted).decide() == Anew(0, "backend b was not asked then")
    lab = Lab.of("a", trail=accepted)
    changed = replace(lab, replay=Replay(lab.replay.policy, lab.replay.mechanisms, {}, frozenset("a")))
    assert changed.decide() == Anew(0, "backend a is set up otherwise now")
    late = {"status": 300, "reason": "deadline"}
    assert "more time" in Lab.of("a", trail=[("a", "unavailable", 100.0)], **late).decide().reason
    assert Lab.of("a", trail=[("a", "unavailable", 500.0)], **late).decide() == Anew(300, "deadline")
    assert Lab.of("a", trail=[("a", "accept", 700.0)]).decide().status == 300
    assert "not there any more" in Lab.of("a", trail=accepted, agent="local:ipc://gone").decide().reason
    assert not Lab.of("a").decide().decidable
    stale = Lab.of("a", trail=[("a", "stale", 1.0)], reason="granted_stale")
    assert stale.decide().status == 300
    forgiving = replace(stale.replay, forgiving=frozenset("a"))
    assert forgiving.decide(stale.record) == Anew(200, "granted_stale")
    assert "unknown here" in Lab.of("a", trail=[("a", "perhaps", 1.0)]).decide().reason


def test_answers_from_memory_take_the_first_ones_word() -> None:
    """A decision that zapd repeated names no backend; the replay remembers who said it first, and for whom."""
    lab = Lab.of("a", trail=[("a", "accept", 1.0)], key="SHA256:x")
    assert lab.decide().status == 200
    again = Lab.of("a", key="SHA256:x").record
    assert lab.replay.decide(again) == Anew(200, "granted")
    assert not lab.replay.decide(Lab.of("a", key="SHA256:y").record).decidable


@pytest.mark.parametrize("reason", ["malformed", "banned_user", "penalty_name", "draining", "internal_error"])
def test_what_no_rule_decided_stays(reason: str) -> None:
    """No configuration changes what was decided before any rule was looked at."""
    assert Lab.of("a", reason=reason, status=300).decide() == Anew(300, reason)


def test_differences_stay_small_and_in_order() -> None:
    """Groups and examples are bounded whatever domains strangers name; new admissions stand first."""
    found = Differences(examples=2)
    for number in range(MOST_GROUPS + 50):
        past = AuditEvent("auth.reject", domain=f"d{number}", mechanism="CURVE", status=400)
        found.add(past, Anew(300, "no_backend"), {"number": number})
    past = AuditEvent("auth.reject", domain="lab", mechanism="CURVE", status=400)
    for number in range(5):
        found.add(past, Anew(200, "granted"), {"number": number})
        found.add(past, Anew(400, "unknown_domain"), {})
        found.add(past, Anew(0, "nobody knows"), {})
    assert len(found.groups) == MOST_GROUPS + 3
    assert (found.same, found.count(decidable=False)) == (5, 5)
    assert found.count(decidable=True) == MOST_GROUPS + 55
    first, last = found.ordered()[0], found.ordered()[-1]
    assert first[0] == ("…", 400, 200, "granted")
    assert first[1].examples == [{"number": 0}, {"number": 1}]
    assert last[0][3] == "nobody knows"
