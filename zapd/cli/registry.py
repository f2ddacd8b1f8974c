"""The configuration's database, opened by the commands that work beside the server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import Engine
from sqlalchemy.exc import SQLAlchemyError

from zapd.cli.options import Settings
from zapd.config import load
from zapd.errors import ConfigurationError, Unavailable
from zapd.store import schema
from zapd.store.engine import open_engine

_MENDS = {
    schema.SchemaState.EMPTY: "it holds no registry yet: run `zapd db upgrade`.",
    schema.SchemaState.OLDER: "its schema is older than this zapd: run `zapd db upgrade`.",
    schema.SchemaState.NEWER: "its schema is newer than this zapd: upgrade zapd.",
}


@contextmanager
def open_database(settings: Settings) -> Iterator[Engine]:
    """The database, whatever its schema. Raises `ConfigurationError`, and `Unavailable` when it is away."""
    config = load(settings.config_path(), check_files=False)
    engine = open_engine(config.database_url(), config.base_dir)
    try:
        yield engine
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise Unavailable(f"The database cannot be used: {cause}") from None
    finally:
        engine.dispose()


@contextmanager
def open_registry(settings: Settings) -> Iterator[Engine]:
    """The database at the newest schema; `ConfigurationError` that names the command when it is at another."""
    with open_database(settings) as engine:
        with engine.connect() as connection:
            mend = _MENDS.get(schema.check(connection))
        if mend is not None:
            raise ConfigurationError(f"The database cannot be used: {mend}")
        yield engine
