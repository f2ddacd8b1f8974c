"""Whose a public key may not be: the server's, an agent's, a client's, or nobody's because it is none.

Keys of one kind are never keys of another (limits.md R6, R7): whoever mixed two up hears which, and the mend.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from zapd.admin.roles import Actor
from zapd.errors import Conflict, InvalidInput
from zapd.store.agents import AgentRecord
from zapd.store.keys import KeyRecord

ServerKeys = Callable[[], Collection[bytes]]
"""This zapd's own public keys."""

_NEW = "make a new pair with `zapd keygen`"


def refuse_server_key(public_key: bytes, server_keys: ServerKeys, whose: str) -> None:
    """``whose`` is the client or the agent."""
    if public_key in server_keys():
        raise InvalidInput(f"This is the public key of a zapd server, not of {whose}: {_NEW}.")


def refuse_agents_key(public_key: bytes, agents: Mapping[bytes, AgentRecord]) -> None:
    """A client's key that is an agent's, or was before it was rotated."""
    if public_key in agents:
        raise InvalidInput(f"This is an agent's public key, not a client's: {_NEW}.")


def refuse_known_key(actor: Actor, known: KeyRecord | None) -> None:
    """A key that is registered already; its holder is named to those who may see it."""
    if known is None:
        return
    if actor.sees(known.domains):
        raise Conflict(f"This key is registered already, for {known.user!r}; it is {known.state}.")
    raise Conflict("This key is registered already.")
