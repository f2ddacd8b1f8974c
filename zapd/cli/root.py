"""The program's root: finds a command by its name, runs it, and turns what went wrong into one sentence.

No traceback ever meets the user; a fault of zapd's own shows its kind and text, and the rest with ``ZAPD_DEBUG``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Final

import click

from zapd.cli import missing_extra
from zapd.cli.options import Settings, common_options
from zapd.cli.output import complain, complain_of_configuration
from zapd.errors import ConfigurationError, ZapdError

COMMANDS: Final = {
    "init": "init",
    "serve": "serve",
    "demo": "demo",
    "check-config": "check_config",
    "keygen": "keygen",
    "key": "key",
    "user": "user",
    "agent": "agent",
    "token": "token",
    "join": "join",
    "ban": "ban",
    "domain": "domain",
    "backend": "backend",
    "audit": "audit",
    "explain": "explain",
    "ping": "ping",
    "db": "db",
}
"""Each command and its module in `zapd.cli`, which calls it ``command``; in the order of the help."""


class Root(click.Group):
    """Imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = COMMANDS.get(cmd_name)
        if module is None:
            return None
        command: click.Command = import_module(f"zapd.cli.{module}").command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            from difflib import get_close_matches

            meant = get_close_matches(args[0], COMMANDS, n=1)
            if not meant or "did you mean" in error.message.lower():
                raise
            raise click.UsageError(f"{error.message} Did you mean {meant[0]!r}?", ctx) from None


@click.group(
    cls=Root, name="zapd", context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="zapd", prog_name="zapd", message="%(prog)s %(version)s")
@common_options
def root() -> None:
    """The central authentication service for ZeroMQ fleets: one place that says who may connect, and keeps the
    record.

    Changes go through the REST API of the running server. It is found by --url and --token-file; else by ZAPD_URL
    and ZAPD_TOKEN; else by the configuration (-c, ZAPD_CONFIG, ./zapd.toml, /etc/zapd/zapd.toml) and admin.token
    beside it.
    """


def run(words: Sequence[str]) -> int:
    """Run one command line; the exit code."""
    try:
        result = root.main(list(words), prog_name="zapd", standalone_mode=False, obj=Settings())
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        complain("stopped.")
        return 1
    except ConfigurationError as error:
        complain_of_configuration(error)
        return 2
    except ZapdError as error:
        complain(str(error))
        return 1
    except BrokenPipeError:
        # Whoever read our output has had enough (`zapd key list | head`); nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        told = missing_extra(error) if isinstance(error, ModuleNotFoundError) else None
        if told is not None:
            complain(told)
            return 2
        if os.environ.get("ZAPD_DEBUG"):
            raise
        complain(f"a fault of zapd itself: {type(error).__name__}: {error}. ZAPD_DEBUG=1 shows where.")
        return 1
    return result if isinstance(result, int) else 0
