"""Mechanisms by themselves: the registry, PLAIN's octets, and dialogues over a pair of pipes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import FrozenInstanceError
from threading import Thread

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.gssapi_fake import ALICE, Realm
from support.zmtp_pairs import Pair, ToyClient, ToyServer, messages_of

from zapd.errors import Conflict, InvalidInput, NotFound
from zapd.zmtp.connection import Connection
from zapd.zmtp.credentials import CurveCredentials, GssapiCredentials, NullCredentials, PlainCredentials
from zapd.zmtp.handshake import CredentialsLike, Handshake, Mechanism, PeerError, Session
from zapd.zmtp.mechanisms import lookup, names, register, run
from zapd.zmtp.mechanisms.gssapi import GssapiClient, GssapiServer
from zapd.zmtp.mechanisms.null import NullClient, NullServer
from zapd.zmtp.mechanisms.plain import PlainClient, PlainServer, encode_hello, parse_hello

REALM = Realm()


@pytest.fixture(scope="module")
def toy() -> str:
    """A third party's mechanism, registered once."""
    register("TOY", server=ToyServer, client=ToyClient)
    return "TOY"


def test_the_built_in_mechanisms_are_found_by_name() -> None:
    """What makes each side of NULL and PLAIN."""
    assert {"NULL", "PLAIN"} <= set(names())
    assert lookup("NULL").server is NullServer
    assert lookup("PLAIN").client is PlainClient


def test_a_third_partys_mechanism_runs_like_our_own(toy: str) -> None:
    """Registered, looked up, and driven through a handshake and sealed traffic by the same engine."""
    registered = lookup(toy)
    assert toy in names()
    pair = Pair(Connection(registered.client(), "REQ"), Connection(registered.server(), "REP")).handshake()
    pair.client.send_messages([[b"", b"question"]])
    pair.pump()
    assert messages_of(pair.server_events) == [[b"", b"question"]]
    assert b"question" not in pair.to_server


def test_nothing_may_stand_in_for_a_mechanism(toy: str) -> None:
    """A name is given once, built-in or not."""
    for name in ("NULL", toy):
        with pytest.raises(Conflict, match=name):
            register(name, server=ToyServer, client=ToyClient)


@pytest.mark.parametrize("name", ["", "null", "A B", "A" * 21, "Ä", "A\0"])
def test_a_name_must_fit_the_greeting(name: str) -> None:
    """RFC 23: 1 to 20 of a few upper-case characters."""
    with pytest.raises(InvalidInput, match="1 to 20"):
        register(name, server=ToyServer, client=ToyClient)


def test_an_unknown_name_is_answered_with_the_known_ones() -> None:
    """The error says the mend."""
    with pytest.raises(NotFound, match="NULL"):
        lookup("KERBEROS")


# PLAIN


@given(st.binary(max_size=255), st.binary(max_size=255))
def test_any_name_and_password_pass_through_hello(username: bytes, password: bytes) -> None:
    """Raw octets, none special."""
    credentials = parse_hello(encode_hello(username, password))
    assert credentials == PlainCredentials(username, password)
    assert credentials.frames == (username, password)


@pytest.mark.parametrize(
    "body",
    [
        b"\x05HELLO",
        b"\x05HELLO\x01",
        b"\x05HELLO\x01u",
        b"\x05HELLO\x01u\x02p",
        b"\x05HELLO\xffu\x01p",
        b"\x05HELLO\x01u\x01p!",
        b"\x05HELLO\x00",
    ],
)
def test_a_malformed_hello_is_refused(body: bytes) -> None:
    """No user, no password, a length past the end, or anything behind."""
    with pytest.raises(PeerError, match="malformed HELLO"):
        parse_hello(body)
    assert parse_hello(b"\x05HELLO\x00\x00") == PlainCredentials(b"", b"")


def test_a_password_is_never_printed() -> None:
    """Neither by what carries it nor by what offers it."""
    for secretive in (PlainClient(b"u", b"hunter2"), PlainCredentials(b"u", b"hunter2")):
        assert "hunter2" not in repr(secretive)


def test_mechanisms_are_values() -> None:
    """One may serve many connections, so nothing in it can change."""
    with pytest.raises(FrozenInstanceError):
        PlainClient(b"u", b"p").password = b"q"  # type: ignore[misc]
    for long in ((b"u" * 256, b""), (b"", b"p" * 256)):
        with pytest.raises(InvalidInput, match="255"):
            PlainClient(*long)


def test_a_welcome_with_anything_in_it_is_refused() -> None:
    """WELCOME is eight octets exactly."""
    dialogue = PlainClient(b"u", b"p").handshake(b"")
    next(dialogue)
    next(dialogue)
    with pytest.raises(PeerError, match="malformed WELCOME"):
        dialogue.send(b"\x07WELCOME!")


# Over pipes, without ZMTP


class Pipe:
    """Command bodies over two pipes, each behind its length."""

    def __init__(self, reading: int, writing: int) -> None:
        self._reading, self._writing = reading, writing

    def send(self, body: bytes) -> None:
        os.write(self._writing, len(body).to_bytes(2, "big") + body)

    def receive(self) -> bytes:
        return os.read(self._reading, int.from_bytes(os.read(self._reading, 2), "big"))


@contextmanager
def pipes() -> Iterator[tuple[Pipe, Pipe]]:
    """Two ends that hear each other."""
    (left_in, right_out), (right_in, left_out) = os.pipe(), os.pipe()
    try:
        yield Pipe(left_in, left_out), Pipe(right_in, right_out)
    finally:
        for descriptor in (left_in, right_out, right_in, left_out):
            os.close(descriptor)


Verdict = Callable[[CredentialsLike], int]


def converse(client: Mechanism, server: Mechanism, verdict: Verdict) -> list[Session | PeerError]:
    """Both sides of a dialogue over pipes: what each came to, client first."""

    def side(dialogue: Handshake, pipe: Pipe, judge: Verdict | None) -> Session | PeerError:
        try:
            return run(dialogue, send=pipe.send, receive=pipe.receive, verdict=judge)
        except PeerError as fault:
            return fault

    with pipes() as (left, right):
        results: list[Session | PeerError] = []
        thread = Thread(target=lambda: results.append(side(server.handshake(b"of the server"), right, verdict)))
        thread.start()
        result = side(client.handshake(b"of the client"), left, None)
        thread.join(10)
        return [result, *results]


@pytest.mark.parametrize(
    ("client", "server"),
    [
        (NullClient(), NullServer()),
        (PlainClient(b"u", b"p"), PlainServer()),
        (GssapiClient(REALM.initiate), GssapiServer(REALM.accept)),
        (ToyClient(), ToyServer()),
    ],
)
def test_a_dialogue_needs_no_connection(client: Mechanism, server: Mechanism) -> None:
    """RFC 26 asks that a mechanism run over any transport: here bodies go over a pair of pipes."""
    theirs, ours = converse(client, server, lambda credentials: 200)
    assert isinstance(theirs, Session)
    assert isinstance(ours, Session)
    assert (theirs.metadata, ours.metadata) == (b"of the server", b"of the client")


@pytest.mark.parametrize("status", [400, 500])
def test_a_refusal_is_told_over_pipes_too(status: int) -> None:
    """The server sends ERROR, the client understands it."""
    theirs, ours = converse(PlainClient(b"u", b"p"), PlainServer(), lambda credentials: status)
    assert str(theirs) == f"the peer refused: {status}"
    assert str(ours) == f"refused with {status}"


def test_without_a_verdict_nobody_gets_in() -> None:
    """Whoever asks and gets no answer is put off, in silence."""
    said: list[bytes] = []
    for verdict in (None, lambda credentials: 300):
        with pytest.raises(PeerError, match="refused with 300"):
            run(NullServer().handshake(b""), send=said.append, receive=lambda: b"", verdict=verdict)
    assert said == []


def test_credentials_are_frames_of_a_question() -> None:
    """NULL brings none, PLAIN two, CURVE and GSSAPI one (RFC 27)."""
    assert NullCredentials().frames == ()
    assert PlainCredentials(b"u", b"p").frames == (b"u", b"p")
    assert CurveCredentials(b"k" * 32).frames == (b"k" * 32,)
    assert GssapiCredentials(ALICE).frames == (ALICE,)
