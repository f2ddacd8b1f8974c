"""Drive a handler one step: an answer that memory can give costs no task.

A coroutine that returns without suspending is run by one ``send(None)``. One that suspends is handed over,
mid-flight, to whoever gives it a task. Nothing here knows an event loop.
"""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from dataclasses import dataclass
from types import coroutine
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Suspended(Generic[T]):
    """A coroutine that waits for something; `finish` runs the rest of it inside a task."""

    _rest: Coroutine[Any, Any, T]
    _waiting_for: object

    async def finish(self) -> T:
        """Await what it waited for, then the rest of it."""
        return await _drive(self._rest, self._waiting_for)

    def close(self) -> None:
        """Give it up: nobody will take the answer any more."""
        self._rest.close()


def first_step(work: Coroutine[Any, Any, T]) -> T | Suspended[T]:
    """Run ``work`` up to its first suspension: its result, or the rest of it. Its exceptions pass through.

    What runs before the first suspension has no current task: code that needs one (``asyncio.timeout``) must
    suspend first.
    """
    try:
        waiting_for = work.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    return Suspended(work, waiting_for)


@coroutine
def _drive(rest: Coroutine[Any, Any, T], waiting_for: object) -> Generator[object, Any, T]:
    while True:
        failure: BaseException | None = None
        value = None
        try:
            value = yield waiting_for
        except GeneratorExit:
            rest.close()
            raise
        except BaseException as error:  # noqa: BLE001 - cancellation too belongs to the coroutine inside
            failure = error
        try:
            waiting_for = rest.send(value) if failure is None else rest.throw(failure)
        except StopIteration as done:
            result: T = done.value
            return result
