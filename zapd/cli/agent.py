"""``zapd agent``: enrolled bridges. The key pair is made here, and only its public half travels."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from zapd.cli.options import Endpoint, Settings, Span, common_options, confirm, domain_option, pass_settings
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


_output_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    default=Path("agent.key"),
    show_default=True,
    metavar="FILE",
    help="Where its keys go, mode 0600; never overwrites.",
)
_endpoint_option = click.option(
    "--endpoint",
    "endpoints",
    multiple=True,
    type=Endpoint(),
    metavar="ADDRESS",
    help="How it reaches zapd, instead of where the server says it listens; may be repeated.",
)


@click.group("agent")
def command() -> None:
    """Agents: the bridges inside applications that may ask zapd."""


@command.command("enroll")
@click.argument("name")
@_output_option
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
@_endpoint_option
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
    body: dict[str, Any] = {"name": name, "addresses": list(addresses)}
    if domains:
        body["domains"] = list(domains)
    if mechanisms:
        body["mechanisms"] = list(mechanisms)
    _with_new_pair(settings, name, "/v1/agents", body, output, endpoints)


@command.command("rotate")
@click.argument("name")
@_output_option
@click.option(
    "--overlap",
    type=Span(),
    default="1h",
    show_default=True,
    metavar="SPAN",
    help="How long the old key works as well; then whoever came with it is cut off.",
)
@_endpoint_option
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@pass_settings
def rotate(
    settings: Settings, name: str, output: Path, overlap: int, endpoints: tuple[str, ...], yes: bool
) -> None:
    """Give an agent a new key pair, in a new file that takes the old one's place in the application.

    Both keys work until the overlap is over: put the file there and restart the application before that.
    """
    from zapd.cli.client import segment

    if overlap == 0:
        confirm("End the old key at once? Whoever came with it is cut off.", yes)
    _with_new_pair(settings, name, f"/v1/agents/{segment(name)}/rotate", {"overlap": overlap}, output, endpoints)


def _with_new_pair(
    settings: Settings,
    name: str,
    path: str,
    body: Mapping[str, Any],
    output: Path,
    endpoints: Sequence[str],
) -> None:
    """Make a pair, tell the server its public half, and write the file."""
    from zapd.cli.client import Client
    from zapd.cli.files import NewFile
    from zapd.zmtp.keys import encode_key, generate_keypair

    public_key, secret_key = generate_keypair()
    # The file is prepared first: an agent that is enrolled and whose keys are nowhere helps nobody.
    with Client(settings) as client, NewFile(output) as file:
        enrolled = client.post(path, {**body, "public_key": encode_key(public_key)})
        known = reachable(enrolled.get("endpoints", []), endpoints, client.host)
        file.publish(key_file(name, encode_key(public_key), encode_key(secret_key), known))
    enrolled["endpoints"] = known
    enrolled["file"] = str(output)
    if settings.json:
        print_json(enrolled)
        return
    members = ("name", "fingerprint", "previous_until", "domains", "mechanisms", "addresses", "file")
    print_fields(
        {each: enrolled.get(each) for each in members} | {"endpoints": [each["address"] for each in known]}
    )


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
@click.option("--reason", default="", metavar="TEXT", help="Why, for the record.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@common_options
@pass_settings
def revoke(settings: Settings, name: str, reason: str, yes: bool) -> None:
    """Shut an agent out at once."""
    from zapd.cli.client import Client, segment

    confirm(f"Revoke the agent {name}? Its applications ask in vain from then on.", yes)
    with Client(settings) as client:
        client.delete(f"/v1/agents/{segment(name)}", reason=reason or None)
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
        return [{"address": each, "server_keys": keys} for each in named]
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
