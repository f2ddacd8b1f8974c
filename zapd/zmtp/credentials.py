"""What a peer offers as proof, one type for each mechanism (RFC 23, 24, 26, 38).

Secrets are hidden from ``repr``. `frames` gives the credential frames of a ZAP request (RFC 27).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class NullCredentials:
    """Nothing at all (RFC 23)."""

    @property
    def frames(self) -> tuple[bytes, ...]:
        return ()


@dataclass(frozen=True, slots=True)
class PlainCredentials:
    """A user name and a password, raw octets, 0 to 255 each (RFC 24)."""

    username: bytes
    password: bytes = field(repr=False)

    @property
    def frames(self) -> tuple[bytes, ...]:
        return (self.username, self.password)


@dataclass(frozen=True, slots=True)
class CurveCredentials:
    """The client's long-term public key, 32 octets, whose secret half it has proved to hold (RFC 26)."""

    public_key: bytes

    @property
    def frames(self) -> tuple[bytes, ...]:
        return (self.public_key,)


@dataclass(frozen=True, slots=True)
class GssapiCredentials:
    """The client's principal as its mechanism displays it, which a ticket has proved (RFC 38)."""

    principal: bytes

    @property
    def frames(self) -> tuple[bytes, ...]:
        return (self.principal,)


Credentials = NullCredentials | PlainCredentials | CurveCredentials | GssapiCredentials
"""The built-in kinds. A third party's mechanism may bring its own type with a ``frames`` property."""
