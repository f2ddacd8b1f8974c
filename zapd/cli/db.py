"""``zapd db``: the database's schema."""

from __future__ import annotations

import click

from zapd.cli.options import Settings, local_options, pass_settings
from zapd.cli.output import print_fields, print_json, say


@click.group("db")
def command() -> None:
    """The database's schema: how old it is, and how it is brought to the newest."""


@command.command("upgrade")
@click.option(
    "--sql", type=click.Choice(["sqlite", "postgresql"]), help="Print the script for an empty database instead."
)
@local_options
@pass_settings
def upgrade(settings: Settings, sql: str | None) -> None:
    """Bring the database to the newest schema: all of it or nothing. Safe to run again, and by several at once."""
    from zapd.cli.registry import open_database
    from zapd.config import load
    from zapd.errors import ConfigurationError
    from zapd.store import schema
    from zapd.store.engine import open_engine, sqlite_path

    if sql is not None:
        click.echo(schema.script(sql), nl=False)
        return
    config = load(settings.config_path(), check_files=False)
    url = config.database_url()
    path = sqlite_path(url, config.base_dir)
    if path is not None and not path.exists():
        if not path.parent.is_dir():
            raise ConfigurationError(f"{path.parent} is no folder: make it first.")
        open_engine(url, config.base_dir, create=True).dispose()
    with open_database(settings) as engine:
        with engine.connect() as connection:
            before, state = schema.current(connection), schema.check(connection)
        if state is schema.SchemaState.NEWER:
            raise ConfigurationError(f"The database is at {before}, newer than this zapd: upgrade zapd.")
        schema.upgrade(engine)
    if settings.json:
        print_json({"before": before, "now": schema.head()})
    elif before == schema.head():
        say(f"The database is at {before} already.")
    else:
        say(f"The database went from {before or 'nothing'} to {schema.head()}.")


@command.command("current")
@local_options
@pass_settings
def current(settings: Settings) -> None:
    """Print the revision that the database is at, and the newest one."""
    _tell(settings)


@command.command("check")
@local_options
@pass_settings
def check(settings: Settings) -> int:
    """End with 0 when the database fits this zapd, with 1 when it does not."""
    return 0 if _tell(settings) == "current" else 1


def _tell(settings: Settings) -> str:
    from zapd.cli.registry import open_database
    from zapd.store import schema

    with open_database(settings) as engine, engine.connect() as connection:
        found = {
            "state": str(schema.check(connection)),
            "revision": schema.current(connection),
            "newest": schema.head(),
        }
    if settings.json:
        print_json(found)
    else:
        print_fields(found)
    return str(found["state"])
