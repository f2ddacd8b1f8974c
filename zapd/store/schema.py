"""The schema's age, and how it is brought to the newest.

The migrations are an installed package found by its name, and are handed an open connection: no ini file, no
URL in a config parser, no second engine. Several upgrades started together all succeed.

Alembic upgrades and writes scripts. It is imported then and not before: that takes 80 ms, eight times as long as
`check`, which is all that a start on a current database needs.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.resources import as_file, files
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection, Engine, inspect, text

from zapd.store import tables
from zapd.store.engine import without_haste

if TYPE_CHECKING:
    from alembic.config import Config

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
    return _revisions()[-1]


def current(connection: Connection) -> str | None:
    """The revision a database is at; None before the first upgrade."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return revision


def check(connection: Connection) -> SchemaState:
    """Whether this program and this database fit together."""
    revision = current(connection)
    if revision is None:
        present = set(inspect(connection).get_table_names())
        # Our tables without a revision were made by something else; an upgrade would fail on them anyway.
        return SchemaState.OLDER if present & set(tables.metadata.tables) else SchemaState.EMPTY
    *older, newest = _revisions()
    if revision == newest:
        return SchemaState.CURRENT
    return SchemaState.OLDER if revision in older else SchemaState.NEWER


def upgrade(engine: Engine) -> None:
    """Bring the database to the newest schema: all of it or nothing."""
    from alembic import command

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
    from alembic import command

    output = io.StringIO()
    with _config(output) as config:
        config.attributes["dialect"] = dialect
        command.upgrade(config, "head", sql=True)
    return output.getvalue()


def _revisions() -> list[str]:
    """All that this program knows, oldest first. A migration's file begins with its number, which is its name."""
    migrations = (files(_PACKAGE) / "versions").iterdir()
    return sorted(each.name.partition("_")[0] for each in migrations if each.name.endswith(".py"))


@contextmanager
def _config(output: io.StringIO | None = None) -> Iterator[Config]:
    from alembic.config import Config

    with as_file(files(_PACKAGE)) as location:
        config = Config(output_buffer=output)
        config.set_main_option("script_location", str(location).replace("%", "%%"))
        config.set_main_option("path_separator", "os")
        yield config
