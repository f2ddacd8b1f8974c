"""What careless backends stumble over, and a way to ask without getting in one's own way."""

from __future__ import annotations

from itertools import count
from typing import Final

from zapd.auth.backend import Question

HOSTILE_NAMES: Final = (
    "' OR '1'='1",
    '"; DROP TABLE users; --',
    "*",
    "*)(uid=*))(|(uid=*",
    "../../etc/passwd",
    "%s%n{0}",
    "a" * 255,
    "ａｄａ",  # full-width: looks like a name, and is another
    "e\u0301",
    ":",
    "#",
    " ",
    "\\2a",
    "$(id)",
    "ada\u202eada",  # would be shown backwards
    "\U0001f511" * 63,  # 252 octets
)
"""Names that may be written into something by a careless backend."""

HOSTILE_PASSWORDS: Final = (
    b"*",
    b"' OR '1'='1",
    b")(uid=*",
    b"%s%n{0}",
    b"\xff\xfe\x80",
    b"\r\nACCEPT",
    b" ",
    b"x" * 255,
)
"""Passwords that are nobody's, of which some are no text either."""

_octets = count(1)


def elsewhere(question: Question, *, username: str | None = None, password: bytes | None = None) -> Question:
    """The same question from a place that no other of the test's comes from, perhaps with another credential. Of
    who comes with nothing but an address (NULL) only the process is another."""
    number = next(_octets)
    address = f"198.{18 + number // 65536 % 2}.{number // 256 % 256}.{number % 256}"
    if question.mechanism == "NULL":
        user, _, _process = question.address.partition(",pid=")
        address = f"{user},pid={number}" if user.startswith("ipc:") else user
    return Question(
        question.domain,
        question.mechanism,
        address,
        question.key,
        question.username if username is None else username,
        question.password if password is None else password,
    )
