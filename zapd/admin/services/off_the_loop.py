"""Database work in a thread, and its troubles in our own words."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from contextvars import copy_context
from typing import TypeVar

from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from zapd.errors import Conflict, Unavailable

Result = TypeVar("Result")


async def off_the_loop(work: Callable[[], Result], threads: Executor) -> Result:
    """Run ``work`` there. Raises `Conflict`, `Unavailable`, and what it raises itself."""
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, copy_context().run, work)
    except IntegrityError as trouble:
        raise Conflict("Somebody else made the same thing at the same moment. Look again.") from trouble
    except SQLAlchemyError as trouble:
        raise Unavailable(
            f"The database does not answer ({type(trouble).__name__}). Try again later."
        ) from trouble
