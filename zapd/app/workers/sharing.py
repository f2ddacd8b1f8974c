"""What each worker takes of the bounds that hold for all of them. Pure."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Final

from zapd.config import Config

_SHARED: Final = {
    "connections": 64,
    "handshakes_total": 64,
    "handshakes_start": 64,
    "handshakes_per_source": 8,
    "handshakes_per_site": 8,
    "handshake_memory": 1 << 20,
    "held_total": 64,
    "max_in_flight": 64,
    "hash_waiting": 8,
}
"""Bounds for all connections together, each with the least that a worker needs to be of use."""


def share(config: Config, workers: int) -> Config:
    """``config`` for one of so many workers: of each bound that holds for all, its part, rounded up.

    A worker gets about every n-th connection, so that the parts together are the bound; where the part would be
    too small to work with, it is the least that is not.
    """
    limits = config.limits
    parts = {
        name: min(getattr(limits, name), max(least, -(-getattr(limits, name) // workers)))
        for name, least in _SHARED.items()
    }
    parts["hash_workers"] = -(-(limits.hash_workers or len(os.sched_getaffinity(0))) // workers)
    shared = limits.model_copy(update=parts)
    return replace(config, sections=config.sections.model_copy(update={"limits": shared}))
