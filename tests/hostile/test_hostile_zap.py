"""Hostile ZAP requests to the real program, each followed by one that must be granted."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence

import pytest
import zmq
from support.hostile_scene import PASSWORD, Scene, status_of
from support.hostile_wire import PATIENCE, Ended, Message, Stranger, question, raw_frame, raw_message, wait_for
from support.hostile_zap import Oracle, bases, kinds, mutations

from zapd.zmtp.keys import encode_key, generate_keypair

pytestmark = pytest.mark.xdist_group("hostile-zap")
"""One worker, one zapd."""

BATCH = 60
MUTATIONS = 2_000


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """One zapd for the whole file: what one attack does to it, the next would notice."""
    scene = Scene.prepare(tmp_path_factory.mktemp("hostile-zap"))
    try:
        yield scene
        scene.is_well()
    finally:
        scene.zapd.stop()


class Attack:
    """Sends hostile messages a batch at a time, a granted question behind each, and judges every reply."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._oracle = Oracle(scene.alice)
        self.wrong: list[str] = []
        self.answers = 0
        self.granted = 0

    def run(self, named: Sequence[tuple[str, Message]]) -> None:
        for start in range(0, len(named), BATCH):
            with self._scene.stranger() as asking:
                self._batch(asking, named[start : start + BATCH])
        assert not self.wrong, f"{len(self.wrong)} faults:\n" + "\n".join(self.wrong[:20])

    def _batch(self, asking: Stranger, named: Sequence[tuple[str, Message]]) -> None:
        due: dict[bytes, str] = {}
        sent: dict[bytes, tuple[str, Message]] = {}
        messages: list[Message] = []
        for number, (name, message) in enumerate(named):
            tag = b"hostile-%d" % number
            tagged = [tag, *message]
            sent[tag] = (name, tagged)
            if self._oracle.expect(tagged).answered:
                due[tag] = name
            follower = b"valid-%d" % number
            due[follower] = f"the valid question behind {name}"
            messages += [tagged, [follower, *self._scene.valid(follower)]]
        asking.send(*messages)
        try:
            while due:
                (reply,) = asking.read(1)
                if reply[0] in sent:
                    self._judge(*sent.pop(reply[0]), reply)
                elif reply[1:5] != [b"", b"1.0", reply[0], b"200"]:
                    self.wrong.append(f"a valid question got {reply}")
                due.pop(reply[0], None)
        except Ended as end:
            self.wrong.append(f"{end}; unanswered: {sorted(due.values())[:5]}")
        for reply in asking.inbox:
            self.wrong.append(f"a reply too many: {reply}")

    def _judge(self, name: str, message: Message, reply: Message) -> None:
        self.answers += 1
        expected = self._oracle.expect(message)
        envelope = message[: message.index(b"") + 1]
        body = message[len(envelope) :]
        rest = reply[len(envelope) :]
        if expected.answered is False:
            self.wrong.append(f"{name}: answered, where there was nothing to echo: {reply}")
        elif reply[: len(envelope)] != envelope or len(rest) != 6 or rest[:2] != [b"1.0", body[1]]:
            self.wrong.append(f"{name}: the envelope or the id did not come back: {reply}")
        elif rest[2] not in expected.statuses:
            self.wrong.append(f"{name}: {rest[2]!r} and not one of {sorted(expected.statuses)}")
        elif rest[2] == b"200":
            self.granted += 1
        elif rest[4:] != [b"", b""]:
            self.wrong.append(f"{name}: a refusal says more than its status: {rest}")


def test_hundreds_of_hostile_kinds_get_no_admission_and_disturb_nobody(scene: Scene) -> None:
    """Frames missing, surplus, empty, swapped; versions, ids, names, addresses, credentials: what has an id is
    answered on its own envelope, and the valid question behind each is granted."""
    named = list(kinds(scene.alice))
    assert len(named) > 200
    attack = Attack(scene)
    attack.run(named)
    assert attack.answers > 200


def test_two_thousand_mutations_get_no_admission_that_the_oracle_would_not_give(scene: Scene) -> None:
    """Random faults in granted questions: 200 only where nothing that counts was changed."""
    attack = Attack(scene)
    attack.run(list(mutations(scene.alice, MUTATIONS)))
    assert attack.granted > 0, "the oracle was never asked about a 200"
    assert attack.answers - attack.granted > MUTATIONS / 4


def _violations() -> dict[str, bytes]:
    granted = raw_message(bases(bytes(32))["NULL"])
    return {
        "a frame of 2^63-1": b"\x02" + struct.pack(">Q", (1 << 63) - 1),
        "a frame of 2^64-1": b"\x03" + struct.pack(">Q", (1 << 64) - 1),
        "a frame of 64 MiB": b"\x02" + struct.pack(">Q", 64 << 20) + bytes(1 << 16),
        "a frame just too long": raw_frame(bytes((1 << 20) + 1)),
        "a message just too long": raw_message([bytes(1 << 19)] * 3),
        "65 frames": raw_message([b"x"] * 65),
        "frames without an end": raw_frame(b"x", 1) * 70,
        "a reserved flag": b"\x08\x01x",
        "a command amid a message": raw_frame(b"x", 1) + raw_frame(b"\x04PING\0\0", 4) + raw_frame(b"x"),
        "a command that goes on": raw_frame(b"\x04PING\0\0", 5),
        "READY once more": raw_frame(b"\x05READY", 4),
        "an ERROR": raw_frame(b"\x05ERROR\x03200", 4),
        "a command too long": raw_frame(b"\x04PING\0\0" + bytes(5000), 4),
        "an empty command": raw_frame(b"", 4),
        "a second greeting": b"\xff" + bytes(8) + b"\x7f\x03\x01NULL" + bytes(48),
        "half a message": granted[:-3],
        "noise": random.Random(7).randbytes(4096),
    }


@pytest.mark.parametrize("octets", _violations().values(), ids=_violations().keys())
def test_broken_framing_ends_its_own_connection_alone(scene: Scene, octets: bytes) -> None:
    """Whoever breaks ZMTP after the handshake, or leaves half-way, is closed or ignored; others are answered."""
    with scene.stranger() as good, scene.stranger() as bad:
        bad.say(octets)
        assert status_of(good.ask(scene.valid(b"beside"))) == b"200"
        assert all(status_of(reply) != b"200" for reply in bad.linger(0.05))
        bad.close()
        assert status_of(good.ask(scene.valid(b"behind"))) == b"200"


def test_a_flood_whose_answers_are_never_read_is_stopped_and_disturbs_nobody(scene: Scene) -> None:
    """Who does not read is not read from: the process keeps a bounded amount for him."""
    before = scene.resident()
    with scene.stranger() as good, scene.stranger() as deaf:
        burst = raw_message([b"e" * 4000, *scene.valid(b"x" * 255)]) * 64
        deaf.sock.setblocking(False)
        written = 0
        try:
            while written < 64 << 20:
                written += deaf.sock.send(burst)
        except OSError:  # it takes no more, or has closed
            pass
        for number in range(50):
            assert status_of(good.ask(scene.valid(b"%d" % number))) == b"200"
        assert written < 64 << 20, "all was taken from a peer that reads nothing"
    assert scene.resident() - before < 48 << 20


def test_strangers_that_vanish_half_way_leave_nothing(scene: Scene) -> None:
    """Connections cut in the middle of a frame, of a message, of a question: every descriptor comes back."""
    with scene.stranger() as good:
        before = scene.metric("zapd_connections")
        whole = raw_message(scene.valid(b"gone"))
        for cut in range(0, len(whole), 2):
            with scene.stranger() as vanishing:
                vanishing.say(whole[:cut])
        assert status_of(good.ask(scene.valid(b"still"))) == b"200"
        assert wait_for(lambda: scene.metric("zapd_connections") <= before)


def test_one_id_from_everybody_never_crosses(scene: Scene) -> None:
    """120 connections, the id ``1`` and the same envelope on each, slow and quick questions mixed: each reply
    comes on its own connection and says its own user."""
    keys = {f"user-{number}": scene.add_key(f"user-{number}") for number in range(24)}
    names = list(keys)
    strangers: list[Stranger] = []
    try:
        for _ in range(120):
            strangers.append(scene.stranger())
            # Answered, it is no stranger to zapd either: else too many of one source might be in handshake.
            assert status_of(strangers[-1].ask(scene.valid(b"first"))) == b"200"
        for turn in range(4):
            expected: list[list[tuple[bytes, bytes]]] = []
            for number, asking in enumerate(strangers):
                name = names[(number * 7 + turn) % len(names)]
                mine = [(b"200", name.encode()), (b"400", b"")]
                asking.send(
                    question(b"1", b"orders", b"CURVE", (keys[name],), envelope=(b"same", b"")),
                    question(b"1", b"orders", b"CURVE", (bytes(31) + b"\x09",), envelope=(b"same", b"")),
                )
                if number % 40 == turn:
                    # A password takes its time; the answers behind it come first.
                    asking.send(question(b"1", b"staff", b"PLAIN", (b"nobody", PASSWORD), envelope=(b"same", b"")))
                    mine.append((b"400", b""))
                expected.append(mine)
            for asking, mine in zip(strangers, expected, strict=True):
                replies = asking.read(len(mine))
                assert [reply[:4] for reply in replies] == [[b"same", b"", b"1.0", b"1"]] * len(mine)
                # A hash pool without room says 300 in place of the last 400.
                got = [(reply[4], reply[6]) for reply in replies]
                assert got[:2] == mine[:2]
                assert all(status in (b"300", b"400") and user == b"" for status, user in got[2:])
    finally:
        for asking in strangers:
            assert not asking.inbox
            asking.close()


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.DEALER])
def test_libzmq_as_the_attacker_is_answered_like_anybody(scene: Scene, kind: int) -> None:
    """The same kinds through a real libzmq, as far as it can say them, as REQ and as DEALER."""
    oracle = Oracle(scene.alice)
    sample = [(name, message) for name, message in kinds(scene.alice) if message[:1] == [b""]][
        :: 9 if kind == zmq.DEALER else 23
    ]
    lead = [] if kind == zmq.REQ else [b""]
    with zmq.Context() as context:
        for name, message in sample:
            body = message[1:]
            if not body:
                continue
            expected = oracle.expect([b"", *body])
            with context.socket(kind) as asking:
                asking.linger = 0
                asking.connect(scene.null)
                asking.send_multipart([*lead, *body])
                if expected.answered:
                    assert asking.poll(int(PATIENCE * 1000)), name
                    reply = asking.recv_multipart()[len(lead) :]
                    assert reply[:2] == [b"1.0", body[1]], name
                    assert reply[2] in expected.statuses, (name, reply)
            with context.socket(zmq.REQ) as asking:
                asking.linger = 0
                asking.connect(scene.null)
                asking.send_multipart(scene.valid(b"after")[1:])
                assert asking.poll(int(PATIENCE * 1000)), f"no answer after {name}"
                assert asking.recv_multipart()[2] == b"200", name


def test_what_no_rule_granted_is_nobodys_by_another_road(scene: Scene) -> None:
    """A key granted in one domain, a password in another, an address in a third: none of it counts elsewhere."""
    roads = [
        question(b"1", domain, mechanism, credentials)
        for domain in (b"orders", b"staff", b"lab", b"zapd.agents", b"", b"other")
        for mechanism, credentials in (
            (b"CURVE", (scene.alice,)),
            (b"PLAIN", (b"bob", PASSWORD)),
            (b"PLAIN", (b"alice", scene.alice.hex().encode())),
            (b"NULL", ()),
            (b"GSSAPI", (b"bob",)),
        )
    ]
    granted = {(b"orders", b"CURVE"), (b"staff", b"PLAIN"), (b"lab", b"NULL")}
    with scene.stranger() as asking:
        for message in roads:
            status = status_of(asking.ask(message))
            allowed = (message[3], message[6]) in granted and b"alice" not in message
            assert (status == b"200") is allowed, (message, status)


def test_an_agent_gets_nothing_outside_its_domains(scene: Scene) -> None:
    """Asked over CURVE by an enrolled agent: its own domain is answered, every other is 300."""
    with Stranger(scene.curve, scene.agent("narrow", ("staff",))) as asking:
        for domain, status in (
            (b"orders", b"300"),
            (b"lab", b"300"),
            (b"zapd.agents", b"300"),
            (b"other", b"300"),
        ):
            for mechanism, credentials in (
                (b"CURVE", (scene.alice,)),
                (b"NULL", ()),
                (b"PLAIN", (b"bob", PASSWORD)),
            ):
                assert status_of(asking.ask(question(b"1", domain, mechanism, credentials))) == status
        assert status_of(asking.ask(question(b"1", b"staff", b"PLAIN", (b"bob", PASSWORD)))) == b"200"
        # GSSAPI's principal is the agent's own word: it was not granted that, and libzmq must read a refusal.
        assert status_of(asking.ask(question(b"1", b"staff", b"GSSAPI", (b"bob",)))) == b"401"


@pytest.mark.parametrize("name", ["local:tcp://127.0.0.1:0", "local:", "a\nb", "\x1b[2J", "x" * 256, ""])
def test_names_like_local_listeners_cannot_be_enrolled(scene: Scene, name: str) -> None:
    """An agent cannot borrow the name under which the journal tells local askers, nor one that breaks a line."""
    public, _secret = generate_keypair()
    wanted = {"name": name, "public_key": encode_key(public), "domains": ["*"]}
    assert scene.zapd.call("POST", "/v1/agents", wanted).status_code == 422
