"""An admission: the 200 that lets a key in, as the octets of its reply.

    status "200" | status text "OK" | user id | metadata          each a clear ZMTP frame (RFC 23, RFC 27)

Everything that a reply to a CURVE question says behind the request id depends on the key alone. So whoever knows
keys by heart makes these octets once for each and gives them again (`zapd.auth.backend.AnswersFromMemory`); a
reply is then the beginning of its question, and this. What the record wants of it stands at fixed places.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from zapd.auth.backend import Admission, Card
from zapd.auth.grant import KEY_HEAD, MARK_LENGTH, TOO_LONG, encode_shape
from zapd.errors import InvalidInput
from zapd.store.rules import MAX_METADATA
from zapd.zmtp.framing import MORE, encode_frame

_HEAD: Final = encode_frame(MORE, b"200") + encode_frame(MORE, b"OK")
USER: Final = len(_HEAD) + 2
"""Where the user id stands; the octet before says how long it is."""
MARK: Final = -MARK_LENGTH
"""Where the key's fingerprint stands, without ``SHA256:``: its property is the last."""
_KEY_PROPERTY: Final = KEY_HEAD + b"SHA256:"

_properties = lru_cache(maxsize=4096)(encode_shape)


def encode_admission(card: Card) -> Admission | None:
    """The admission of somebody. None for a name that JSON would have to escape: the record of an admission holds
    it as it is, so such a question takes the long road.

    Raises `InvalidInput` for groups or attributes that break a rule, or are too many for a reply.
    """
    user, mark, groups, attributes = card
    if not user.isascii() or b'"' in user or b"\\" in user:
        return None
    metadata = _properties(groups, attributes) + _KEY_PROPERTY + mark
    if len(metadata) > MAX_METADATA:
        raise InvalidInput(TOO_LONG)
    return b"".join((_HEAD, encode_frame(MORE, user), encode_frame(0, metadata)))


def user_of(admission: Admission) -> bytes:
    """The user id."""
    return admission[USER : USER + admission[USER - 1]]


def metadata_of(admission: Admission) -> bytes:
    """The metadata, encoded."""
    start = USER + admission[USER - 1]
    return admission[start + (2 if admission[start] == 0 else 9) :]


def card_of(admission: Admission) -> Card:
    """What it was made of."""
    metadata = metadata_of(admission)
    properties: list[tuple[str, str]] = []
    position = 0
    while position < len(metadata):  # names keep their case here, which `decode_properties` folds
        name_end = position + 1 + metadata[position]
        value_end = name_end + 4 + int.from_bytes(metadata[name_end : name_end + 4], "big")
        name, value = metadata[position + 1 : name_end], metadata[name_end + 4 : value_end]
        properties.append((name.decode("ascii"), value.decode("utf-8")))
        position = value_end
    (_, groups), *attributes, _ = properties
    return (
        user_of(admission),
        admission[MARK:],
        tuple(groups.split(",")) if groups else (),
        tuple((name.removeprefix("X-"), value) for name, value in attributes),
    )


def frames_of(admission: Admission) -> tuple[bytes, bytes, bytes, bytes]:
    """The parts of a reply behind the request id: status, text, user id, metadata."""
    return b"200", b"OK", user_of(admission), metadata_of(admission)
