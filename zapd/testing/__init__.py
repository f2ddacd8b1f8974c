"""For tests, ours and strangers': fakes that behave, and the contract that every backend's tests subclass.

    class TestMyBackend(BackendContract):
        async def make(self, context): return MyBackend.from_settings("mine", {...}, context)
        def accepted(self): return ask("ada", b"secret")
        def rejected(self): return ask("ada", b"wrong")
        def unknown(self): return ask("nobody", b"secret")

Needs pytest and pytest-asyncio. Nothing of zapd imports this package.
"""

from __future__ import annotations

from zapd.testing.contract import BackendContract
from zapd.testing.fakes import FakeBackend, FakeHandler, ask, started
from zapd.testing.hostile import HOSTILE_NAMES, HOSTILE_PASSWORDS

__all__ = [
    "HOSTILE_NAMES",
    "HOSTILE_PASSWORDS",
    "BackendContract",
    "FakeBackend",
    "FakeHandler",
    "ask",
    "started",
]
