"""The journal's Ed25519 key, and small signed statements made with it.

A statement is one line of JSON whose last member is ``signature``: base64 of Ed25519 over ``zapd journal 1``,
a newline, and the line's own octets before ``,"signature"``. Checkpoints and stubs are such statements.
Knows nothing of what they say.
"""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Mapping
from pathlib import Path

import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

from zapd.audit.segment import sync_folder, write_all
from zapd.errors import ConfigurationError, Conflict, InvalidInput

_CONTEXT = b"zapd journal 1\n"
_MEMBER = b',"signature":"'
_TAIL = len(_MEMBER) + 88 + 2


def new_signing_key() -> tuple[str, str]:
    """A new key: what its file holds (base64 of its 32 octet seed), and its public half."""
    seed = bytes(SigningKey.generate())
    return base64.b64encode(seed).decode("ascii") + "\n", public_text(seed)


def generate_signing_key(path: Path) -> str:
    """Write a new key into a file of mode 0600 and return its public half.

    Raises `Conflict` when the file exists: an old key is never overwritten.
    """
    secret, public = new_signing_key()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise Conflict(f"{path} exists already; move it away to make a new signing key") from None
    try:
        write_all(descriptor, secret.encode("ascii"))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_folder(path.parent)
    return public


def load_signing_key(path: Path) -> bytes:
    """The 32 octet seed in a file that `generate_signing_key` wrote.

    Raises `ConfigurationError` when it cannot be read, when others can read it, or when it holds no key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            text = os.read(descriptor, 1024)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise ConfigurationError(f"the journal's signing key {path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise ConfigurationError(f"others can read the journal's signing key {path}; run chmod 600 on it")
    seed = _decode(text.strip())
    if seed is None:
        raise ConfigurationError(f"{path} holds no signing key: base64 of 32 octets is expected")
    return seed


def public_text(seed: bytes) -> str:
    """The public half as people see it: base64 of 32 octets."""
    return base64.b64encode(bytes(SigningKey(seed).verify_key)).decode("ascii")


def parse_public_key(text: str) -> bytes:
    """The 32 octets of a public half. Raises `InvalidInput`."""
    key = _decode(text.strip().encode("utf-8", "replace"))
    if key is None:
        raise InvalidInput("a journal's public key is base64 of 32 octets, 44 characters")
    return key


def sign(members: Mapping[str, object], seed: bytes | None) -> bytes:
    """One signed line, newline included; without a key, an unsigned one."""
    body = msgspec.json.encode(members)[:-1]
    if seed is None:
        return body + b"}\n"
    signature = SigningKey(seed).sign(_CONTEXT + body).signature
    return body + _MEMBER + base64.b64encode(signature) + b'"}\n'


def is_signed_by(line: bytes, public_key: bytes) -> bool:
    """Whether a line (with or without its newline) carries a valid signature of this key."""
    line = line.rstrip(b"\n")
    at = len(line) - _TAIL
    if at < 1 or line[at : at + len(_MEMBER)] != _MEMBER or line[-2:] != b'"}':
        return False
    try:
        signature = base64.b64decode(line[at + len(_MEMBER) : -2], validate=True)
        VerifyKey(public_key).verify(_CONTEXT + line[:at], signature)
    except (BadSignatureError, binascii.Error, ValueError):
        return False
    return True


def _decode(text: bytes) -> bytes | None:
    try:
        octets = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None
    return octets if len(octets) == 32 else None
