"""Frames out of a byte stream, however it is cut, and back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.zmtp_pairs import ToyCipher

from zapd.errors import LocalProtocolError
from zapd.zmtp.decoding import ClearDecoder, Decoder, Item, SealedDecoder
from zapd.zmtp.framing import (
    CommandReader,
    encode_command,
    encode_frame,
    encode_message,
    encode_messages,
    seal_command,
    seal_encoded,
    seal_messages,
)
from zapd.zmtp.handshake import BatchCipher, PeerError, in_batches
from zapd.zmtp.limits import Limits

SMALL = Limits(frame=300, parts=4, message=600, command=64)
PARTS = st.lists(st.binary(max_size=300), min_size=1, max_size=4).filter(lambda parts: sum(map(len, parts)) <= 600)


def toy() -> BatchCipher:
    """A cipher that anybody can read, one frame after another."""
    return in_batches(ToyCipher())


def flat(items: list[Item]) -> list[list[bytes] | bytes]:
    """Items with batches taken apart: where a batch ends depends on how the stream was cut."""
    return [entry for item in items for entry in ([item] if isinstance(item, bytes) else item)]


def outcome(decoder: Decoder, pieces: list[bytes]) -> tuple[list[list[bytes] | bytes], str]:
    """All that came out, and the fault that ended it."""
    items: list[Item] = []
    try:
        for piece in pieces:
            decoder.feed(piece, items)
    except PeerError as fault:
        return flat(items), str(fault)
    return flat(items), ""


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """``data`` in pieces."""
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:stop] for start, stop in pairwise(edges)]


@example([[b"short", bytes(255), bytes(256)]])
@given(st.lists(PARTS, max_size=5))
def test_sealing_clear_frames_is_sealing_the_messages(messages: list[list[bytes]]) -> None:
    """Replies that were encoded for anybody travel inside a cipher as if they had been sealed part by part."""
    assert seal_encoded(encode_messages(messages), toy()) == seal_messages(messages, toy())


def test_frames_to_the_octet() -> None:
    """Short to 255, long from 256, MORE on all but the last (RFC 23)."""
    assert encode_message([b"", b"a", b"b"]) == b"\x01\x00\x01\x01a\x00\x01b"
    assert encode_message([b"x" * 255]) == b"\x00\xff" + b"x" * 255
    assert encode_message([b"x" * 256]) == b"\x02\0\0\0\0\0\0\x01\x00" + b"x" * 256
    assert encode_message([b"x" * 256, b""]) == b"\x03\0\0\0\0\0\0\x01\x00" + b"x" * 256 + b"\x00\x00"
    assert encode_command(b"\x05READY") == b"\x04\x06\x05READY"
    assert encode_command(b"x" * 300)[:9] == b"\x06\0\0\0\0\0\0\x01\x2c"
    assert encode_messages([]) == b""


def test_many_messages_are_their_frames_joined() -> None:
    """A batch is the same octets as its messages one by one, long frames or none."""
    short = [[b"a", b"b"], [b""]]
    mixed = [[b"a"], [b"b" * 300, b"c"], [b"d", b"e" * 256]]
    for messages in (short, mixed):
        assert encode_messages(iter(messages)) == b"".join(map(encode_message, messages))


@pytest.mark.parametrize("messages", [[[]], [[b"a"], []]])
def test_a_message_without_parts_is_the_callers_mistake(messages: list[list[bytes]]) -> None:
    """There is no frame for nothing, in clear or sealed."""
    with pytest.raises(LocalProtocolError, match="at least one part"):
        encode_messages(messages)
    with pytest.raises(LocalProtocolError, match="at least one part"):
        seal_messages(messages, toy())


@given(st.lists(PARTS | st.binary(max_size=64), max_size=8), st.lists(st.integers(0, 10_000), max_size=12))
def test_what_is_written_is_read_however_it_is_cut(sent: list[list[bytes] | bytes], places: list[int]) -> None:
    """Messages and commands come back in order and whole, in clear and sealed."""
    clear = b"".join(encode_command(item) if isinstance(item, bytes) else encode_message(item) for item in sent)
    cipher = toy()
    sealed = b"".join(
        seal_command(item, cipher) if isinstance(item, bytes) else seal_messages([item], cipher) for item in sent
    )
    for data, decoder in ((clear, ClearDecoder(SMALL)), (sealed, SealedDecoder(SMALL, toy()))):
        assert outcome(decoder, cut(data, places)) == (sent, "")
        assert decoder.between_messages


FRAMES = st.tuples(
    st.sampled_from([0, 0, 0, 1, 1, 1, 2, 3, 4, 6, 5, 7, 8, 0x80]),
    st.one_of(st.binary(max_size=20), st.integers(250, 700).map(bytes)),
)


def _frame(flags: int, body: bytes) -> bytes:
    if flags & 2:
        return bytes((flags,)) + len(body).to_bytes(8, "big") + body
    return bytes((flags, len(body) % 256)) + body[: len(body) % 256]


@settings(max_examples=300)
@given(st.lists(FRAMES, max_size=12), st.binary(max_size=12), st.lists(st.integers(0, 10_000), max_size=8))
def test_the_outcome_does_not_depend_on_the_cut(
    frames: list[tuple[int, bytes]], tail: bytes, places: list[int]
) -> None:
    """Lawful or not, the same octets give the same items and the same fault in 1, n and single octets."""
    data = b"".join(_frame(*frame) for frame in frames) + tail
    whole = outcome(ClearDecoder(SMALL), [data])
    assert outcome(ClearDecoder(SMALL), cut(data, places)) == whole
    assert outcome(ClearDecoder(SMALL), [data[at : at + 1] for at in range(len(data))]) == whole


LAYOUTS = st.sampled_from([(0,), (3,), (3, 0), (16, 0, 3, 1), (2, 2, 2)])
ALIKE = st.lists(
    st.tuples(LAYOUTS, st.integers(1, 6)).flatmap(
        lambda run: st.lists(
            st.tuples(*(st.binary(min_size=size, max_size=size) for size in run[0])).map(list),
            min_size=run[1],
            max_size=run[1],
        )
    ),
    max_size=6,
).map(lambda runs: [message for run in runs for message in run])
FAULTS = st.sampled_from([b"", b"\x04\x03abc", b"\x08\x00", b"\x05\x00", b"\x01\x00" * 5, b"\x00"])


@given(ALIKE, FAULTS, ALIKE, st.lists(st.integers(0, 10_000), max_size=10))
def test_messages_that_lie_alike_are_read_like_any_other(
    before: list[list[bytes]], between: bytes, behind: list[list[bytes]], places: list[int]
) -> None:
    """Runs of one layout, which the decoder takes apart in one call each, give what a decoder gives that sees
    every octet alone and so never can; faults and commands between them too."""
    data = encode_messages(before) + between + encode_messages(behind)
    slowly = outcome(ClearDecoder(SMALL), [data[at : at + 1] for at in range(len(data))])
    assert outcome(ClearDecoder(SMALL), cut(data, places)) == slowly
    assert outcome(ClearDecoder(SMALL), [data]) == slowly
    if not between:
        assert slowly == ([*before, *behind], "")


def test_a_command_between_the_parts_of_a_message_disturbs_nothing() -> None:
    """RFC 37 lets commands come there; the message stays whole and in its place."""
    data = encode_message([b"first"]) + b"\x01\x01a" + encode_command(b"\x04PONG") + b"\x00\x01b"
    assert outcome(ClearDecoder(SMALL), [data]) == ([[b"first"], b"\x04PONG", [b"a", b"b"]], "")
    cipher = toy()
    data = seal_messages([[b"first"]], cipher) + encode_frame(0, cipher.seal(1, b"a"))
    data += seal_command(b"\x04PONG", cipher) + encode_frame(0, cipher.seal(0, b"b"))
    assert outcome(SealedDecoder(SMALL, toy()), [data]) == ([[b"first"], b"\x04PONG", [b"a", b"b"]], "")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x08\x00", "reserved"),
        (b"\x80\x00", "reserved"),
        (b"\x05\x00", "MORE on a command"),
        (b"\x07" + bytes(8), "MORE on a command"),
        (b"\x0c\x00", "reserved"),
        (b"\x04\x41", "command longer than 64"),
        (b"\x02" + (301).to_bytes(8, "big"), "frame longer than 300"),
        (b"\x03" + (2**63 - 1).to_bytes(8, "big"), "frame longer than 300"),
        (b"\x02" + (2**63).to_bytes(8, "big"), "frame longer than 300"),
        (b"\x02" + (2**64 - 1).to_bytes(8, "big"), "frame longer than 300"),
        (b"\x06" + (2**64 - 1).to_bytes(8, "big"), "command longer than 64"),
        (b"\x01\x00" * 5, "more than 4 parts"),
        (b"\x01\x00" * 4 + b"\x00\x00", "more than 4 parts"),
        (encode_message([b"x" * 250] * 3), "or 600 octets"),
        (encode_message([b"x" * 300] * 2 + [b"y"]), "or 600 octets"),
        (encode_message([b"x" * 300] * 3), "or 600 octets"),
    ],
)
def test_what_breaks_a_rule_or_a_bound_ends_it(data: bytes, reason: str) -> None:
    """What came whole before is still there; sizes are judged when announced, before anything is kept."""
    before = encode_message([b"good"])
    items, fault = outcome(ClearDecoder(SMALL), [before + data])
    assert items == [[b"good"]]
    assert reason in fault


def test_a_message_may_reach_its_bound_exactly() -> None:
    """Headers do not count against the size of a message, nor does a command between its parts."""
    data = b"".join((b"\x01\xc8" + b"x" * 200, encode_command(b"\x04PONG" + b"c" * 16), b"\x01\xc8" + b"y" * 200))
    data += b"\x00\xc8" + b"z" * 200
    items, fault = outcome(ClearDecoder(SMALL), [data])
    assert not fault
    assert items[-1] == [b"x" * 200, b"y" * 200, b"z" * 200]


def test_an_announced_frame_costs_nothing_before_it_comes() -> None:
    """A frame of a mebibyte fed by the octet is held once, and read when it is complete."""
    limits = Limits()
    decoder = ClearDecoder(limits)
    items: list[Item] = []
    size = 70_000
    for octet in encode_frame(0, b"x" * size):
        decoder.feed(bytes((octet,)), items)
    assert items == [[[b"x" * size]]]
    decoder.feed(b"\x02" + limits.frame.to_bytes(8, "big"), items)
    assert len(decoder._pending) == 9
    assert not decoder.between_messages


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x04\x00", "outside the cipher"),
        (b"\x01\x00", "outside the cipher"),
        (b"\x08\x00", "outside the cipher"),
        (b"\x00\x00", "bad box"),
        (b"\x02" + (2**64 - 1).to_bytes(8, "big"), "frame longer than 300"),
        (encode_frame(0, b"TOY\x02" + b"\xfb"), "reserved flags"),
        (encode_frame(0, b"TOY\x02" + b"\xfc"), "reserved flags"),
        (encode_frame(0, b"TOY\x02" + b"\xff" + b"x" * 301), "frame longer than 300"),
        (encode_frame(0, b"TOY\x02" + b"\xfd" + b"x" * 65), "command longer than 64"),
        (b"".join(encode_frame(0, b"TOY" + bytes((n, 0xFE))) for n in range(2, 8)), "more than 4 parts"),
        (b"".join(encode_frame(0, b"TOY" + bytes((n, 0xFE)) + b"x" * 290) for n in range(2, 5)), "or 600 octets"),
    ],
)
def test_sealed_traffic_is_held_to_the_same_rules(data: bytes, reason: str) -> None:
    """Nothing travels outside the cipher, and bounds are those of what was inside."""
    before = seal_messages([[b"good"]], toy())
    items, fault = outcome(SealedDecoder(SMALL, toy()), [before + data])
    assert items == [[b"good"]]
    assert reason in fault


@given(st.binary(max_size=60), st.lists(st.integers(0, 10_000), max_size=8))
def test_sealed_outcomes_do_not_depend_on_the_cut(data: bytes, places: list[int]) -> None:
    """Random octets end the same way however they are cut."""
    data = seal_messages([[b"a", b"b" * 300]], toy()) + data
    whole = outcome(SealedDecoder(SMALL, toy()), [data])
    assert outcome(SealedDecoder(SMALL, toy()), cut(data, places)) == whole


def test_the_handshake_reads_commands_one_at_a_time() -> None:
    """Short and long form alike; what follows stays until it is asked for."""
    reader = CommandReader(300)
    reader.feed(b"\x04")
    assert reader.next() is None
    reader.feed(b"\x03abc\x06\0\0\0\0\0\0\0")
    assert reader.next() == b"abc"
    assert reader.next() is None
    reader.feed(b"\x02d")
    assert reader.next() is None
    assert reader.held == 1
    reader.feed(b"erest")
    assert reader.next() == b"de"
    assert reader.take_rest() == b"rest"
    assert reader.next() is None


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"\x00", "not a command"),
        (b"\x02", "not a command"),
        (b"\x05", "not a command"),
        (b"\x07", "not a command"),
        (b"\x0c", "not a command"),
        (b"\x84", "not a command"),
        (b"\x04\xff", "longer than 200"),
        (b"\x06" + (201).to_bytes(8, "big"), "longer than 200"),
        (b"\x06" + (2**63 - 1).to_bytes(8, "big"), "longer than 200"),
        (b"\x06" + (2**64 - 1).to_bytes(8, "big"), "longer than 200"),
    ],
)
def test_the_handshake_takes_nothing_but_commands(data: bytes, reason: str) -> None:
    """The first octet that cannot begin one, or an announced size beyond the bound, is the end."""
    reader = CommandReader(200)
    reader.feed(data)
    with pytest.raises(PeerError, match=reason):
        reader.next()
