"""ZAP 1.0 (RFC 27): questions and answers as values. No I/O, no clock, no deciding."""

from zapd.zap.drive import Suspended, first_step
from zapd.zap.envelope import question_id, split_envelope
from zapd.zap.handler import Handler, Withheld
from zapd.zap.reply import (
    ERROR,
    REFUSED,
    TRY_AGAIN,
    MalformedReply,
    Status,
    ZapReply,
    parse_reply,
    reply_frames,
)
from zapd.zap.request import Asker, MalformedRequest, ZapRequest, parse_request, serialize_request

__all__ = [
    "ERROR",
    "REFUSED",
    "TRY_AGAIN",
    "Asker",
    "Handler",
    "MalformedReply",
    "MalformedRequest",
    "Status",
    "Suspended",
    "Withheld",
    "ZapReply",
    "ZapRequest",
    "first_step",
    "parse_reply",
    "parse_request",
    "question_id",
    "reply_frames",
    "serialize_request",
    "split_envelope",
]
