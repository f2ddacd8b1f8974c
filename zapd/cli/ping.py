"""``zapd ping``: one real ZAP request from outside, as an agent would send it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from zapd.cli.options import Endpoint, PublicKey, Settings, local_options, pass_settings
from zapd.cli.output import print_fields, print_json
from zapd.errors import ConfigurationError, InvalidInput, Unavailable

if TYPE_CHECKING:
    from zapd.agent.keyfile import AgentKeys
    from zapd.net.address import Address
    from zapd.net.remote import RemoteHandler
    from zapd.zap import ZapReply, ZapRequest
    from zapd.zmtp.handshake import Mechanism


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back, and how long it took."""

    reply: ZapReply
    connected: float
    """Seconds to be connected and let in."""
    answered: float
    """Seconds from the question to its answer."""


@click.command("ping")
@click.argument("endpoint", type=Endpoint())
@click.option(
    "--keys",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The agent's key file; for CURVE.",
)
@click.option("--domain", default="default", show_default=True, metavar="D", help="The ZAP domain to ask about.")
@click.option(
    "--mechanism",
    type=click.Choice(["NULL", "PLAIN", "CURVE", "GSSAPI"]),
    default="CURVE",
    show_default=True,
    help="The mechanism to ask about.",
)
@click.option(
    "--key",
    type=PublicKey(),
    metavar="K",
    help="CURVE: the client's key; a new one that nobody knows unless named.",
)
@click.option(
    "--username",
    "--principal",
    "username",
    metavar="U",
    help="PLAIN: the name; its password comes from a prompt or standard input. GSSAPI: the principal.",
)
@click.option("--address", default="127.0.0.1", show_default=True, metavar="A", help="The client's address.")
@click.option(
    "--timeout",
    type=click.FloatRange(0.1, 60),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Seconds to wait.",
)
@local_options
@pass_settings
def command(
    settings: Settings,
    endpoint: str,
    keys: Path | None,
    domain: str,
    mechanism: str,
    key: str | None,
    username: str | None,
    address: str,
    timeout: float,
) -> None:
    """Put one question to a ZAP endpoint and show its answer and the time it took.

    Ends with 0 when zapd answered, whatever it said, and with 1 when no answer came. The question is decided and
    recorded like any other.
    """
    from zapd.net.address import parse_address

    where = parse_address(endpoint)
    request = _question(domain, mechanism, key, username, address)
    answer = asyncio.run(_ask(where, _mechanism(where, keys), request, timeout))
    shown = {
        "endpoint": str(where),
        "status": int(answer.reply.status),
        "user_id": answer.reply.user_id.decode("utf-8", "replace"),
        "metadata": _metadata(answer.reply.metadata),
        "connected_ms": round(answer.connected * 1000, 2),
        "answered_ms": round(answer.answered * 1000, 2),
    }
    if settings.json:
        print_json(shown)
    else:
        print_fields(shown)


def _question(domain: str, mechanism: str, key: str | None, username: str | None, address: str) -> ZapRequest:
    from zapd.cli.user import read_password
    from zapd.zap import ZapRequest
    from zapd.zmtp.keys import decode_public_key, generate_keypair

    credentials: tuple[bytes, ...] = ()
    if mechanism == "CURVE":
        credentials = (decode_public_key(key) if key is not None else generate_keypair()[0],)
    elif mechanism == "PLAIN":
        if username is None:
            raise click.UsageError("PLAIN needs --username.")
        credentials = (username.encode(), read_password().encode())
    elif mechanism == "GSSAPI":
        if username is None:
            raise click.UsageError("GSSAPI needs --principal.")
        credentials = (username.encode(),)
    for text in (domain, address):
        if not (text.isascii() and text.isprintable() and len(text) <= 255):
            raise InvalidInput("A domain and an address have at most 255 printable ASCII characters.")
    return ZapRequest(b"1", domain, address, b"", mechanism, credentials)


def _mechanism(where: Address, keys: Path | None) -> Mechanism:
    """How to prove who we are: CURVE with an agent's keys, NULL without."""
    if keys is None:
        if where.is_public:
            raise ConfigurationError(
                f"{where} is beyond this machine and must be CURVE: name the agent's file with --keys."
            )
        from zapd.zmtp.mechanisms.null import NullClient

        return NullClient()
    from zapd.agent.keyfile import read_keys
    from zapd.zmtp.mechanisms.curve import CurveClient

    agent = read_keys(keys)
    return CurveClient(_server_key(agent, where), agent.secret_key)


def _server_key(agent: AgentKeys, where: Address) -> bytes:
    """What this endpoint must prove to hold: the file's key for it; for another address the only key it has."""
    from zapd.net.address import parse_address

    for endpoint in agent.endpoints:
        if endpoint.server_keys and str(parse_address(endpoint.address)) == str(where):
            return endpoint.server_keys[0]
    known = {key for endpoint in agent.endpoints for key in endpoint.server_keys}
    if len(known) == 1:
        return known.pop()
    raise ConfigurationError(
        f"The key file has no server key for {where}: enrol again, or write the endpoint as it has it."
    )


async def _ask(where: Address, mechanism: Mechanism, request: ZapRequest, patience: float) -> Answer:
    from zapd.net.remote import RemoteHandler

    handler = RemoteHandler(where, mechanism, deadline=patience)
    began = time.perf_counter()
    handler.start()
    try:
        if not await handler.dealer.wait_up(patience):
            raise Unavailable(_why_not(where, handler, patience))
        connected = time.perf_counter()
        reply = await handler.answer(request)
        answered = time.perf_counter()
        if not handler.counters.answered:
            raise Unavailable(f"{where} let us in and did not answer within {patience:g} s.")
    finally:
        await handler.close()
    return Answer(reply, connected - began, answered - connected)


def _why_not(where: Address, handler: RemoteHandler, patience: float) -> str:
    down = handler.dealer.last_down
    if down is None:
        return (
            f"{where} did not let us in within {patience:g} s: is it zapd, and CURVE with --keys or NULL without?"
        )
    if down.status == 400:
        return f"{where} refused us: the agent is not enrolled, or revoked, or may not come from here."
    if "mechanism mismatch" in down.reason:
        return f"{where} speaks another mechanism: name the agent's file with --keys for CURVE, none for NULL."
    return f"{where} cannot be reached: {down.reason or 'it closed the connection'}."


def _metadata(octets: bytes) -> dict[str, str]:
    """Names as they are spelled: a libzmq application finds them under no other spelling."""
    from zapd.zmtp.metadata import decode_properties

    found: dict[str, str] = {}
    at = 0
    for name, value in decode_properties(octets).items():  # checked, in their order, and in lower case
        found[octets[at + 1 : at + 1 + len(name)].decode("ascii")] = value.decode("utf-8", "replace")
        at += 1 + len(name) + 4 + len(value)
    return found
