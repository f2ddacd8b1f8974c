"""``zapd user``: PLAIN users of the SQL registry. A password comes from a prompt or standard input alone."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from zapd.cli.options import (
    Settings,
    attributes_of,
    change_options,
    changed,
    common_options,
    confirm,
    grant_options,
    import_options,
    pass_settings,
)
from zapd.cli.output import print_fields, print_json, print_rows, say

_COLUMNS = {
    "name": "NAME",
    "state": "STATE",
    "domains": "DOMAINS",
    "groups": "GROUPS",
    "expires": "EXPIRES",
    "updated": "CHANGED",
}


@click.group("user")
def command() -> None:
    """PLAIN users: names, passwords, and where they are good."""


@command.command("add")
@click.argument("name")
@grant_options
@common_options
@pass_settings
def add(
    settings: Settings,
    name: str,
    domains: tuple[str, ...],
    groups: tuple[str, ...],
    expires: datetime | None,
    attributes: tuple[tuple[str, str], ...],
) -> None:
    """Make a user. The password is asked for, or is the first line of standard input."""
    from zapd.cli.client import Client

    body: dict[str, Any] = {
        "name": name,
        "groups": list(groups),
        "attributes": attributes_of(attributes),
        "expires": expires and expires.isoformat(),
    }
    if domains:
        body["domains"] = list(domains)
    with Client(settings) as client:
        _show(settings, client.post("/v1/users", body | {"password": read_password()}))


@command.command("list")
@click.option("--state", type=click.Choice(["enabled", "disabled"]), help="Only those in this state.")
@click.option("--domain", metavar="D", help="Only those that are good in this domain.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many.")
@common_options
@pass_settings
def list_users(settings: Settings, state: str | None, domain: str | None, limit: int | None) -> None:
    """List users."""
    from zapd.cli.client import Client

    with Client(settings) as client:
        users = list(client.pages("/v1/users", limit=limit, state=state, domain=domain))
    if settings.json:
        print_json(users)
    else:
        print_rows(users, _COLUMNS, empty="There are no such users.")


@command.command("change")
@click.argument("name")
@change_options
@common_options
@pass_settings
def change(settings: Settings, /, name: str, **given: Any) -> None:
    """Change what is said of a user; what is not named stays.

    --domain, --group and --attr say all there shall be. If somebody else changes it at the same moment, this is
    refused.
    """
    from zapd.cli.client import Client, segment

    body = changed(given)
    if not body:
        raise click.UsageError("Say what shall change.")
    with Client(settings) as client:
        _show(settings, client.edit(f"/v1/users/{segment(name)}", body))


@command.command("passwd")
@click.argument("name")
@common_options
@pass_settings
def passwd(settings: Settings, name: str) -> None:
    """Give a user another password, from a prompt or the first line of standard input."""
    from zapd.cli.client import Client, segment

    with Client(settings) as client:
        found = client.put(f"/v1/users/{segment(name)}/password", {"password": read_password()})
    if settings.json:
        print_json(found)
    else:
        say(f"The password of {name} is changed.")


@command.command("disable")
@click.argument("name")
@common_options
@pass_settings
def disable(settings: Settings, name: str) -> None:
    """Refuse a user from now on."""
    _set_state(settings, name, "disabled")


@command.command("enable")
@click.argument("name")
@common_options
@pass_settings
def enable(settings: Settings, name: str) -> None:
    """Take a disabled user back."""
    _set_state(settings, name, "enabled")


@command.command("rm")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@pass_settings
def remove(settings: Settings, name: str, yes: bool) -> None:
    """Remove a user."""
    from zapd.cli.client import Client, segment

    confirm(f"Remove the user {name}?", yes)
    with Client(settings) as client:
        client.delete(f"/v1/users/{segment(name)}")
    if settings.json:
        print_json({"name": name, "removed": True})
    else:
        say(f"The user {name} is removed.")


@command.command("import")
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--format",
    "form",
    type=click.Choice(["htpasswd", "csv", "json", "jsonl"]),
    help="What SOURCE is, where its name does not say; htpasswd is name:hash.",
)
@import_options
@common_options
@pass_settings
def import_users(
    settings: Settings, source: Path, form: str | None, dry_run: bool, partial: bool, domains: tuple[str, ...]
) -> None:
    """Register the users of SOURCE with the password hashes they have: all in one transaction, or none.

    Hashes may be argon2id, bcrypt, SHA-512-crypt, and what Apache's htpasswd writes.
    """
    from zapd.cli.foreign import htpasswd
    from zapd.cli.importing import form_of, send_file, send_found

    query = {"dry_run": dry_run, "partial": partial, "domain": list(domains)}
    if form == "htpasswd" or (form is None and "passwd" in source.name):
        send_found(settings, "/v1/users/import", htpasswd(source), query)
    else:
        send_file(settings, "/v1/users/import", source, form_of(source, form), query)


def read_password() -> str:
    """From the terminal, twice and unseen; else the first line of standard input."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt="Again", err=True))
    password = sys.stdin.readline().removesuffix("\n").removesuffix("\r")
    if not password:
        raise click.UsageError("No password came: type it at the prompt, or put it on standard input.")
    return password


def _set_state(settings: Settings, name: str, state: str) -> None:
    from zapd.cli.client import Client, segment

    with Client(settings) as client:
        _show(settings, client.patch(f"/v1/users/{segment(name)}", {"state": state}))


def _show(settings: Settings, user: Mapping[str, Any]) -> None:
    if settings.json:
        print_json(user)
    else:
        print_fields({name: value for name, value in user.items() if name != "version"})
