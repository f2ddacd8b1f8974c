"""Which request of the admin API is being worked on: its id stands in logs, in problems and in what it changes.

An id is the caller's own (``X-Request-Id``), where it is a short word, or made here. It travels with the context
of asyncio tasks and of the threads that work for them; nobody passes it on by hand.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec
import structlog

from zapd.audit.event import AuditEvent

_NAME: Final = "request"
_WORD: Final = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


@contextmanager
def request_named(offered: str) -> Iterator[str]:
    """Within the block it is this request's; its id, which is ``offered`` if that can be one."""
    name = offered if _WORD.fullmatch(offered) else secrets.token_hex(8)
    with structlog.contextvars.bound_contextvars(**{_NAME: name}):
        yield name


def current_request() -> str:
    """The id of the request that is worked on; empty where there is none."""
    return str(structlog.contextvars.get_contextvars().get(_NAME, ""))


def stamped(event: AuditEvent) -> AuditEvent:
    """The event with the id of the request that caused it, as ``detail.request``."""
    name = current_request()
    return msgspec.structs.replace(event, detail={**(event.detail or {}), _NAME: name}) if name else event
