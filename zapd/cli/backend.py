"""``zapd backend``: who knows credentials, and how they are."""

from __future__ import annotations

import click

from zapd.cli.options import Settings, common_options, pass_settings
from zapd.cli.output import print_json, print_rows

_COLUMNS = {
    "name": "NAME",
    "type": "TYPE",
    "state": "STATE",
    "circuit": "CIRCUIT",
    "in_flight": "IN FLIGHT",
    "mechanisms": "MECHANISMS",
    "reason": "REASON",
    "last_error": "LAST ERROR",
    "last_error_at": "AT",
}


@click.group("backend")
def command() -> None:
    """Backends: who is asked about credentials, and whether they can answer."""


@command.command("list")
@common_options
@pass_settings
def list_backends(settings: Settings) -> None:
    """List the backends with their health."""
    from zapd.cli.client import Client

    with Client(settings) as client:
        backends = client.everything("/v1/backends")
    if settings.json:
        print_json(backends)
    else:
        print_rows(backends, _COLUMNS, empty="There are no backends.")
