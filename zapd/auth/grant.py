"""From a principal to the reply that lets it in.

The reply always carries ``X-Zapd-Groups`` and ``X-Zapd-Key``, empty where there is nothing to say: libzmq shows
its application the ZAP properties first and the peer's own behind them, so a property that zapd left out could
be forged by the peer. What a backend says is checked here once more (limits.md R23): a registry keeps the same
rules when something is set, others may not.
"""

from __future__ import annotations

from typing import Final

from zapd.auth.backend import Principal
from zapd.errors import InvalidInput
from zapd.store.rules import MAX_METADATA, check_attributes, check_groups, check_name
from zapd.zap import Status, ZapReply
from zapd.zmtp.keys import fingerprint
from zapd.zmtp.metadata import encode_properties

GROUPS: Final = "X-Zapd-Groups"
KEY: Final = "X-Zapd-Key"

_SHAPES: Final = 4096
"""Distinct sets of groups and attributes whose encoding is remembered: many keys share few."""

_FINGERPRINT_LENGTH: Final = len(fingerprint(bytes(32)))
_KEY_HEAD: Final = encode_properties([(KEY, bytes(_FINGERPRINT_LENGTH))])[:-_FINGERPRINT_LENGTH]
_GRANTED: Final = Status.GRANTED
_NO_KEY: Final = encode_properties([(KEY, b"")])


class Grants:
    """Makes replies of 200. Remembers how groups and attributes encode, not who was let in: with a registry of a
    million keys the same one is rarely asked twice in a row, and fetching a memory costs as much as making it."""

    def __init__(self) -> None:
        # By identity, and verified: a backend that gives the same tuples again spares us hashing them.
        self._shapes: dict[tuple[int, int], tuple[object, object, bytes]] = {}

    def for_key(self, principal: Principal, mark: str) -> ZapReply:
        """The reply for a principal that came with the key of this fingerprint. Raises `InvalidInput` for a
        principal that breaks a rule."""
        return self._reply(principal, _KEY_HEAD + mark.encode("ascii"))

    def without_key(self, principal: Principal) -> ZapReply:
        """The reply for a principal that came with no key. Raises `InvalidInput` as `for_key` does."""
        return self._reply(principal, _NO_KEY)

    def _reply(self, principal: Principal, key_property: bytes) -> ZapReply:
        name, groups, attributes = principal.name, principal.groups, principal.attributes
        known = self._shapes.get((id(groups), id(attributes)))
        if known is None or known[0] is not groups or known[1] is not attributes:
            known = self._learn(principal)
        metadata = known[2] + key_property
        if len(metadata) > MAX_METADATA:
            raise InvalidInput(f"groups and attributes take more than {MAX_METADATA} octets of a reply")
        if not (name.isascii() and name.isprintable() and 0 < len(name) <= 255):
            check_name(name)
        return ZapReply(_GRANTED, name.encode("utf-8"), metadata)

    def _learn(self, principal: Principal) -> tuple[object, object, bytes]:
        groups, attributes = principal.groups, principal.attributes
        if len(self._shapes) >= _SHAPES:
            self._shapes.clear()
        known = (groups, attributes, _encode(principal))
        self._shapes[id(groups), id(attributes)] = known  # holds both, so that no other can take their ids
        return known


def null_reply(user: str) -> ZapReply:
    """The reply to a peer that NULL let in; an empty ``user`` is no user id."""
    return ZapReply(Status.GRANTED, user.encode("utf-8"), encode_properties([(GROUPS, b""), (KEY, b"")]))


def _encode(principal: Principal) -> bytes:
    groups, attributes = principal.groups, principal.attributes
    check_groups(groups)
    check_attributes(dict(attributes))
    properties = [(GROUPS, ",".join(groups).encode("utf-8"))]
    # A name given twice is refused by the encoding itself.
    properties += [(f"X-{name}", value.encode("utf-8")) for name, value in attributes]
    return encode_properties(properties)
