"""The services behind this machine's accounts (``/etc/nsswitch.conf``), asked one by one.

glibc goes from service to service and tells what the last one said: "there is none" may hide that one before was
away, and of a user's groups it never tells. So the modules are asked themselves, by the interface that glibc's
manual gives them ("NSS Module Function Interface"). Blocking, and a service may hang.
"""

from __future__ import annotations

import ctypes
import errno
import os
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final

from zapd.errors import Unavailable

CONFIGURATION: Final = Path("/etc/nsswitch.conf")
HERE: Final = frozenset({"files", "altfiles", "extrausers", "compat", "db", "systemd", "mymachines"})
"""Services that are never away: they look on this machine alone, and say so also where they are not in use."""

_TRYAGAIN, _UNAVAIL, _SUCCESS = -2, -1, 1
"""Of ``enum nss_status``."""
_ROOM: Final = 4096
_NUMBERS: Final = 64
"""Groups that there is room for at first."""


class Record(ctypes.Structure):
    """The beginning of C's ``struct passwd``, and of ``struct group`` but for ``gid``."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("_password", ctypes.c_char_p),
        ("_number", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("_rest", ctypes.c_char * 256),
    )


libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p


class Service:
    """One that may be away."""

    def __init__(self, name: str) -> None:
        """Raises OSError where its module is not installed: glibc passes it over, too."""
        self.name = name
        self._module = _module(name)

    def knows(self, function: str, key: ctypes.c_uint32 | ctypes.c_char_p) -> bool:
        """Whether it has what ``function`` (``getpwuid_r``…) finds by this key. Raises `Unavailable`."""
        find = getattr(self._module, f"_nss_{self.name}_{function}", None)
        if find is None:
            return False
        record, room, failed = Record(), ctypes.create_string_buffer(_ROOM), ctypes.c_int()
        status = find(key, ctypes.byref(record), room, ctypes.c_size_t(_ROOM), ctypes.byref(failed))
        return self._found(status, failed.value)

    def groups_of(self, user: bytes, own: int) -> set[int]:
        """The numbers of the groups that it has this user in, ``own`` not among them. Raises `Unavailable`."""
        find = getattr(self._module, f"_nss_{self.name}_initgroups_dyn", None)
        if find is None:
            return set()
        start, size, failed = ctypes.c_long(0), ctypes.c_long(_NUMBERS), ctypes.c_int()
        # The module may ask for more room, with realloc.
        numbers = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(_NUMBERS * ctypes.sizeof(ctypes.c_uint32))))
        places = (ctypes.byref(start), ctypes.byref(size), ctypes.byref(numbers))
        try:
            status = find(user, ctypes.c_uint32(own), *places, ctypes.c_long(-1), ctypes.byref(failed))
            if not self._found(status, failed.value) or not numbers.value:
                return set()
            return set((ctypes.c_uint32 * start.value).from_address(numbers.value)) - {own}
        finally:
            libc.free(numbers)

    def _found(self, status: int, failed: int) -> bool:
        if status == _TRYAGAIN and failed == errno.ERANGE:
            return True  # more than there was room for
        if status in (_TRYAGAIN, _UNAVAIL):
            why = f": {os.strerror(failed)}" if failed else ""  # which winbind's does not say
            raise Unavailable(f"the name service {self.name} cannot be asked{why}")
        return bool(status == _SUCCESS)


def services(*databases: str) -> Iterator[Service]:
    """Those of the first of these databases that the configuration has, in its order, but for the ones that are
    never away. It is read each time, as glibc does."""
    try:
        text = CONFIGURATION.read_text("utf-8", "replace")
    except OSError:
        return  # glibc asks the files, then
    lines = [line.partition("#")[0].partition(":") for line in text.splitlines()]
    said = {database.strip(): re.sub(r"\[[^]]*\]", " ", names).split() for database, _, names in lines}
    for name in next((said[database] for database in databases if database in said), ()):
        if name not in HERE:
            try:
                yield Service(name)
            except OSError:
                continue


@cache
def _module(name: str) -> ctypes.CDLL:
    return ctypes.CDLL(f"libnss_{name}.so.2")
