"""``zapd key export``: the registered keys, as `zapd.cli.key_import` reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import click

from zapd.cli.options import Settings, common_options, key_filters, pass_settings
from zapd.cli.output import print_json, say


@click.command("export")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Write it there; never overwrites."
)
@click.option(
    "--format", "form", type=click.Choice(["csv", "json", "jsonl"]), help="By the name of FILE; csv unless named."
)
@key_filters
@common_options
@pass_settings
def export_keys(
    settings: Settings,
    output: Path | None,
    form: str | None,
    user: str | None,
    state: str | None,
    domain: str | None,
) -> None:
    """Write the registered keys, as `zapd key import` reads them.

    Cells of CSV that a spreadsheet would carry out as formulas begin with an apostrophe; an import takes it away.
    """
    import sys

    from zapd.admin.exchange.writing import write_keys
    from zapd.cli.client import Client
    from zapd.cli.files import NewFile
    from zapd.cli.importing import form_of, progress

    if settings.json and form is None and output is None:
        form = "json"
    kind = form_of(output or Path("keys.csv"), form)
    count = 0

    def counted(keys: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        nonlocal count
        for key in keys:
            if key.get("sightings"):  # a stranger's, and not registered
                continue
            count += 1
            moved(1)
            yield key

    with Client(settings) as client, progress("Exporting", None) as moved:
        keys = counted(client.pages("/v1/keys", user=user, state=state, domain=domain))
        if output is None:
            for piece in write_keys(keys, kind):
                sys.stdout.write(piece)
            return
        with NewFile(output) as file:
            file.publish(write_keys(keys, kind))
    if settings.json:
        print_json({"file": str(output), "format": kind, "keys": count})
    else:
        say(f"{count} keys are in {output}.")
