"""The table of lawful moves."""

from __future__ import annotations

import itertools

import pytest

from zapd.errors import LocalProtocolError
from zapd.zmtp.state import MOVES, OVER, Move, State, after


@pytest.mark.parametrize(("state", "move"), list(itertools.product(State, Move)))
def test_each_move_is_lawful_or_refused(state: State, move: Move) -> None:
    """What the table has leads on; everything else is the caller's mistake."""
    if (state, move) in MOVES:
        assert after(state, move) is MOVES[state, move]
    else:
        with pytest.raises(LocalProtocolError, match=move.name.lower()):
            after(state, move)


def test_nothing_leads_out_of_the_end() -> None:
    """Closed and failed are final, and every other state can fail."""
    assert all(state not in OVER for state, _ in MOVES)
    assert {state for state, move in MOVES if move is Move.FAIL} == set(State) - OVER


def test_ready_is_reached_through_the_handshake_alone() -> None:
    """No verdict and no greeting leads straight to traffic: a peer is let in by completing its dialogue."""
    assert [pair for pair, state in MOVES.items() if state is State.READY] == [(State.HANDSHAKE, Move.COMPLETE)]
