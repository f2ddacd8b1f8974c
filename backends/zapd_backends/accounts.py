"""This machine's accounts and their groups. Blocking: name services such as sssd may be away, and hang.

The standard library's ``pwd`` and ``grp`` say "there is none" also when a name service could not be asked. So
glibc is asked directly, and what it does not find is asked of each service that may be away (`name_services`):
"there is none" is said only where all of them say so.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from typing import Final

from zapd.errors import Unavailable
from zapd_backends.name_services import Record, libc, services

_FIRST: Final = 1024
_MOST: Final = 1 << 20
"""Octets that one record may take."""
_TIMES: Final = 2
"""How often two are asked until they agree: one may have come back between. After that it is the configuration
that passes a service over."""


@dataclass(frozen=True, slots=True)
class Account:
    """What is needed of one."""

    name: str
    gid: int


def find_account(user: str | int) -> Account | None:
    """By name or number; None where there is no such account. Raises `Unavailable` where nobody can tell."""
    if isinstance(user, int):
        return _find("passwd", "getpwuid_r", ctypes.c_uint32(user))
    return _find("passwd", "getpwnam_r", ctypes.c_char_p(os.fsencode(user)))


def groups_of(account: Account) -> tuple[tuple[str, ...], str]:
    """The names of the groups it is in, its own among them; and why there may be more, empty where all were asked.
    Numbers without a name are left out."""
    doubt = ""
    try:
        numbers = _numbers(account)
    except Unavailable as error:
        numbers, doubt = os.getgrouplist(account.name, account.gid), str(error)
    names = []
    for number in numbers:
        try:
            group = _find("group", "getgrgid_r", ctypes.c_uint32(number))
        except Unavailable as error:
            doubt = str(error)
            continue
        if group is not None:
            names.append(group.name)
    return tuple(names), doubt


def _numbers(account: Account) -> list[int]:
    """Raises `Unavailable` where a service cannot be asked, which glibc keeps to itself."""
    for _ in range(_TIMES):
        numbers = os.getgrouplist(account.name, account.gid)
        told = [
            service.groups_of(os.fsencode(account.name), account.gid)
            for service in services("initgroups", "group")
        ]
        if set().union(*told).issubset(numbers):
            break
    return numbers


def _find(database: str, function: str, key: ctypes.c_uint32 | ctypes.c_char_p) -> Account | None:
    for _ in range(_TIMES):
        found = _ask(function, key)
        if found is not None or not any(service.knows(function, key) for service in services(database)):
            return found
    return None


def _ask(function: str, key: ctypes.c_uint32 | ctypes.c_char_p) -> Account | None:
    """Ask glibc, which goes through all services. Of a group only the name counts."""
    size = _FIRST
    while size <= _MOST:
        record, found = Record(), ctypes.c_void_p()
        room = ctypes.create_string_buffer(size)
        failed = libc[function](key, ctypes.byref(record), room, ctypes.c_size_t(size), ctypes.byref(found))
        if failed == errno.EINTR:
            continue
        if failed == errno.ERANGE:
            size *= 4
            continue
        if failed:
            raise Unavailable(f"the machine's name services cannot be asked: {os.strerror(failed)}")
        return Account(os.fsdecode(record.name), record.gid) if found.value and record.name else None
    raise Unavailable(f"a record of the machine's name services is longer than {_MOST >> 20} MiB")
