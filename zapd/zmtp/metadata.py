"""Metadata: the name/value properties of READY and INITIATE, and of a ZAP reply (RFC 23, "metadata").

    property = name-length(1) name value-length(4) value

Knows the encoding and its bounds, and what a connection says and reads of itself in it. Does not know what
an application's property means.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from zapd.errors import InvalidInput
from zapd.zmtp.greeting import printable
from zapd.zmtp.handshake import PeerError
from zapd.zmtp.limits import DEFAULT_LIMITS, Limits
from zapd.zmtp.socket_types import SOCKET_TYPES, WITH_IDENTITY

MAX_NAME = 255
MAX_VALUE = (1 << 31) - 1
"""RFC 23: "value-size = 4OCTET", at most 2^31-1."""
MAX_IDENTITY = 255

_NAME_OCTETS: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.+")
_RESERVED: Final = frozenset({"user-id", "peer-address"})
"""libzmq shows its application these under the same names as what ZAP and the transport say, so a peer that
sends them passes for somebody else where no ZAP reply came first. They are dropped."""


def check_property_name(name: str) -> None:
    """Raise `InvalidInput` unless ``name`` is legal: 1 to 255 of ``A-Z a-z 0-9 - _ . +`` (RFC 23)."""
    if not 1 <= len(name) <= MAX_NAME:
        raise InvalidInput(f"a property name has 1 to {MAX_NAME} characters, this one has {len(name)}")
    if not (name.isascii() and _NAME_OCTETS.issuperset(name.encode())):
        raise InvalidInput("a property name has only letters, digits and - _ . +")


def encode_properties(properties: Iterable[tuple[str, bytes]]) -> bytes:
    """Properties as the wire carries them, in the order given.

    Raises `InvalidInput` for an illegal name, a name given twice (case does not count), or a value of more
    than 2^31-1 octets.
    """
    encoded: list[bytes] = []
    seen: set[str] = set()
    for name, value in properties:
        check_property_name(name)
        if name.lower() in seen:
            raise InvalidInput(f"property {name} is given twice")
        seen.add(name.lower())
        if len(value) > MAX_VALUE:
            raise InvalidInput(f"the value of property {name} is longer than {MAX_VALUE} octets")
        encoded += (bytes((len(name),)), name.encode("ascii"), len(value).to_bytes(4, "big"), value)
    return b"".join(encoded)


def decode_properties(data: bytes, limits: Limits = DEFAULT_LIMITS) -> dict[str, bytes]:
    """Read properties: names in lower case (they are case-insensitive), values as they came, order kept.

    Stricter than libzmq: an illegal or empty name, a name that comes twice, anything cut short and more than
    ``limits.properties`` raise `PeerError`. The caller has bounded the size of ``data``.
    """
    return _decode(data, limits.properties)


def _decode(data: bytes, most: int) -> dict[str, bytes]:
    properties: dict[str, bytes] = {}
    position, end = 0, len(data)
    while position < end:
        if len(properties) == most:
            raise PeerError(f"more than {most} metadata properties")
        name_end = position + 1 + data[position]
        # Nothing here adds up a size that a peer announced before comparing it with what is there.
        if end - name_end < 4:
            raise PeerError("metadata is cut short")
        raw_name = data[position + 1 : name_end]
        if not raw_name or not _NAME_OCTETS.issuperset(raw_name):
            raise PeerError(f"illegal property name {printable(raw_name)!r}")
        name = raw_name.decode("ascii").lower()
        if name in properties:
            raise PeerError(f"property {name} comes twice")
        size = int.from_bytes(data[name_end : name_end + 4], "big")
        value_at = name_end + 4
        if size > end - value_at:
            raise PeerError("metadata is cut short")
        position = value_at + size
        properties[name] = data[value_at:position]
    return properties


@dataclass(frozen=True, slots=True)
class PeerMetadata:
    """What a peer says of itself in READY or INITIATE."""

    socket_type: str
    """Empty when it named none, which libzmq accepts."""
    identity: bytes
    others: tuple[tuple[str, bytes], ...]
    """Names in lower case, without the reserved ones."""


def own_metadata(socket_type: str, identity: bytes, properties: Iterable[tuple[str, bytes]]) -> bytes:
    """What we say of ourselves: Socket-Type, then Identity where the type has one, then ``properties``.

    Raises `InvalidInput` for an unknown type and for an identity that the RFC or the type forbids.
    """
    return _own_metadata(socket_type, identity, tuple(properties))


@lru_cache(256)
def _own_metadata(socket_type: str, identity: bytes, properties: tuple[tuple[str, bytes], ...]) -> bytes:
    """A listener says the same to all who come."""
    if socket_type not in SOCKET_TYPES:
        raise InvalidInput(f"unknown socket type {socket_type!r}")
    _check_identity(socket_type, identity)
    own = [("Socket-Type", socket_type.encode("ascii"))]
    if socket_type in WITH_IDENTITY:
        own.append(("Identity", identity))
    return encode_properties([*own, *properties])


def read_metadata(data: bytes, limits: Limits) -> PeerMetadata:
    """The peer's metadata; `PeerError` for what is malformed. A Socket-Type nobody knows passes here and
    fails as an illegal pair."""
    if len(data) <= _REMEMBERED_SIZE:
        return _remembered_metadata(data, limits.properties)
    return _read_metadata(data, limits.properties)


def _read_metadata(data: bytes, most: int) -> PeerMetadata:
    properties = _decode(data, most)
    if properties.get("socket-type") == b"":
        raise PeerError("empty Socket-Type")
    socket_type = printable(properties.pop("socket-type", b""))
    identity = properties.pop("identity", b"")
    # RFC 37: "identity = 0*255OCTET", not beginning with zero: a ROUTER makes such names up itself.
    if len(identity) > MAX_IDENTITY or identity[:1] == b"\0":
        raise PeerError("illegal Identity: longer than 255 octets, or beginning with zero")
    others = tuple((name, value) for name, value in properties.items() if name not in _RESERVED)
    return PeerMetadata(socket_type, identity, others)


_REMEMBERED_SIZE: Final = 128
_remembered_metadata = lru_cache(256)(_read_metadata)
"""Most peers of a kind say the same octets of themselves. What was wrong is not remembered."""


def _check_identity(socket_type: str, identity: bytes) -> None:
    if not identity:
        return
    if socket_type not in WITH_IDENTITY:
        raise InvalidInput(f"a {socket_type} socket has no identity")
    if len(identity) > MAX_IDENTITY or identity[0] == 0:
        raise InvalidInput(f"an identity has at most {MAX_IDENTITY} octets and does not begin with zero")
