"""Peer addresses as libzmq writes them, and rules about them.

libzmq gives numeric addresses without a port: IPv4, IPv6 (an IPv4 client on an IPv6 socket reads
``::ffff:192.0.2.1``), and for ipc on Linux ``localhost:UID:GID:PID`` of the peer process. Rules are CIDR
networks, ``ipc``, ``ipc:uid=N`` and ``ipc:gid=N``. Pure; what cannot be read is refused, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Generic, TypeVar

from zapd.auth.memo import Memo
from zapd.errors import ConfigurationError

_IPC = re.compile(r"localhost:(0|[1-9]\d{0,9}):(0|[1-9]\d{0,9}):(0|[1-9]\d{0,9})", re.ASCII)
_READ_IPC = re.compile(r"ipc:uid=(\d+),gid=(\d+),pid=\d+", re.ASCII)
_SCOPE = re.compile(r"[A-Za-z0-9._-]{1,15}", re.ASCII)
"""An interface's name, as getnameinfo puts it behind ``%``; Linux allows 15 characters."""
_IPC_RULE = re.compile(r"ipc(?::(uid|gid)=(0|[1-9]\d{0,9}))?", re.ASCII)
_MAX_ID = (1 << 32) - 1
_MAPPED_PREFIX = 96
"""An IPv6 network this long or longer below ::ffff:0:0 is an IPv4 network in disguise."""

Value = TypeVar("Value")

MEMO = 4096
"""Addresses whose answer one set of rules remembers."""


@dataclass(frozen=True, slots=True)
class PeerAddress:
    """One address, read."""

    text: str
    """Normalised: what backends and caches see."""
    version: int
    """4, 6, or 0 for ipc."""
    number: int = 0
    uid: int = -1
    gid: int = -1


def read_address(text: str) -> PeerAddress | None:
    """Read an address as libzmq writes it; None for anything else.

    IPv4-mapped IPv6 becomes IPv4, so that one rule speaks for both. Numbers with leading zeros, names, ports
    and zones on other than link-local addresses are not addresses here.
    """
    if text.startswith("localhost:"):
        found = _IPC.fullmatch(text)
        if found is None:
            return None
        uid, gid, pid = map(int, found.groups())
        if max(uid, gid, pid) > _MAX_ID:
            return None
        return PeerAddress(f"ipc:uid={uid},gid={gid},pid={pid}", 0, uid=uid, gid=gid)
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv4Address):
        return PeerAddress(str(address), 4, int(address))
    if address.scope_id is not None and not (address.is_link_local and _SCOPE.fullmatch(address.scope_id)):
        return None
    mapped = address.ipv4_mapped
    if mapped is not None:
        return PeerAddress(str(mapped), 4, int(mapped))
    return PeerAddress(str(address), 6, int(address))


def read_again(text: str) -> PeerAddress | None:
    """The same for what `read_address` made of an address: its ``text``."""
    found = _READ_IPC.fullmatch(text)
    if found is None:
        return read_address(text)
    return PeerAddress(text, 0, uid=int(found[1]), gid=int(found[2]))


SITE = 48
"""The length of the IPv6 network that one customer has: within it addresses are free."""


def source_of(address: PeerAddress) -> str:
    """Who is behind an address, as far as an address tells: an IPv4 address, an IPv6 /48, a local user."""
    if address.version == 4:
        return address.text
    if address.version == 0:
        return f"ipc:uid={address.uid}"
    hidden = 128 - SITE
    return f"{IPv6Address(address.number >> hidden << hidden)}/{SITE}"


class AddressSet:
    """The addresses that a list of rules names.

    Networks are kept by their length, so that a check costs one look into a set for each length in use, however
    many networks there are.
    """

    __slots__ = ("_any_ipc", "_gids", "_networks", "_uids")

    def __init__(self, rules: Iterable[str]) -> None:
        """Raises `ConfigurationError` that names the rule and its mend."""
        self._any_ipc = False
        self._uids: set[int] = set()
        self._gids: set[int] = set()
        self._networks: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for rule in rules:
            self._add(rule)

    def _add(self, rule: str) -> None:
        ipc = _IPC_RULE.fullmatch(rule)
        if ipc is not None:
            kind, number = ipc.groups()
            if kind is None:
                self._any_ipc = True
            else:
                (self._uids if kind == "uid" else self._gids).add(int(number))
            return
        version, base, hidden = _read_network(rule)
        self._networks[version].setdefault(hidden, set()).add(base >> hidden)

    def __contains__(self, address: PeerAddress) -> bool:
        if address.version == 0:
            return self._any_ipc or address.uid in self._uids or address.gid in self._gids
        number = address.number
        return any(number >> hidden in bases for hidden, bases in self._networks[address.version].items())


class AddressMap(Generic[Value]):
    """Values by the address rules they were put under: all whose rule names an address are found, at the cost of
    `AddressSet`."""

    __slots__ = ("_ipc", "_networks")

    def __init__(self) -> None:
        self._ipc: dict[tuple[str, int], list[Value]] = {}
        self._networks: dict[int, dict[int, dict[int, list[Value]]]] = {4: {}, 6: {}}

    def add(self, rule: str, value: Value) -> None:
        """Raises `ConfigurationError` that names the rule and its mend."""
        ipc = _IPC_RULE.fullmatch(rule)
        if ipc is not None:
            kind, number = ipc.groups()
            self._ipc.setdefault((kind or "", int(number or 0)), []).append(value)
            return
        version, base, hidden = _read_network(rule)
        self._networks[version].setdefault(hidden, {}).setdefault(base >> hidden, []).append(value)

    def find(self, address: PeerAddress) -> list[Value]:
        """In no particular order."""
        if address.version == 0:
            names = (("", 0), ("uid", address.uid), ("gid", address.gid))
            return [value for name in names for value in self._ipc.get(name, ())]
        number = address.number
        networks = self._networks[address.version]
        return [value for hidden, bases in networks.items() for value in bases.get(number >> hidden, ())]


def canonical_rule(rule: str) -> str:
    """The rule as all write it who mean the same: a single address with its length, IPv4 in disguise as IPv4.
    Raises `ConfigurationError` that names the rule and its mend."""
    if _IPC_RULE.fullmatch(rule) is not None:
        return rule
    version, base, hidden = _read_network(rule)
    network = IPv4Network((base, 32 - hidden)) if version == 4 else IPv6Network((base, 128 - hidden))
    return str(network)


def _read_network(rule: str) -> tuple[int, int, int]:
    """(version, base address, number of host bits) of a CIDR rule."""
    try:
        network = ip_network(rule)
    except ValueError:
        raise ConfigurationError(_why_no_rule(rule)) from None
    if isinstance(network, IPv4Network):
        return 4, int(network.network_address), 32 - network.prefixlen
    mapped = IPv6Address(int(network.network_address)).ipv4_mapped
    if mapped is not None and network.prefixlen >= _MAPPED_PREFIX:
        return 4, int(mapped), 128 - network.prefixlen
    return 6, int(network.network_address), 128 - network.prefixlen


def _why_no_rule(rule: str) -> str:
    try:
        meant = ip_network(rule, strict=False)
    except ValueError:
        return (
            f"{rule!r} is no address rule: write a network such as 10.0.0.0/8 or 2001:db8::/32, "
            "or ipc, ipc:uid=N, ipc:gid=N"
        )
    return f"the network {rule!r} has bits beyond its length: write {meant}"


class AddressRules:
    """Who may come from where: ``deny`` wins over ``allow``; an empty ``allow`` means everywhere."""

    __slots__ = ("_allow", "_deny", "_memo", "restricted")

    def __init__(self, allow: Iterable[str] = (), deny: Iterable[str] = ()) -> None:
        """Raises `ConfigurationError` for a rule that cannot be read."""
        allowed = tuple(allow)
        self.restricted = bool(allowed)
        """Whether there is an ``allow`` list."""
        self._allow = AddressSet(allowed) if allowed else None
        self._deny = AddressSet(deny)
        self._memo: Memo[str, tuple[str, str]] = Memo(MEMO)

    def check(self, text: str) -> tuple[str, str]:
        """(the normalised address, why it may not come: ``address_denied``, ``address_not_allowed``,
        ``bad_address``, or empty when it may)."""
        return self._memo.get(text) or self._memo.put(text, self._check(text))

    def _check(self, text: str) -> tuple[str, str]:
        address = read_address(text)
        if address is None:
            return text, "bad_address"
        if address in self._deny:
            return address.text, "address_denied"
        if self._allow is not None and address not in self._allow:
            return address.text, "address_not_allowed"
        return address.text, ""
