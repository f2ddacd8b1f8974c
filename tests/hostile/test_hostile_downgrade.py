"""No peer talks a listener out of its mechanism, and no configuration opens it to those who must not reach it."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest
from support.hostile_halfway import opening
from support.hostile_scene import CONFIGURATION, PASSWORD, Scene
from support.hostile_wire import PATIENCE, dial, raw_frame, raw_message
from support.net_wire import command, ready
from support.serving import Zapd

from zapd.config import load
from zapd.config.findings import InvalidConfiguration
from zapd.zmtp.mechanisms.curve import CurveClient

pytestmark = pytest.mark.xdist_group("hostile-downgrade")
"""One worker, one zapd."""

LISTENERS = ("NULL", "CURVE", "PLAIN")
MECHANISMS = ("NULL", "PLAIN", "CURVE", "GSSAPI", "EXTERNAL", "", "null", "CURVE\0NULL", "NULL\0PLAIN")
AT_ONCE = 40
SIGNATURE = b"\xff" + bytes(8) + b"\x7f"


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    scene = Scene.prepare(tmp_path_factory.mktemp("hostile-downgrade"))
    try:
        yield scene
        scene.is_well()
    finally:
        scene.zapd.stop()


@pytest.fixture(scope="module")
def agent(scene: Scene) -> CurveClient:
    return scene.agent("honest")


def greetings() -> dict[str, bytes]:
    """What a peer may open with: versions, mechanisms, and the as-server bit."""
    found = {
        "ZMTP 1.0": raw_frame(b"identity"),
        "ZMTP 1.0, long": b"\xff" + (9).to_bytes(8, "big") + b"\0identity",
        "ZMTP 2.0": SIGNATURE + b"\x01\x05\x00\x00",
        "ZMTP 2.0 by number": SIGNATURE + b"\x02\x00" + b"NULL".ljust(20, b"\0") + bytes(32),
        "ZMTP 0.0": SIGNATURE + b"\x00\x00" + b"NULL".ljust(20, b"\0") + bytes(32),
    }
    for mechanism in MECHANISMS:
        for minor in (0, 1):
            for bit in (0, 1, 2, 255):
                name = f"ZMTP 3.{minor} {mechanism!r} as-server {bit}"
                found[name] = (
                    SIGNATURE + bytes((3, minor)) + mechanism.encode().ljust(20, b"\0") + bytes((bit,)) + bytes(31)
                )
    return found


def plain_hello(user: bytes, password: bytes) -> bytes:
    return command(b"HELLO", bytes((len(user),)) + user + bytes((len(password),)) + password)


def insistence(scene: Scene, agent: CurveClient) -> dict[str, bytes]:
    """All that a peer of each kind would say after its greeting, a granted question last, without listening."""
    asking = raw_message(scene.valid(b"smuggled"))
    initiate = command(b"INITIATE", ready()[8:])
    return {
        "as NULL": ready() + asking,
        "as PLAIN": plain_hello(b"bob", PASSWORD) + initiate + asking,
        "as CURVE": opening(agent)[64:] + initiate + ready() + asking,
        "as nobody": asking,
    }


@pytest.mark.parametrize("listener", LISTENERS)
def test_no_greeting_gets_a_question_past_the_listeners_mechanism(
    scene: Scene, agent: CurveClient, listener: str
) -> None:
    """CVE-2014-7202: every version, mechanism and as-server bit, and then everything that any mechanism would say:
    nothing is answered unless it is the listener's own handshake, and the connection ends."""
    endpoint = scene.zapd.zap[LISTENERS.index(listener)]
    rests = insistence(scene, agent)
    tries = [(name, manner, octets + rests[manner]) for name, octets in greetings().items() for manner in rests]
    for start in range(0, len(tries), AT_ONCE):
        with ExitStack() as stack:
            begun = []
            for name, manner, octets in tries[start : start + AT_ONCE]:
                sock = stack.enter_context(dial(endpoint))
                sock.sendall(octets)
                begun.append((name, manner, sock))
            for name, manner, sock in begun:
                _judge(listener, name, manner, sock)


def _judge(listener: str, name: str, manner: str, sock: socket.socket) -> None:
    # The as-server bit decides nothing: libzmq sends what it likes there, and the mechanism is ours either way.
    own = name.startswith("ZMTP 3.") and f" {listener!r} " in name
    lawful = own and manner == f"as {listener}" and listener != "CURVE"
    heard = b""
    sock.settimeout(PATIENCE)
    with suppress(ConnectionError):
        while b"smuggled" not in heard and (data := sock.recv(65536)):
            heard += data
    assert (b"smuggled" in heard) is lawful, (listener, name, manner, heard)
    if not own:
        assert len(heard) <= 64, (listener, name, manner, heard)


def test_a_refused_greeting_is_counted_and_logged_at_a_pace(scene: Scene, agent: CurveClient) -> None:
    """Whoever watches sees that somebody tries; the log does not fill with it."""
    before = scene.metric('zapd_network_events_total{name="handshakes_protocol"}')
    logged = len(scene.zapd.logged().splitlines())
    began = time.monotonic()
    for _ in range(100):
        with dial(scene.curve) as sock:
            sock.sendall(SIGNATURE + b"\x03\x01" + b"NULL".ljust(20, b"\0") + bytes(32))
            while sock.recv(4096):
                pass
    assert scene.metric('zapd_network_events_total{name="handshakes_protocol"}') == before + 100
    assert len(scene.zapd.logged().splitlines()) - logged <= 2 + (time.monotonic() - began)


UNSAFE = {
    "NULL on every interface": ("NULL", "tcp://*:0"),
    "NULL on 0.0.0.0": ("NULL", "tcp://0.0.0.0:0"),
    "NULL on a public address": ("NULL", "tcp://192.0.2.1:0"),
    "NULL on ::": ("NULL", "tcp://[::]:0"),
    "NULL on mapped 0.0.0.0": ("NULL", "tcp://[::ffff:0.0.0.0]:0"),
    "NULL on a name": ("NULL", "tcp://example.org:0"),
    "PLAIN on every interface": ("PLAIN", "tcp://*:0"),
    "PLAIN on a private address": ("PLAIN", "tcp://10.1.2.3:0"),
    "PLAIN on link-local": ("PLAIN", "tcp://[fe80::1]:0"),
    "admin on every interface": ("admin", "0.0.0.0:0"),
    "admin on *": ("admin", "*:0"),
    "admin on ::": ("admin", "[::]:0"),
    "admin on a private address": ("admin", "10.1.2.3:0"),
    "admin with half of TLS": ("admin", '0.0.0.0:0"\ntls_cert = "x.pem'),
}


def unsafe(name: str) -> tuple[str, range]:
    """A configuration with that endpoint, and the lines at which it stands."""
    what, listen = UNSAFE[name]
    if what == "admin":
        old, new = '[admin]\nlisten = "127.0.0.1:0"', f'[admin]\nlisten = "{listen}"'
    else:
        old = f'listen = "tcp://127.0.0.1:0"\nmechanism = "{what}"'
        new = f'listen = "{listen}"\nmechanism = "{what}"'
    assert CONFIGURATION.count(old) == 1
    first = CONFIGURATION[: CONFIGURATION.index(old)].count("\n") + 1
    return CONFIGURATION.replace(old, new), range(first, first + new.count("\n") + 1)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Zapd:
    """A folder that init filled."""
    return Zapd(tmp_path_factory.mktemp("hostile-unsafe"))


@pytest.mark.parametrize("name", UNSAFE)
def test_an_endpoint_open_to_others_unsecured_is_refused_with_its_line(prepared: Zapd, name: str) -> None:
    """The configuration is not read past it: the mistake names a line of that very endpoint."""
    text, lines = unsafe(name)
    prepared.configure(text)
    with pytest.raises(InvalidConfiguration) as refused:
        load(prepared.config)
    assert all(mistake.line in lines for mistake in refused.value.mistakes), refused.value


@pytest.mark.parametrize("name", ["NULL on every interface", "admin on every interface"])
def test_serve_does_not_start_on_an_unsafe_configuration(prepared: Zapd, name: str) -> None:
    """The program itself ends with 2 and a line number, and listens nowhere before."""
    prepared.configure(unsafe(name)[0])
    refused = prepared.run("serve", "-c", str(prepared.config))
    assert refused.returncode == 2
    assert refused.stdout == ""
    assert re.search(r"line \d+", refused.stderr)
    assert "Traceback" not in refused.stderr
