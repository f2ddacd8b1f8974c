"""``zapd join``: tokens that scripts exchange for a registered key."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from zapd.cli.options import (
    Attribute,
    Moment,
    Settings,
    Span,
    attributes_of,
    common_options,
    confirm,
    domain_option,
    pass_settings,
)
from zapd.cli.output import print_fields, print_json, print_rows

_COLUMNS = {
    "id": "ID",
    "user": "USER",
    "domains": "DOMAINS",
    "groups": "GROUPS",
    "addresses": "FROM",
    "left": "USES LEFT",
    "expires": "EXPIRES",
    "last_used": "LAST USED",
    "revoked": "REVOKED",
}


@click.group("join")
def command() -> None:
    """Join tokens: shown once, stored hashed, exchanged for a registered key at /v1/enroll."""


@command.command("create")
@click.option("--user", metavar="NAME", help="Who holds the keys: the user id that applications see.")
@domain_option
@click.option("--group", "groups", multiple=True, metavar="G", help="A group of the keys; may be repeated.")
@click.option(
    "--attr",
    "attributes",
    multiple=True,
    type=Attribute(),
    metavar="K=V",
    help="Becomes X-K metadata; may be repeated.",
)
@click.option("--label", default="", metavar="TEXT", help="A note on the keys, unless the script has one.")
@click.option(
    "--from",
    "addresses",
    multiple=True,
    metavar="NETWORK",
    help="Where it may be exchanged from, such as 10.0.0.0/8; may be repeated. Default: anywhere.",
)
@click.option(
    "--uses",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    metavar="N",
    help="How many keys it is good for.",
)
@click.option(
    "--expires", type=Moment(), metavar="TIME", help="Of the token: 2h from now, or a date. Default: 1d."
)
@click.option("--key-lifetime", type=Span(), metavar="SPAN", help="How long a key lives. Default: for ever.")
@click.option(
    "--hint",
    "hints",
    multiple=True,
    type=Attribute(),
    metavar="K=V",
    help="What each script is told besides, such as server_key=…; may be repeated.",
)
@common_options
@pass_settings
def create(
    settings: Settings,
    user: str | None,
    domains: tuple[str, ...],
    groups: tuple[str, ...],
    attributes: tuple[tuple[str, str], ...],
    label: str,
    addresses: tuple[str, ...],
    uses: int,
    expires: datetime | None,
    key_lifetime: int | None,
    hints: tuple[tuple[str, str], ...],
) -> None:
    """Make a join token and print it, this once."""
    from zapd.cli.client import Client

    body: dict[str, Any] = {
        "user": user,
        "groups": list(groups),
        "attributes": attributes_of(attributes),
        "label": label,
        "addresses": list(addresses),
        "uses": uses,
        "expires": expires and expires.isoformat(),
        "key_lifetime": key_lifetime,
        "hints": attributes_of(hints, "--hint"),
    }
    if domains:
        body["domains"] = list(domains)
    with Client(settings) as client:
        made = client.post("/v1/joins", body)
    if settings.json:
        print_json(made)
    else:
        print_fields({name: made[name] for name in ("id", "user", "domains", "uses", "expires", "token")})


@command.command("list")
@common_options
@pass_settings
def list_joins(settings: Settings) -> None:
    """List join tokens; never the tokens themselves."""
    from zapd.cli.client import Client

    with Client(settings) as client:
        joins = list(client.pages("/v1/joins"))
    if settings.json:
        print_json(joins)
    else:
        print_rows([_row(each) for each in joins], _COLUMNS, empty="There are no join tokens.")


@command.command("revoke")
@click.argument("join_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@pass_settings
def revoke(settings: Settings, join_id: str, yes: bool) -> None:
    """Make a join token worthless at once; the keys that were had for it stay."""
    from zapd.cli.client import Client, segment

    confirm(f"Revoke the join token {join_id}?", yes)
    with Client(settings) as client:
        client.delete(f"/v1/joins/{segment(join_id)}")
    done = {"id": join_id, "revoked": "now"}
    if settings.json:
        print_json(done)
    else:
        print_fields(done)


def _row(join: Mapping[str, Any]) -> dict[str, Any]:
    return {**join, "left": join["uses"] - join["used"]}
