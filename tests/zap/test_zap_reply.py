"""ZAP replies: the fixed frames of each status, and the form that keeps a GSSAPI peer out."""

import pytest

from zapd.zap import ERROR, REFUSED, TRY_AGAIN, MalformedReply, Status, ZapReply, parse_reply, reply_frames

GRANTED = ZapReply(Status.GRANTED, b"alice", b"\x03X-a\x00\x00\x00\x01b")


def test_an_admission_carries_user_id_and_metadata() -> None:
    """Only a 200 tells the application who came."""
    assert reply_frames(GRANTED, b"7", "CURVE") == [b"1.0", b"7", b"200", b"OK", b"alice", GRANTED.metadata]


@pytest.mark.parametrize("reply", [TRY_AGAIN, REFUSED, ERROR])
def test_a_refusal_never_carries_a_name(reply: ZapReply) -> None:
    """Even a reply built with a user id by mistake leaves without it."""
    careless = ZapReply(reply.status, b"alice", b"meta")
    assert reply_frames(careless, b"1", "PLAIN")[4:] == [b"", b""]


@pytest.mark.parametrize("status", [Status.TRY_AGAIN, Status.REFUSED, Status.ERROR])
def test_for_gssapi_every_answer_but_200_is_one_that_libzmq_cannot_accept(status: Status) -> None:
    """libzmq up to 4.3.5 lets a refused GSSAPI peer in on any status it can read."""
    frames = reply_frames(ZapReply(status, b"alice"), b"1", "GSSAPI")
    assert frames[2] == b"401"
    assert frames[4] == b""


def test_what_is_written_is_read_back() -> None:
    """Each status survives the wire."""
    for reply in (GRANTED, TRY_AGAIN, REFUSED, ERROR):
        assert parse_reply(reply_frames(reply, b"1", "CURVE"), b"1") == reply


@pytest.mark.parametrize("reply", [GRANTED, TRY_AGAIN, REFUSED, ERROR])
def test_a_gssapi_answer_is_read_back_by_who_asked_about_gssapi(reply: ZapReply) -> None:
    """The text tells refusals apart where the status cannot; for any other mechanism such a reply is none."""
    frames = reply_frames(reply, b"1", "GSSAPI")
    assert parse_reply(frames, b"1", "GSSAPI") == reply
    for text, mechanism in ((frames[3], "CURVE"), (b"Bad luck", "GSSAPI"), (b"OK", "GSSAPI")):
        with pytest.raises(MalformedReply):
            parse_reply([*frames[:2], b"401", text, b"alice", b""], b"1", mechanism)


@pytest.mark.parametrize(
    "frames",
    [
        [],
        [b"1.0", b"1", b"200", b"OK", b"alice"],
        [b"1.0", b"2", b"200", b"OK", b"alice", b""],
        [b"1.1", b"1", b"200", b"OK", b"alice", b""],
        [b"1.0", b"1", b"201", b"OK", b"alice", b""],
        [b"1.0", b"1", b"0200", b"OK", b"alice", b""],
        [b"1.0", b"1", b"", b"OK", b"alice", b""],
        [b"1.0", b"1", "²00".encode(), b"OK", b"alice", b""],
        [b"1.0", b"1", b"200", b"OK", b"a" * 256, b""],
    ],
)
def test_anything_but_an_exact_reply_is_no_answer(frames: list[bytes]) -> None:
    """A doubtful 200 admits nobody."""
    with pytest.raises(MalformedReply):
        parse_reply(frames, b"1")
