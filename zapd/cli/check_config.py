"""``zapd check-config``: every mistake with its line and its mend."""

from __future__ import annotations

from dataclasses import asdict

import click

from zapd.cli.options import Settings, local_options, pass_settings
from zapd.cli.output import clean, print_json, say


@click.command("check-config")
@local_options
@pass_settings
def command(settings: Settings) -> int:
    """Name every mistake of the configuration with its line and the mend, and warn of what is unwise.

    Ends with 2 when there is a mistake. Nothing is started, opened or changed.
    """
    from zapd.config import InvalidConfiguration, Mistake, load

    path = settings.config_path()
    mistakes: tuple[Mistake, ...] = ()
    try:
        warnings = load(path).warnings
    except InvalidConfiguration as error:
        mistakes, warnings = error.mistakes, error.warnings
    if settings.json:
        print_json(
            {
                "path": str(path),
                "good": not mistakes,
                "mistakes": [asdict(each) for each in mistakes],
                "warnings": [asdict(each) for each in warnings],
            }
        )
        return 2 if mistakes else 0
    for kind, colour, found in (("mistake", "red", mistakes), ("warning", "yellow", warnings)):
        for each in found:
            click.echo(f"{clean(path)}: {click.style(kind, fg=colour)}: {clean(each)}")
    if mistakes:
        say(f"{len(mistakes)} to mend; nothing was changed.")
        return 2
    say(f"{path} is good." if not warnings else f"{path} can be used.")
    return 0
