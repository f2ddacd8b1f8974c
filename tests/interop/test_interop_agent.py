"""The agent inside real libzmq applications, through every fault that must let nobody in (limits.md, T7)."""

from __future__ import annotations

import os
import signal
import socket as system_socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import zmq
from support.agent_app import App, new_agent
from support.agent_central import (
    Asked,
    Central,
    Pair,
    always,
    foreign_id,
    honest,
    new_pair,
    silent,
    wait_until,
)

import zapd.agent
from zapd.agent import Endpoint

pytestmark = pytest.mark.interop

MECHANISMS = ["NULL", "PLAIN", "CURVE"]
WINDOW = 0.7
"""Seconds for which a fault lasts, with everybody knocking: longer than deadline and handshake together."""
TESTS = Path(__file__).parents[1]


class Fleet:
    """An application, a central that knows one visitor, that visitor, and a stranger."""

    def __init__(self, mechanism: str, central: Central, app: App, friend: Pair) -> None:
        self.mechanism = mechanism
        self.central = central
        self.app = app
        self.friend = friend

    def friend_knocks(self) -> Any:
        return self.app.visitor(pair=self.friend, user="alice", password="right", says=b"friend")

    def stranger_knocks(self) -> Any:
        return self.app.visitor(pair=new_pair(), user="alice", password="wrong", says=b"stranger")


@contextmanager
def fleet(mechanism: str, central: Central, keys: zapd.agent.AgentKeys) -> Iterator[Fleet]:
    friend = new_pair()
    central.known |= {(friend.public,), (b"alice", b"right")}
    central.admits_null = True  # NULL has no stranger: there, a fault alone keeps people out
    with App(list(keys.endpoints), keys=keys, mechanism=mechanism) as app:
        yield Fleet(mechanism, central, app, friend)


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_known_in_unknown_out(mechanism: str) -> None:
    """The plain case: who is known gets through, who is not never does."""
    server = new_pair()
    with (
        Central(server=server) as central,
        fleet(mechanism, central, new_agent(Endpoint(central.address, (server.public,)))) as fleet_,
    ):
        if mechanism != "NULL":
            stranger = fleet_.stranger_knocks()
            assert wait_until(lambda: fleet_.app.agent.counters["refused"])
            assert not stranger.poll(0)
        fleet_.friend_knocks()
        assert fleet_.app.next_in() == b"friend"
        assert fleet_.app.next_in(0.2) is None


def foreign(central: Central, asked: Asked) -> list[list[bytes]]:
    """200 under ids that were never asked."""
    return [Asked([asked.envelope[0], foreign_id(), b""], asked.body).reply(b"200")]


def refused_twice(central: Central, asked: Asked) -> list[list[bytes]]:
    """300, and a 200 right behind it."""
    return [asked.reply(b"300"), asked.reply(b"200")]


def malformed(central: Central, asked: Asked) -> list[list[bytes]]:
    """Nearly a 200."""
    return [[*asked.envelope, b"1.0", b"1", b"2000", b"OK", b"", b""], [*asked.envelope, b"200"]]


FAULTS = ["absent", "silent", "black hole", "rogue", "late 200", "double", "foreign", "malformed", "unenrolled"]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_nobody_in_while_it_lasts_and_friends_in_afterwards(mechanism: str, fault: str) -> None:
    """During each fault nobody at all gets in; when it has healed, the friend does, without help (T7)."""
    server = new_pair()
    with Central(server=server, agents=set()) as central:
        keys = new_agent(Endpoint(central.address, (server.public,)))
        assert central.agents is not None
        if fault != "unenrolled":
            central.agents.add(keys.public_key)
        hole = None
        if fault in ("absent", "black hole", "rogue"):
            central.stop()
        if fault == "black hole":
            hole = system_socket.create_server(("127.0.0.1", int(central.address.rpartition(":")[2])))
        elif fault == "rogue":
            central.server, central.agents, central.script = new_pair(), None, always(b"200")
            central.start()
        elif fault == "late 200":
            central.script, central.delay = always(b"200"), 0.45
        else:
            scripts = {"silent": silent, "double": refused_twice, "foreign": foreign, "malformed": malformed}
            central.script = scripts.get(fault, honest)
        with fleet(mechanism, central, keys) as fleet_:
            fleet_.friend_knocks()
            if mechanism != "NULL":
                fleet_.stranger_knocks()
            assert fleet_.app.next_in(WINDOW) is None, f"somebody got in during: {fault}"
            assert fleet_.app.agent.counters["granted"] == 0
            assert fleet_.app.agent.counters["questions"] >= 1
            # Heal it.
            if hole is not None:
                hole.close()
            central.stop()
            central.server, central.script, central.delay = server, honest, 0.0
            central.agents = {keys.public_key}
            central.start()
            assert fleet_.app.next_in() == b"friend"
            assert fleet_.app.next_in(0.1) is None


@contextmanager
def central_process(address: str, *keys: bytes) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "support.agent_central", address, *(key.hex() for key in keys)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=TESTS,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait(5)
        assert process.stdout is not None
        process.stdout.close()


def test_stopped_and_killed_processes() -> None:
    """A central under SIGSTOP or SIGKILL admits nobody; after SIGCONT or a new start the friend is in."""
    friend = new_pair()
    with central_process("tcp://127.0.0.1:*", friend.public) as (process, address):
        app = App([Endpoint(address)])
        with app:
            app.visitor(pair=friend)
            assert app.next_in() == b"in"
            process.send_signal(signal.SIGSTOP)
            app.visitor(pair=friend, says=b"after stop")
            app.visitor(says=b"stranger")
            assert app.next_in(WINDOW) is None
            process.send_signal(signal.SIGCONT)
            assert app.next_in() == b"after stop"
            process.kill()
            process.wait(5)
            app.visitor(pair=friend, says=b"after kill")
            assert app.next_in(WINDOW) is None
            with central_process(address, friend.public):
                assert app.next_in() == b"after kill"
            assert app.next_in(0.1) is None


def test_fifty_friends_through_a_restart() -> None:
    """Nobody is stranded: fifty clients that knock while zapd is away are all in once it is back."""
    friend = new_pair()
    with Central() as central:
        central.known.add((friend.public,))
        address = central.address
        central.stop()
        with App([Endpoint(address)]) as app:
            for number in range(50):
                app.visitor(pair=friend, says=b"%d" % number)
            assert app.next_in(WINDOW) is None
            central.start()
            assert {app.next_in(20) for _ in range(50)} == {b"%d" % number for number in range(50)}


# --- endings: an application must always be able to stop --------------------------------------------------

PRELUDE = """
    import os, sys, threading, time, gc, warnings
    warnings.simplefilter("ignore", ResourceWarning)
    import zmq, zapd.agent
    def begin(context):
        agent = zapd.agent.start(context, None, endpoints=sys.argv[1:])
        socket = context.socket(zmq.PULL)
        zapd.agent.guard(socket, domain="d", secret_key=b"s" * 32)
        socket.bind("tcp://127.0.0.1:*")
        return agent, socket
"""

ENDINGS = {
    "term": """
        context = zmq.Context()
        agent, socket = begin(context)
        socket.close()
        context.term()
        assert not agent.alive
    """,
    "term with questions open": """
        context = zmq.Context()
        agent, socket = begin(context)
        asking = [context.socket(zmq.DEALER) for _ in range(50)]
        for each in asking:
            each.linger = 0
            each.connect("inproc://zeromq.zap.01")
            each.send_multipart([b"", b"1.0", b"1", b"d", b"1.2.3.4", b"", b"NULL"])
        while agent.counters["questions"] < 50:
            time.sleep(0.01)
        for each in [*asking, socket]:
            each.close()
        context.term()
        assert not agent.alive
    """,
    "destroy": """
        context = zmq.Context()
        agent, socket = begin(context)
        context.destroy()
        assert not agent.alive
    """,
    "destroy with linger": """
        context = zmq.Context()
        agent, socket = begin(context)
        context.destroy(linger=0)
        assert not agent.alive
    """,
    "with": """
        with zmq.Context() as context:
            agent, socket = begin(context)
        assert not agent.alive
    """,
    "with, after an exception": """
        try:
            with zmq.Context() as context:
                agent, socket = begin(context)
                raise KeyError
        except KeyError:
            pass
        assert not agent.alive
    """,
    "forgotten": """
        context = zmq.Context()
        agent, socket = begin(context)
        del context, socket
        gc.collect()
        assert not agent.alive
    """,
    "interpreter exit": """
        context = zmq.Context()
        agent, socket = begin(context)
    """,
    "sys.exit": """
        agent, socket = begin(zmq.Context.instance())
        sys.exit(0)
    """,
    "asyncio": """
        import asyncio, zmq.asyncio
        async def main():
            context = zmq.asyncio.Context()
            agent, socket = begin(context)
            await asyncio.sleep(0.05)
            context.destroy(linger=0)
            assert not agent.alive
        asyncio.run(main())
    """,
    "term in another thread": """
        context = zmq.Context()
        agent, socket = begin(context)
        socket.close()
        thread = threading.Thread(target=context.term)
        thread.start()
        thread.join(5)
        assert not thread.is_alive() and not agent.alive
    """,
    "fork, both exit": """
        context = zmq.Context()
        agent, socket = begin(context)
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            assert agent.alive
            socket.close()
            context.term()
        else:
            assert not agent.alive
            sys.exit(0)
    """,
    "fork, a new life in the child": """
        context = zmq.Context()
        agent, socket = begin(context)
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
        else:
            for _ in range(3):
                with zmq.Context() as fresh:
                    mine, mysocket = begin(fresh)
                    assert mine.alive
                    mysocket.close()
                assert not mine.alive
            sys.exit(0)
    """,
}


def run_script(body: str, *arguments: str, timeout: float = 30) -> tuple[str, float]:
    """Run a piece of an application in a process of its own: (what it printed, seconds it took)."""
    script = textwrap.dedent(PRELUDE) + textwrap.dedent(body)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr, done.stderr
    return done.stdout, time.monotonic() - started


@pytest.mark.parametrize("linked", [True, False], ids=["linked", "alone"])
@pytest.mark.parametrize("ending", ENDINGS)
def test_every_ending_ends(ending: str, linked: bool) -> None:
    """However an application stops, the agent is out of its way at once (measured: a few milliseconds)."""
    if linked:
        with Central(script=silent) as central:
            _, seconds = run_script(ENDINGS[ending], central.address)
    else:
        _, seconds = run_script(ENDINGS[ending], "tcp://127.0.0.1:1")
    assert seconds < 10, "includes the start of an interpreter on a busy machine"


# --- fork -------------------------------------------------------------------------------------------------


def test_a_forked_child_guards_nothing() -> None:
    """The parent's agent is not the child's: guard refuses there, and so does a second start on that context."""
    out, _ = run_script(
        """
        context = zmq.Context()
        agent, socket = begin(context)
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            again = context.socket(zmq.PULL)
            zapd.agent.guard(again, domain="d", secret_key=b"s" * 32)
            again.close()
            socket.close()
            context.term()
        else:
            try:
                zapd.agent.guard(context.socket(zmq.PULL), domain="d", secret_key=b"s" * 32)
            except zapd.agent.AgentError as error:
                print("guard:", error)
            try:
                zapd.agent.start(context, None, endpoints=sys.argv[1:])
            except zapd.agent.AgentError as error:
                print("start:", error)
            sys.stdout.flush()
            os._exit(0)
        """,
        "tcp://127.0.0.1:1",
    )
    assert "guard: no agent answers" in out
    assert "start: something else is bound" in out


def test_a_child_that_outlives_its_parent_admits_nobody() -> None:
    """The child inherits the listening descriptor; no handshake ever succeeds there."""
    with Central(script=always(b"200")) as central:
        script = textwrap.dedent(PRELUDE) + textwrap.dedent(
            """
            agent, socket = begin(zmq.Context())
            print(socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip(chr(0)), flush=True)
            child = os.fork()
            if child:
                print(child, flush=True)
                os._exit(0)
            os.close(1)
            time.sleep(60)
            """
        )
        with subprocess.Popen(
            [sys.executable, "-c", script, central.address], stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout is not None
            address, child = process.stdout.read().split()
        context: zmq.Context[Any] = zmq.Context()
        try:
            visitor = context.socket(zmq.PUSH)
            visitor.linger = 0
            visitor.immediate = 1
            visitor.setsockopt(zmq.CURVE_SERVERKEY, os.urandom(32))
            monitor = visitor.get_monitor_socket(zmq.EVENT_HANDSHAKE_SUCCEEDED)
            visitor.connect(address)
            assert not monitor.poll(700)
            assert central.asked == []
            visitor.disable_monitor()
            monitor.close()
            visitor.close()
        finally:
            os.kill(int(child), signal.SIGKILL)
            context.term()
