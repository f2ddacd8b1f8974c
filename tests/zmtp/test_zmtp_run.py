"""Runs: messages that lie alike, undivided."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.zmtp_pairs import messages_of, null_pair, toy_pair

from zapd.errors import LocalProtocolError
from zapd.zmtp.connection import Connection
from zapd.zmtp.decoding import CHANCES, KINDS, ClearDecoder, Item
from zapd.zmtp.events import MessagesReceived
from zapd.zmtp.framing import encode_messages
from zapd.zmtp.limits import DEFAULT_LIMITS
from zapd.zmtp.mechanisms.null import NullClient
from zapd.zmtp.run import ENOUGH, Run, shape_of


@given(st.lists(st.tuples(st.binary(min_size=3, max_size=3), st.just(b""), st.binary(min_size=5, max_size=5))))
def test_a_run_is_the_sequence_of_its_messages(sent: list[tuple[bytes, ...]]) -> None:
    """It can be counted, walked, and taken apart by number and slice."""
    messages = [list(parts) for parts in sent]
    run = Run(encode_messages(messages), shape_of(((3,), (0,), (5,))))
    assert len(run) == len(messages)
    assert list(run) == messages
    assert [run[number] for number in range(len(run))] == messages
    assert run[1:] == messages[1:]
    if messages:
        assert run[-1] == messages[-1]
    with pytest.raises(IndexError):
        run[len(messages)]


@given(st.integers(0, 12), st.integers(0, 200), st.integers(0, 255))
def test_only_whole_messages_of_the_shape_are_counted(number: int, place: int, octet: int) -> None:
    """Up to the first whose headers differ, or that has not come to its end; bodies may hold anything."""
    shape = shape_of(((2,), (0,), (4,)))
    data = bytearray(encode_messages([[b"ab", b"", b"cdef"]] * number))
    expected = number
    if data:
        place %= len(data)
        if place % shape.size in (0, 1, 4, 5, 6, 7) and data[place] != octet:
            expected = place // shape.size
        data[place] = octet
    assert shape.extent(bytes(data), 0) == expected * shape.size
    assert shape.extent(b"ahead" + bytes(data), 5) == 5 + expected * shape.size
    assert shape.extent(bytes(data[:-1]), 0) == min(expected, max(number - 1, 0)) * shape.size


SIZED = st.binary(max_size=20)


@given(st.lists(st.tuples(SIZED, st.just(b""), SIZED, st.just(b"x")), min_size=1), st.binary(max_size=8))
def test_parts_may_differ_in_size(sent: list[tuple[bytes, ...]], rest: bytes) -> None:
    """A shape that has seen two messages knows both, and takes apart what it knows just as it was."""
    messages = [list(parts) for parts in sent]
    shape = shape_of(tuple((len(part),) for part in messages[0]))
    for parts in messages:
        sizes = list(map(len, parts))
        wider = shape.widened(sizes)
        assert wider is not None
        assert wider.has(sizes)
        assert all(set(old) <= set(new) for old, new in zip(shape.sizes, wider.sizes, strict=True))
        shape = wider
    octets = encode_messages(messages)
    assert shape.extent(octets, 0) == len(octets)
    assert shape.parts(octets) == messages
    run = Run(octets, shape)
    assert len(run) == len(messages)
    assert list(run) == messages
    assert len(run) == len(messages)
    assert shape.extent(octets + b"\x01\xff" + rest, 0) == len(octets)


def test_a_shape_has_its_bounds() -> None:
    """Parts too many, too different, or too many of them different: no shape."""
    shape = shape_of(((1,),) * 6)
    assert shape.widened([1] * 5) is None
    assert shape.widened([1] * 5 + [200]) is None
    assert shape.widened([9] * 5 + [1]) is None
    assert shape.widened([9] * 4 + [1, 1]) is not None
    assert shape_of(((0,),)).widened([3]) is shape_of((tuple(range(8)),))
    assert shape_of(((255,),)).widened([250]) is shape_of((tuple(range(248, 256)),))


@given(st.lists(st.lists(st.binary(max_size=300), min_size=1, max_size=3)), st.lists(st.integers(0)))
def test_whatever_was_learned_the_messages_are_the_same(sent: list[list[bytes]], places: list[int]) -> None:
    """Sizes that come and go, long frames between, cut anywhere, twice over."""
    data = encode_messages(sent) * 2
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    items: list[Item] = []
    decoder = ClearDecoder(DEFAULT_LIMITS)
    for start, stop in pairwise(edges):
        decoder.feed(data[start:stop], items)
    assert [parts for item in items for parts in item] == sent * 2


def test_a_peer_of_many_shapes_is_taken_as_it_is() -> None:
    """Shapes are learned so often and no oftener; the messages come all the same."""
    decoder = ClearDecoder(DEFAULT_LIMITS)
    sent = [[bytes(size % 200)] * (1 + size % 12) for size in range(40 * CHANCES)]
    items: list[Item] = []
    for parts in sent:
        decoder.feed(encode_messages([parts]), items)
    assert [parts for item in items for parts in item] == sent
    assert decoder._chances == 0
    assert len(decoder._known) == KINDS


def test_a_decoder_keeps_together_what_lies_alike() -> None:
    """From the third message on, where there are enough; what differs comes as before, in order."""
    alike = [[b"id%d" % number, b"", b"body"] for number in range(2 + ENOUGH)]
    items: list[Item] = []
    decoder = ClearDecoder(DEFAULT_LIMITS)
    decoder.feed(encode_messages([*alike, [b"other"]]), items)
    first, run, last = items
    assert first == alike[:2]
    assert isinstance(run, Run)
    assert list(run) == alike[2:]
    assert last == [[b"other"]]
    assert repr(run) == f"<Run of {ENOUGH} messages of 3 parts>"


def test_frames_that_are_encoded_already_travel_as_they_are() -> None:
    """And come out as the messages they are, once the connection is ready."""
    messages = [[b"a", b""], [b"b" * 300]]
    pair = null_pair()
    pair.server.send_encoded(encode_messages(messages))
    pair.pump()
    assert messages_of(pair.client_events) == messages
    with pytest.raises(LocalProtocolError, match="ready"):
        Connection(NullClient(), "DEALER").send_encoded(b"")


def test_clear_frames_never_leave_a_cipher() -> None:
    """What is encoded already is sealed like all else, and arrives inside the cipher as a run too."""
    pair = toy_pair()
    messages = [[b"envelope", b"", b"%03d" % number] for number in range(3 * ENOUGH)]
    pair.server.send_encoded(encode_messages(messages))
    octets = pair.server.data_to_send()
    assert encode_messages(messages[:1]) not in octets
    pair.client.receive_data(octets)
    events = pair.client.events()
    assert messages_of(events) == messages
    assert any(isinstance(event, MessagesReceived) and isinstance(event.messages, Run) for event in events)
