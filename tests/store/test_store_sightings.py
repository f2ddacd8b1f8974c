"""The list of unknown keys that wait, on each database: bounded, fair, and without those that are somebody's."""

# ruff: noqa: F811 - fixtures come in by import
from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select, text
from support.store_fixtures import (  # noqa: F401 - fixtures
    MOMENT,
    engine,
    key_record,
    postgres_server,
    shared_postgres,
)

from zapd.store import tables
from zapd.store.agents import AgentRecord, AgentRegistry, AgentState
from zapd.store.engine import reading, writing
from zapd.store.keys import KeyRegistry, KeyState
from zapd.store.sightings import Bounds, Sighting, SightingRegistry, surplus
from zapd.zmtp.keys import fingerprint_id

REGISTRY = SightingRegistry()


def key(number: int) -> bytes:
    return number.to_bytes(32, "big")


def sighting(number: int, source: str = "192.0.2.1", *, at: int = 0, **more: object) -> Sighting:
    moment = MOMENT + timedelta(seconds=at)
    values = {"domain": "orders", "rule": "orders", "agent": "edge", "tries": 1} | more
    return Sighting(
        public_key=key(number), source=source, address=source, first_seen=moment, last_seen=moment, **values
    )


def agent(public_key: bytes, previous_key: bytes | None = None) -> AgentRecord:
    return AgentRecord(
        name=fingerprint_id(public_key),
        fingerprint=fingerprint_id(public_key),
        public_key=public_key,
        state=AgentState.ACTIVE,
        domains=("*",),
        mechanisms=("CURVE",),
        addresses=(),
        reason="",
        created=MOMENT,
        updated=MOMENT,
        previous_key=previous_key,
        previous_until=previous_key and MOMENT,
    )


def note(engine: Engine, seen: Sequence[Sighting], bounds: Bounds | None = None, **more: object) -> Counter[str]:
    with writing(engine) as connection:
        return Counter(REGISTRY.note(connection, seen, bounds or Bounds(), **more))


def listed(engine: Engine) -> list[tuple[int, str]]:
    with reading(engine) as connection:
        rows = connection.execute(select(tables.sightings.c.public_key, tables.sightings.c.domain))
        return sorted((int.from_bytes(row[0], "big"), row[1]) for row in rows)


def test_what_comes_again_is_one_row(engine: Engine) -> None:
    """Tries add up to a bound, the first time stays, the last place and time take the place of those before."""
    note(engine, [sighting(1, tries=3), sighting(2), sighting(1, domain="lab", rule="*")])
    note(engine, [sighting(1, "192.0.2.9", at=9, agent="other", tries=2**31 - 2)])
    with reading(engine) as connection:
        lab, orders = REGISTRY.find(connection, fingerprint_id(key(1)))
    assert (lab.domain, lab.rule, lab.tries) == ("lab", "*", 1)
    assert (orders.tries, orders.address, orders.source, orders.agent) == (2**31 - 1, *["192.0.2.9"] * 2, "other")
    assert (orders.first_seen, orders.last_seen) == (MOMENT, MOMENT + timedelta(seconds=9))


def test_who_is_somebody_does_not_wait(engine: Engine) -> None:
    """Keys that are registered in whatever state and domain, agents' keys, those before their rotation, and the
    server's are not written down."""
    with writing(engine) as connection:
        for number, state in enumerate(KeyState):
            KeyRegistry().add(connection, key_record(key(number), state=state, domains=("elsewhere",)))
        AgentRegistry().add(connection, agent(key(10), key(11)))
    note(engine, [sighting(number) for number in (0, 1, 2, 10, 11, 12, 13)], apart={key(12)})
    assert listed(engine) == [(13, "orders")]


def test_a_flood_hides_nobody_from_elsewhere(engine: Engine) -> None:
    """One source, then many by one agent, then many by many: each bound holds, a lone key from elsewhere stays,
    and what made room is counted by what was full."""
    bounds = Bounds(domain=30, source=5, agent=20)
    note(engine, [sighting(0, "198.51.100.7", agent="honest")], bounds)
    assert note(engine, [sighting(number, at=number) for number in range(1, 101)], bounds) == {"source": 95}
    assert listed(engine) == [(number, "orders") for number in (0, *range(96, 101))]
    many = [sighting(number, f"203.0.113.{number % 10}", at=number) for number in range(200, 300)]
    gone = note(engine, many, bounds)
    assert (gone["source"], gone["agent"]) == (50, 35)
    more = [sighting(n, f"203.0.114.{n % 15}", at=n, agent=f"edge-{n % 5}") for n in range(300, 400)]
    assert note(engine, more, bounds)["domain"] > 0
    found = listed(engine)
    assert len(found) == 30
    assert (0, "orders") in found


def test_what_is_stale_is_swept(engine: Engine) -> None:
    """Who did not come again for long, and who was registered meanwhile, goes; the rest is counted by rule."""
    note(engine, [sighting(1), sighting(2, at=100), sighting(3, at=100), sighting(4, at=100, rule="*")])
    before = MOMENT + timedelta(seconds=50)
    with writing(engine) as connection:
        KeyRegistry().add(connection, key_record(key(3)))
        assert REGISTRY.counts(connection, before) == ({"orders": 3, "*": 1}, True)
        assert [len(rows) for rows in REGISTRY.page(connection, limit=9).values()] == [1, 1, 1]
        REGISTRY.sweep(connection, before)
        assert REGISTRY.counts(connection, before) == ({"orders": 1, "*": 1}, False)
    assert listed(engine) == [(2, "orders"), (4, "orders")]


def test_who_became_an_agent_waits_no_longer(engine: Engine) -> None:
    """An agent's key that had knocked as a client's is not listed and is swept, as its former key is; strangers
    stay, also where no agent was ever rotated."""
    note(engine, [sighting(number) for number in (1, 2, 3)])
    for enrolled, left in ((agent(key(1)), [2, 3]), (agent(key(9), key(2)), [3])):
        with writing(engine) as connection:
            AgentRegistry().add(connection, enrolled)
            listed_now = [row.public_key for (row,) in REGISTRY.page(connection, limit=9).values()]
            assert sorted(listed_now) == [key(number) for number in left]
            assert REGISTRY.counts(connection, MOMENT)[1]
            REGISTRY.sweep(connection, MOMENT)
            assert REGISTRY.counts(connection, MOMENT) == ({"orders": len(left)}, False)


def test_very_many_keys_beside_it_slow_nothing_down(engine: Engine) -> None:
    """Each row of the list is looked up among the keys. PostgreSQL would go through all keys for each row, where
    they are too many for a hash in memory, and the list could be neither shown nor swept."""
    postgresql = engine.dialect.name == "postgresql"
    with writing(engine) as connection:
        KeyRegistry().add(connection, key_record(key(0)))
        names = [f'"{column.name}"' for column in tables.keys.c]
        octets = "decode(lpad(to_hex(n), 64, '0'), 'hex')" if postgresql else "CAST(printf('%032d', n) AS BLOB)"
        made = ", ".join({'"fingerprint"': "'f' || n", '"public_key"': octets}.get(name, name) for name in names)
        numbers = (
            "WITH RECURSIVE g(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM g WHERE n < 100000) SELECT n FROM g"
        )
        many = f"INSERT INTO keys ({', '.join(names)}) SELECT {made} FROM keys, ({numbers}) AS numbers"
        connection.execute(text(many))
        for start in range(0, 4000, 500):
            seen = [
                sighting(10**9 + n, f"192.0.2.{n % 250}", agent=f"a{n % 30}") for n in range(start, start + 500)
            ]
            REGISTRY.note(connection, seen, Bounds(domain=4000))
        connection.execute(text("ANALYZE"))
    with writing(engine) as connection:
        if postgresql:
            connection.execute(text("SET LOCAL work_mem = '64kB'"))
        began = time.perf_counter()
        assert REGISTRY.counts(connection, MOMENT) == ({"orders": 4000}, False)
        assert len(REGISTRY.page(connection, limit=100)) == 100
        REGISTRY.sweep(connection, MOMENT)
        assert time.perf_counter() - began < 2


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 50)), max_size=60),
    st.integers(1, 20),
)
def test_the_fullest_sources_make_room(rows: list[tuple[str, int]], bound: int) -> None:
    """As many go as are too many; none goes from a source that has fewer left than another, less one; and within
    a source the oldest go."""
    named = [
        ((str(number), ""), source, datetime.fromtimestamp(at, UTC)) for number, (source, at) in enumerate(rows)
    ]
    gone = set(surplus(named, bound))
    assert len(gone) == max(0, len(rows) - bound)
    left = Counter(source for name, source, _ in named if name not in gone)
    for name, source, at in named:
        if name in gone:
            assert left[source] >= max(left.values()) - 1
            assert all(at <= other for one, from_, other in named if from_ == source and one not in gone)
