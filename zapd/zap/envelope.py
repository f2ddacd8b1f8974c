"""Routing envelopes (RFC 28): address frames, an empty delimiter, then the body.

REQ sends a bare delimiter, a DEALER behind proxies any number of address frames. All of it goes back
unchanged, delimiter included, in front of the reply.
"""

from __future__ import annotations

from collections.abc import Sequence

MAX_ADDRESSES = 32
"""More hops than any sane chain of proxies; beyond it the message is dropped."""

QUESTION_ID_LENGTH = 16


def split_envelope(parts: list[bytes]) -> tuple[list[bytes], list[bytes]] | None:
    """Cut a message behind its first empty frame: (envelope with delimiter, body). None without a delimiter."""
    try:
        cut = parts.index(b"", 0, MAX_ADDRESSES + 1) + 1
    except ValueError:
        return None
    return parts[:cut], parts[cut:]


def question_id(envelope: Sequence[bytes]) -> bytes:
    """The agent's 16 octets: the innermost address frame, just before the delimiter; else nothing."""
    if len(envelope) > 1 and len(envelope[-2]) == QUESTION_ID_LENGTH:
        return envelope[-2]
    return b""
