"""Where zapd listens, in words: for people, and for agents that are being enrolled. Pure."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from dataclasses import replace

from zapd.admin.services.topology import Endpoint
from zapd.config.sections import ZapSection
from zapd.net.address import Address, TcpAddress
from zapd.zmtp.keys import encode_key

Bound = Sequence[tuple[Address, ZapSection]]
"""Each ``[[zap]]`` with its address, the real port in it."""


def lines(bound: Bound, public_key: bytes | None) -> list[str]:
    """A line for each endpoint: address, mechanism, and the server's public key where there is one."""
    return [
        f"{address}  {section.mechanism}"
        + (f"  key {encode_key(public_key)}" if section.mechanism == "CURVE" and public_key else "")
        for address, section in bound
    ]


def endpoints(bound: Bound, public_key: bytes | None) -> list[Endpoint]:
    """What an agent needs to connect; a wildcard is shown as this machine's name."""
    keys = () if public_key is None else (public_key,)
    return [
        Endpoint(_reachable(address), section.mechanism, keys if section.mechanism == "CURVE" else ())
        for address, section in bound
    ]


def name_of(number: int, section: ZapSection) -> str:
    """An endpoint's name, numbers from 1. Unique, since two may have the same words with port 0, and who comes
    through which decides."""
    return f"zap {number}: {section.listen}"


def _reachable(address: Address) -> str:
    if isinstance(address, TcpAddress) and address.host in ("*", "0.0.0.0", "::"):
        address = replace(address, host=socket.gethostname())
    return str(address)
