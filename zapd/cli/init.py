"""``zapd init``: everything that a first zapd needs, made whole or not at all.

All of it is prepared in a temporary folder beside its place and moved in at the end, the configuration last. What
stands there already is never overwritten, whoever is quicker.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zapd.cli.options import Settings, json_option, pass_settings
from zapd.cli.output import print_fields, print_json, say
from zapd.errors import ConfigurationError, Conflict, InvalidInput, Unavailable

if TYPE_CHECKING:
    from sqlalchemy import Engine

CONFIG, DATA, TOKEN = "zapd.toml", "data", "admin.token"

_TEMPLATE = """\
# zapd's configuration. docs/configuration.md describes every setting; `zapd check-config` names every mistake.
# Relative paths start at the folder of this file.

[server]
data_dir = "data"

[database]
url = "{url}"

[[zap]]                                    # where agents ask
listen    = "tcp://127.0.0.1:9027"         # beyond loopback it must be CURVE, as here
mechanism = "CURVE"

[admin]
listen = "127.0.0.1:8027"                  # beyond loopback it must have tls_cert and tls_key, or behind_proxy

[audit]
durability = "strict"                      # on disk before the reply leaves

[backend.keys]
type = "sql"                               # zapd's own registry: CURVE keys and PLAIN users

[domain.default]                           # the ZAP domain that applications set
mechanisms = ["CURVE", "PLAIN"]
backends   = ["keys"]
"""


@click.command("init")
@click.argument("directory", metavar="[DIR]", default=".", type=click.Path(file_okay=False, path_type=Path))
@click.option(
    "--database",
    metavar="URL",
    help="sqlite:///PATH, postgresql+psycopg://…, or file:PATH that holds it; data/zapd.db unless named.",
)
@json_option
@pass_settings
def command(settings: Settings, directory: Path, database: str | None) -> None:
    """Write a first configuration, the server's keys, a database and an admin token into DIR.

    Refuses to overwrite anything. Prints the public halves of the keys; the admin token is in admin.token alone.
    """
    made = initialize(directory.absolute(), database)
    if settings.json:
        print_json(made)
        return
    print_fields(made)
    where = "" if directory.absolute() == Path.cwd() else f" -c {shlex.quote(str(directory / CONFIG))}"
    say(f"Start it with `zapd serve{where}`.")


def initialize(directory: Path, database: str | None = None) -> dict[str, str]:
    """Make it all; the names and public halves of what was made. Raises `Conflict` for what exists already."""
    _refuse_existing(directory)
    with ExitStack() as undo:
        _make_directory(directory, undo)
        try:
            prepared = Path(tempfile.mkdtemp(prefix=".zapd-init-", dir=directory))
        except OSError as error:
            raise InvalidInput(f"{directory} cannot be written: {error.strerror}.") from None
        undo.callback(shutil.rmtree, prepared, ignore_errors=True)
        made = _prepare(prepared, directory, database, undo)
        _move_in(prepared, directory, undo)
        undo.pop_all()
        shutil.rmtree(prepared, ignore_errors=True)
    return made


def _refuse_existing(directory: Path) -> None:
    there = [name for name in (CONFIG, DATA, TOKEN) if os.path.lexists(directory / name)]
    if there:
        raise Conflict(
            f"{directory} holds {' and '.join(there)} already, and nothing is overwritten: "
            "move that away, or name another folder."
        )


def _make_directory(directory: Path, undo: ExitStack) -> None:
    for folder in (*reversed(directory.parents), directory):
        try:
            if folder.is_dir():
                continue
            folder.mkdir(mode=0o750)
        except OSError as error:
            raise InvalidInput(f"{folder} cannot be made: {error.strerror}.") from None
        undo.callback(folder.rmdir)


def _prepare(prepared: Path, directory: Path, database: str | None, undo: ExitStack) -> dict[str, str]:
    """Everything, in ``prepared`` as it will stand in ``directory``."""
    from zapd.audit.signing import generate_signing_key
    from zapd.cli.files import write_new
    from zapd.config import format_curve_pair
    from zapd.zmtp.keys import encode_key, fingerprint, generate_keypair

    data = prepared / DATA
    data.mkdir(mode=0o750)
    public_key, secret_key = generate_keypair()
    write_new(data / "server.key", format_curve_pair(public_key, secret_key))
    journal_key = generate_signing_key(data / "journal.key")
    url, setting, apart = _database(database, directory)
    if apart:
        write_new(data / "database.url", url + "\n")
    write_new(prepared / TOKEN, _open_registry(url, prepared, directory, undo) + "\n")
    write_new(prepared / CONFIG, _TEMPLATE.format(url=setting), mode=0o640)
    return {
        "configuration": str(directory / CONFIG),
        "server_public_key": encode_key(public_key),
        "server_fingerprint": fingerprint(public_key),
        "journal_public_key": journal_key,
        "admin_token": str(directory / TOKEN),
    }


def _database(named: str | None, directory: Path) -> tuple[str, str, bool]:
    """(the URL, what the configuration says of it, whether the URL goes into a file of its own).

    A URL beyond SQLite may hold a password, and the configuration holds none.
    """
    if named is None:
        usual = f"sqlite:///{DATA}/zapd.db"
        return usual, usual, False
    from zapd.config import Secret

    secret = Secret.parse(named, directory)
    url = secret.reveal().strip()
    if not (named + url).isprintable() or set(named) & set('"\\'):
        raise InvalidInput("The database's URL holds characters that no URL has.")
    if secret.is_inline and not url.startswith("sqlite:"):
        return url, f"file:{DATA}/database.url", True
    return url, named, False


def _open_registry(url: str, prepared: Path, directory: Path, undo: ExitStack) -> str:
    """The database at its newest schema, with a first admin token in it; the token."""
    from sqlalchemy.exc import SQLAlchemyError

    from zapd.store import schema
    from zapd.store.engine import open_engine, sqlite_path

    open_engine(url, directory).dispose()  # a URL that cannot be used is told before anything is made
    path = sqlite_path(url, directory)
    if path is not None and path.parent == directory / DATA:
        _claim(prepared / DATA / path.name, undo)
        engine = open_engine(f"sqlite:///{DATA}/{path.name}", prepared)
    else:
        if path is not None:
            _claim(path, undo)
        engine = open_engine(url, directory)
    try:
        with engine.connect() as connection:
            if schema.check(connection) is schema.SchemaState.NEWER:
                raise ConfigurationError("The database's schema is newer than this zapd: upgrade zapd.")
        schema.upgrade(engine)
        return asyncio.run(_first_token(engine))
    except SQLAlchemyError as error:
        cause = getattr(error, "orig", None) or error
        raise Unavailable(f"The database cannot be used: {type(cause).__name__}: {cause}") from None
    finally:
        engine.dispose()


def _claim(path: Path, undo: ExitStack) -> None:
    """Make an empty SQLite file that was not there, so that what another made is never undone."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        raise Conflict(f"{path} exists already, and nothing is overwritten: name another database.") from None
    except OSError as error:
        raise InvalidInput(f"{path} cannot be made: {error.strerror}.") from None
    for suffix in ("", "-wal", "-shm"):
        undo.callback(path.with_name(path.name + suffix).unlink, missing_ok=True)


async def _first_token(engine: Engine) -> str:
    from zapd.admin.roles import OFFLINE, Role
    from zapd.admin.services.changes import ChangeRoad
    from zapd.admin.services.tokens import TokenService

    _, token = await TokenService(ChangeRoad(engine)).create(OFFLINE, "init", Role.ADMIN)
    return token


def _move_in(prepared: Path, directory: Path, undo: ExitStack) -> None:
    """Give everything its name, the configuration last: a folder with a zapd.toml is complete."""
    with _no_overwriting():
        # Making the empty folder fails where there is one; the rename then replaces only that empty folder.
        (directory / DATA).mkdir(mode=0o750)
        undo.callback(shutil.rmtree, directory / DATA, ignore_errors=True)
        (prepared / DATA).rename(directory / DATA)
        for name in (TOKEN, CONFIG):
            os.link(prepared / name, directory / name)
            undo.callback((directory / name).unlink, missing_ok=True)


@contextmanager
def _no_overwriting() -> Iterator[None]:
    try:
        yield
    except FileExistsError as error:
        raise Conflict(
            f"{error.filename2 or error.filename} exists already, and nothing is overwritten."
        ) from None
    except OSError as error:
        raise Unavailable(f"{error.filename} cannot be made: {error.strerror}.") from None
