"""The notebook of unknown keys: bounded three ways, and a flood pushes out its own."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from zapd.auth.backend import Question
from zapd.auth.waiting import Waiting
from zapd.store.sightings import Bounds

SMALL = Bounds(domain=12, source=3, agent=8)


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def asked(number: int, address: str = "192.0.2.1", domain: str = "orders") -> Question:
    return Question(domain, "CURVE", address, key(number))


def test_what_is_seen_is_counted_and_taken_once() -> None:
    """Tries add up, first and last times and the last place are kept, each domain apart; taken, it is gone."""
    moments = iter([10.0, 11.0, 12.0, 13.0])
    waiting = Waiting(clock=lambda: next(moments))
    waiting.note(asked(1), "edge", "*")
    waiting.note(asked(1, "192.0.2.9"), "other", "*")
    waiting.note(asked(1, domain="lab"), "edge", "*")
    waiting.note(asked(2), "edge", "*")
    first, second = waiting.take(2)
    assert (first.tries, first.address, first.source, first.agent) == (2, "192.0.2.9", "192.0.2.9", "other")
    assert (first.first_seen.timestamp(), first.last_seen.timestamp()) == (10.0, 11.0)
    assert (second.domain, second.tries) == ("lab", 1)
    assert len(waiting) == 1
    waiting.put([first])
    assert [each.public_key for each in waiting.take(9)] == [key(2), key(1)]
    assert not waiting
    assert waiting._shelves == {}


def test_sources_are_prefixes() -> None:
    """An IPv6 /48 is one source, as is a local user whatever its process; IPv4 addresses are each their own."""
    waiting = Waiting(Bounds(source=2))
    for number in range(9):
        waiting.note(asked(number, f"2001:db8:1:{number:x}::1"), "edge", "*")
        waiting.note(asked(100 + number, f"ipc:uid=7,gid={number},pid={number}"), "edge", "*")
        waiting.note(asked(200 + number, f"192.0.2.{number}"), "edge", "*")
    assert Counter(each.source for each in waiting.take(99)) == {
        "2001:db8:1::/48": 2,
        "ipc:uid=7": 2,
        **{f"192.0.2.{number}": 1 for number in range(9)},
    }
    assert waiting.evicted == {"domain": 0, "source": 14, "agent": 0}


def test_a_flood_hides_nobody_from_elsewhere() -> None:
    """100,000 keys from one address, and then as many from 40 by one agent: a key that came once before, from
    elsewhere and by another agent, is still there."""
    waiting = Waiting()
    waiting.note(asked(0, "198.51.100.7"), "honest", "orders")
    for number in range(1, 100_000):
        waiting.note(asked(number), "edge", "orders")
    assert len(waiting) == 21
    for number in range(100_000, 200_000):
        waiting.note(asked(number, f"203.0.113.{number % 40}"), "edge", "orders")
    assert len(waiting) == 201
    assert (key(0), "orders") in waiting._notes


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.integers(0, 5).map("192.0.2.{}".format),
            st.sampled_from(["edge", "other"]),
            st.sampled_from(["orders", "lab"]),
            st.booleans(),
        ),
        max_size=200,
    )
)
def test_no_bound_is_ever_passed(steps: list[tuple[int, str, str, str, bool]]) -> None:
    """Whatever comes, moves and is taken: no bucket is over its bound, and the shelves hold just the notes."""
    waiting = Waiting(SMALL)
    for number, address, agent, domain, take in steps:
        waiting.note(asked(number, address, domain), agent, domain)
        notes = list(waiting._notes.values())
        assert max(Counter(note.rule for note in notes).values()) <= SMALL.domain
        assert max(Counter(note.source for note in notes).values()) <= SMALL.source
        assert max(Counter(note.agent for note in notes).values()) <= SMALL.agent
        assert sum(shelf.size for shelf in waiting._shelves.values()) == 3 * len(notes)
        if take:
            waiting.take(3)
    waiting.take(99)
    assert waiting._shelves == {}
