"""Driving a coroutine one step, and handing the rest to a task."""

import asyncio

import pytest

from zapd.zap import Suspended, first_step


async def test_an_answer_from_memory_needs_no_task() -> None:
    """A coroutine that never suspends gives its result at once."""

    async def answer() -> int:
        return 7

    assert first_step(answer()) == 7


async def test_a_slow_answer_goes_on_inside_a_task() -> None:
    """What suspended on a future and a sleep finishes with the same result."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[int] = loop.create_future()

    async def answer() -> int:
        first = await future
        await asyncio.sleep(0)
        async with asyncio.timeout(5):
            return first + await asyncio.sleep(0.001, 1)

    rest = first_step(answer())
    assert isinstance(rest, Suspended)
    loop.call_later(0.001, future.set_result, 41)
    assert await asyncio.create_task(rest.finish()) == 42


async def test_an_exception_and_a_cancellation_reach_the_coroutine() -> None:
    """Failure and cancelling are seen inside, so that its clean-up runs."""
    seen: list[str] = []

    async def answer() -> int:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise
        return 0

    rest = first_step(answer())
    assert isinstance(rest, Suspended)
    task = asyncio.create_task(rest.finish())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen == ["cancelled"]

    async def broken() -> int:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        first_step(broken())
