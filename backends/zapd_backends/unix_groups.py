"""A process that looks up this machine's accounts and their groups: name services such as sssd may hang.

Started by `processes` as ``python -m zapd_backends.unix_groups``.
"""

from __future__ import annotations

from typing import Final

import msgspec

from zapd.errors import Unavailable
from zapd_backends.accounts import find_account, groups_of
from zapd_backends.worker import MAX_ANSWER, serve

_TOO_MANY: Final = f"the names of its groups take more than {MAX_ANSWER >> 20} MiB"


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """Whose account: a name, or a number."""

    user: str | int


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What is known of it."""

    name: str | None = None
    """None where there is no such account, or none can be found now."""
    groups: tuple[str, ...] = ()
    doubt: str = ""
    """Why the account may be there all the same, or have more groups; empty where all were asked."""
    fault: str = ""
    """Why its groups cannot be told, although all were asked: a trouble of this account alone."""


def tell(ask: Ask) -> Told:
    """Blocking."""
    try:
        account = find_account(ask.user)
    except Unavailable as error:
        return Told(doubt=str(error))
    return Told() if account is None else Told(account.name, *groups_of(account))


def answer(body: bytes) -> bytes:
    """The octets of a `Told` for those of an `Ask`."""
    told = tell(msgspec.msgpack.decode(body, type=Ask))
    octets = msgspec.msgpack.encode(told)
    return octets if len(octets) <= MAX_ANSWER else msgspec.msgpack.encode(Told(told.name, fault=_TOO_MANY))


if __name__ == "__main__":
    serve(answer)
