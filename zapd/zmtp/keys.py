"""CURVE keys as people meet them: Z85 text (RFC 32), pairs, fingerprints. (Contract; completed by its author.)"""

from __future__ import annotations

import base64
import hashlib


def fingerprint(public_key: bytes) -> str:
    """``SHA256:`` and unpadded base64 of the SHA-256 of the 32 octets, as OpenSSH writes it (contract)."""
    digest = hashlib.sha256(public_key).digest()
    return "SHA256:" + base64.b64encode(digest).rstrip(b"=").decode("ascii")


def fingerprint_id(public_key: bytes) -> str:
    """The 43 characters of URL-safe base64 alone: what URL paths and the database use."""
    return base64.urlsafe_b64encode(hashlib.sha256(public_key).digest()).rstrip(b"=").decode("ascii")


def decode_public_key(text: str) -> bytes:
    """The 32 octets of a Z85 public key of exactly 40 characters.

    Raises `zapd.errors.InvalidInput` that says what is wrong (length, a character outside Z85, hex or base64
    mistaken for Z85, a low-order point), nothing trimmed.
    """
    raise NotImplementedError


def encode_key(key: bytes) -> str:
    """Z85 of 32 octets."""
    raise NotImplementedError


def generate_keypair() -> tuple[bytes, bytes]:
    """(public, secret), 32 octets each."""
    raise NotImplementedError


def public_of(secret_key: bytes) -> bytes:
    """The public half."""
    raise NotImplementedError
