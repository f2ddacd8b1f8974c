"""The service's own log: JSON lines for machines, readable lines for a person at a terminal.

What happens to zapd is told here; what zapd decides is in the journal. Tracebacks carry no local variables, since
those may be secrets (limits.md, R27).
"""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog


def configure(stream: TextIO | None = None, *, level: int = logging.INFO, worker: int = 0) -> None:
    """Send everything, structlog's and the standard library's, to ``stream`` (standard error unless given).

    ``worker`` above 0 stands in every line: who of several processes says it.
    """
    out = stream or sys.stderr
    on_terminal = out.isatty()
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,  # the request of the admin API that is worked on
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.PositionalArgumentsFormatter(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    if worker:
        shared.append(_saying("worker", worker))
    last: structlog.types.Processor
    if on_terminal:
        last = structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
    else:
        shared.append(structlog.processors.format_exc_info)
        last = structlog.processors.JSONRenderer()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for noisy in ("httpx", "httpcore", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # Its warnings are what strangers say to the admin port: a line for each would be theirs to fill the log with.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)


def _saying(name: str, value: int) -> structlog.types.Processor:
    def say(_logger: object, _method: str, event: structlog.types.EventDict) -> structlog.types.EventDict:
        event[name] = value
        return event

    return say
