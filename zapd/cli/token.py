"""``zapd token``: tokens for the admin API. With ``--offline`` beside the database itself: the way back in."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zapd.cli.options import Moment, Settings, common_options, confirm, pass_settings
from zapd.cli.output import print_fields, print_json, print_rows

if TYPE_CHECKING:
    from zapd.admin.services.tokens import TokenService
    from zapd.store.tokens import TokenRecord

Result = TypeVar("Result")

_COLUMNS = {
    "id": "ID",
    "name": "NAME",
    "role": "ROLE",
    "domains": "DOMAINS",
    "expires": "EXPIRES",
    "last_used": "LAST USED",
    "revoked": "REVOKED",
}

_offline = click.option(
    "--offline",
    is_flag=True,
    help="Work on the configuration's database itself; no server and no token is needed.",
)


@click.group("token")
def command() -> None:
    """Tokens for the admin API: shown once, stored hashed."""


@command.command("create")
@click.option("--role", required=True, type=click.Choice(["viewer", "operator", "admin"]), help="What it may do.")
@click.option("--name", metavar="NAME", help="Whose it is, for the record; you and this machine unless named.")
@click.option("--domain", "domains", multiple=True, metavar="D", help="All it sees and changes; may be repeated.")
@click.option("--expires", type=Moment(), metavar="TIME", help="90d from now, or a date.")
@_offline
@common_options
@pass_settings
def create(
    settings: Settings,
    role: str,
    name: str | None,
    domains: tuple[str, ...],
    expires: datetime | None,
    offline: bool,
) -> None:
    """Make a token and print it, this once."""
    name = name or _who()
    wanted = list(domains) or ["*"]
    if offline:

        async def work(tokens: TokenService) -> dict[str, Any]:
            from zapd.admin.roles import OFFLINE, Role

            record, token = await tokens.create(OFFLINE, name, Role(role), domains=wanted, expires=expires)
            return _shape(record) | {"token": token}

        made: Mapping[str, Any] = _beside_the_server(settings, work)
    else:
        from zapd.cli.client import Client

        body = {"name": name, "role": role, "domains": wanted, "expires": expires and expires.isoformat()}
        with Client(settings) as client:
            made = client.post("/v1/tokens", body)
    if settings.json:
        print_json(made)
    else:
        print_fields({each: made[each] for each in ("id", "name", "role", "domains", "expires", "token")})


@command.command("list")
@_offline
@common_options
@pass_settings
def list_tokens(settings: Settings, offline: bool) -> None:
    """List tokens; never the tokens themselves."""
    if offline:

        async def work(tokens: TokenService) -> list[dict[str, Any]]:
            from zapd.admin.roles import OFFLINE

            found: list[dict[str, Any]] = []
            after: str | None = ""
            while after is not None:
                page = await tokens.list(OFFLINE, after=after)
                found += [_shape(record) for record in page.items]
                after = page.after
            return found

        tokens = _beside_the_server(settings, work)
    else:
        from zapd.cli.client import Client

        with Client(settings) as client:
            tokens = list(client.pages("/v1/tokens"))
    if settings.json:
        print_json(tokens)
    else:
        print_rows(tokens, _COLUMNS, empty="There are no tokens.")


@command.command("revoke")
@click.argument("token_id", metavar="ID")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_offline
@common_options
@pass_settings
def revoke(settings: Settings, token_id: str, yes: bool, offline: bool) -> None:
    """Make a token worthless at once."""
    confirm(f"Revoke the token {token_id}?", yes)
    if offline:

        async def work(tokens: TokenService) -> dict[str, Any]:
            from zapd.admin.roles import OFFLINE

            return _shape(await tokens.revoke(OFFLINE, token_id))

        done: Mapping[str, Any] = _beside_the_server(settings, work)
    else:
        from zapd.cli.client import Client, segment

        with Client(settings) as client:
            done = client.delete(f"/v1/tokens/{segment(token_id)}") or {"id": token_id, "revoked": "now"}
    if settings.json:
        print_json(done)
    else:
        print_fields({each: done.get(each) for each in _COLUMNS})


def _beside_the_server(settings: Settings, work: Callable[[TokenService], Coroutine[Any, Any, Result]]) -> Result:
    """Do ``work`` on the configuration's database. The next server to start takes its events into the journal."""
    import asyncio

    from zapd.admin.services.changes import ChangeRoad
    from zapd.admin.services.tokens import TokenService
    from zapd.cli.registry import open_registry

    with open_registry(settings) as engine:
        return asyncio.run(work(TokenService(ChangeRoad(engine))))


def _who() -> str:
    """For the record: who made it, and where."""
    with suppress(KeyError, OSError):
        return f"{getpass.getuser()}@{socket.gethostname()}"
    return socket.gethostname()


def _shape(record: TokenRecord) -> dict[str, Any]:
    """As the API shows it."""
    shape = asdict(record)
    del shape["hash"]
    return shape
