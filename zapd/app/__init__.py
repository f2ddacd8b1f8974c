"""The composition root: the one room that knows every other.

`translate` turns a configuration into the rooms' plain arguments; `registry`, `journalling`, `backends`, `doors`,
`searching` and `administration` each join one part; `ground`, `deciding` and `office` put parts together, and
`service` all of it in one process, up, anew and down again; `workers` does the same with several.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from zapd.config import load
from zapd.net.loop import loop_factory
from zapd.server import lifecycle, logs

__all__ = ["serve"]


def serve(path: Path) -> int:
    """Run zapd with this configuration until it is told to stop; the exit code.

    Raises `zapd.errors.ConfigurationError` and other `zapd.errors.ZapdError` when it cannot start.
    """
    from zapd.app.service import Service
    from zapd.app.workers.parent import Parent

    config = load(path)
    logs.configure()
    log = structlog.get_logger(__name__)
    lifecycle.keep_secrets_in()
    for warning in config.warnings:
        log.warning("unwise", what=str(warning))
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(lifecycle.run(Service(config) if config.server.workers == 1 else Parent(config)))
    return 0
