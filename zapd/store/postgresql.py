"""A psycopg connection that never waits for ever.

PostgreSQL's own timeouts end what takes too long, but only while the server runs: one that is stopped, or whose
machine hangs, keeps its TCP connections alive and says nothing. Here the client gives up by itself and closes
the connection, so that a thread that asked always comes back. Imported only where PostgreSQL is used.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, TypeVar

import psycopg

Result = TypeVar("Result")


class PatientConnection(psycopg.Connection[Any]):
    """Patient for ``patience`` seconds with each exchange."""

    patience: float | None = None
    """None waits without end: for an upgrade, which may take as long as it takes."""

    def wait(self, gen: Generator[Any, Any, Result], *args: Any, **more: Any) -> Result:
        """What psycopg calls for each exchange with the server. Raises `psycopg.OperationalError`."""
        if self.patience is None:
            return super().wait(gen, *args, **more)
        try:
            return super().wait(_bounded(gen, time.monotonic() + self.patience), *args, **more)
        except _OutOfPatience as trouble:
            self.close()  # what comes now would be taken for the answer to the next question
            raise psycopg.OperationalError(str(trouble)) from None


class _OutOfPatience(Exception):
    """Its own kind, so that only our deadline closes the connection here."""


def _bounded(gen: Generator[Any, Any, Result], deadline: float) -> Generator[Any, Any, Result]:
    """The same dialogue with the socket. psycopg resumes it some times a second even when nothing happens."""
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise _OutOfPatience("the server keeps silent")
            wanted = gen.send(ready)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]  # the generator's own result
