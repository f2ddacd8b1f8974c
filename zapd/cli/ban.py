"""``zapd ban``: shutting addresses, keys and users out by hand."""

from __future__ import annotations

from datetime import datetime

import click

from zapd.cli.options import KeyName, Moment, Settings, common_options, confirm, pass_settings
from zapd.cli.output import print_fields, print_json, print_rows, say

_COLUMNS = {
    "id": "ID",
    "state": "STATE",
    "what": "WHAT",
    "domains": "DOMAINS",
    "expires": "ENDS",
    "reason": "REASON",
    "created": "MADE",
    "created_by": "BY",
}


@click.group("ban")
def command() -> None:
    """Bans by hand: whoever is banned is refused, whatever any backend says."""


@command.command("add")
@click.option("--address", metavar="A", help="An address, a network (10.0.0.0/8), ipc, ipc:uid=N or ipc:gid=N.")
@click.option("--key", type=KeyName(), metavar="K", help="A public key or its fingerprint, registered or not.")
@click.option("--user", metavar="U", help="A user: by password and with every key.")
@click.option("--reason", default="", metavar="TEXT", help="Why, for the record.")
@click.option(
    "--expires",
    type=Moment(),
    metavar="TIME",
    help="Until when: 12h from now, or a date. Its answers are 300, and clients come back; without an end 400.",
)
@click.option(
    "--domain",
    "domains",
    multiple=True,
    metavar="D",
    help="In this domain or pattern only; may be repeated. Default: wherever your token has a say.",
)
@common_options
@pass_settings
def add(
    settings: Settings,
    address: str | None,
    key: str | None,
    user: str | None,
    reason: str,
    expires: datetime | None,
    domains: tuple[str, ...],
) -> None:
    """Ban an address, a key or a user. In force everywhere when this returns."""
    from zapd.cli.client import Client

    named = {
        name: value for name, value in (("address", address), ("key", key), ("user", user)) if value is not None
    }
    if len(named) != 1:
        raise click.UsageError("Say one of --address, --key and --user.")
    body: dict[str, object] = {**named, "reason": reason, "expires": expires and expires.isoformat()}
    if domains:
        body["domains"] = list(domains)
    with Client(settings) as client:
        ban = client.post("/v1/bans", body)
    if settings.json:
        print_json(ban)
    else:
        print_fields({name: value for name, value in ban.items() if name != "version"})


@command.command("list")
@click.option("--kind", type=click.Choice(["address", "key", "user"]), help="Only those of this kind.")
@click.option("--domain", metavar="D", help="Only those that name this domain, or a pattern for it.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many.")
@common_options
@pass_settings
def list_bans(settings: Settings, kind: str | None, domain: str | None, limit: int | None) -> None:
    """List bans, the oldest first. One that is over stays for a week."""
    from zapd.cli.client import Client

    with Client(settings) as client:
        bans = list(client.pages("/v1/bans", limit=limit, kind=kind, domain=domain))
    if settings.json:
        print_json(bans)
        return
    rows = [
        {**ban, "what": " ".join(f"{name} {ban[name]}" for name in ("address", "key", "user") if ban[name])}
        for ban in bans
    ]
    print_rows(rows, _COLUMNS, empty="There are no such bans.")


@command.command("rm")
@click.argument("ban_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@pass_settings
def remove(settings: Settings, ban_id: str, yes: bool) -> None:
    """Take a ban back; `zapd ban list` shows its ID."""
    from zapd.cli.client import Client, segment

    confirm(f"Take the ban {ban_id} back?", yes)
    with Client(settings) as client:
        client.delete(f"/v1/bans/{segment(ban_id)}")
    if settings.json:
        print_json({"id": ban_id, "removed": True})
    else:
        say(f"The ban {ban_id} is taken back.")
