"""ZAP requests (RFC 27): from frames to a value, and back.

`parse_request` takes the frames behind the envelope's delimiter and is strict: version, frame count,
credential count and every name are checked before anybody is asked. It knows neither who sent the
frames nor what will be answered.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

VERSION = b"1.0"
"""The one ZAP version there is (RFC 27)."""

MAX_STRING = 255
"""Octets that RFC 27 allows in domain, address, request id, user name and password."""

CREDENTIALS = {"NULL": 0, "PLAIN": 2, "CURVE": 1, "GSSAPI": 1}
"""How many credential frames each mechanism brings (RFC 27, "The mechanism")."""

_MECHANISMS = {name.encode(): name for name in CREDENTIALS}
_FIXED_FRAMES = 6
_SEEN: Final = 8192


class MalformedRequest(Exception):
    """Frames that are no ZAP request.

    ``request_id`` is what a reply may echo, or None where there is nothing to echo and silence is the only
    answer. ``status`` is 500 for a wrong shape and 400 for a name that no rule can ever admit. ``mechanism``
    is what the frames claim: a refused GSSAPI question needs another form on the wire.
    """

    def __init__(self, reason: str, request_id: bytes | None = None, status: int = 500) -> None:
        super().__init__(reason)
        self.reason = reason
        self.request_id = request_id
        self.status = status
        self.mechanism = ""


@dataclass(frozen=True, slots=True, eq=False)
class Asker:
    """Who put a question to zapd: an enrolled agent, or a listener that needs no agent identity.

    One value for a whole connection, shared by all its questions.
    """

    name: str
    """The agent's name, or ``local:<listener>``."""
    domains: tuple[str, ...] = ("*",)
    """Domain patterns it may ask about; ``*`` alone means all but the empty and the reserved one."""
    mechanisms: frozenset[str] = frozenset({"NULL", "PLAIN", "CURVE"})
    """GSSAPI is missing on purpose: its principal is the asker's word, so it must be granted (R14)."""


class ZapRequest(NamedTuple):
    """One question: may this peer in?

    A named tuple, since one is made for each question and a frozen dataclass costs three times as much.
    """

    request_id: bytes
    """Opaque; libzmq always says ``1``."""
    domain: str
    address: str
    """As the asker wrote it: numeric IPv4 or IPv6, or ``localhost:uid:gid:pid`` for ipc."""
    identity: bytes
    """libzmq puts the *server* socket's routing id here, not the client's."""
    mechanism: str
    credentials: tuple[bytes, ...]
    """Not shown by ``repr``: a password is one of them."""
    question_id: bytes = b""
    """The agent's random 16 octets, taken from the innermost address frame; empty when there are none."""
    asker: Asker | None = None

    def __repr__(self) -> str:
        return f"ZapRequest({self.mechanism} in {self.domain!r} from {self.address!r}, asked by {self.asker!r})"


def parse_request(frames: Sequence[bytes], question_id: bytes = b"", asker: Asker | None = None) -> ZapRequest:
    """Read the frames of a request, delimiter excluded (RFC 27, "The ZAP request").

    Raises `MalformedRequest`, and nothing else whatever the frames hold.
    """
    try:
        if len(frames) < _FIXED_FRAMES:
            request_id = frames[1] if len(frames) > 1 and frames[0] == VERSION else None
            raise MalformedRequest("too few frames", _echoable(request_id))
        version, request_id, raw_domain, raw_address, identity, raw_mechanism, *credentials = frames
        if len(request_id) > MAX_STRING:
            raise MalformedRequest("request id longer than 255 octets")
        if version != VERSION:
            raise MalformedRequest("version is not 1.0", request_id)
        names = _seen.get((raw_domain, raw_address, raw_mechanism))
        if names is None:
            names = _read_names(raw_domain, raw_address, raw_mechanism, request_id)
        domain, address, mechanism = names
        if mechanism == "CURVE":
            if len(credentials) != 1:
                raise MalformedRequest("wrong number of credential frames", request_id)
            if len(credentials[0]) != 32:
                raise MalformedRequest("a CURVE key is 32 octets", request_id)
        else:
            if len(credentials) != CREDENTIALS[mechanism]:
                raise MalformedRequest("wrong number of credential frames", request_id)
            if credentials:
                _check_credentials(mechanism, credentials, request_id)
        if len(identity) > MAX_STRING:
            raise MalformedRequest("identity longer than 255 octets", request_id)
    except MalformedRequest as fault:
        if len(frames) >= _FIXED_FRAMES:
            fault.mechanism = _MECHANISMS.get(frames[_FIXED_FRAMES - 1], "")
        raise
    return ZapRequest(request_id, domain, address, identity, mechanism, tuple(credentials), question_id, asker)


_seen: dict[tuple[bytes, bytes, bytes], tuple[str, str, str]] = {}
"""Domain, address and mechanism as they came, to what they read as. The same few come again and again, so
they are judged once; and as the very same strings they are found quickly in whatever is kept by them."""


def _read_names(
    raw_domain: bytes, raw_address: bytes, raw_mechanism: bytes, request_id: bytes
) -> tuple[str, str, str]:
    mechanism = _MECHANISMS.get(raw_mechanism)
    if mechanism is None:
        raise MalformedRequest("unknown mechanism", request_id, status=400)
    if len(raw_domain) > MAX_STRING or len(raw_address) > MAX_STRING:
        raise MalformedRequest("domain or address longer than 255 octets", request_id)
    try:
        domain = raw_domain.decode("ascii")
        address = raw_address.decode("ascii")
    except UnicodeDecodeError:
        raise MalformedRequest("domain or address is not ASCII", request_id, status=400) from None
    # str.isprintable() is false for NUL and every control character.
    if not (domain.isprintable() and address.isprintable()):
        raise MalformedRequest("control characters in domain or address", request_id, status=400)
    if len(_seen) >= _SEEN:
        _seen.clear()  # a flood of strange names costs time, never memory
    names = _seen[raw_domain, raw_address, raw_mechanism] = (domain, address, mechanism)
    return names


def serialize_request(request: ZapRequest) -> list[bytes]:
    """The frames of a request, delimiter excluded: what `parse_request` reads."""
    return [
        VERSION,
        request.request_id,
        request.domain.encode("ascii"),
        request.address.encode("ascii"),
        request.identity,
        request.mechanism.encode("ascii"),
        *request.credentials,
    ]


def _echoable(request_id: bytes | None) -> bytes | None:
    return request_id if request_id is not None and len(request_id) <= MAX_STRING else None


def _check_credentials(mechanism: str, credentials: Sequence[bytes], request_id: bytes) -> None:
    """A user name or principal with NUL or control characters can never be granted (contract, statuses)."""
    limit = MAX_STRING if mechanism == "PLAIN" else 4096
    if any(len(part) > limit for part in credentials):
        raise MalformedRequest("a credential is too long", request_id)
    try:
        name = credentials[0].decode("utf-8")
    except UnicodeDecodeError:
        raise MalformedRequest("user name is not UTF-8", request_id, status=400) from None
    if not name.isprintable():
        raise MalformedRequest("control characters in the user name", request_id, status=400)
    if mechanism == "PLAIN" and b"\0" in credentials[1]:
        raise MalformedRequest("NUL in the password", request_id, status=400)
