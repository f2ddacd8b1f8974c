"""``zapd serve``: runs everything."""

from __future__ import annotations

import click

from zapd.cli.options import Settings, config_option, pass_settings


@click.command("serve")
@config_option
@pass_settings
def command(settings: Settings) -> int:
    """Run the daemon, and print what it listens on.

    SIGHUP reads domains, backends, limits, secrets and TLS files again; SIGTERM lets open questions finish, then
    stops.
    """
    from zapd.app import serve

    return serve(settings.config_path())
