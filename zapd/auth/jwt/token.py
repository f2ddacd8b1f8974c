"""What a token says, before and after its signature is checked. Pure; the clock is passed in.

PyJWT takes the token apart and checks signature, issuer and audience; times are checked here, by our clock. The
rules of RFC 8725 that need somebody to hold them are held here: one list of algorithms, keys by their kind and not
by what the token says, no header that changes what the others mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jwt
from jwt.exceptions import (
    InvalidAudienceError,
    InvalidSignatureError,
    MissingRequiredClaimError,
    PyJWTError,
)
from jwt.types import Options

from zapd.auth.jwt.keys import MAX_NAME, IssuerKey

_OPTIONS: Final[Options] = {
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_sub": False,
    "verify_jti": False,
}
"""Times are ours, since the clock is; what ``sub`` and ``jti`` must be is the caller's."""


@dataclass(frozen=True, slots=True)
class Glance:
    """What a token says of itself, and nobody has proved."""

    algorithm: str
    key_name: str | None
    issuer: str


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a token must be."""

    issuer: str
    audience: tuple[str, ...]
    """One of them must be meant; empty asks for none, and refuses a token that is meant for somebody."""
    require: tuple[str, ...] = ()
    """Claims that must be there; ``exp`` always must."""
    leeway: float = 0.0
    """Seconds that clocks may differ."""


class BadToken(Exception):
    """It proves nothing. ``reason`` is a stable code, without anything of the token."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class ExpiredToken(BadToken):
    """It was good once."""


class EarlyToken(BadToken):
    """It will be good later, if the clocks agree."""


def glance(token: bytes) -> Glance | None:
    """Look at a token without believing it; None for what is none at all (a password, an encrypted token)."""
    if token.count(b".") != 2 or b"=" in token:  # padded is another spelling of the same: RFC 7515, section 2
        return None
    try:
        header, claims = _unproved(token)
    except (PyJWTError, ValueError, RecursionError):
        return None
    algorithm, name, issuer = header.get("alg"), header.get("kid"), claims.get("iss")
    if not isinstance(algorithm, str) or not isinstance(issuer, str):
        return None
    if name is not None and not (isinstance(name, str) and len(name) <= MAX_NAME):
        return None
    return Glance(algorithm, name, issuer)


def prove(token: bytes, algorithm: str, keys: Sequence[IssuerKey], wanted: Wanted, now: float) -> dict[str, Any]:
    """The claims of a token that one of these keys signed and that is good now, seconds since 1970. Its ``exp`` is
    a finite number.

    ``algorithm`` was found among those allowed. Raises `BadToken`.
    """
    options: Options = {**_OPTIONS, "require": ["exp", *wanted.require]}
    found: dict[str, Any] | None = None
    for key in keys:
        try:
            found = jwt.decode_complete(
                token,
                key.key,
                algorithms=[algorithm],
                audience=list(wanted.audience) or None,
                issuer=wanted.issuer,
                options=options,
            )
            break
        except InvalidSignatureError:
            continue
        except InvalidAudienceError:
            raise BadToken("token_audience") from None
        except MissingRequiredClaimError:
            raise BadToken("token_claim_missing") from None
        except (PyJWTError, ValueError, TypeError, RecursionError):
            raise BadToken("token_invalid") from None
    if found is None:
        raise BadToken("token_signature")
    if "crit" in found["header"] or "b64" in found["header"]:
        raise BadToken("token_invalid")  # RFC 7515, section 4.1.11: what is critical and not known here
    claims: dict[str, Any] = found["payload"]
    expires = _time(claims, "exp", 0.0)
    if expires <= now - wanted.leeway:
        raise ExpiredToken("token_expired")
    if max(_time(claims, "nbf", 0.0), _time(claims, "iat", 0.0)) > now + wanted.leeway:
        raise EarlyToken("token_not_yet")
    return claims


def claim(claims: Mapping[str, Any], name: str) -> Any:
    """The claim of this name; else, where the name has dots, what lies at the end of that path; else None."""
    if name in claims:
        return claims[name]
    found: Any = claims
    for part in name.split("."):
        if not isinstance(found, dict) or part not in found:
            return None
        found = found[part]
    return found


def _unproved(token: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    options: Options = {**_OPTIONS, "verify_signature": False}
    found = jwt.decode_complete(token, options=options)
    return found["header"], found["payload"]


def _time(claims: Mapping[str, Any], name: str, otherwise: float) -> float:
    """A NumericDate (RFC 7519, section 2): a number, which a truth value is not."""
    value = claims.get(name, otherwise)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadToken("token_invalid")
    try:
        seconds = float(value)
    except OverflowError:
        raise BadToken("token_invalid") from None
    if not math.isfinite(seconds):
        raise BadToken("token_invalid")
    return seconds
