"""A record in which nothing happens, for tests of those who stand between it and its callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any

from zapd.admin.services.audit import AuditFilter
from zapd.audit.selection import Sought
from zapd.audit.sinks.following import BEGINNING, Place, Resumed, Step


class QuietCopy:
    """A searchable copy in which nothing happens."""

    async def newest(self) -> Place:
        return BEGINNING

    async def before(self, _moment: datetime) -> Place:
        return BEGINNING

    async def resume(self, place: Place) -> Resumed:
        return Resumed(place)

    async def read_after(self, place: Place, _wanted: AuditFilter, _limit: int) -> Step:
        return Step((), place, more=False)

    async def changed(self, _place: Place, _seconds: float) -> None:
        await asyncio.sleep(0.01)


class QuietJournals:
    """Journals of two pieces, whose verification ends when it is let."""

    def __init__(self) -> None:
        self.done = asyncio.Event()
        self.done.set()
        self.sought: list[Sought] = []

    async def octets(self, sought: Sought) -> int:
        self.sought.append(sought)
        return 2

    async def export(self, _sought: Sought, _form: str) -> AsyncGenerator[bytes, None]:
        yield b"a"
        yield b"b"

    async def verify(self) -> dict[str, Any]:
        await self.done.wait()
        return {"good": True, "records": 0, "instances": [], "problems": [], "blind": []}
