"""ZAP replies (RFC 27), and the one place where a reply becomes frames.

One fixed text goes with each status: the reason for a decision is written in the journal and never on
the wire.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from zapd.zap.request import VERSION


class Status(IntEnum):
    """RFC 27's status codes, with what libzmq 4.3 clients make of them."""

    GRANTED = 200
    TRY_AGAIN = 300
    """libzmq holds the client in silence, and the client comes back: whatever may heal is this."""
    REFUSED = 400
    """Final for libzmq: the client never tries again by itself."""
    ERROR = 500
    """The question itself was wrong. Final too."""


_TEXT = {
    Status.GRANTED: b"OK",
    Status.TRY_AGAIN: b"Try again later",
    Status.REFUSED: b"Access denied",
    Status.ERROR: b"Malformed request",
}
_CODE = {status: str(int(status)).encode() for status in Status}
_GSSAPI_REFUSAL = b"401"
"""libzmq up to 4.3.5 admits a GSSAPI peer on any well-formed status; this one it cannot read (contract)."""


class MalformedReply(Exception):
    """Frames that are no ZAP reply; whoever asked has no answer."""


class ZapReply(NamedTuple):
    """One answer. Only a 200 carries a user id and metadata."""

    status: Status
    user_id: bytes = b""
    metadata: bytes = b""
    """Properties as ZMTP encodes them (RFC 23, "metadata"), ready for the wire."""


TRY_AGAIN = ZapReply(Status.TRY_AGAIN)
REFUSED = ZapReply(Status.REFUSED)
ERROR = ZapReply(Status.ERROR)

_REFUSAL_OF = {_TEXT[reply.status]: reply for reply in (TRY_AGAIN, REFUSED, ERROR)}


def reply_frames(reply: ZapReply, request_id: bytes, mechanism: str) -> list[bytes]:
    """The six frames of a reply as a REP socket sends them, delimiter excluded.

    For GSSAPI every answer but 200 leaves in a form that libzmq cannot accept: the only refusal it obeys.
    """
    status = reply.status
    if status is Status.GRANTED:
        return [VERSION, request_id, b"200", b"OK", reply.user_id, reply.metadata]
    code = _GSSAPI_REFUSAL if mechanism == "GSSAPI" else _CODE[status]
    return [VERSION, request_id, code, _TEXT[status], b"", b""]


def parse_reply(frames: Sequence[bytes], request_id: bytes, mechanism: str = "") -> ZapReply:
    """Read a reply, delimiter excluded; raise `MalformedReply` for whatever is not one to ``request_id``.

    A zapd's refusals of a GSSAPI question have a status that nobody can read: there the text tells which it is.
    """
    if len(frames) != 6:
        raise MalformedReply("a reply has six frames")
    version, echoed, code, text, user_id, metadata = frames
    if version != VERSION or echoed != request_id:
        raise MalformedReply("not the version or the id that was asked")
    if mechanism == "GSSAPI" and code == _GSSAPI_REFUSAL and text in _REFUSAL_OF:
        return _REFUSAL_OF[text]
    try:
        status = Status(int(code)) if code.isdigit() and len(code) == 3 else None
    except ValueError:
        status = None
    if status is None:
        raise MalformedReply("unknown status")
    if status is not Status.GRANTED:
        return ZapReply(status)
    if len(user_id) > 255:
        raise MalformedReply("user id longer than 255 octets")
    return ZapReply(status, bytes(user_id), bytes(metadata))
