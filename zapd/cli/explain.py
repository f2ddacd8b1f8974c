"""``zapd explain``: what would be decided now, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from zapd.cli.options import Settings, WholeKeyName, common_options, pass_settings
from zapd.cli.output import complain, print_fields, print_json, print_rows, say
from zapd.errors import NotFound

if TYPE_CHECKING:
    from zapd.cli.client import Client

_COLUMNS = {"step": "STEP", "verdict": "VERDICT", "text": "WHY", "milliseconds": "MS"}


@click.command("explain")
@click.option("--domain", required=True, metavar="D", help="The ZAP domain; '' is the empty one.")
@click.option(
    "--mechanism", required=True, type=click.Choice(["NULL", "PLAIN", "CURVE", "GSSAPI"]), help="The mechanism."
)
@click.option(
    "--key",
    type=WholeKeyName(),
    metavar="K",
    help="CURVE: the client's public key, or its fingerprint where it is registered, waits for approval, or is an"
    " agent's.",
)
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
    settings: Settings,
    domain: str,
    mechanism: str,
    key: tuple[str, str | None] | None,
    username: str | None,
    address: str,
) -> None:
    """Say what would be decided now and why: each rule and backend with its verdict and time.

    Nothing is recorded as a decision, and nobody is let in.
    """
    from zapd.cli.client import Client

    if mechanism == "CURVE" and key is None:
        raise click.UsageError("CURVE needs --key.")
    if mechanism in ("PLAIN", "GSSAPI") and username is None:
        raise click.UsageError(f"{mechanism} needs --username.")
    with Client(settings) as client:
        question = {
            "domain": domain,
            "mechanism": mechanism,
            "address": address,
            "key": None if key is None else _whole(client, *key),
            "username": username,
        }
        found = client.post("/v1/explain", {name: value for name, value in question.items() if value is not None})
    if settings.json:
        print_json(found)
        return
    print_fields({name: found.get(name) for name in ("status", "reason", "principal", "groups", "attributes")})
    say("")
    print_rows(found.get("steps", []), _COLUMNS, empty="No rule was asked.")


def _whole(client: Client, name: str, public_key: str | None) -> str:
    """The public key that was given, or that the server knows by this name. Raises `NotFound` with the mend."""
    from zapd.cli.client import Refused

    if public_key is not None:
        return public_key
    try:
        return str(client.get(f"/v1/keys/{name}")["public_key"])
    except Refused as refused:
        if refused.status != 404:
            raise
    return _agents(client, name)


def _agents(client: Client, name: str) -> str:
    """The public key of the agent that has it; says on standard error what that means. Raises `NotFound`."""
    from zapd.zmtp.keys import fingerprint_of

    former = fingerprint_of(name)
    for agent in client.pages("/v1/agents"):
        if agent["id"] == name:
            complain(
                f"This is the key of the agent {agent['name']}, for zapd's own door; a client's it is only where a"
                " backend says so. Explained is a client who comes with it."
            )
            return str(agent["public_key"])
        if agent["previous_fingerprint"] == former:
            raise NotFound(
                f"This was the key of the agent {agent['name']} before its last rotation, and is not "
                "registered: give the whole public key to have it explained all the same."
            )
    raise NotFound(
        f"No key {name} is registered, waits for approval or is an agent's, as far as your token sees: "
        "give the whole public key."
    )
