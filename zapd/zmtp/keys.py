"""CURVE keys as people meet them: Z85 text (RFC 32), pairs, fingerprints.

What a person types is taken exactly or not at all: nothing is trimmed, nothing guessed. No message repeats what
was typed, since it may have been the secret half. Who owns a key is not known here.
"""

from __future__ import annotations

import base64
from binascii import b2a_base64
from hashlib import sha256
from typing import Final

from zapd.errors import InvalidInput
from zapd.zmtp import crypto

Z85_ALPHABET: Final = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
"""RFC 32: the digits 0 to 84."""
Z85_KEY_SIZE: Final = 40
"""Characters of a key: five for each four octets."""

_DIGITS: Final = {character: digit for digit, character in enumerate(Z85_ALPHABET)}
_POWERS: Final = (85**4, 85**3, 85**2, 85, 1)
_WORD_LIMIT: Final = 1 << 32
_HEX: Final = frozenset("0123456789abcdefABCDEF")
_BASE64: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_=")


def fingerprint(public_key: bytes) -> str:
    """``SHA256:`` and unpadded base64 of the SHA-256 of the 32 octets, as OpenSSH writes it (contract)."""
    # binascii and not base64: this stands on the road of every CURVE question.
    return "SHA256:" + b2a_base64(sha256(public_key).digest(), newline=False)[:-1].decode("ascii")


def fingerprint_id(public_key: bytes) -> str:
    """The 43 characters of URL-safe base64 alone: what URL paths and the database use."""
    return base64.urlsafe_b64encode(sha256(public_key).digest()).rstrip(b"=").decode("ascii")


def identifier_of(fingerprint: str) -> str:
    """What `fingerprint_id` gives, of the text that `fingerprint` gives, with ``SHA256:`` or without."""
    return fingerprint.removeprefix("SHA256:").replace("+", "-").replace("/", "_")


def mark_of(identifier: str) -> str:
    """The other way, without ``SHA256:``: 43 characters of ordinary base64."""
    return identifier.replace("-", "+").replace("_", "/")


def fingerprint_of(identifier: str) -> str:
    """The text that `fingerprint` gives, of what `fingerprint_id` gives."""
    return "SHA256:" + mark_of(identifier)


def decode_public_key(text: str) -> bytes:
    """The 32 octets of a Z85 public key of exactly 40 characters.

    Raises `zapd.errors.InvalidInput` that says what is wrong (length, a character outside Z85, hex or base64
    mistaken for Z85, a low-order point), nothing trimmed.
    """
    key = _decode_key(text, "public key")
    if crypto.is_low_order(key):
        raise InvalidInput("this public key is a point of small order, which anybody can use: make a new pair")
    return key


def check_public_key(key: bytes) -> bytes:
    """``key`` if an honest pair can have it as its public half: what a registry accepts (limits.md R6).

    Raises `zapd.errors.InvalidInput` that says what is wrong and the mend. Stricter than `decode_public_key`,
    which must also read keys that are only asked about.
    """
    if len(key) != crypto.KEY_SIZE:
        raise InvalidInput(f"a CURVE public key has {crypto.KEY_SIZE} octets, not {len(key)}")
    if not any(key):
        raise InvalidInput("this public key is all zeros, as an empty buffer is: send the pair's public half")
    if key[-1] & 0x80:
        raise InvalidInput(
            "this public key has its top bit set, as none that was made from a secret has: it was damaged on its"
            " way or is no CURVE key; make a new pair with `zapd keygen`"
        )
    if crypto.is_low_order(key):
        raise InvalidInput("this public key is a point of small order, which anybody can use: make a new pair")
    if not crypto.is_ordinary(key):
        raise InvalidInput(
            "this is no point that a secret key leads to (it lies on the curve's twist or outside the prime"
            " subgroup): it may be a secret key, or damaged; send the public half, or make a new pair with"
            " `zapd keygen`"
        )
    return key


def decode_secret_key(text: str) -> bytes:
    """The 32 octets of a Z85 secret key of exactly 40 characters; `InvalidInput` as for a public one."""
    return _decode_key(text, "secret key")


def encode_key(key: bytes) -> str:
    """Z85 of 32 octets."""
    if len(key) != crypto.KEY_SIZE:
        raise InvalidInput(f"a CURVE key has {crypto.KEY_SIZE} octets, not {len(key)}")
    words = (int.from_bytes(key[start : start + 4], "big") for start in range(0, crypto.KEY_SIZE, 4))
    return "".join(Z85_ALPHABET[word // power % 85] for word in words for power in _POWERS)


def generate_keypair() -> tuple[bytes, bytes]:
    """(public, secret), 32 octets each, from the operating system's randomness."""
    return crypto.keypair()


def public_of(secret_key: bytes) -> bytes:
    """The public half."""
    if len(secret_key) != crypto.KEY_SIZE:
        raise InvalidInput(f"a CURVE secret key has {crypto.KEY_SIZE} octets, not {len(secret_key)}")
    return crypto.public_of(secret_key)


def _decode_key(text: str, what: str) -> bytes:
    if len(text) != Z85_KEY_SIZE:
        raise InvalidInput(f"a CURVE {what} is {Z85_KEY_SIZE} characters of Z85, not {len(text)}{_guess(text)}")
    octets = bytearray()
    for start in range(0, Z85_KEY_SIZE, 5):
        word = 0
        for place in range(start, start + 5):
            digit = _DIGITS.get(text[place])
            if digit is None:
                raise InvalidInput(
                    f"character {place + 1} of this CURVE {what}, {text[place]!a}, is not one of Z85 (RFC 32)"
                )
            word = word * 85 + digit
        if word >= _WORD_LIMIT:
            raise InvalidInput(
                f"characters {start + 1} to {start + 5} of this CURVE {what} are not Z85: they exceed 32 bits"
            )
        octets += word.to_bytes(4, "big")
    return bytes(octets)


def _guess(text: str) -> str:
    """What a text of the wrong length looks like, as the end of a message."""
    if len(text.strip()) == Z85_KEY_SIZE:
        return " (there is white space around it)"
    if len(text) == 2 * crypto.KEY_SIZE and _HEX.issuperset(text):
        return " (this looks like hex: convert it to Z85)"
    if len(text) in (43, 44) and _BASE64.issuperset(text):
        return " (this looks like base64: convert it to Z85)"
    return ""
