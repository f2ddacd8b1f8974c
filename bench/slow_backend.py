"""A backend that knows every key and takes its time: found by zapd as any stranger's is, by its entry point."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Self

from zapd.auth.backend import BackendContext, Outcome, Principal, Question, Verdict

SECONDS = 0.75
"""Just under the deadline that a backend has by default, 0.8 s."""


class SlowBackend:
    """Says yes to every CURVE key, late."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"CURVE"})

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        return cls()

    async def start(self) -> None:
        """There is nothing to open."""

    async def check(self, question: Question) -> Verdict:
        await asyncio.sleep(SECONDS)
        return Verdict(Outcome.ACCEPT, Principal(question.key.hex()))

    async def aclose(self) -> None:
        """There is nothing to give back."""


def install(folder: Path) -> None:
    """Make ``folder`` one that has this plugin where it stands on the path for imports: type ``slow``."""
    info = folder / "zapd_bench_slow-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: zapd-bench-slow\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[zapd.backends]\nslow = slow_backend:SlowBackend\n")
    (folder / "slow_backend.py").write_bytes(Path(__file__).read_bytes())
