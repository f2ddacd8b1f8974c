"""Everything hostile that strangers can do to a zapd, each as a function that comes back when they have gone."""

from __future__ import annotations

import struct
from collections.abc import Callable
from contextlib import suppress

from support.hostile_halfway import STAGES, HalfOpen, hear_all, opening
from support.hostile_scene import PASSWORD, Scene
from support.hostile_wire import Ended, Stranger, dial, question, raw_frame, raw_message
from support.hostile_zap import kinds, mutations
from support.net_wire import command, greeting

from zapd.zmtp.keys import generate_keypair
from zapd.zmtp.mechanisms.curve import CurveClient
from zapd.zmtp.mechanisms.plain import PlainClient


def questions(scene: Scene) -> None:
    """Everything hostile that can be asked."""
    with scene.stranger() as asking:
        asking.send(*[message for _name, message in kinds(scene.alice)])
        asking.send(*[message for _name, message in mutations(scene.alice, 300)])
        asking.linger(0.3)


def passwords(scene: Scene) -> None:
    """More password hashes than there is room for, their askers gone before the answer."""
    with scene.stranger() as asking:
        asking.send(*[question(b"1", b"staff", b"PLAIN", (b"u%d" % number, PASSWORD)) for number in range(70)])
    with suppress(Ended):
        Stranger(scene.plain, PlainClient(b"nobody", PASSWORD))


def half_open(scene: Scene) -> None:
    """Handshakes that end at every stage."""
    octets = opening(CurveClient(scene.server_key(), generate_keypair()[1]))
    crowd = [
        HalfOpen(scene.curve, STAGES[number % len(STAGES)], octets, f"127.0.2.{1 + number % 9}")
        for number in range(90)
    ]
    hear_all(crowd, 0.05)
    for each in crowd:
        each.close()


def half_messages(scene: Scene) -> None:
    """CVE-2021-20234: parts without an end, large ones, and away."""
    for _ in range(10):
        with scene.stranger() as leaving:
            leaving.say(raw_frame(bytes(200_000), 1) * 4 + b"\x03" + struct.pack(">Q", 100_000) + bytes(50_000))


def old_versions(scene: Scene) -> None:
    """CVE-2021-20235: ZMTP 1.0 and 2.0 peers with lengths that lie."""
    for endpoint in scene.zapd.zap:
        for octets in (
            b"\xff\x7f\xff\xff\xff\xff\xff\xff\xff\x00" + bytes(60_000),
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00" + bytes(1000),
            b"\xff" + bytes(7) + b"\x01\x7f\x01\x05\x00\xff" + bytes(1000),
        ):
            with dial(endpoint) as sock, suppress(OSError):
                sock.sendall(octets)
                sock.recv(4096)


def subscriptions(scene: Scene) -> None:
    """CVE-2021-20236: topics that would be deep tries, on a socket that has none."""
    with scene.stranger() as asking:
        for length in range(1, 400, 7):
            asking.say(command(b"SUBSCRIBE", b"a" * length) + command(b"CANCEL", b"a" * length))
            asking.say(raw_message([b"\x01" + b"a" * length]))


def metadata(scene: Scene) -> None:
    """CVE-2021-20237: handshakes with all the metadata that fits, as every socket type, again and again."""
    ballast = b"\x05X-Bal" + struct.pack(">I", 3000) + bytes(3000)
    for kind in (b"SUB", b"XSUB", b"REQ", b"DEALER", b"ROUTER", b"PEER", b"nonsense"):
        for _ in range(5):
            with dial(scene.null) as sock, suppress(OSError):
                body = b"\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind + ballast
                sock.sendall(greeting() + command(b"READY", body) + raw_message([b"\x01" + bytes(300)]))
                sock.recv(4096)


def strange_domains(scene: Scene) -> None:
    """Names that nobody has asked about before: what is remembered of them is bounded."""
    names = iter(range(1 << 30))
    with scene.stranger() as asking:
        for _ in range(10):
            asking.send(*[question(b"1", b"d%d" % next(names) * 8, b"NULL") for _ in range(400)])
            asking.read(400)


ATTACKS: tuple[Callable[[Scene], None], ...] = (
    questions,
    passwords,
    half_open,
    half_messages,
    old_versions,
    subscriptions,
    metadata,
    strange_domains,
)
