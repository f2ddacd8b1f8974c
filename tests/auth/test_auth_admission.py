"""Admissions: the octets of a reply, and what is read of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.server_fixtures import messages_in

from zapd.auth.admission import MARK, USER, card_of, encode_admission, frames_of
from zapd.auth.backend import Principal
from zapd.auth.grant import Grants
from zapd.errors import InvalidInput

MARK_TEXT = b"m" * 43
PLAIN_NAMES = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters='"\\'), min_size=1)
WORDS = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=120).filter(str.isprintable)


@given(
    PLAIN_NAMES.filter(lambda name: len(name) <= 255),
    st.lists(WORDS, max_size=4, unique=True),
    st.dictionaries(WORDS, VALUES, max_size=4),
)
def test_an_admission_is_the_reply_that_the_long_road_gives(
    user: str, groups: list[str], attributes: dict[str, str]
) -> None:
    """Frame for frame; and what it was made of can be read of it, letters in their case."""
    card = (
        user.encode(),
        MARK_TEXT,
        tuple(groups),
        tuple((name.title(), text) for name, text in attributes.items()),
    )
    admission = encode_admission(card)
    assert admission is not None
    (frames,) = messages_in(admission)
    reply = Grants().for_key(Principal(user, card[2], card[3]), "SHA256:" + MARK_TEXT.decode())
    assert frames == [b"200", b"OK", reply.user_id, reply.metadata]
    assert list(frames_of(admission)) == frames
    assert card_of(admission) == card
    assert admission[USER : USER + admission[USER - 1]] == user.encode()
    assert admission[MARK:] == MARK_TEXT


@pytest.mark.parametrize("user", ["zoë", 'qu"ote', "back\\slash"])
def test_a_name_that_json_must_escape_has_no_admission(user: str) -> None:
    """Its question takes the long road, so that no name can ever break a line of the journal."""
    assert encode_admission((user.encode(), MARK_TEXT, (), ())) is None


@pytest.mark.parametrize(
    ("groups", "attributes"),
    [
        ((), (("Zapd-Groups", "admins"),)),
        (("a,b",), ()),
        ((), (("Name", "line\nbreak"),)),
        ((), tuple((f"n{number}", "x" * 200) for number in range(30))),
    ],
)
def test_what_breaks_a_rule_has_none_either(
    groups: tuple[str, ...], attributes: tuple[tuple[str, str], ...]
) -> None:
    """Names that are ours, commas in a group, control characters, more than a reply may carry (R23)."""
    with pytest.raises(InvalidInput):
        encode_admission((b"alice", MARK_TEXT, groups, attributes))
