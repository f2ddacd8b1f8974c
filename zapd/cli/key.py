"""``zapd key``: the registry of CURVE keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import click

from zapd.cli.key_export import export_keys
from zapd.cli.key_import import import_keys
from zapd.cli.options import (
    KeyCommand,
    KeyName,
    Moment,
    PublicKey,
    Settings,
    Span,
    WholeKeyName,
    attributes_of,
    change_options,
    changed,
    common_options,
    confirm,
    grant_options,
    key_filters,
    pass_settings,
)
from zapd.cli.output import print_fields, print_json, print_rows

_COLUMNS = {
    "user": "USER",
    "state": "STATE",
    "fingerprint": "FINGERPRINT",
    "domains": "DOMAINS",
    "groups": "GROUPS",
    "expires": "EXPIRES",
    "label": "LABEL",
}
_KNOCKS = {
    "fingerprint": "FINGERPRINT",
    "domain": "DOMAIN",
    "address": "ADDRESS",
    "agent": "AGENT",
    "tries": "TRIES",
    "first_seen": "FIRST SEEN",
    "last_seen": "LAST SEEN",
    "user": "USER",
}


@click.group("key")
def command() -> None:
    """CURVE keys: who holds them, where they are good, and how they are revoked.

    A key is named by its 40 characters of Z85, by its fingerprint SHA256:…, or by the 43 characters of URLs.
    """


command.add_command(import_keys)
command.add_command(export_keys)


@command.command("add", cls=KeyCommand)
@click.argument("public_key", type=PublicKey())
@click.option("--user", required=True, metavar="NAME", help="Who holds it: the user id that applications see.")
@grant_options
@click.option("--label", default="", metavar="TEXT", help="A note for people.")
@click.option("--not-before", type=Moment(), metavar="TIME", help="When it becomes valid.")
@click.option("--pending", is_flag=True, help="Hold it for approval.")
@common_options
@pass_settings
def add(
    settings: Settings,
    public_key: str,
    user: str,
    domains: tuple[str, ...],
    groups: tuple[str, ...],
    expires: datetime | None,
    attributes: tuple[tuple[str, str], ...],
    label: str,
    not_before: datetime | None,
    pending: bool,
) -> None:
    """Register a public key."""
    from zapd.cli.client import Client

    body: dict[str, Any] = {
        "public_key": public_key,
        "user": user,
        "groups": list(groups),
        "attributes": attributes_of(attributes),
        "label": label,
        "not_before": not_before and not_before.isoformat(),
        "expires": expires and expires.isoformat(),
        "state": "pending" if pending else "active",
    }
    if domains:
        body["domains"] = list(domains)
    with Client(settings) as client:
        _show(settings, client.post("/v1/keys", body))


@command.command("list")
@key_filters
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many.")
@click.option("--usage", is_flag=True, help="Also say when each was last let in; takes longer.")
@click.option("--address", metavar="NET", help="With --state pending: seen from there; a network, ipc, ipc:uid=N.")
@click.option("--agent", metavar="NAME", help="With --state pending: seen by this agent.")
@common_options
@pass_settings
def list_keys(
    settings: Settings,
    user: str | None,
    state: str | None,
    domain: str | None,
    limit: int | None,
    usage: bool,
    address: str | None,
    agent: str | None,
) -> None:
    """List registered keys; with --state pending also strangers that wait for approval, and where they knock."""
    from zapd.cli.client import Client

    if (address is not None or agent is not None) and state != "pending":
        raise click.UsageError("--address and --agent go with --state pending.")
    asked = {"user": user, "state": state, "domain": domain, "usage": usage or None}
    asked |= {"address": address, "agent": agent}
    with Client(settings) as client:
        keys = list(client.pages("/v1/keys", limit=limit, **asked))
    if settings.json:
        print_json(keys)
    elif state == "pending":
        print_rows([row for key in keys for row in _knocks(key)], _KNOCKS, empty="No key waits for approval.")
    else:
        columns = _COLUMNS | ({"last_used": "LAST USED"} if usage else {})
        print_rows([flat(key) for key in keys], columns, empty="There are no such keys.")


@command.command("show", cls=KeyCommand)
@click.argument("key", type=KeyName())
@common_options
@pass_settings
def show(settings: Settings, key: str) -> None:
    """Show one key."""
    from zapd.cli.client import Client

    with Client(settings) as client:
        _show(settings, client.get(f"/v1/keys/{key}"))


@command.command("change", cls=KeyCommand)
@click.argument("key", type=KeyName())
@click.option("--user", metavar="NAME", help="Who holds it.")
@change_options
@click.option("--label", metavar="TEXT", help="A note for people.")
@common_options
@pass_settings
def change(settings: Settings, /, key: str, user: str | None, label: str | None, **given: Any) -> None:
    """Change what is said of a key; what is not named stays.

    --domain, --group and --attr say all there shall be. If somebody else changes it at the same moment, this is
    refused.
    """
    from zapd.cli.client import Client

    body = changed(given) | ({} if user is None else {"user": user}) | ({} if label is None else {"label": label})
    if not body:
        raise click.UsageError("Say what shall change.")
    with Client(settings) as client:
        _show(settings, client.edit(f"/v1/keys/{key}", body))


@command.command("approve", cls=KeyCommand)
@click.argument("key", type=WholeKeyName())
@click.option("--user", metavar="NAME", help="Who holds it; a stranger's key needs one.")
@grant_options
@click.option("--label", metavar="TEXT", help="A note for people.")
@click.option("--not-before", type=Moment(), metavar="TIME", help="When it becomes valid.")
@common_options
@pass_settings
def approve(
    settings: Settings,
    key: tuple[str, str | None],
    user: str | None,
    domains: tuple[str, ...],
    groups: tuple[str, ...],
    expires: datetime | None,
    attributes: tuple[tuple[str, str], ...],
    label: str | None,
    not_before: datetime | None,
) -> None:
    """Let a key in that waits: from its next try on, by itself.

    Without --domain a stranger's key is granted where it knocked. A key that was registered with --pending keeps
    what is not named. Named by its 40 characters, a key may be approved although the list has it no more.
    """
    name, public_key = key
    given = {
        "public_key": public_key,
        "user": user,
        "domains": list(domains),
        "groups": list(groups),
        "attributes": attributes_of(attributes),
        "label": label,
        "not_before": not_before and not_before.isoformat(),
        "expires": expires and expires.isoformat(),
    }
    _move(settings, name, "approve", {name: value for name, value in given.items() if value})


@command.command("reject", cls=KeyCommand)
@click.argument("key", type=WholeKeyName())
@click.option("--reason", default="", metavar="TEXT", help="Why, for the record.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@pass_settings
def reject(settings: Settings, key: tuple[str, str | None], reason: str, yes: bool) -> None:
    """Turn a key away that waits, for good. It stays known as revoked."""
    confirm("Reject this key? That cannot be undone.", yes)
    name, public_key = key
    _move(settings, name, "reject", {"reason": reason} | ({"public_key": public_key} if public_key else {}))


@command.command("revoke", cls=KeyCommand)
@click.argument("key", type=KeyName())
@click.option("--reason", default="", metavar="TEXT", help="Why, for the record.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@pass_settings
def revoke(settings: Settings, key: str, reason: str, yes: bool) -> None:
    """Make a key worthless at once and for good."""
    confirm("Revoke this key? That cannot be undone.", yes)
    _move(settings, key, "revoke", {"reason": reason})


@command.command("rotate", cls=KeyCommand)
@click.argument("key", type=KeyName())
@click.argument("new_key", type=PublicKey())
@click.option(
    "--overlap",
    type=Span(),
    default="1d",
    show_default=True,
    metavar="SPAN",
    help="How long both keys work; 0 revokes the old one at once.",
)
@click.option("--label", metavar="TEXT", help="Of the new key; the old one's unless named.")
@click.option(
    "--expires", type=Moment(), metavar="TIME", help="Of the new key; when the old one would have, unless named."
)
@click.option("--never-expires", is_flag=True, help="The new key has no end.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@pass_settings
def rotate(
    settings: Settings,
    key: str,
    new_key: str,
    overlap: int,
    label: str | None,
    expires: datetime | None,
    never_expires: bool,
    yes: bool,
) -> None:
    """Let NEW_KEY take the place of KEY: same holder, same rights.

    Both work until the overlap is over; `zapd key show` of either says when it was last let in.
    """
    from zapd.cli.client import Client

    if expires is not None and never_expires:
        raise click.UsageError("Say either --expires or --never-expires.")
    if overlap == 0:
        confirm("Revoke the old key at once? That cannot be undone.", yes)
    body: dict[str, Any] = {"public_key": new_key, "overlap": overlap, "label": label}
    if expires is not None or never_expires:
        body["expires"] = expires and expires.isoformat()
    with Client(settings) as client:
        done = client.post(f"/v1/keys/{key}/rotate", body)
    if settings.json:
        print_json(done)
        return
    rows = [flat(done[which]) | {"which": which} for which in ("old", "new")]
    print_rows(rows, {"which": "", **_COLUMNS, "last_used": "LAST USED"}, empty="")


def flat(key: Mapping[str, Any]) -> dict[str, Any]:
    """A key with its newest admission among its own members, as people read it."""
    shown = {name: value for name, value in key.items() if name not in ("usage", "sightings")}
    for number, seen in enumerate(key.get("sightings", ()), 1):
        where = f"{seen['domain']}, from {seen['address']} by {seen['agent']}, {seen['tries']} times"
        shown[f"seen_{number}"] = f"{where}, {seen['first_seen']} to {seen['last_seen']}"
    usage = key.get("usage")
    if usage is None:
        return shown
    if usage["last_used"] is None:
        return shown | {"last_used": "not within reach"}
    shown["last_used"] = usage["last_used"]
    return shown | {f"last_{name}": usage[name] for name in ("address", "domain", "agent")}


def _knocks(key: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A key that waits, a row for each domain that it knocked at."""
    about = {"fingerprint": key["fingerprint"], "user": key["user"]}
    held = {"domain": key["domains"], "first_seen": key["created"]}
    return [about | each for each in key.get("sightings") or [held]]


def _move(settings: Settings, key: str, verb: str, body: Mapping[str, Any] | None = None) -> None:
    from zapd.cli.client import Client

    with Client(settings) as client:
        _show(settings, client.post(f"/v1/keys/{key}/{verb}", body))


def _show(settings: Settings, key: Mapping[str, Any]) -> None:
    if settings.json:
        print_json(key)
    else:
        print_fields({name: value for name, value in flat(key).items() if name not in ("id", "version")})
