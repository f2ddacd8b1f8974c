"""`guard` sets what makes libzmq ask, and refuses whatever would let somebody in unasked (R34)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
import zmq.asyncio
from support.agent_central import Central, always, new_pair
from zmq.utils.z85 import encode

import zapd.agent
from zapd.agent import AgentError, Endpoint
from zapd.agent.bridge import ZAP_ENDPOINT

NOBODY = Endpoint("tcp://127.0.0.1:1")
SECRET = new_pair().secret


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    made: zmq.Context[Any] = zmq.Context()
    yield made
    made.destroy(linger=0)


@pytest.fixture
def server(guarded: zmq.Context[Any]) -> Iterator[zmq.Socket[Any]]:
    """A fresh socket in a context with an agent."""
    with guarded.socket(zmq.ROUTER) as socket:
        yield socket


@pytest.fixture
def guarded(context: zmq.Context[Any]) -> zmq.Context[Any]:
    zapd.agent.start(context, None, endpoints=[NOBODY])
    return context


def test_sets_every_option(server: zmq.Socket[Any]) -> None:
    """Mechanism, domain, enforcement and handshake time are on the socket afterwards."""
    zapd.agent.guard(server, domain="orders", secret_key=SECRET)
    assert server.getsockopt(zmq.MECHANISM) == zmq.CURVE
    assert server.getsockopt(zmq.CURVE_SERVER) == 1
    assert server.getsockopt(zmq.ZAP_ENFORCE_DOMAIN) == 1
    assert server.getsockopt_string(zmq.ZAP_DOMAIN).rstrip("\0") == "orders"
    assert server.getsockopt(zmq.HANDSHAKE_IVL) == 5000


@pytest.mark.parametrize(("mechanism", "number"), [("PLAIN", zmq.PLAIN), ("NULL", zmq.NULL)])
def test_other_mechanisms(server: zmq.Socket[Any], mechanism: Any, number: int) -> None:
    """PLAIN becomes a PLAIN server; NULL has a domain and its enforcement."""
    zapd.agent.guard(server, domain="lab", mechanism=mechanism)
    assert server.getsockopt(zmq.MECHANISM) == number
    assert server.getsockopt(zmq.ZAP_ENFORCE_DOMAIN) == 1


@pytest.mark.parametrize("spell", [bytes, encode, lambda key: encode(key).decode()], ids=["octets", "Z85", "text"])
def test_secret_in_each_spelling(context: zmq.Context[Any], spell: Callable[[bytes], str | bytes]) -> None:
    """32 octets, or Z85 as bytes or text: a client that knows the public half gets in."""
    ours, theirs = new_pair(), new_pair()
    with Central(script=always(b"200")) as central:
        zapd.agent.start(context, None, endpoints=[central.address])
        with context.socket(zmq.PULL) as server, context.socket(zmq.PUSH) as client:
            zapd.agent.guard(server, domain="d", secret_key=spell(ours.secret))
            port = server.bind_to_random_port("tcp://127.0.0.1")
            client.linger = 0
            client.curve_serverkey = ours.public
            client.curve_publickey, client.curve_secretkey = theirs.public, theirs.secret
            client.connect(f"tcp://127.0.0.1:{port}")
            client.send(b"hello")
            assert server.poll(5000)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"domain": "", "secret_key": SECRET}, "asks nobody"),
        ({"domain": None, "secret_key": SECRET}, "asks nobody"),
        ({"domain": "d" * 256, "secret_key": SECRET}, "255"),
        ({"domain": "a\0b", "secret_key": SECRET}, "printable"),
        ({"domain": "bücher", "secret_key": SECRET}, "ASCII"),
        ({"domain": "zapd.agents", "secret_key": SECRET}, "own door"),
        ({"domain": "d"}, "needs secret_key"),
        ({"domain": "d", "secret_key": b"short"}, "40 characters"),
        ({"domain": "d", "secret_key": "ü" * 40}, "not a Z85"),
        ({"domain": "d", "secret_key": "\x01" * 40}, "cannot guard"),
        ({"domain": "d", "secret_key": SECRET, "mechanism": "PLAIN"}, "belongs to CURVE"),
        ({"domain": "d", "secret_key": SECRET, "mechanism": "NULL"}, "belongs to CURVE"),
        ({"domain": "d", "mechanism": "KERBEROS"}, "CURVE, PLAIN, NULL and GSSAPI"),
        ({"domain": "d", "mechanism": "GSSAPI"}, "built without GSSAPI"),
        ({"domain": "d", "secret_key": SECRET, "handshake": 2.0}, "more than the agent's deadline"),
        ({"domain": "d", "secret_key": SECRET, "handshake": 3600}, "at most 60"),
    ],
)
def test_refuses_what_cannot_be_guarded(server: zmq.Socket[Any], arguments: dict[str, Any], says: str) -> None:
    """Each bad argument is refused in words that say what to do."""
    with pytest.raises(AgentError, match=says):
        zapd.agent.guard(server, **arguments)


def test_refuses_without_agent(context: zmq.Context[Any]) -> None:
    """No agent in this context: libzmq would admit everybody, so guard does not even begin."""
    with context.socket(zmq.ROUTER) as socket:
        with pytest.raises(AgentError, match="no agent"):
            zapd.agent.guard(socket, domain="d", secret_key=SECRET)
        assert socket.getsockopt(zmq.CURVE_SERVER) == 0


def test_an_agent_elsewhere_does_not_count(guarded: zmq.Context[Any]) -> None:
    """Each context needs its own agent, since inproc names end at its border."""
    other: zmq.Context[Any] = zmq.Context()
    with other.socket(zmq.ROUTER) as socket, pytest.raises(AgentError, match="no agent"):
        zapd.agent.guard(socket, domain="d", secret_key=SECRET)
    other.term()


def test_a_dead_agent_does_not_count(server: zmq.Socket[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent whose thread is gone guards nothing new."""
    monkeypatch.setattr("zapd.agent.starting.Agent.alive", property(lambda self: False))
    with pytest.raises(AgentError, match="no agent"):
        zapd.agent.guard(server, domain="d", secret_key=SECRET)


@pytest.mark.parametrize("attach", ["bind", "connect"])
def test_refuses_after_bind_or_connect(server: zmq.Socket[Any], attach: str) -> None:
    """Too late is refused: whoever came before was not asked about."""
    if attach == "bind":
        server.bind_to_random_port("tcp://127.0.0.1")
    else:
        server.connect("tcp://127.0.0.1:1")
    with pytest.raises(AgentError, match="bound or connected already"):
        zapd.agent.guard(server, domain="d", secret_key=SECRET)


def test_refuses_a_socket_with_another_mechanism(server: zmq.Socket[Any]) -> None:
    """Options set before, such as a CURVE client's, are found by reading back."""
    server.setsockopt(zmq.CURVE_SERVERKEY, new_pair().public)
    with pytest.raises(AgentError, match="another mechanism"):
        zapd.agent.guard(server, domain="d", mechanism="NULL")


def test_refuses_closed_sockets_and_other_things(server: zmq.Socket[Any]) -> None:
    """A closed socket, or no socket at all."""
    server.close()
    for thing in (server, None, "socket"):
        with pytest.raises(AgentError, match="open zmq"):
            zapd.agent.guard(thing, domain="d", secret_key=SECRET)  # type: ignore[arg-type]


def test_refuses_old_libzmq(server: zmq.Socket[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """libzmq before 4.2 sends ERROR for 300, which strands clients: it is named and refused."""
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: (4, 1, 6))
    with pytest.raises(AgentError, match="or newer"):
        zapd.agent.guard(server, domain="d", secret_key=SECRET)


async def test_asyncio_sockets_are_guarded_alike() -> None:
    """A zmq.asyncio context and its sockets work with start and guard."""
    context = zmq.asyncio.Context()
    zapd.agent.start(context, None, endpoints=[NOBODY])
    socket = context.socket(zmq.ROUTER)
    zapd.agent.guard(socket, domain="d", secret_key=SECRET)
    assert socket.getsockopt(zmq.ZAP_ENFORCE_DOMAIN) == 1
    socket.close()
    context.destroy(linger=0)


# --- start ------------------------------------------------------------------------------------------------


def test_start_is_loud_when_the_place_is_taken(context: zmq.Context[Any]) -> None:
    """Another handler bound first would decide in our name: start fails (R12)."""
    squatter = context.socket(zmq.REP)
    squatter.bind(ZAP_ENDPOINT)
    with pytest.raises(AgentError, match="something else is bound"):
        zapd.agent.start(context, None, endpoints=[NOBODY])
    squatter.close()


def test_start_twice_is_refused(guarded: zmq.Context[Any]) -> None:
    """One agent for a context."""
    with pytest.raises(AgentError, match="already"):
        zapd.agent.start(guarded, None, endpoints=[NOBODY])


def test_start_returns_bound(guarded: zmq.Context[Any]) -> None:
    """When start returns, nobody else can bind libzmq's ZAP endpoint."""
    late = guarded.socket(zmq.REP)
    with pytest.raises(zmq.ZMQError, match="in use"):
        late.bind(ZAP_ENDPOINT)
    late.close()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"keys": None}, "no endpoints"),
        ({"keys": None, "endpoints": []}, "no endpoints"),
        ({"keys": None, "endpoints": [NOBODY], "deadline": 0}, "deadline"),
        ({"keys": None, "endpoints": [NOBODY], "max_questions": 0}, "max_questions"),
        ({"keys": None, "endpoints": [Endpoint("tcp://10.0.0.1:1", (SECRET,))]}, "needs the agent's own keys"),
    ],
)
def test_start_refuses_bad_arguments(context: zmq.Context[Any], arguments: dict[str, Any], says: str) -> None:
    """Mistakes are told before anything is bound."""
    with pytest.raises(AgentError, match=says):
        zapd.agent.start(context, **arguments)
    free = context.socket(zmq.REP)
    free.bind(ZAP_ENDPOINT)
    free.close()


def test_start_needs_a_living_context(tmp_path: Path) -> None:
    """Something that is no context, or one that has ended."""
    ended: zmq.Context[Any] = zmq.Context()
    ended.term()
    with pytest.raises(AgentError, match="terminated"):
        zapd.agent.start(ended, None, endpoints=[NOBODY])
    with pytest.raises(AgentError, match=r"zmq\.Context"):
        zapd.agent.start("context", None, endpoints=[NOBODY])  # type: ignore[arg-type]


def test_addresses_may_be_plain_text(context: zmq.Context[Any]) -> None:
    """Local endpoints can be given as strings; the agent shows what it asks, and no more."""
    agent = zapd.agent.start(context, None, endpoints=["tcp://127.0.0.1:1", "ipc:///nowhere/zap.sock"])
    assert agent.endpoints == ("tcp://127.0.0.1:1", "ipc:///nowhere/zap.sock")
    assert agent.alive
    assert not agent.wait_connected(0.05)
    assert "tcp://127.0.0.1:1" in repr(agent)


def test_a_context_can_come_back(tmp_path: Path) -> None:
    """After a context has ended, its thread is gone, and a new context takes a new agent."""
    for _ in range(5):
        context: zmq.Context[Any] = zmq.Context()
        agent = zapd.agent.start(context, None, endpoints=[NOBODY])
        context.term()
        assert not agent.alive
    assert not [each for each in threading.enumerate() if each.name == "zapd-agent" and each.is_alive()]
