"""Runs: messages that lie alike, undivided."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.zmtp_pairs import messages_of, null_pair, toy_pair

from zapd.errors import LocalProtocolError
from zapd.zmtp.connection import Connection
from zapd.zmtp.decoding import ClearDecoder, Item
from zapd.zmtp.events import MessagesReceived
from zapd.zmtp.framing import encode_messages
from zapd.zmtp.limits import DEFAULT_LIMITS
from zapd.zmtp.mechanisms.null import NullClient
from zapd.zmtp.run import ENOUGH, Run, Shape


@given(st.lists(st.tuples(st.binary(min_size=3, max_size=3), st.just(b""), st.binary(min_size=5, max_size=5))))
def test_a_run_is_the_sequence_of_its_messages(sent: list[tuple[bytes, ...]]) -> None:
    """It can be counted, walked, and taken apart by number and slice."""
    messages = [list(parts) for parts in sent]
    run = Run(encode_messages(messages), Shape((3, 0, 5)))
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
    shape = Shape((2, 0, 4))
    data = bytearray(encode_messages([[b"ab", b"", b"cdef"]] * number))
    expected = number
    if data:
        place %= len(data)
        if place % shape.size in (0, 1, 4, 5, 6, 7) and data[place] != octet:
            expected = place // shape.size
        data[place] = octet
    assert shape.count(bytes(data), 0) == expected
    assert shape.count(b"ahead" + bytes(data), 5) == expected
    assert shape.count(bytes(data[:-1]), 0) == min(expected, max(number - 1, 0))


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
