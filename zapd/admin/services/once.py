"""Requests that are retried and must be carried out once: ``Idempotency-Key``.

That a request was carried out is written in its own transaction (`ChangeRoad` asks `current`), so no crash comes
between the two. Its answer is kept a moment later: when that is lost, a retry is told so and does nothing. What is
kept of a request is a hash under the caller's token, which is stored nowhere: a password in it cannot be guessed
from the database. Requests that fail are not remembered: they may be tried again under the same key.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from sqlalchemy import Connection

from zapd.errors import InvalidInput, ZapdError
from zapd.store.idempotency import Idempotency, Kept

MAX_ANSWER: Final = 16 * 1024
"""Octets of an answer that is kept."""

_STORE: Final = Idempotency()


class IdempotencyMismatch(ZapdError):
    """The key stood for another request."""

    code = "idempotency_mismatch"


class IdempotencyConflict(ZapdError):
    """The request was carried out, and there is no answer to repeat."""

    code = "idempotency_conflict"


@dataclass(slots=True)
class Once:
    """A request that must be carried out once."""

    token: str
    """The id of the caller's token: keys of two callers never meet."""
    key: str
    request: bytes
    begun: bool = False

    @classmethod
    def of(cls, token_id: str, token: str, key: str, *parts: bytes) -> Once:
        """Raises `InvalidInput` for a key of the wrong form."""
        if not 1 <= len(key) <= 255 or not key.isascii() or not key.isprintable():
            raise InvalidInput("An Idempotency-Key has 1 to 255 printable ASCII characters.")
        mixed = hmac.new(token.encode(), digestmod=hashlib.sha256)
        for part in parts:
            mixed.update(len(part).to_bytes(8, "big") + part)
        return cls(token_id, key, mixed.digest())

    def answered(self, connection: Connection, moment: datetime) -> Kept | None:
        """What it was answered before; None: it was not carried out. Raises as the classes above say."""
        kept = _STORE.find(connection, self.token, self.key, moment)
        if kept is None:
            return None
        if not hmac.compare_digest(kept.request, self.request):
            raise IdempotencyMismatch("This Idempotency-Key stood for another request: take a new one.")
        if kept.status is None:
            raise IdempotencyConflict(
                "This was carried out already, and its answer is not kept (it held a secret, or was lost): look"
                " at what is there."
            )
        return kept

    def begin(self, connection: Connection, moment: datetime) -> None:
        """In the transaction that carries it out: note that it was. Raises `IdempotencyConflict` when another
        request with this key was quicker."""
        if self.begun:
            return
        if _STORE.find(connection, self.token, self.key, moment) is not None:
            raise IdempotencyConflict("The same request was carried out at the same moment: ask for its answer.")
        _STORE.begin(connection, self.token, self.key, self.request, moment)
        self.begun = True

    def keep(self, connection: Connection, status: int, headers: dict[str, str], body: bytes) -> None:
        """Keep its answer for whoever asks again."""
        pairs = tuple(sorted(headers.items()))
        _STORE.finish(connection, self.token, self.key, status=status, headers=pairs, body=body)


_current: ContextVar[Once | None] = ContextVar("zapd_once", default=None)


def current() -> Once | None:
    """The request under way in this task, if it must be carried out once."""
    return _current.get()


@contextmanager
def carrying_out(once: Once) -> Iterator[None]:
    """Until the end of the block, changes belong to this request."""
    reset = _current.set(once)
    try:
        yield
    finally:
        _current.reset(reset)
