"""The kinds of password hash that zapd reads, what each costs, and how it is checked. Blocking, thread-safe.

Argon2id is the kind that zapd makes. Bcrypt, SHA-512-crypt and what Apache's htpasswd writes are read, so that
existing files can be used. Which thread does the work is `zapd.auth.hashing`'s affair.

What a check costs is worked out from the hash's parameters, with times of one ordinary server core, so that a hash
which is taken on one machine is taken on all.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hmac import compare_digest
from typing import Final

import argon2
import bcrypt
from argon2.exceptions import InvalidHashError, VerifyMismatchError
from argon2.low_level import Type, hash_secret, verify_secret
from passlib.hash import apr_md5_crypt, ldap_sha1, sha512_crypt

from zapd.errors import InvalidInput

TIME_COST: Final = 2
MEMORY_COST: Final = 19456
"""KiB. With t=2 and p=1 this is OWASP's first choice for argon2id: some 28 ms."""
PARALLELISM: Final = 1

MAX_SECONDS: Final = 0.25
MAX_MEMORY: Final = 64 * 1024
"""KiB."""

_BCRYPT_OCTETS: Final = 72
"""All that bcrypt ever looked at; newer releases of the library refuse more instead of cutting."""

_BREATH: Final = 0.0002
"""Seconds that a worker sleeps after work in Python, so that the event loop's thread gets its turn. Two workers
that hand the interpreter to each other starved it for 40 ms at a time; one at a time, with this, for 3."""

_TURN = threading.Lock()

_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|[12]\d|3[01])\$[./A-Za-z0-9]{53}", re.ASCII)
_SHA512 = re.compile(r"\$6\$(?:rounds=([1-9]\d{3,8})\$)?[./A-Za-z0-9]{0,16}\$[./A-Za-z0-9]{86}", re.ASCII)
_APR1 = re.compile(r"\$apr1\$[./A-Za-z0-9]{0,8}\$[./A-Za-z0-9]{22}", re.ASCII)
_SHA1 = re.compile(r"\{SHA\}[A-Za-z0-9+/]{27}=", re.ASCII)


@dataclass(frozen=True, slots=True)
class Cost:
    """What one check takes."""

    seconds: float
    memory: int = 0
    """KiB."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of hash."""

    name: str
    prefixes: tuple[str, ...]
    cost: Callable[[str], Cost | None]
    """None for text that is not well-formed."""
    verify: Callable[[str, bytes], bool]


def new_hash(password: bytes) -> str:
    """An argon2id hash with the current parameters and a salt of its own."""
    return hash_secret(
        password, os.urandom(16), TIME_COST, MEMORY_COST, PARALLELISM, hash_len=32, type=Type.ID
    ).decode("ascii")


def decoy() -> str:
    """A well-formed argon2id hash with the current parameters that no password fits."""
    salt, tag = (b64encode(os.urandom(size)).rstrip(b"=").decode("ascii") for size in (16, 32))
    return f"$argon2id$v=19$m={MEMORY_COST},t={TIME_COST},p={PARALLELISM}${salt}${tag}"


def kind_of(stored: str) -> Kind:
    """The kind that ``stored`` says it is. Raises `InvalidInput`, which never quotes it."""
    for kind in KINDS:
        if stored.startswith(kind.prefixes):
            return kind
    raise InvalidInput("unknown kind of hash: argon2id, bcrypt, SHA-512-crypt ($6$), $apr1$ and {SHA} are read")


def cost_of(stored: str) -> Cost:
    """What checking ``stored`` costs. Raises `InvalidInput` for what is unreadable or dearer than may be."""
    kind = kind_of(stored)
    cost = kind.cost(stored)
    if cost is None:
        raise InvalidInput(f"malformed {kind.name} hash")
    if cost.seconds > MAX_SECONDS or cost.memory > MAX_MEMORY:
        raise InvalidInput(
            f"this {kind.name} hash is too dear: about {cost.seconds * 1000:.0f} ms"
            + (f" and {cost.memory // 1024} MiB" if cost.memory else "")
            + f" a check, where {MAX_SECONDS * 1000:.0f} ms and {MAX_MEMORY // 1024} MiB are allowed; "
            "hash the password again with lower parameters"
        )
    return cost


def _argon2_cost(stored: str) -> Cost | None:
    try:
        found = argon2.extract_parameters(stored)
    except (InvalidHashError, ValueError):
        return None
    if found.type is not Type.ID or found.version != 19 or found.parallelism > 16:
        return None
    seconds = 0.028 * (found.time_cost * found.memory_cost) / (TIME_COST * MEMORY_COST)
    return Cost(seconds, found.memory_cost)


def _argon2_verify(stored: str, password: bytes) -> bool:
    try:
        return verify_secret(stored.encode("ascii"), password, Type.ID)
    except VerifyMismatchError:
        return False


def _bcrypt_cost(stored: str) -> Cost | None:
    found = _BCRYPT.fullmatch(stored)
    return Cost(0.24 * 2.0 ** (int(found[1]) - 12)) if found else None


def _bcrypt_verify(stored: str, password: bytes) -> bool:
    return bcrypt.checkpw(password[:_BCRYPT_OCTETS], stored.encode("ascii"))


def _sha512_cost(stored: str) -> Cost | None:
    # A password of 255 octets costs four times a short one; a stranger chooses it, so that is the price.
    found = _SHA512.fullmatch(stored)
    return Cost(1.4e-6 * int(found[1] or 5000)) if found else None


def _sha512_verify(stored: str, password: bytes) -> bool:
    crypt = libcrypt()
    if crypt is None:
        return _in_python(sha512_crypt.verify, stored, password)
    made = crypt(password, stored.encode("ascii"))
    return compare_digest(made, stored.encode("ascii"))


def _apr1_verify(stored: str, password: bytes) -> bool:
    return _in_python(apr_md5_crypt.verify, stored, password)


def _sha1_verify(stored: str, password: bytes) -> bool:
    return _in_python(ldap_sha1.verify, stored, password)


def _in_python(verify: Callable[[bytes, str], bool], stored: str, password: bytes) -> bool:
    """Do work that holds the interpreter: one thread at a time, and then let others breathe."""
    with _TURN:
        try:
            return bool(verify(password, stored))
        finally:
            time.sleep(_BREATH)


def _fixed(pattern: re.Pattern[str], seconds: float) -> Callable[[str], Cost | None]:
    return lambda stored: Cost(seconds) if pattern.fullmatch(stored) else None


KINDS: Final = (
    Kind("argon2id", ("$argon2id$",), _argon2_cost, _argon2_verify),
    Kind("bcrypt", ("$2a$", "$2b$", "$2y$"), _bcrypt_cost, _bcrypt_verify),
    Kind("SHA-512-crypt", ("$6$",), _sha512_cost, _sha512_verify),
    Kind("Apache MD5", ("$apr1$",), _fixed(_APR1, 0.002), _apr1_verify),
    Kind("Apache SHA-1", ("{SHA}",), _fixed(_SHA1, 0.00001), _sha1_verify),
)
"""Every kind there is, the current one first."""


@cache
def libcrypt() -> Callable[[bytes, bytes], bytes] | None:
    """The system's ``crypt_r``, which works without holding the interpreter; None where there is none.

    In Python the same hash holds the interpreter for milliseconds, and the standard ``crypt`` (gone from 3.13)
    does so as well.
    """
    for name in ("libcrypt.so.1", "libcrypt.so.2", "libc.so.6", "libc.musl-x86_64.so.1"):
        try:
            crypt_r = ctypes.CDLL(name).crypt_r
        except (OSError, AttributeError):
            continue
        crypt_r.restype = ctypes.c_char_p
        crypt_r.argtypes = (ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)

        def crypt(password: bytes, setting: bytes, crypt_r: Callable[..., bytes | None] = crypt_r) -> bytes:
            # glibc's struct crypt_data has 131,232 octets, libxcrypt's 32,768. Given back zeroed: it is ours.
            room = ctypes.create_string_buffer(1 << 18)
            return crypt_r(password, setting, room) or b""

        if crypt(b"Hello world!", b"$6$saltstring").startswith(b"$6$saltstring$svn8UoSVapNtMuq1ukKS4tPQd8iK"):
            return crypt
    return None


# Never passlib's other choice, the standard ``crypt``: deprecated, and it holds the interpreter.
sha512_crypt.set_backend("builtin")
