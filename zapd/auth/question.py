"""From a ZAP request to what backends are asked, or the reason why nobody is.

`zapd.zap` has checked requests that came as frames; those that a listener of ours makes from a handshake come here
unchecked, so the form of every credential is looked at once more. Pure.
"""

from __future__ import annotations

import unicodedata

from zapd.auth.backend import Question
from zapd.zap import ZapRequest

MAX_OCTETS = 255
"""In a user name and in a password (RFC 27)."""


def question_of(request: ZapRequest, address: str) -> Question | str:
    """The question, with the normalised ``address``; or a reason code for a refusal."""
    mechanism = request.mechanism
    if mechanism == "CURVE":
        key = request.credentials[0]
        return Question(request.domain, mechanism, address, key) if len(key) == 32 else "bad_credentials"
    if mechanism == "NULL":
        return Question(request.domain, mechanism, address)
    try:
        username = request.credentials[0].decode("utf-8")
    except UnicodeDecodeError:
        return "bad_username"
    if not username:
        return "empty_username"
    if not username.isprintable():
        return "bad_username"
    if mechanism != "PLAIN":
        return Question(request.domain, mechanism, address, username=username)
    password = request.credentials[1]
    if not password:
        # Directories take an empty password for an anonymous bind, and say yes to it (limits.md R18).
        return "empty_password"
    if len(request.credentials[0]) > MAX_OCTETS or len(password) > MAX_OCTETS or b"\0" in password:
        return "bad_credentials"
    return Question(request.domain, mechanism, address, username=username, password=password)


def folded_name(name: str) -> bytes:
    """A name as the most forgiving backend reads it (a directory folds case and blanks): for who must not be got
    round by another spelling. Never for letting anybody in."""
    folded = " ".join(unicodedata.normalize("NFKC", name).casefold().split())
    return folded.encode("utf-8", "surrogatepass")
