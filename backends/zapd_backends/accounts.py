"""The name of the account with a number. Blocking: name services such as sssd may be away, and hang.

The standard library's ``pwd`` says "there is none" also when a name service could not be asked; glibc tells the
two apart, so it is asked directly.
"""

from __future__ import annotations

import ctypes
import errno
import os
from typing import Final

from zapd.errors import Unavailable

_FIRST: Final = 1024
_MOST: Final = 1 << 20
"""Octets that one account's record may take."""


class _Account(ctypes.Structure):
    """The beginning of C's ``struct passwd``."""

    _fields_ = (("name", ctypes.c_char_p), ("_rest", ctypes.c_char * 256))


_libc = ctypes.CDLL(None)


def name_of(number: int) -> str | None:
    """The account's name; None where there is no such account. Raises `Unavailable` where nobody can tell."""
    size = _FIRST
    while size <= _MOST:
        account, found = _Account(), ctypes.c_void_p()
        room = ctypes.create_string_buffer(size)
        failed = _libc.getpwuid_r(
            ctypes.c_uint32(number), ctypes.byref(account), room, ctypes.c_size_t(size), ctypes.byref(found)
        )
        if failed == errno.EINTR:
            continue
        if failed == errno.ERANGE:
            size *= 4
            continue
        if failed:
            raise Unavailable(f"the name service cannot tell who user {number} is: {os.strerror(failed)}")
        return os.fsdecode(account.name) if found.value and account.name else None
    raise Unavailable(f"the account of user {number} is longer than {_MOST >> 20} MiB")
