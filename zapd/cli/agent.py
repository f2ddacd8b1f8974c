"""``zapd agent``: enrolled bridges. The key pair is made here, and only its public half travels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from zapd.cli.options import Settings, common_options, confirm, domain_option, pass_settings
from zapd.cli.output import print_fields, print_json, print_rows
from zapd.errors import ConfigurationError

_COLUMNS = {
    "name": "NAME",
    "state": "STATE",
    "fingerprint": "FINGERPRINT",
    "domains": "DOMAINS",
    "mechanisms": "MECHANISMS",
    "addresses": "FROM",
}
_MECHANISMS = ["NULL", "PLAIN", "CURVE", "GSSAPI"]


@click.group("agent")
def command() -> None:
    """Agents: the bridges inside applications that may ask zapd."""


@command.command("enroll")
@click.argument("name")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("agent.key"),
    show_default=True,
    metavar="FILE",
    help="Where its keys go, mode 0600; never overwrites.",
)
@domain_option
@click.option(
    "--mechanism",
    "mechanisms",
    multiple=True,
    type=click.Choice(_MECHANISMS),
    help="What it may ask about; may be repeated. All but GSSAPI, whose principal is the agent's own word.",
)
@click.option(
    "--from",
    "addresses",
    multiple=True,
    metavar="NETWORK",
    help="Where it may connect from (CIDR); may be repeated.",
)
@click.option(
    "--endpoint",
    "endpoints",
    multiple=True,
    metavar="ADDRESS",
    help="How it reaches zapd, instead of where the server says it listens; may be repeated.",
)
@common_options
@pass_settings
def enroll(
    settings: Settings,
    name: str,
    output: Path,
    domains: tuple[str, ...],
    mechanisms: tuple[str, ...],
    addresses: tuple[str, ...],
    endpoints: tuple[str, ...],
) -> None:
    """Enrol an agent: make its key pair, register the public half, write one file for the application.

    The file holds its name, its pair, and zapd's endpoints each with the server keys to accept. The secret half is
    never printed and never sent.
    """
    from zapd.cli.client import Client
    from zapd.cli.files import NewFile
    from zapd.zmtp.keys import encode_key, generate_keypair

    public_key, secret_key = generate_keypair()
    body: dict[str, Any] = {"name": name, "public_key": encode_key(public_key), "addresses": list(addresses)}
    if domains:
        body["domains"] = list(domains)
    if mechanisms:
        body["mechanisms"] = list(mechanisms)
    # The file is prepared first: an agent that is enrolled and whose keys are nowhere helps nobody.
    with Client(settings) as client, NewFile(output) as file:
        enrolled = client.post("/v1/agents", body)
        known = reachable(enrolled.get("endpoints", []), endpoints, client.host)
        file.publish(key_file(name, encode_key(public_key), encode_key(secret_key), known))
    enrolled["endpoints"] = known
    enrolled["file"] = str(output)
    if settings.json:
        print_json(enrolled)
        return
    shown = {
        each: enrolled.get(each) for each in ("name", "fingerprint", "domains", "mechanisms", "addresses", "file")
    }
    print_fields(shown | {"endpoints": [each["address"] for each in known]})


@command.command("list")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most so many.")
@common_options
@pass_settings
def list_agents(settings: Settings, limit: int | None) -> None:
    """List enrolled agents."""
    from zapd.cli.client import Client

    with Client(settings) as client:
        agents = list(client.pages("/v1/agents", limit=limit))
    if settings.json:
        print_json(agents)
    else:
        print_rows(agents, _COLUMNS, empty="There are no agents.")


@command.command("show")
@click.argument("name")
@common_options
@pass_settings
def show(settings: Settings, name: str) -> None:
    """Show one agent."""
    from zapd.cli.client import Client, segment

    with Client(settings) as client:
        _show(settings, client.get(f"/v1/agents/{segment(name)}"))


@command.command("revoke")
@click.argument("name")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@pass_settings
def revoke(settings: Settings, name: str, yes: bool) -> None:
    """Shut an agent out at once."""
    from zapd.cli.client import Client, segment

    confirm(f"Revoke the agent {name}?", yes)
    with Client(settings) as client:
        client.delete(f"/v1/agents/{segment(name)}")
        _show(settings, client.get(f"/v1/agents/{segment(name)}"))


def reachable(offered: Sequence[Mapping[str, Any]], named: Sequence[str], host: str) -> list[dict[str, Any]]:
    """The endpoints for the key file: those of the server that ask for CURVE, or ``named`` ones with their keys.

    An endpoint on every interface is reached under the name that the API was reached under.
    """
    from zapd.net.address import IpcAddress, TcpAddress, parse_address

    curve = [each for each in offered if each["mechanism"] == "CURVE"]
    if not curve:
        raise ConfigurationError(
            'The server has no CURVE endpoint for agents: add a [[zap]] with mechanism = "CURVE".'
        )
    if named:
        keys = sorted({key for each in curve for key in each["server_keys"]})
        return [{"address": str(parse_address(each)), "server_keys": keys} for each in named]
    found = []
    for each in curve:
        address = parse_address(each["address"])
        if not isinstance(address, IpcAddress) and (
            address.host == "*" or (address.ip is not None and address.ip.is_unspecified)
        ):
            address = TcpAddress(host, address.port)
        found.append({"address": str(address), "server_keys": list(each["server_keys"])})
    return found


def key_file(name: str, public_key: str, secret_key: str, endpoints: Sequence[Mapping[str, Any]]) -> str:
    """What `zapd.agent.read_keys` reads. JSON's strings are TOML's basic strings."""

    def quoted(value: object) -> str:
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")

    lines = [
        "# Keys of a zapd agent. The secret half must stay secret: keep this file at mode 0600.",
        f"name = {quoted(name)}",
        f"public_key = {quoted(public_key)}",
        f"secret_key = {quoted(secret_key)}",
    ]
    for each in endpoints:
        lines += ["", "[[endpoint]]", f"address = {quoted(each['address'])}"]
        lines.append(f"server_keys = [{', '.join(quoted(key) for key in each['server_keys'])}]")
    return "\n".join(lines) + "\n"


def _show(settings: Settings, agent: Mapping[str, Any]) -> None:
    if settings.json:
        print_json(agent)
    else:
        print_fields({name: value for name, value in agent.items() if name not in ("id", "version", "endpoints")})
