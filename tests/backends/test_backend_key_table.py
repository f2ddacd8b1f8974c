"""Keys in memory: many asked about together get what each would get alone."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st
from zapd_backends import key_table
from zapd_backends.key_table import KeyTable

from zapd.auth.admission import card_of
from zapd.store.snapshot import NEVER, SEPARATOR
from zapd.zmtp.keys import fingerprint

NOW = 1_800_000_000.0

ROWS = st.tuples(
    st.sampled_from(["active", "active", "active", "revoked", "pending"]),
    st.sampled_from([None, None, NOW - 1, NOW, NOW + 0.000001, NOW + 1e6, 253_402_300_799.0]),
    st.sampled_from([None, None, None, NOW - 1, NOW, NOW + 1]),
    st.sampled_from([("orders",), ("orders", "metrics.*"), ("*",), ("metrics.*",)]),
    st.sampled_from([(), ("traders",), ("traders", "ops")]),
    st.sampled_from(["alice", "zoë", 'a"b']),
)
Row = tuple[str, float | None, float | None, tuple[str, ...], tuple[str, ...], str]


def key_of(number: int) -> bytes:
    return sha256(b"%d" % number).digest()


def packed(number: int, row: Row) -> bytes:
    """A record as the database gives it."""
    state, expires, not_before, domains, groups, user = row
    fields = (
        user,
        "" if expires is None else str(round(expires * 1e6)),
        "" if not_before is None else str(round(not_before * 1e6)),
        b64encode(sha256(key_of(number)).digest()).decode().rstrip("="),
        json.dumps({"Host": f"h{number}"}),
        state,
        json.dumps(domains),
        json.dumps(groups),
    )
    return SEPARATOR.join(field.encode() for field in fields)


def admitted(row: Row, domain: str, now: float) -> bool:
    """What ought to be known by heart."""
    state, expires, not_before, domains, _, user = row
    covered = "*" in domains or domain in domains or ("metrics.*" in domains and domain.startswith("metrics."))
    valid = (expires is None or expires > now) and (not_before is None or not_before <= now)
    return state == "active" and covered and valid and user == "alice"


@given(
    st.lists(ROWS, min_size=1, max_size=8),
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 9), min_size=1, max_size=12),
            st.sampled_from(["orders", "metrics.cpu"]),
            st.sampled_from([NOW, NOW + 2, NOW + 2e6]),
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_many_together_get_what_each_would_get_alone(
    rows: list[Row], asked: list[tuple[list[int], str, float]]
) -> None:
    """Whatever was asked before, in whatever company: states, times, domains and strangers are told apart."""
    table = KeyTable({key_of(number): packed(number, row) for number, row in enumerate(rows)})
    facts = {number: table.facts(key_of(number)) for number in range(len(rows))}
    now = NOW
    for numbers, domain, moment in asked:
        now = max(now, moment)  # a clock that goes back is `sql`'s affair
        found = table.recall([key_of(number) for number in numbers], domain, now)
        for number, admission in zip(numbers, found, strict=True):
            known = number < len(rows) and admitted(rows[number], domain, now)
            assert (admission is not None) == known
            if admission is not None:
                user, _, groups, attributes = card_of(admission)
                assert (user, groups, attributes) == (b"alice", rows[number][4], (("Host", f"h{number}"),))
    for number, before in facts.items():
        after = table.facts(key_of(number))
        assert after is not None
        assert before is not None
        if not rows[number][2]:
            assert after == before
    assert table.facts(key_of(len(rows))) is None
    assert len(table) == len(rows)


def test_what_changes_takes_the_place_of_what_was_ready() -> None:
    """A key that was admitted and is revoked is known as revoked from then on."""
    row: Row = ("active", None, None, ("*",), (), "alice")
    table = KeyTable({key_of(1): packed(1, row)})
    assert table.recall([key_of(1)] * 2, "orders", NOW) != [None, None]
    table.update({key_of(1): packed(1, ("revoked", *row[1:]))})
    assert table.recall([key_of(1)] * 2, "orders", NOW) == [None, None]
    facts = table.facts(key_of(1))
    assert facts is not None
    assert facts.state == "revoked"
    assert facts.expires == NEVER


def test_keys_are_found_by_their_fingerprints_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    """In slices, between which others are asked about for the first time; what is not there is not found."""
    monkeypatch.setattr(key_table, "_SLICE", 2)
    row: Row = ("active", None, None, ("*",), (), "alice")
    table = KeyTable({key_of(number): packed(number, row) for number in range(7)})
    table.recall([key_of(1)], "orders", NOW)
    marks = {fingerprint(key_of(number)).removeprefix("SHA256:").encode() for number in (1, 5, 9)}
    slices = []
    for some in table.search(marks):
        table.recall([key_of(number) for number in range(7)], "orders", NOW)
        slices.append(some)
    assert slices == [[key_of(1)], [], [key_of(5)], []]
    table.remove([key_of(1), key_of(5)])
    assert [number for number in range(7) if table.facts(key_of(number)) is None] == [1, 5]
