"""``zapd explain``: what would be decided now, and why."""

from __future__ import annotations

import click

from zapd.cli.options import PublicKey, Settings, common_options, pass_settings
from zapd.cli.output import print_fields, print_json, print_rows, say

_COLUMNS = {"step": "STEP", "verdict": "VERDICT", "text": "WHY", "milliseconds": "MS"}


@click.command("explain")
@click.option("--domain", required=True, metavar="D", help="The ZAP domain; '' is the empty one.")
@click.option(
    "--mechanism", required=True, type=click.Choice(["NULL", "PLAIN", "CURVE", "GSSAPI"]), help="The mechanism."
)
@click.option("--key", type=PublicKey(), metavar="K", help="CURVE: the client's public key.")
@click.option(
    "--username",
    "--principal",
    "username",
    metavar="U",
    help="PLAIN: the name, explained up to the backends. GSSAPI: the principal, with its realm.",
)
@click.option("--address", required=True, metavar="A", help="Where the client is, as libzmq writes it.")
@common_options
@pass_settings
def command(
    settings: Settings, domain: str, mechanism: str, key: str | None, username: str | None, address: str
) -> None:
    """Say what would be decided now and why: each rule and backend with its verdict and time.

    Nothing is recorded as a decision, and nobody is let in.
    """
    from zapd.cli.client import Client

    if mechanism == "CURVE" and key is None:
        raise click.UsageError("CURVE needs --key.")
    if mechanism in ("PLAIN", "GSSAPI") and username is None:
        raise click.UsageError(f"{mechanism} needs --username.")
    question = {"domain": domain, "mechanism": mechanism, "address": address, "key": key, "username": username}
    with Client(settings) as client:
        found = client.post("/v1/explain", {name: value for name, value in question.items() if value is not None})
    if settings.json:
        print_json(found)
        return
    print_fields({name: found.get(name) for name in ("status", "reason", "principal", "groups", "attributes")})
    say("")
    print_rows(found.get("steps", []), _COLUMNS, empty="No rule was asked.")
