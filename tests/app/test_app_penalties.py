"""Penalties with several workers: what one saw all know, soon, and a worker that comes later too."""

from __future__ import annotations

import os
import signal
import time
from contextlib import ExitStack
from pathlib import Path

from support.app_scene import ALICE, BOB, STRANGER, Asking, z85
from support.serving import Zapd, serving
from support.workers_scene import WORKERS, metrics, pids, ready, spread, wait_for

LONG = WORKERS + '[penalties]\nshortest = "4m"\n'
"""A penalty that outlasts the test."""


def login(asking: Asking, password: str, address: str = "203.0.113.66") -> int:
    return asking.ask(b"ada", password.encode(), mechanism="PLAIN", address=address)


def guess_at(asking: Asking) -> None:
    """Until the name has to wait."""
    for number in range(20):
        if login(asking, f"guess-{number}") == 300:
            return
    raise AssertionError("nobody had to wait")


def one_each(stack: ExitStack, zapd: Zapd) -> tuple[Asking, Asking]:
    """Two connections, each to a worker of its own."""
    one, other = stack.enter_context(Asking(zapd)), stack.enter_context(Asking(zapd))
    assert [each.ask(domain="lab", mechanism="NULL") for each in (one, other)] == [200, 200]
    assert wait_for(lambda: spread(zapd) == [1, 1]), spread(zapd)
    return one, other


def test_what_one_worker_saw_all_know_and_a_new_one_too(tmp_path: Path) -> None:
    """Guesses through one connection bar the guesser at the other worker within a second, and at one that comes up
    afterwards; the owner elsewhere is let in throughout, and the page counts each wrong try once."""
    with serving(tmp_path, configuration=LONG) as zapd, ExitStack() as stack:
        zapd.ask("POST", "/v1/users", {"name": "ada", "password": "correct horse", "domains": ["*"]})
        one, other = one_each(stack, zapd)
        guess_at(one)
        barred_at = time.monotonic()
        assert wait_for(lambda: login(other, "correct horse") == 300)
        assert time.monotonic() - barred_at < 10.0, "a second, where the machine has nothing else to do"
        assert login(other, "correct horse", "198.51.100.7") == 200
        assert wait_for(lambda: metrics(zapd)["zapd_wrong_tries_total"][""] >= 6)
        assert metrics(zapd)["zapd_wrong_tries_total"][""] <= 12
        assert metrics(zapd)["zapd_penalised"]["name"] == 1

        before = set(pids(zapd).values())
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: not before & set(pids(zapd).values()))
        assert ready(zapd)
        with Asking(zapd) as late, Asking(zapd) as later:
            for asking in (late, later):
                assert login(asking, "correct horse") == 300, "both are new, and know it from the parent"
                assert login(asking, "correct horse", "198.51.100.7") == 200


def test_a_key_that_is_refused_everywhere_waits_until_it_is_registered(tmp_path: Path) -> None:
    """Tried from more addresses than are free a key waits at every worker, and at one that comes up afterwards;
    whoever explains it says why, and other keys feel nothing. Registered, it is let in at its next try."""
    text = LONG + 'key_tries = 3\naddress_tries = 100\nlongest = "5m"\n'
    with serving(tmp_path, configuration=text) as zapd, ExitStack() as stack:
        zapd.add_key(z85(ALICE), "alice", domains=["orders"])
        both = one, other = one_each(stack, zapd)
        assert [one.ask(STRANGER, address=f"203.0.113.{number}") for number in (1, 1, 1, 2, 3, 4)] == [400] * 6
        assert one.ask(STRANGER, address="203.0.113.5") == 300
        assert wait_for(lambda: other.ask(STRANGER, address="203.0.113.1") == 300)
        assert [each.ask(ALICE, address="203.0.113.1") for each in both] == [200, 200]
        assert [each.ask(BOB, address="203.0.113.1") for each in both] == [400, 400]
        assert wait_for(lambda: metrics(zapd)["zapd_penalised"]["key"] == 2)
        assert wait_for(lambda: metrics(zapd)["zapd_penalties_total"]["key"] >= 2)
        assert wait_for(lambda: '"reason":"penalty_key"' in zapd.journal())
        question = {"domain": "orders", "mechanism": "CURVE", "key": z85(STRANGER).decode()}
        told = zapd.ask("POST", "/v1/explain", {**question, "address": "198.51.100.1"})["steps"][-1]
        assert (told["step"], told["verdict"]) == ("penalty", "penalty_key")

        before = set(pids(zapd).values())
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: not before & set(pids(zapd).values()))
        assert ready(zapd)
        late = [stack.enter_context(Asking(zapd)) for _ in range(2)]
        assert [each.ask(STRANGER, address="203.0.113.6") for each in late] == [300, 300], "told by the parent"
        zapd.add_key(z85(STRANGER), "newcomer", domains=["orders"])
        assert {each.ask(STRANGER, address=f"203.0.113.{number}") for each in late for number in (1, 7)} == {200}
        told = zapd.ask("POST", "/v1/explain", {**question, "address": "198.51.100.1"})["steps"]
        assert ("penalty", "ok") in [(step["step"], step["verdict"]) for step in told]
