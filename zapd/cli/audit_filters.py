"""What the commands about the record share: which records are meant, and how one is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import click

from zapd.cli.options import KeyName, Moment

Function = TypeVar("Function", bound=Callable[..., Any])

COLUMNS = {
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

_FILTERS = (
    click.option("--user", metavar="NAME", help="A principal or a PLAIN user."),
    click.option("--key", metavar="K", help="A public key or its fingerprint."),
    click.option("--address", metavar="A", help="The client's address."),
    click.option("--domain", metavar="D", help="The ZAP domain."),
    click.option("--status", type=int, metavar="N", help="200, 300, 400 or 500."),
    click.option("--event", metavar="TAG", help="auth.accept, key.revoke, key.*, …"),
    click.option("--since", type=Moment(past=True), metavar="TIME", help="12h ago, or a date."),
)
_until = click.option("--until", type=Moment(past=True), metavar="TIME", help="12h ago, or a date.")


def filters_forward(function: Function) -> Function:
    """Which records, those to come included."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function


def filters(function: Function) -> Function:
    """Which records of the past."""
    return filters_forward(_until(function))


def query_of(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """What the API is asked for what these options say."""
    found = dict(wanted)
    if found.get("key") is not None:
        found["key"] = fingerprint_of(found["key"])
    for name in ("since", "until"):
        moment = found.get(name)
        found[name] = moment.isoformat() if isinstance(moment, datetime) else None
    return found


def row_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record with what it is about in one column."""
    who = record.get("principal") or record.get("username") or record.get("key") or record.get("subject") or ""
    if record.get("actor"):
        who = f"{who} by {record['actor']}"
    return {**record, "who": who, "status": record.get("status") or ""}


def fingerprint_of(key: str) -> str:
    """``SHA256:…`` of whatever names a key."""
    from zapd.zmtp import keys

    return keys.fingerprint_of(KeyName().convert(key, None, None))
