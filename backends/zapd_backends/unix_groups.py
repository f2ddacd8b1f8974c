"""A process that looks up the groups of this machine's accounts: name services such as sssd may be away, and hang.

Started by `processes` as ``python -m zapd_backends.unix_groups``.
"""

from __future__ import annotations

import grp
import os
import pwd

import msgspec

from zapd_backends.worker import serve


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """Whose groups."""

    user: str


class Told(msgspec.Struct, frozen=True, array_like=True):
    """The names of the groups; None where there is no such account."""

    groups: tuple[str, ...] | None = None


def groups_of(user: str) -> tuple[str, ...] | None:
    """As the machine's name services know them, the account's own group among them. Numbers without a name are
    left out."""
    try:
        account = pwd.getpwnam(user)
    except KeyError:
        return None
    names = []
    for number in os.getgrouplist(account.pw_name, account.pw_gid):
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return tuple(names)


def answer(body: bytes) -> bytes:
    """The octets of a `Told` for those of an `Ask`."""
    return msgspec.msgpack.encode(Told(groups_of(msgspec.msgpack.decode(body, type=Ask).user)))


if __name__ == "__main__":
    serve(answer)
