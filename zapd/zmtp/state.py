"""Where a connection stands, and the moves that are lawful there.

The whole life of a connection is this table; `zapd.zmtp.connection.Connection` has one method through which
every move passes. A move that is not in the table is a mistake of the *caller*, since a peer's mistakes are
moves themselves (``FAIL``).

    GREETING ──greet──▶ HANDSHAKE ──complete──▶ READY ──leave──▶ CLOSED
                          │    ▲
                         ask  accept
                          ▼    │
                         VERDICT

    and from each of GREETING, HANDSHAKE, VERDICT, READY: ──fail──▶ FAILED
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from zapd.errors import LocalProtocolError


class State(Enum):
    """Where a connection stands."""

    __hash__ = object.__hash__  # Enum's own is written in Python, and every move looks into a table

    GREETING = auto()
    """Fewer than 64 octets have come."""
    HANDSHAKE = auto()
    """The mechanism's dialogue runs; the peer has the word."""
    VERDICT = auto()
    """Credentials are on the table; our owner has the word."""
    READY = auto()
    """Traffic flows."""
    CLOSED = auto()
    """The peer left in good order."""
    FAILED = auto()
    """The peer broke the protocol, refused us, or was refused."""


class Move(Enum):
    """What takes a connection from one state to the next."""

    __hash__ = object.__hash__

    GREET = auto()
    ASK = auto()
    ACCEPT = auto()
    COMPLETE = auto()
    LEAVE = auto()
    FAIL = auto()


MOVES: Final[dict[tuple[State, Move], State]] = {
    (State.GREETING, Move.GREET): State.HANDSHAKE,
    (State.GREETING, Move.FAIL): State.FAILED,
    (State.HANDSHAKE, Move.ASK): State.VERDICT,
    (State.HANDSHAKE, Move.COMPLETE): State.READY,
    (State.HANDSHAKE, Move.FAIL): State.FAILED,
    (State.VERDICT, Move.ACCEPT): State.HANDSHAKE,
    (State.VERDICT, Move.FAIL): State.FAILED,
    (State.READY, Move.LEAVE): State.CLOSED,
    (State.READY, Move.FAIL): State.FAILED,
}
"""Every lawful move. What is missing here cannot happen."""

OVER: Final = frozenset({State.CLOSED, State.FAILED})
"""No move leads out of these."""


def after(state: State, move: Move) -> State:
    """The state that ``move`` leads to; `LocalProtocolError` where it is not lawful."""
    try:
        return MOVES[state, move]
    except KeyError:
        raise LocalProtocolError(f"{move.name.lower()} is not possible in state {state.name.lower()}") from None
