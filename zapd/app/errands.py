"""Exports and verifications of this zapd's own journal, each by a process of its own (`zapd.audit.errand`)."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator
from typing import Any, Final

import msgspec

from zapd.audit.beside import head_file, public_key_of
from zapd.audit.errand import Form, Order
from zapd.audit.export import octets_since
from zapd.audit.selection import Sought
from zapd.child import Child, start_child
from zapd.config import Config
from zapd.errors import Unavailable

PIECE: Final = 65_536
VERIFY_SECONDS: Final = 900.0
"""For a verification; 20 GB take less."""
REPORT: Final = 16 << 20
"""Octets of a report, at most."""


class Errands:
    """See `zapd.admin.services.audit.Journals`."""

    def __init__(self, config: Config) -> None:
        self._config = config

    async def octets(self, sought: Sought) -> int:
        """How much an export has to read."""
        return await asyncio.to_thread(octets_since, self._config.journal_dir, sought.since, sought.instance)

    async def export(self, sought: Sought, form: Form) -> AsyncGenerator[bytes, None]:
        """The octets, as they are read. Raises `Unavailable` when they were not all."""
        order = Order(str(self._config.journal_dir), form=form, sought=sought)
        async with _sent(order) as (process, out):
            while piece := await out.read(PIECE):
                yield piece
            if await process.wait() != 0:
                raise Unavailable("The journal cannot be read: `zapd audit verify` says where.")

    async def verify(self) -> dict[str, Any]:
        """The report of `zapd audit verify` with the key beside the journal. Raises `Unavailable`."""
        config = self._config
        head = head_file(config.audit.head, config.base_dir)
        key = await asyncio.to_thread(public_key_of, config.journal_key_file)
        order = Order(
            str(config.journal_dir),
            verify=True,
            public_key=(key or b"").hex(),
            heads=() if head is None else (str(head),),
        )
        async with _sent(order) as (process, out):
            try:
                async with asyncio.timeout(VERIFY_SECONDS):
                    report = await out.read(REPORT)
                    while more := await out.read(REPORT - len(report)):
                        report += more
                    good = await process.wait() == 0
            except TimeoutError:
                words = f"It took longer than {VERIFY_SECONDS / 60:g} minutes"
                raise Unavailable(f"{words}: run `zapd audit verify` beside the journal.") from None
        if not good:
            raise Unavailable("The journal cannot be read: `zapd audit verify` says why.")
        found: dict[str, Any] = msgspec.json.decode(report)
        return found


@contextlib.asynccontextmanager
async def _sent(order: Order) -> AsyncGenerator[tuple[Child, asyncio.StreamReader], None]:
    """The process at work; gone when the block ends."""
    try:
        process = await start_child(sys.executable, "-P", "-m", "zapd.audit.errand")
    except OSError as error:
        raise Unavailable(f"No process can be started now ({error.strerror}).") from None
    try:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            process.stdin.write(msgspec.json.encode(order) + b"\n")
            await process.stdin.drain()
        yield process, process.stdout
    finally:
        await process.end()
