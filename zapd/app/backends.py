"""The configured backends: built, started, and exchanged on reload without a gap."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from zapd.auth.backend import BackendContext
from zapd.auth.catalog import START_DEADLINE, BackendHandle, Catalog
from zapd.auth.gate import Keeping
from zapd.config import BackendSection, Config

HURRY: Final = 2.0
"""Seconds that the start of zapd waits for a backend; it goes on starting then, and its questions hear 300."""

Built = tuple[str, dict[str, object], Keeping, float]
"""Type, settings with secrets revealed, how it is kept, and the deadline it was told: what a handle was built
from. Lives in memory only."""


class Backends:
    """Handles by name, each with what it was built from."""

    def __init__(self, context: BackendContext) -> None:
        self._context = context
        self._catalog = Catalog()
        self._built: dict[str, Built] = {}
        self.handles: dict[str, BackendHandle] = {}

    def plan(self, config: Config) -> dict[str, BackendHandle]:
        """The handles that this configuration wants: those in force where nothing changed, else new ones, not
        started. Raises `ConfigurationError`, and changes nothing."""
        wanted: dict[str, BackendHandle] = {}
        for name, section in config.backend.items():
            built = _built_from(name, section, config)
            if self._built.get(name) == built:
                wanted[name] = self.handles[name]
            else:
                type_name, settings, keeping, deadline = built
                context = replace(self._context, deadline=deadline)
                wanted[name] = self._catalog.build(
                    name, type_name, settings, context, keeping, section.revealed_secrets()
                )
        return wanted

    async def adopt(
        self, wanted: Mapping[str, BackendHandle], config: Config, *, hurry: bool = False
    ) -> list[BackendHandle]:
        """Start what is new and take ``wanted`` in; gives back what is not wanted any more, still open.

        ``hurry``: nobody decides meanwhile, so that one that hangs must not hold up the others' domains. Only
        zapd's own registry is waited for to the end.
        """
        new = [handle for handle in wanted.values() if handle not in self.handles.values()]
        await asyncio.gather(
            *(handle.start(HURRY if hurry and handle.type != "sql" else START_DEADLINE) for handle in new)
        )
        gone = [handle for handle in self.handles.values() if handle not in wanted.values()]
        self.handles = dict(wanted)
        self._built = {name: _built_from(name, section, config) for name, section in config.backend.items()}
        return gone

    async def aclose(self) -> None:
        """Close all."""
        await asyncio.gather(*(handle.aclose() for handle in self.handles.values()))


def _built_from(name: str, section: BackendSection, config: Config) -> Built:
    asking = (rule for rule in config.rules() if any(link.backend == name for link in rule.backends))
    deadline = max((rule.backend_deadline for rule in asking), default=config.limits.backend_deadline)
    return section.type, section.revealed_settings(), section.keeping, deadline
