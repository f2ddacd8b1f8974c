"""What every start insists on, and what it says when it is up."""

from __future__ import annotations

import os
from collections.abc import Sequence

import structlog

from zapd import __version__
from zapd.admin.api.context import Readiness
from zapd.app.office import Office
from zapd.app.parts import Parts
from zapd.audit.journal import Journal
from zapd.config import Config
from zapd.errors import ConfigurationError, Unavailable
from zapd.server.lifecycle import hold_database, hold_folder
from zapd.store.engine import sqlite_path

log = structlog.get_logger(__name__)


def insist_on_domains(config: Config) -> Config:
    """Raise `ConfigurationError` where there is none: nobody wants a final no for everybody, so this is a file
    that an editor has cut off."""
    if not config.domain:
        raise ConfigurationError(f"{config.path}: there is no domain: add a [domain.NAME]")
    return config


def hold(config: Config, parts: Parts) -> None:
    """Make the folder of data if need be, and keep every other zapd out of it, and off a database that is a file,
    until ``parts`` go down. Raises `Unavailable`."""
    folder = config.server.data_dir
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise Unavailable(
            f"[server] data_dir {folder} cannot be made ({error.strerror}): make it, for whoever runs zapd."
        ) from None
    held = [hold_folder(folder)]

    async def let_go() -> None:
        for descriptor in held:
            os.close(descriptor)

    parts.up("folder", let_go)
    database = sqlite_path(config.database_url(), config.base_dir)
    if database is not None and database.parent.is_dir():
        held.append(hold_database(database.resolve()))


def say_where(
    listening: Sequence[str], office: Office, config: Config, journal: Journal, readiness: Readiness
) -> None:
    """Print where zapd listens, and log what is not ready."""
    workers = config.server.workers
    lines = [f"zapd {__version__} decides" + (f" with {workers} workers" if workers > 1 else "")]
    lines += [f"  zap    {line}" for line in listening]
    lines.append(f"  admin  {office.admin.url}")
    if office.enrolment.url:
        lines.append(f"  enroll {office.enrolment.url}")
    lines.append(f"  audit  {config.audit.durability}, instance {journal.instance or '-'}")
    print("\n".join(lines), flush=True)  # noqa: T201 - what `zapd serve` promises to print
    for part, state in readiness.parts:
        if state != "ok":
            log.warning("not ready", part=part, reason=state)


def say_not_reloaded(error: ConfigurationError) -> None:
    """Log each mistake of a configuration that did not come into force."""
    for line in str(error).splitlines():
        log.error("the configuration was not reloaded; the old one stays in force", mistake=line)
