"""T5b: guessing at the running program. One address with many tries, many addresses with one name; the owner gets
in all the while, and nothing goes unsaid in the record."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.app_scene import CONFIGURATION, Asking, wait_for, z85
from support.serving import Zapd, serving

from zapd.zmtp.keys import generate_keypair

ADDRESSES = 300
TRIES = 400
OWNER = "198.51.100.7"
GUESSER = "203.0.113.66"


@pytest.fixture
def zapd(tmp_path: Path) -> Iterator[Zapd]:
    """Running; Ada's password and one key are registered."""
    with serving(tmp_path, configuration=CONFIGURATION) as made:
        made.ask("POST", "/v1/users", {"name": "ada", "password": "correct horse", "domains": ["orders"]})
        yield made


def login(asking: Asking, password: str, address: str, name: str = "ada") -> int:
    return asking.ask(name.encode(), password.encode(), mechanism="PLAIN", address=address)


def metric(zapd: Zapd, name: str) -> float:
    page = zapd.call("GET", "/metrics").text
    return sum(float(line.rpartition(" ")[2]) for line in page.splitlines() if line.startswith(name))


def test_one_address_with_many_tries(zapd: Zapd) -> None:
    """Some tries are heard, the rest waits; the owner elsewhere is let in at once, every time, and so is a good
    key at the guesser's own address."""
    public_key, _ = generate_keypair()
    zapd.add_key(z85(public_key), "key-holder", domains=["orders"])
    with Asking(zapd) as asking:
        said: Counter[int] = Counter()
        for number in range(TRIES):
            said[login(asking, f"guess-{number}", GUESSER)] += 1
            if not number % 100:
                assert login(asking, "correct horse", OWNER) == 200
                assert asking.ask(public_key, address=GUESSER) == 200
        assert said[200] == 0
        assert 6 <= said[400] <= 20, said
        assert login(asking, "correct horse", GUESSER) == 300, "not even the right one is told there"
        assert login(asking, "correct horse", OWNER) == 200
    assert metric(zapd, "zapd_wrong_tries_total") == said[400]
    assert metric(zapd, "zapd_penalties_total") >= TRIES - 25
    told = lambda: [json.loads(line) for line in zapd.journal().splitlines()]  # noqa: E731
    counted = lambda: sum(  # noqa: E731
        line["count"] for line in told() if line["event"] == "auth.summary" and line["address"] == GUESSER
    )
    assert wait_for(lambda: counted() == said[300] + 1), "each answer that has no record of its own is counted"
    assert sum(line["event"] == "auth.reject" for line in told()) == said[400]


def test_many_addresses_with_one_name(zapd: Zapd) -> None:
    """By account alone there is a slow cap: a hundred an hour at most. The owner, where it was before, feels
    nothing of it; the table shows what it holds."""
    with Asking(zapd) as asking:
        assert login(asking, "correct horse", OWNER) == 200
        said: Counter[int] = Counter()
        for number in range(ADDRESSES):
            said[login(asking, f"guess-{number}", f"10.7.{number >> 8}.{number & 255}")] += 1
            if not number % 50:
                assert login(asking, "correct horse", OWNER) == 200
        assert said[200] == 0
        assert metric(zapd, "zapd_wrong_tries_total") <= 100
        assert login(asking, "correct horse", OWNER) == 200
        assert login(asking, "another horse", OWNER, "bob") == 400, "another name is another matter"
    assert metric(zapd, "zapd_penalised") <= 2 * 100 + 10


def test_one_address_with_many_names(zapd: Zapd) -> None:
    """Spraying costs the address; whoever was let in from there before is let in all the same."""
    with Asking(zapd) as asking:
        assert login(asking, "correct horse", GUESSER) == 200
        said = Counter(login(asking, "password1", GUESSER, f"user-{number}") for number in range(60))
        assert said[300] >= 30 and said[200] == 0
        assert login(asking, "correct horse", GUESSER) == 200
    question = {"domain": "orders", "mechanism": "PLAIN", "username": "eve", "address": GUESSER}
    last = zapd.ask("POST", "/v1/explain", question)["steps"][-1]
    assert (last["step"], last["verdict"]) == ("penalty", "penalty_address")


def test_the_same_unknown_key_again_and_again(zapd: Zapd) -> None:
    """It is no new guess, so it is refused each time, until there are too many a second: then 300, and counted."""
    stranger, _ = generate_keypair()
    with Asking(zapd) as asking:
        said = Counter(asking.ask(stranger, address=GUESSER) for _ in range(300))
    assert set(said) == {400, 300}
    assert metric(zapd, "zapd_wrong_tries_total") == 1
    records = lambda: [json.loads(line) for line in zapd.journal().splitlines()]  # noqa: E731
    assert wait_for(
        lambda: sum(line["count"] for line in records() if line["event"] == "auth.summary") == said[300]
    )
    assert sum(line["event"] == "auth.reject" for line in records()) == said[400]
