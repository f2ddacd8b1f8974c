"""``zapd domain``: what the configuration made."""

from __future__ import annotations

import click

from zapd.cli.options import Settings, common_options, pass_settings
from zapd.cli.output import print_json, print_rows

_COLUMNS = {
    "shown": "DOMAIN",
    "mechanisms": "MECHANISMS",
    "backends": "BACKENDS",
    "allow": "ALLOW",
    "deny": "DENY",
    "unknown_keys": "UNKNOWN KEYS",
    "grace_seconds": "GRACE (S)",
}


@click.group("domain")
def command() -> None:
    """ZAP domains, as the running server's configuration has them."""


@command.command("list")
@common_options
@pass_settings
def list_domains(settings: Settings) -> None:
    """List the domains and their rules."""
    from zapd.cli.client import Client

    with Client(settings) as client:
        domains = client.everything("/v1/domains")
    if settings.json:
        print_json(domains)
        return
    rows = [each | {"shown": each["pattern"] or '""'} for each in domains]
    print_rows(rows, _COLUMNS, empty="There are no domains: every question is refused.")
