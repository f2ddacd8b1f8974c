"""An issuer's public keys: a JSON Web Key Set (RFC 7517), or public keys in PEM. Pure.

Only keys that check signatures and nothing else are taken. A shared secret (``oct``) never is: whoever may check
could sign. A set that holds a private half is refused whole, since its tokens are anybody's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import msgspec
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import PyJWK
from jwt.exceptions import PyJWTError

from zapd.errors import InvalidInput

MAX_KEYS: Final = 64
MAX_SET: Final = 256 << 10
"""Octets of a set, or of a PEM file."""
MAX_NAME: Final = 255
"""Characters of a key's name (``kid``)."""
MIN_RSA: Final = 2048

PublicKey = EllipticCurvePublicKey | Ed25519PublicKey | RSAPublicKey

_RSA: Final = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"})
_CURVES: Final = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}
ALGORITHMS: Final = frozenset({"EdDSA", *_CURVES.values(), *_RSA})
"""What may be allowed: each needs a private key to sign. Never ``none``, never HMAC."""

_READERS: Final = {"EC": "ES256", "OKP": "EdDSA", "RSA": "RS256"}
"""An algorithm that leads PyJWK to the reader for a kind of key; what the key may check is looked at behind it."""

_PEM: Final = re.compile(rb"-----BEGIN ([A-Z0-9 ]+)-----.+?-----END \1-----", re.DOTALL)


@dataclass(frozen=True, slots=True)
class IssuerKey:
    """One key that checks an issuer's signatures."""

    name: str | None
    """Its ``kid``; None fits every token."""
    algorithms: frozenset[str]
    """What it checks, of `ALGORITHMS`."""
    key: PublicKey


def read_keys(data: bytes) -> tuple[IssuerKey, ...]:
    """The keys of a set or of a PEM file, in their order; those of another use or kind are passed over.

    Empty where there is none. Raises `InvalidInput`, which repeats nothing of what was read.
    """
    if len(data) > MAX_SET:
        raise InvalidInput(f"has more than {MAX_SET >> 10} KiB")
    if b"-----BEGIN " in data:
        return tuple(_pem_key(found) for found in _PEM.finditer(data))
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise InvalidInput("is neither a key set in JSON nor a public key in PEM") from None
    members = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(members, list):
        raise InvalidInput("is no key set: it has no list 'keys'")
    if len(members) > MAX_KEYS:
        raise InvalidInput(f"has more than {MAX_KEYS} keys")
    return tuple(key for key in map(_set_key, members) if key is not None)


def fitting(keys: tuple[IssuerKey, ...], algorithm: str, name: str | None) -> list[IssuerKey]:
    """The keys that may have signed a token with this ``alg`` and ``kid``."""
    return [
        key
        for key in keys
        if algorithm in key.algorithms and (name is None or key.name is None or key.name == name)
    ]


def _set_key(member: object) -> IssuerKey | None:
    if not isinstance(member, dict):
        return None
    if "d" in member or "k" in member:
        raise InvalidInput("holds a secret or private key: make new keys, and publish their public halves alone")
    if member.get("use", "sig") != "sig" or "verify" not in member.get("key_ops", ["verify"]):
        return None
    name = member.get("kid")
    if name is not None and not (isinstance(name, str) and len(name) <= MAX_NAME):
        return None
    reader = _READERS.get(str(member.get("kty")))
    if reader is None:
        return None
    try:
        key = PyJWK(member, reader).key
    except (PyJWTError, ValueError, TypeError, KeyError, UnsupportedAlgorithm):
        return None
    algorithms = _algorithms(key)
    wanted = member.get("alg")
    if wanted is not None:
        algorithms &= {"EdDSA" if wanted == "Ed25519" else wanted} if isinstance(wanted, str) else frozenset()
    return IssuerKey(name, algorithms, key) if algorithms else None


def _pem_key(found: re.Match[bytes]) -> IssuerKey:
    if b"PRIVATE" in found[1]:
        raise InvalidInput("holds a private key: store its public half alone")
    try:
        key = load_pem_public_key(found[0])
    except (ValueError, UnsupportedAlgorithm):
        raise InvalidInput("holds a PEM block that is no public key") from None
    algorithms = _algorithms(key)
    if not algorithms:
        raise InvalidInput(
            "holds a public key of a kind that signs no tokens here (EC, Ed25519, RSA of 2048 bits)"
        )
    return IssuerKey(None, algorithms, key)  # type: ignore[arg-type]


def _algorithms(key: object) -> frozenset[str]:
    match key:
        case Ed25519PublicKey():
            return frozenset({"EdDSA"})
        case EllipticCurvePublicKey():
            return frozenset({_CURVES[key.curve.name]} if key.curve.name in _CURVES else ())
        case RSAPublicKey() if key.key_size >= MIN_RSA:
            return _RSA
        case _:
            return frozenset()
