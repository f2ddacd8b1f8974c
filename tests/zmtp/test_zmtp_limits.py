"""Bounds that make sense together."""

from __future__ import annotations

import pytest

from zapd.errors import InvalidInput
from zapd.zmtp.limits import Limits
from zapd.zmtp.socket_types import LEGAL_PAIRS, SOCKET_TYPES, compatible


@pytest.mark.parametrize("name", ["handshake_command", "command", "parts", "message", "properties"])
def test_a_bound_of_nothing_is_refused(name: str) -> None:
    """A limit of zero would end every connection, so it is said at once."""
    with pytest.raises(InvalidInput, match=name):
        Limits(**{name: 0})


def test_short_frames_always_fit() -> None:
    """The frame limit cannot fall below what a short frame may hold."""
    assert Limits(frame=255).frame == 255
    with pytest.raises(InvalidInput, match="frame"):
        Limits(frame=254)


def test_the_socket_table_is_symmetric() -> None:
    """Who may talk does not depend on who asks (RFC 23, "Socket-Type")."""
    assert all(compatible(theirs, ours) for ours, theirs in LEGAL_PAIRS)
    assert compatible("REQ", "ROUTER")
    assert not compatible("REQ", "DEALER")
    assert not compatible("ROUTER", "router")
    assert {"REQ", "REP", "DEALER", "ROUTER", "PUB", "SUB", "XPUB", "XSUB", "PUSH", "PULL", "PAIR"} <= SOCKET_TYPES
