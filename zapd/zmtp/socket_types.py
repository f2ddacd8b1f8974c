"""Socket types and which may talk to which (RFC 23 and 37, "Socket-Type").

Only names: how a REQ or a ROUTER behaves is its owner's business.
"""

from __future__ import annotations

from typing import Final

_PAIRS = (
    ("REQ", "REP"),
    ("REQ", "ROUTER"),
    ("REP", "DEALER"),
    ("DEALER", "DEALER"),
    ("DEALER", "ROUTER"),
    ("ROUTER", "ROUTER"),
    ("PUB", "SUB"),
    ("PUB", "XSUB"),
    ("XPUB", "SUB"),
    ("XPUB", "XSUB"),
    ("PUSH", "PULL"),
    ("PAIR", "PAIR"),
    # RFC 37's thread-safe types, whose messages have one frame each.
    ("CLIENT", "SERVER"),
    ("RADIO", "DISH"),
    ("SCATTER", "GATHER"),
    ("PEER", "PEER"),
    ("CHANNEL", "CHANNEL"),
)

LEGAL_PAIRS: Final = frozenset(_PAIRS) | frozenset((second, first) for first, second in _PAIRS)
"""Both orders of every legal pair."""

SOCKET_TYPES: Final = frozenset(name for pair in _PAIRS for name in pair)

WITH_IDENTITY: Final = frozenset({"REQ", "DEALER", "ROUTER"})
"""The types that announce an Identity, empty or not."""

PUBLISHERS: Final = frozenset({"PUB", "XPUB"})
"""The types that take subscriptions, and nothing else in the case of PUB."""

SUBSCRIBERS: Final = frozenset({"SUB", "XSUB"})


def compatible(ours: str, theirs: str) -> bool:
    """Whether the two may talk. Names are compared exactly, in upper case, as libzmq does."""
    return (ours, theirs) in LEGAL_PAIRS
