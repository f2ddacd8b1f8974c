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
MARK_LENGTH: Final = _FINGERPRINT_LENGTH - len("SHA256:")
KEY_HEAD: Final = encode_properties([(KEY, bytes(_FINGERPRINT_LENGTH))])[:-_FINGERPRINT_LENGTH]
"""What stands before a fingerprint in the metadata."""
TOO_LONG: Final = f"groups and attributes take more than {MAX_METADATA} octets of a reply"
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
        return self._reply(principal, KEY_HEAD + mark.encode("ascii"))

    def without_key(self, principal: Principal) -> ZapReply:
        """The reply for a principal that came with no key. Raises `InvalidInput` as `for_key` does."""
        return self._reply(principal, _NO_KEY)

    def _reply(self, principal: Principal, key_property: bytes) -> ZapReply:
        metadata = self._properties(principal.groups, principal.attributes) + key_property
        if len(metadata) > MAX_METADATA:
            raise InvalidInput(TOO_LONG)
        return ZapReply(Status.GRANTED, check_name(principal.name).encode("utf-8"), metadata)

    def _properties(self, groups: tuple[str, ...], attributes: tuple[tuple[str, str], ...]) -> bytes:
        known = self._shapes.get((id(groups), id(attributes)))
        if known is not None and known[0] is groups and known[1] is attributes:
            return known[2]
        if len(self._shapes) >= _SHAPES:
            self._shapes.clear()
        encoded = encode_shape(groups, attributes)
        self._shapes[id(groups), id(attributes)] = (
            groups,
            attributes,
            encoded,
        )  # holds both: their ids stay theirs
        return encoded


def principal_of(reply: ZapReply) -> Principal:
    """Who a 200 made here lets in, read back from it: memory gives replies, not principals."""
    groups: tuple[str, ...] = ()
    attributes: list[tuple[str, str]] = []
    rest = reply.metadata
    while rest:
        name, rest = rest[1 : 1 + rest[0]].decode("ascii"), rest[1 + rest[0] :]
        size = 4 + int.from_bytes(rest[:4], "big")
        value, rest = rest[4:size].decode("utf-8"), rest[size:]
        if name == GROUPS:
            groups = tuple(filter(None, value.split(",")))
        elif name != KEY:
            attributes.append((name.removeprefix("X-"), value))
    return Principal(reply.user_id.decode("utf-8"), groups, tuple(attributes))


def null_reply(user: str) -> ZapReply:
    """The reply to a peer that NULL let in; an empty ``user`` is no user id."""
    return ZapReply(Status.GRANTED, user.encode("utf-8"), encode_properties([(GROUPS, b""), (KEY, b"")]))


def encode_shape(groups: tuple[str, ...], attributes: tuple[tuple[str, str], ...]) -> bytes:
    """The metadata but for the key's property, which comes last. Raises `InvalidInput` for what breaks a rule."""
    check_groups(groups)
    check_attributes(dict(attributes))
    properties = [(GROUPS, ",".join(groups).encode("utf-8"))]
    # A name given twice is refused by the encoding itself.
    properties += [(f"X-{name}", value.encode("utf-8")) for name, value in attributes]
    return encode_properties(properties)
