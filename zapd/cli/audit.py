"""``zapd audit``: the record, searched through the server or verified beside it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from zapd.cli.options import Moment, Settings, common_options, pass_settings
from zapd.cli.output import print_json, print_rows

_COLUMNS = {
    "time": "TIME",
    "event": "EVENT",
    "status": "STATUS",
    "who": "WHO",
    "domain": "DOMAIN",
    "mechanism": "MECHANISM",
    "address": "ADDRESS",
    "agent": "AGENT",
    "reason": "REASON",
}


@click.group("audit")
def command() -> None:
    """The record of every decision and every change."""


@command.command("list")
@click.option("--user", metavar="NAME", help="A principal or a PLAIN user.")
@click.option("--key", metavar="K", help="A public key or its fingerprint.")
@click.option("--address", metavar="A", help="The client's address.")
@click.option("--domain", metavar="D", help="The ZAP domain.")
@click.option("--status", type=int, metavar="N", help="200, 300, 400 or 500.")
@click.option("--event", metavar="TAG", help="auth.accept, key.revoke, …")
@click.option("--since", type=Moment(past=True), metavar="TIME", help="12h ago, or a date.")
@click.option("--until", type=Moment(past=True), metavar="TIME", help="12h ago, or a date.")
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="At most so many."
)
@common_options
@pass_settings
def list_records(
    settings: Settings,
    user: str | None,
    key: str | None,
    address: str | None,
    domain: str | None,
    status: int | None,
    event: str | None,
    since: datetime | None,
    until: datetime | None,
    limit: int,
) -> None:
    """Search the record, newest first. The search follows the journal by a moment."""
    from zapd.cli.client import Client

    wanted = {
        "user": user,
        "key": None if key is None else fingerprint_of(key),
        "address": address,
        "domain": domain,
        "status": status,
        "event": event,
        "since": since and since.isoformat(),
        "until": until and until.isoformat(),
    }
    with Client(settings) as client:
        records = list(client.pages("/v1/audit", limit=limit, **wanted))
    if settings.json:
        print_json(records)
    else:
        print_rows([_row(each) for each in records], _COLUMNS, empty="There are no such records.")


def _row(record: dict[str, Any]) -> dict[str, Any]:
    """A record with what it is about in one column."""
    who = record.get("principal") or record.get("username") or record.get("key") or record.get("subject") or ""
    if record.get("actor"):
        who = f"{who} by {record['actor']}"
    return record | {"who": who, "status": record.get("status") or ""}


def fingerprint_of(key: str) -> str:
    """``SHA256:…`` of whatever names a key."""
    from zapd.cli.options import KeyName

    name = KeyName().convert(key, None, None)
    return "SHA256:" + name.replace("-", "+").replace("_", "/")
