"""Several processes that answer: how they are spread, changed, replaced and ended. Real processes throughout."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.app_scene import ALICE, Asking, parts, z85
from support.serving import Zapd
from support.workers_scene import (
    WORKERS,
    Enrolled,
    alive,
    journals,
    knock,
    metrics,
    pids,
    ready,
    recorded,
    spread,
    still_open,
    wait_for,
)


@pytest.fixture
def zapd(tmp_path: Path) -> Iterator[Zapd]:
    """Running with two workers; Alice's key is registered."""
    made = Zapd(tmp_path, configuration=WORKERS)
    made.start()
    try:
        made.add_key(z85(ALICE), "alice", domains=["*"])
        yield made
    finally:
        made.stop()


def revoke(zapd: Zapd) -> None:
    """Revoke Alice's key."""
    [key] = zapd.ask("GET", "/v1/keys")["items"]
    zapd.ask("POST", f"/v1/keys/{key['id']}/revoke", {"reason": "lost"})


def test_few_connections_are_spread_evenly_and_a_revocation_reaches_all(zapd: Zapd) -> None:
    """Six agents and local askers, three to each worker; what the API has answered holds for every one of them,
    and the page adds up what both have counted."""
    agent = zapd.enroll("edge", domains=["*"])
    with ExitStack() as stack:
        askers: list[Asking | Enrolled] = []
        for _ in range(3):
            askers.append(stack.enter_context(Asking(zapd)))
            enrolled = Enrolled(agent)
            stack.callback(enrolled.close)
            askers.append(enrolled)
        assert [asker.ask(ALICE) for asker in askers] == [200] * 6
        assert wait_for(lambda: spread(zapd) == [3, 3]), spread(zapd)
        revoke(zapd)
        assert [asker.ask(ALICE) for asker in askers] == [400] * 6
        assert wait_for(lambda: metrics(zapd)["zapd_network_events_total"]["messages_received"] == 12)
        assert metrics(zapd)["zapd_peers"] == {"": 6}
        assert metrics(zapd)["zapd_ready"] == {"": 1}
        assert len(recorded(zapd, "auth.reject")) == 2, "each worker has a journal of its own"
        assert list(recorded(zapd, "key.revoke").values()) == [1], "and the parent has one for changes"
        zapd.ask("DELETE", "/v1/agents/edge")
        assert wait_for(lambda: metrics(zapd)["zapd_peers"] == {"": 3}), "a revoked agent is cut off everywhere"
    question = {"domain": "orders", "mechanism": "CURVE", "key": z85(ALICE).decode(), "address": "127.0.0.1"}
    assert zapd.ask("POST", "/v1/explain", question)["status"] == 400
    assert wait_for(lambda: len(zapd.ask("GET", "/v1/audit?limit=100")["items"]) >= 12), "all are searchable"
    assert zapd.run("audit", "verify").returncode == 0


def test_strangers_are_bounded_all_together(zapd: Zapd) -> None:
    """Of 300 silent connections from one address the workers keep about as many as one process would; who was in
    stays in, and an ipc peer whose user may not connect is sent away."""
    with Asking(zapd) as asking, ExitStack() as stack:
        assert asking.ask(ALICE) == 200
        strangers = [stack.enter_context(each) for each in knock(zapd.zap[1], 300)]
        assert wait_for(lambda: metrics(zapd)["zapd_network_events_total"]["refused_per_source"] > 200)
        assert still_open(strangers) <= 64
        unwelcome = stack.enter_context(socket.socket(socket.AF_UNIX))
        unwelcome.settimeout(15)
        unwelcome.connect(str(zapd.folder / "data" / "closed.sock"))
        assert unwelcome.recv(100) == b""
        assert asking.ask(ALICE) == 200


def test_a_killed_worker_is_replaced_and_loses_no_record(zapd: Zapd) -> None:
    """Askers come back by themselves and are spread evenly again; every 200 they heard is on record; counters do
    not fall, and the replacement has the configuration in force, whatever stands in the file."""
    heard = 0
    stop = threading.Event()

    def keep_asking(asking: Asking) -> None:
        nonlocal heard
        while not stop.is_set():
            asking.send(ALICE)
            # What was on its way to the dead is lost, as with any connection that breaks.
            if asking._socket.poll(200) and asking.receive()[1] == 200:
                heard += 1

    with ExitStack() as stack:
        askers = [stack.enter_context(Asking(zapd)) for _ in range(4)]
        assert [asking.ask(ALICE) for asking in askers] == [200] * 4
        assert wait_for(lambda: spread(zapd) == [2, 2])
        zapd.configure("nonsense")
        thread = threading.Thread(target=keep_asking, args=(askers[0],))
        thread.start()
        try:
            for number, pid in pids(zapd).items():
                counted = metrics(zapd)["zapd_network_events_total"]["messages_received"]
                os.kill(pid, signal.SIGKILL)
                assert wait_for(lambda number=number, pid=pid: pids(zapd)[number] != pid), zapd.logged()
                assert ready(zapd)
                assert metrics(zapd)["zapd_network_events_total"]["messages_received"] >= counted
        finally:
            stop.set()
            thread.join()
        assert wait_for(lambda: spread(zapd) == [2, 2]), spread(zapd)
        assert metrics(zapd)["zapd_worker_replaced_total"] == {"1": 1, "2": 1}
        assert [asking.ask(ALICE) for asking in askers[1:]] == [200] * 3
    assert heard > 0
    assert sum(recorded(zapd, "auth.accept").values()) >= heard + 4 + 3
    zapd.configure(WORKERS)
    assert zapd.run("audit", "verify").returncode == 0
    assert len(journals(zapd)) == 3, "the replacements went on with the journals of the dead"


def test_a_worker_that_hangs_holds_up_a_revocation_no_longer_than_it_lives(zapd: Zapd) -> None:
    """It is killed since nobody knows what it would say; then the revocation is in force everywhere."""
    with Asking(zapd) as asking, Asking(zapd) as other:
        assert [asking.ask(ALICE), other.ask(ALICE)] == [200, 200]
        hanging = pids(zapd)[2]
        os.kill(hanging, signal.SIGSTOP)
        revoke(zapd)
        assert wait_for(lambda: not alive(hanging))
        assert ready(zapd)
        assert wait_for(lambda: pids(zapd)[2] != hanging)
    with Asking(zapd) as asking, Asking(zapd) as other:
        assert [asking.ask(ALICE), other.ask(ALICE)] == [400, 400]


def test_signals_reach_all_workers_through_their_parent(zapd: Zapd) -> None:
    """SIGHUP: a new rule holds in both at once, a broken edit in neither, and a worker that comes later has it
    too. SIGTERM: no process is left, and every journal ends with its service's stop. What a terminal says to the
    whole group changes nothing in a worker."""

    def edit(configuration: str, word: str) -> None:
        before = zapd.logged().count(word)
        zapd.configure(configuration)
        zapd.signal(signal.SIGHUP)
        assert wait_for(lambda: zapd.logged().count(word) > before), zapd.logged()

    with Asking(zapd) as asking, Asking(zapd) as other:
        assert [asking.ask(ALICE), other.ask(ALICE)] == [200, 200]
        closed = WORKERS.replace("[domain.orders]\n", '[domain.orders]\ndeny = ["127.0.0.0/8"]\n')
        needs = closed.replace('drain = "5s"', 'drain = "6s"').replace("workers = 2", "workers = 3")
        edit(needs, "the configuration was reloaded")
        assert "server.workers" in zapd.logged(), "a restart is needed for that"
        assert [asking.ask(ALICE), other.ask(ALICE)] == [400, 400]
        edit(WORKERS.replace('backends = ["keys"]', 'backends = ["nobody"]'), "was not reloaded")
        assert [asking.ask(ALICE), other.ask(ALICE)] == [400, 400]
        pid = pids(zapd)[1]
        os.kill(pid, signal.SIGKILL)
        assert wait_for(lambda: pids(zapd)[1] != pid)
    with Asking(zapd) as asking, Asking(zapd) as other:
        assert [asking.ask(ALICE), other.ask(ALICE)] == [400, 400]
    workers = pids(zapd)
    for pid in workers.values():
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            os.kill(pid, number)
    assert ready(zapd)
    assert parts(zapd)["worker 1"] == parts(zapd)["worker 2"] == "ok"
    assert zapd.stop() == 0
    assert not any(alive(pid) for pid in workers.values())
    assert [records[-1]["event"] for records in journals(zapd).values()] == ["service.stop"] * 3
    assert not (zapd.folder / "data" / "zap.sock").exists()


def test_workers_end_when_their_parent_is_gone(zapd: Zapd) -> None:
    """Nobody could tell them of a revocation any more. The next start goes on with all three journals, and where
    its database is away, waits for it as one process does: up, not ready, 300, and later by itself 200."""
    workers = pids(zapd)
    zapd.stop(signal.SIGKILL)
    assert wait_for(lambda: not any(alive(pid) for pid in workers.values()))
    database, away = zapd.folder / "data" / "zapd.db", zapd.folder / "data" / "away.db"
    database.rename(away)
    zapd.start()
    with Asking(zapd) as asking, Asking(zapd) as other:
        assert [asking.ask(ALICE), other.ask(ALICE)] == [300, 300]
        assert zapd.call("GET", "/readyz").status_code == 503
        away.rename(database)
        assert ready(zapd)
        assert wait_for(lambda: [asking.ask(ALICE), other.ask(ALICE)] == [200, 200])
    assert len(journals(zapd)) == 3
    assert zapd.run("audit", "verify").returncode == 0
