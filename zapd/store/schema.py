"""The schema's age, and how it is brought to the newest.

The migrations are an installed package found by its name, and are handed an open connection: no ini file, no
URL in a config parser, no second engine. Several upgrades started together all succeed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.resources import as_file, files
from typing import Final

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, inspect, text

from zapd.store import tables
from zapd.store.engine import without_haste

_PACKAGE: Final = "zapd_migrations"
_UPGRADE_LOCK: Final = 0x7A617065


class SchemaState(StrEnum):
    """How a database's schema stands to this program's."""

    EMPTY = "empty"
    OLDER = "older"
    CURRENT = "current"
    NEWER = "newer"
    """Made by a later zapd: this one must not touch it."""


def head() -> str:
    """The newest revision this program knows."""
    with _config() as config:
        return ScriptDirectory.from_config(config).get_current_head() or ""


def current(connection: Connection) -> str | None:
    """The revision a database is at; None before the first upgrade."""
    return MigrationContext.configure(connection).get_current_revision()


def check(connection: Connection) -> SchemaState:
    """Whether this program and this database fit together."""
    revision = current(connection)
    if revision is None:
        present = set(inspect(connection).get_table_names())
        # Our tables without a revision were made by something else; an upgrade would fail on them anyway.
        return SchemaState.OLDER if present & set(tables.metadata.tables) else SchemaState.EMPTY
    with _config() as config:
        scripts = ScriptDirectory.from_config(config)
        if revision == scripts.get_current_head():
            return SchemaState.CURRENT
        known = {script.revision for script in scripts.walk_revisions()}
    return SchemaState.OLDER if revision in known else SchemaState.NEWER


def upgrade(engine: Engine) -> None:
    """Bring the database to the newest schema: all of it or nothing."""
    with engine.connect() as plain:
        connection = plain.execution_options(zapd_write=True)
        with connection.begin(), without_haste(connection):
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _UPGRADE_LOCK})
            with _config() as config:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")


def script(dialect: str) -> str:
    """The SQL that `upgrade` would run on an empty ``sqlite`` or ``postgresql`` database, to be read."""
    output = io.StringIO()
    with _config(output) as config:
        config.attributes["dialect"] = dialect
        command.upgrade(config, "head", sql=True)
    return output.getvalue()


@contextmanager
def _config(output: io.StringIO | None = None) -> Iterator[Config]:
    with as_file(files(_PACKAGE)) as location:
        config = Config(output_buffer=output)
        config.set_main_option("script_location", str(location).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        yield config
