"""The bridge seen from libzmq's side: a hand-made question at the inproc endpoint, a scripted central behind."""

from __future__ import annotations

import os
import socket as system_socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq
from support.agent_app import new_agent
from support.agent_central import Asked, Central, always, new_pair, silent, wait_until

import zapd.agent
from zapd.agent import Agent, Endpoint
from zapd.agent.bridge import COUNTERS, ZAP_ENDPOINT, Bridge
from zapd.agent.upstream import distrust
from zapd.zap import Status, ZapReply, reply_frames

KEY = bytes(range(32))
CURVE = [b"CURVE", KEY]
DEADLINE = 0.4


class Libzmq:
    """Asks as libzmq does, one socket for each connection, and waits for the six frames of a reply."""

    def __init__(self, context: zmq.Context[Any], agent: Agent) -> None:
        self.context = context
        self.agent = agent
        self.sockets: list[zmq.Socket[bytes]] = []

    def send(self, body: list[bytes]) -> zmq.Socket[bytes]:
        socket = self.context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(ZAP_ENDPOINT)
        socket.send_multipart([b"", *body])
        self.sockets.append(socket)
        return socket

    def ask(
        self, credentials: list[bytes] = CURVE, domain: bytes = b"orders", timeout: float = 5.0
    ) -> list[bytes]:
        return self.answer(self.send(question(credentials, domain)), timeout)

    def answer(self, socket: zmq.Socket[bytes], timeout: float = 5.0) -> list[bytes]:
        assert socket.poll(int(timeout * 1000)), "no answer"
        delimiter, *frames = socket.recv_multipart()
        assert delimiter == b""
        return frames

    def status(self, credentials: list[bytes] = CURVE) -> bytes:
        return self.ask(credentials)[2]

    def count(self, name: str) -> int:
        return self.agent.counters[name]


def question(credentials: list[bytes], domain: bytes = b"orders", request_id: bytes = b"1") -> list[bytes]:
    return [b"1.0", request_id, domain, b"127.0.0.1", b"", *credentials]


class Bench:
    """Makes agents in contexts of their own, and clears them away."""

    def __init__(self) -> None:
        self.made: list[Libzmq] = []

    def __call__(self, *endpoints: Endpoint | str, **options: Any) -> Libzmq:
        context: zmq.Context[Any] = zmq.Context()
        keys = options.pop("keys", None)
        options.setdefault("deadline", DEADLINE)
        agent = zapd.agent.start(context, keys, endpoints=endpoints, **options)
        self.made.append(Libzmq(context, agent))
        return self.made[-1]


@pytest.fixture
def libzmq() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    for each in bench.made:
        for socket in each.sockets:
            socket.close()
        each.context.term()
        assert not each.agent.alive


@pytest.fixture
def central() -> Iterator[Central]:
    with Central(known={(KEY,)}) as central:
        yield central


# --- answers ----------------------------------------------------------------------------------------------


def test_carries_question_and_answer(libzmq: Bench, central: Central) -> None:
    """The question reaches zapd behind a 16-octet id; zapd's user id and metadata reach libzmq unchanged."""
    metadata = b"\x08X-Zapd-K\x00\x00\x00\x01k"
    central.script = lambda central, asked: [asked.reply(b"200", b"alice", metadata)]
    one = libzmq(central.address)
    assert one.ask() == [b"1.0", b"1", b"200", b"OK", b"alice", metadata]
    (asked,) = central.asked
    assert len(asked.question_id) == 16
    assert asked.envelope[-1] == b""
    assert len(asked.envelope) == 3  # the connection's own address, the question id, the delimiter
    assert asked.body == question(CURVE)


@pytest.mark.parametrize(
    ("status", "counter"), [(b"200", "granted"), (b"300", "deferred"), (b"400", "refused"), (b"500", "failed")]
)
def test_each_status_is_passed_on(libzmq: Bench, central: Central, status: bytes, counter: str) -> None:
    """zapd's status is libzmq's status; a refusal brings neither user id nor metadata along."""
    central.script = lambda central, asked: [asked.reply(status, b"alice", b"")]
    one = libzmq(central.address)
    answer = one.ask()
    assert answer[2] == status
    assert answer[4] == (b"alice" if status == b"200" else b"")
    assert one.count(counter) == 1


def test_every_question_has_its_own_id(libzmq: Bench, central: Central) -> None:
    """Hundreds at once, all called 1 by libzmq, each get the answer to their own key."""
    central.script = lambda central, asked: [asked.reply(b"200", asked.body[6].hex().encode())]
    one = libzmq(central.address, deadline=5.0)
    keys = [os.urandom(32) for _ in range(300)]
    sockets = [one.send(question([b"CURVE", key])) for key in keys]
    for key, socket in zip(keys, sockets, strict=True):
        assert one.answer(socket)[4] == key.hex().encode()
    assert len({asked.question_id for asked in central.asked}) == 300


@pytest.mark.parametrize("status", [b"300", b"400", b"401", b"500"])
def test_gssapi_refusals_leave_in_the_form_libzmq_obeys(libzmq: Bench, central: Central, status: bytes) -> None:
    """For GSSAPI everything but 200 becomes a status that libzmq cannot read, without a user id."""
    central.script = lambda central, asked: [[*asked.envelope, b"1.0", b"1", status, b"Access denied", b"", b""]]
    answer = libzmq(central.address).ask([b"GSSAPI", b"alice@EXAMPLE.ORG"])
    assert answer[2] == b"401"
    assert answer[4] == b""


@pytest.mark.parametrize(("status", "counter"), [(Status.REFUSED, "refused"), (Status.TRY_AGAIN, "deferred")])
def test_gssapi_refusals_are_held_until_the_deadline(
    libzmq: Bench, central: Central, status: Status, counter: str
) -> None:
    """libzmq's client is back at once behind them; they are counted as what they are, and nothing that comes
    behind one counts."""
    refusal = reply_frames(ZapReply(status), b"1", "GSSAPI")
    grant = reply_frames(ZapReply(Status.GRANTED, b"alice"), b"1", "GSSAPI")
    central.script = lambda central, asked: [[*asked.envelope, *refusal], [*asked.envelope, *grant]]
    one = libzmq(central.address)
    started = time.monotonic()
    answer = one.ask([b"GSSAPI", b"alice@EXAMPLE.ORG"])
    assert time.monotonic() - started > DEADLINE / 2
    assert answer == refusal
    assert one.count(counter) == one.count("double") == 1
    assert one.count("unanswered") == one.count("malformed_replies") == 0
    assert len(central.asked) == 1


def test_gssapi_without_zapd_is_refused_likewise(libzmq: Bench) -> None:
    """The agent's own 300 takes the same form: libzmq would admit the peer otherwise."""
    assert libzmq("tcp://127.0.0.1:1").status([b"GSSAPI", b"alice@EXAMPLE.ORG"]) == b"401"


def test_gssapi_grant_is_passed_on(libzmq: Bench, central: Central) -> None:
    """A 200 is a 200 for GSSAPI too."""
    central.script = always(b"200")
    assert libzmq(central.address).status([b"GSSAPI", b"alice@EXAMPLE.ORG"]) == b"200"


# --- replies that do not count ----------------------------------------------------------------------------


def test_late_reply_is_dropped(libzmq: Bench, central: Central) -> None:
    """After the deadline libzmq has 300, and a 200 that comes then changes nothing (R13)."""
    central.script = always(b"200")
    central.delay = DEADLINE + 0.3
    one = libzmq(central.address)
    socket = one.send(question(CURVE))
    assert one.answer(socket)[2] == b"300"
    assert wait_until(lambda: one.count("late"))
    assert not socket.poll(50)
    assert one.count("unanswered") == 1
    assert one.count("granted") == 0


def test_second_reply_is_dropped(libzmq: Bench, central: Central) -> None:
    """The first reply is the answer; a 200 that follows a 400 is counted and dropped (R13)."""
    central.script = lambda central, asked: [asked.reply(b"400"), asked.reply(b"200")]
    one = libzmq(central.address)
    socket = one.send(question(CURVE))
    assert one.answer(socket)[2] == b"400"
    assert wait_until(lambda: one.count("double"))
    assert not socket.poll(50)


def test_foreign_id_is_dropped(libzmq: Bench, central: Central) -> None:
    """A 200 under an id that nobody asked admits nobody (R11, R13)."""

    def foreign(central: Central, asked: Asked) -> list[list[bytes]]:
        return [Asked([*asked.envelope[:-2], os.urandom(16), b""], asked.body).reply(b"200")]

    central.script = foreign
    one = libzmq(central.address)
    assert one.status() == b"300"
    assert one.count("foreign") == 1


def test_a_reply_from_a_zapd_that_was_not_asked_is_dropped(
    libzmq: Bench, central: Central, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id overheard elsewhere is worth nothing: only who was asked may answer."""
    central.script = silent
    with Central(script=always(b"400")) as other:
        one = libzmq(central.address, other.address)
        assert wait_until(lambda: one.count("links") == 2)
        assert one.status() == b"400"  # after a moment, from the other one, which is preferred from now on
        monkeypatch.setattr("zapd.agent.bridge.NEXT_AFTER", 60.0)
        other.script = silent
        socket = one.send(question(CURVE))
        assert wait_until(lambda: len(other.asked) == 2)
        (mine,) = central.asked
        stolen = Asked([mine.envelope[0], other.asked[1].question_id, b""], mine.body)
        central.outbox.append(stolen.reply(b"200"))
        assert wait_until(lambda: one.count("foreign"))
        assert one.answer(socket)[2] == b"300"


@pytest.mark.parametrize(
    "garble",
    [
        lambda asked: [*asked.envelope],
        lambda asked: asked.reply(b"200")[:-1],
        lambda asked: [*asked.reply(b"200"), b"more"],
        lambda asked: [*asked.envelope, b"2.0", b"1", b"200", b"OK", b"", b""],
        lambda asked: [*asked.envelope, b"1.0", b"2", b"200", b"OK", b"", b""],
        lambda asked: [*asked.envelope, b"1.0", b"1", b"201", b"OK", b"", b""],
        lambda asked: [*asked.envelope, b"1.0", b"1", b"401", b"Access denied", b"", b""],
        lambda asked: [*asked.envelope, b"1.0", b"1", b"0200", b"OK", b"", b""],
        lambda asked: [*asked.envelope, b"1.0", b"1", b"\xb2\xb2\xb2", b"OK", b"", b""],
        lambda asked: [*asked.envelope, b"1.0", b"1", b"200", b"OK", b"u" * 256, b""],
        lambda asked: [*asked.envelope, b"ZAPD/1", b"1", b"200", b"OK", b"", b""],
        lambda asked: [asked.envelope[0], asked.question_id, b"x", *asked.reply(b"200")[3:]],
        lambda asked: [asked.envelope[0], b"", *asked.reply(b"200")[3:]],
    ],
    ids=range(13),
)
def test_garbage_is_no_answer(libzmq: Bench, central: Central, garble: Any) -> None:
    """Whatever is not exactly a reply to this question is dropped; the deadline says 300."""
    central.script = lambda central, asked: [garble(asked)]
    one = libzmq(central.address)
    assert one.status() == b"300"
    assert one.count("granted") == 0
    assert one.count("malformed_replies") == 1
    central.script = always(b"200")
    assert one.status() == b"200"


# --- questions that are none ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ([], None),
        ([b"1.0"], None),
        ([b"1.0", b"1"], b"500"),
        ([b"2.0", b"1", b"orders", b"127.0.0.1", b"", b"NULL"], b"500"),
        ([b"1.0", b"x" * 256, b"orders", b"127.0.0.1", b"", b"NULL"], None),
        (question([b"CURVE"]), b"500"),
        (question([b"CURVE", b"short"]), b"500"),
        (question([b"PLAIN", b"alice"]), b"500"),
        (question([b"GSSAPI"]), b"401"),
        (question([b"MAGIC", b"x"]), b"500"),
        (question([b"NULL"], domain=b"d" * 256), b"500"),
    ],
    ids=range(11),
)
def test_malformed_questions(libzmq: Bench, central: Central, body: list[bytes], status: bytes | None) -> None:
    """A broken question is answered 500 where there is an id to echo, else not at all; the next one is fine."""
    central.script = always(b"200")
    one = libzmq(central.address)
    socket = one.send(body)
    if status is None:
        assert wait_until(lambda: one.count("malformed_questions"))
        assert not socket.poll(50)
    else:
        assert one.answer(socket)[2] == status
    assert central.asked == []
    assert one.status() == b"200"


def test_a_question_without_delimiter(libzmq: Bench, central: Central) -> None:
    """Nothing to echo, nothing answered, nothing broken."""
    one = libzmq(central.address)
    socket = one.send([])
    socket.send(b"no delimiter")
    assert wait_until(lambda: one.count("malformed_questions") == 2)
    assert one.status() == b"200"


@pytest.mark.parametrize("body", [question([b"NULL"], domain=b"a\0b"), question([b"PLAIN", b"a\nb", b"pw"])])
def test_bad_names_are_left_to_zapd(libzmq: Bench, central: Central, body: list[bytes]) -> None:
    """A name that no rule admits goes on to zapd, which refuses it and keeps the record."""
    one = libzmq(central.address)
    assert one.answer(one.send(body))[2] == b"400"
    assert [asked.body for asked in central.asked] == [body]


# --- outages ----------------------------------------------------------------------------------------------


def test_without_zapd_300_at_the_deadline(libzmq: Bench) -> None:
    """Nobody there: 300, not later than the deadline and a bit."""
    one = libzmq("tcp://127.0.0.1:1")
    started = time.monotonic()
    assert one.status() == b"300"
    assert time.monotonic() - started < 2.0
    assert one.count("unanswered") == 1


def test_a_zapd_that_comes_within_the_deadline_answers(libzmq: Bench, central: Central) -> None:
    """A question waits for a link instead of sending its client away for five seconds."""
    address = central.address
    central.stop()
    one = libzmq(address, deadline=8.0)
    socket = one.send(question(CURVE))
    assert not socket.poll(200)
    central.start()
    assert one.answer(socket, 8)[2] == b"200"


def test_a_restart_under_way_loses_nothing(libzmq: Bench, central: Central) -> None:
    """zapd dies with the question in its hands: it is asked again, under the same id, when it is back."""
    central.script = silent
    one = libzmq(central.address, deadline=8.0)
    socket = one.send(question(CURVE))
    assert wait_until(lambda: central.asked)
    central.stop()
    central.script = always(b"200")
    central.start()
    assert one.answer(socket, 8)[2] == b"200"
    assert len({asked.question_id for asked in central.asked}) == 1
    assert one.count("asked_again") >= 1


def test_full_table_says_300_at_once(libzmq: Bench, central: Central) -> None:
    """More open questions than the table holds: the surplus hears 300 at once, the others keep their chance."""
    central.script = silent
    one = libzmq(central.address, deadline=3.0, max_questions=5)
    first = [one.send(question(CURVE)) for _ in range(5)]
    assert wait_until(lambda: len(central.asked) == 5)
    assert one.ask(timeout=2.0)[2] == b"300"
    assert one.count("overflow") == 1
    for socket in first:
        assert one.answer(socket)[2] == b"300"


@pytest.mark.parametrize("state", ["silent", "absent"])
def test_fails_over_to_the_next_zapd(libzmq: Bench, central: Central, state: str) -> None:
    """A hung or missing first zapd costs a moment; the question goes on under the same id."""
    with Central(script=silent) as hung:
        if state == "absent":
            hung.stop()
        one = libzmq(hung.address, central.address, deadline=3.0)
        if state == "silent":  # before there is a link the other one would be asked at once
            assert wait_until(lambda: one.count("links") == 2)
        assert one.status() == b"200"
        if state == "silent":
            assert central.asked[0].question_id == hung.asked[0].question_id
            assert one.count("asked_again") == 1
        # The one that answered is asked first from now on.
        before = len(hung.asked)
        assert one.status() == b"200"
        assert len(hung.asked) == before


def test_a_zapd_lost_under_way_is_replaced_at_once(libzmq: Bench, central: Central) -> None:
    """Its link breaks while it holds questions: the other zapd answers all of them."""
    with Central(script=silent) as dying:
        one = libzmq(dying.address, central.address, deadline=5.0)
        assert wait_until(lambda: one.count("links") == 2)
        sockets = [one.send(question(CURVE)) for _ in range(20)]
        assert wait_until(lambda: dying.asked)
        dying.stop()
        assert {one.answer(socket)[2] for socket in sockets} == {b"200"}


# --- the agent's own faults -------------------------------------------------------------------------------


def test_an_exception_inside_does_not_unbind(
    libzmq: Bench, central: Central, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in the agent's logic ends in 300 while it lasts, and heals; the endpoint stays bound throughout."""
    one = libzmq(central.address)
    assert one.status() == b"200"

    def broken(*_: object) -> None:
        raise RuntimeError("planted")

    with monkeypatch.context() as patch:
        patch.setattr(Bridge, "_ask", broken)
        assert one.status() == b"300"
        late = one.context.socket(zmq.REP)
        with pytest.raises(zmq.ZMQError, match="in use"):
            late.bind(ZAP_ENDPOINT)
        late.close()
        assert one.count("faults") >= 1
    assert wait_until(lambda: one.status() == b"200")


def test_a_turn_that_never_works_still_refuses(
    libzmq: Bench, central: Central, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even with the whole loop broken, questions get 300 and the context can end."""
    one = libzmq(central.address)
    assert one.status() == b"200"

    def broken(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Bridge, "_turn", broken)
    assert one.status() == b"300"
    assert one.status([b"GSSAPI", b"x"]) == b"401"
    monkeypatch.setattr(Bridge, "_refuse_queued", broken)
    seen = one.count("faults")
    assert wait_until(lambda: one.count("faults") > seen + 3)  # so that no earlier round is still under way
    socket = one.send(question(CURVE))
    assert not socket.poll(300), "silence, which refuses as well"


def test_killing_the_thread_does_not_kill_it(
    libzmq: Bench, central: Central, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SystemExit raised in the thread is one more fault: it answers on."""
    # Raised from inside: thrown in by PyThreadState_SetAsyncExc it reaches a thread that waits in libzmq only when
    # that wait ends, and until then CPython 3.11 under a tracer (coverage) lets no thread enter a function.
    one = libzmq(central.address)
    assert one.status() == b"200"
    kills = iter([SystemExit, KeyboardInterrupt, SystemExit])
    turn = Bridge._turn

    def killed(bridge: Bridge) -> None:
        for kind in kills:
            raise kind
        turn(bridge)

    monkeypatch.setattr(Bridge, "_turn", killed)
    one.status()  # whatever it says, the thread has turned since
    assert wait_until(lambda: one.count("faults") == 3)
    assert one.agent.alive
    assert wait_until(lambda: one.status() == b"200")


def test_no_credential_reaches_the_log(
    libzmq: Bench, central: Central, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even a fault in the middle of a PLAIN question shows its password."""
    one = libzmq(central.address)

    def broken(bridge: Bridge, asked: Any, now: float) -> None:
        raise ValueError(repr(asked))

    monkeypatch.setattr(Bridge, "_ask", broken)
    assert one.status([b"PLAIN", b"alice", b"hunter2-canary"]) == b"300"
    assert "own fault" in caplog.text
    assert "hunter2" not in caplog.text


# --- trust ------------------------------------------------------------------------------------------------


def test_pinned_key(libzmq: Bench) -> None:
    """With the right pinned key the link comes up and questions are answered."""
    server = new_pair()
    with Central(server=server, script=always(b"200")) as central:
        keys = new_agent(Endpoint(central.address, (server.public,)))
        assert libzmq(*keys.endpoints, keys=keys, deadline=3.0).status() == b"200"


@pytest.mark.parametrize("rogue", ["other key", "no key"])
def test_a_rogue_is_never_asked(libzmq: Bench, rogue: str) -> None:
    """Who cannot prove the pinned key sees no question; the real one is found when it is back (R12)."""
    server = new_pair()
    key = new_pair() if rogue == "other key" else None
    impostor = Central(server=key, script=always(b"200")).start()
    keys = new_agent(Endpoint(impostor.address, (server.public,)))
    one = libzmq(*keys.endpoints, keys=keys)
    assert [one.status() for _ in range(3)] == [b"300"] * 3
    assert impostor.asked == []
    assert one.count("handshakes_failed") >= 1
    impostor.stop()
    with Central(server=server, script=always(b"200"), address=impostor.address):
        assert wait_until(lambda: one.status() == b"200")


def test_the_next_server_key_is_tried(libzmq: Bench) -> None:
    """While zapd changes its key, both are pinned, and the agent finds the one that fits."""
    server = new_pair()
    with Central(server=server, script=always(b"200")) as central:
        keys = new_agent(Endpoint(central.address, (new_pair().public, server.public)))
        one = libzmq(*keys.endpoints, keys=keys, deadline=5.0)
        assert one.status() == b"200"


def test_an_agent_enrolled_later_connects_by_itself(libzmq: Bench) -> None:
    """zapd's 400 is final for libzmq; the agent tries on, and is in once it is enrolled. Then it is revoked."""
    server = new_pair()
    with Central(server=server, script=always(b"200"), agents=set()) as central:
        keys = new_agent(Endpoint(central.address, (server.public,)))
        one = libzmq(*keys.endpoints, keys=keys)
        assert wait_until(lambda: one.count("handshakes_failed") >= 2)
        assert one.status() == b"300"
        assert central.agents is not None
        central.agents.add(keys.public_key)
        assert wait_until(lambda: one.status() == b"200")
        central.agents.clear()
        central.stop()
        central.start()
        assert wait_until(lambda: one.status() == b"300")
        assert not one.agent.connected


def test_ipc_by_its_file(libzmq: Bench, tmp_path: Path) -> None:
    """Without keys an ipc endpoint is believed by its file's owner, looked at before each connection."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o750)
    path = directory / "zap.sock"
    one = libzmq(Endpoint(f"ipc://{path}"), deadline=4.0)
    with Central(script=always(b"200"), address=f"ipc://{path}"):
        assert one.status() == b"200"
    path.unlink(missing_ok=True)
    with Central(script=always(b"200"), address=f"ipc://{path}"):
        assert one.status() == b"200"


def test_distrust(tmp_path: Path) -> None:
    """A link, a plain file, a playground directory, a foreign owner: each is a reason not to connect (R12)."""
    directory = tmp_path / "run"
    directory.mkdir(mode=0o750)
    path = directory / "zap.sock"
    assert "nobody listens" in distrust(str(path), None)
    with system_socket.socket(system_socket.AF_UNIX) as listener:
        listener.bind(str(path))
        assert distrust(str(path), None) == ""
        assert distrust(str(path), os.geteuid()) == ""
        assert "belongs to uid" in distrust(str(path), os.geteuid() + 1)
        assert "no user" in distrust(str(path), "nobody-of-that-name")
        link = directory / "link.sock"
        link.symlink_to(path)
        assert "not a socket" in distrust(str(link), None)
        plain = directory / "plain"
        plain.touch()
        assert "not a socket" in distrust(str(plain), None)
        directory.chmod(0o777)
        assert "everybody may write" in distrust(str(path), None)
        directory.chmod(0o750)
        if os.geteuid() == 0:
            os.chown(path, 12345, 12345)
            assert "belongs to uid 12345" in distrust(str(path), None)


def test_counters_are_all_there(libzmq: Bench) -> None:
    """The counters are a plain dict with every name from the start, and a copy."""
    one = libzmq("tcp://127.0.0.1:1")
    counters = one.agent.counters
    assert type(counters) is dict
    assert set(counters) >= set(COUNTERS)
    counters["granted"] = 99
    assert one.count("granted") == 0


@pytest.mark.parametrize("name", COUNTERS)
def test_counters_are_documented(name: str) -> None:
    """docs/agent.md says what each counter means."""
    page = Path(__file__).parents[2] / "docs" / "agent.md"
    assert f"`{name}`" in page.read_text()
