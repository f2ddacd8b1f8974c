"""Many waits with one timer: due in order, and each on its own time."""

from __future__ import annotations

import asyncio

from zapd.net.waits import Waits

BOTH_LOOPS = True


async def test_what_is_not_discarded_is_due_in_order() -> None:
    """Whatever was added first is due first; what was discarded never is."""
    due: list[str] = []
    waits: Waits[str] = Waits(0.02, due.append)
    for name in ("first", "second", "third"):
        waits.add(name)
    assert waits.discard("second")
    assert not waits.discard("second")
    assert list(waits) == ["first", "third"]
    await asyncio.sleep(0.1)
    assert due == ["first", "third"]
    assert len(waits) == 0


async def test_nothing_is_due_before_its_time() -> None:
    """Each has its whole wait, although the timer is set for the oldest."""
    loop = asyncio.get_running_loop()
    late: list[float] = []
    began: dict[int, float] = {}
    waits: Waits[int] = Waits(0.05, lambda number: late.append(loop.time() - began[number]))
    for number in range(3):
        began[number] = loop.time()
        waits.add(number)
        await asyncio.sleep(0.02)
    await asyncio.sleep(0.2)
    assert len(late) == 3
    assert min(late) >= 0.049


async def test_what_is_added_when_something_is_due_waits_its_turn() -> None:
    """Whoever is due may wait again, and is due again."""
    count = 0

    def again(name: str) -> None:
        nonlocal count
        count += 1
        if count < 3:
            waits.add(name)

    waits: Waits[str] = Waits(0.01, again)
    waits.add("beat")
    await asyncio.sleep(0.2)
    assert count == 3


async def test_after_clear_nothing_is_due() -> None:
    """Clearing takes the timer with it."""
    due: list[str] = []
    waits: Waits[str] = Waits(0.01, due.append)
    waits.add("gone")
    waits.clear()
    assert "gone" not in waits
    await asyncio.sleep(0.05)
    assert not due
