"""Envelopes: what goes in front of a body comes back untouched."""

from hypothesis import given
from hypothesis import strategies as st

from zapd.zap import question_id, split_envelope
from zapd.zap.envelope import MAX_ADDRESSES


def test_a_req_peer_sends_a_bare_delimiter() -> None:
    """REQ's envelope is the empty frame alone."""
    assert split_envelope([b"", b"1.0", b"1"]) == ([b""], [b"1.0", b"1"])


@given(st.lists(st.binary(min_size=1, max_size=20), max_size=MAX_ADDRESSES), st.lists(st.binary(max_size=9)))
def test_any_number_of_hops_is_cut_at_the_first_empty_frame(addresses: list[bytes], body: list[bytes]) -> None:
    """Address frames are never empty, so the first empty frame is the delimiter, whatever the body holds."""
    assert split_envelope([*addresses, b"", *body]) == ([*addresses, b""], body)


def test_without_a_delimiter_there_is_nothing_to_answer() -> None:
    """No empty frame, or one beyond a sane number of hops: dropped."""
    assert split_envelope([b"1.0", b"1"]) is None
    assert split_envelope([b"x"] * (MAX_ADDRESSES + 1) + [b""]) is None
    assert split_envelope([]) is None


def test_the_agents_question_id_is_the_innermost_address() -> None:
    """Sixteen octets just before the delimiter; anything else is a proxy's routing id."""
    assert question_id([b"\0abcd", b"q" * 16, b""]) == b"q" * 16
    assert question_id([b"q" * 16, b"\0abcd", b""]) == b""
    assert question_id([b""]) == b""
