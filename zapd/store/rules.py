"""What may be written into the registry: the rules for names, domains, groups, attributes and addresses.

Checked when something is set, so that whatever the registry holds can be said in a ZAP reply. Names are kept
octet for octet: nothing is trimmed, folded or normalised. Each refusal is `InvalidInput` and says the rule.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping

from zapd.errors import InvalidInput
from zapd.store.domains import RESERVED

MAX_NAME = 255
"""Octets of UTF-8 in a name: RFC 27 allows no more in a user id."""

MAX_METADATA = 4096
"""Octets that all properties of a reply may take together (contract)."""

MECHANISMS = ("NULL", "PLAIN", "CURVE", "GSSAPI")

_PROPERTY = re.compile(r"[A-Za-z0-9._+-]{1,253}")
"""Legal in a ZMTP property name (RFC 23, "name"), with room for ``X-`` in 255 octets."""

_FINGERPRINT_PROPERTY = 1 + len("X-Zapd-Key") + 4 + 50


def check_name(text: str, what: str = "name") -> str:
    """A user's, agent's or group's name: 1 to 255 octets, nothing unprintable."""
    if not text or len(text.encode("utf-8", "surrogatepass")) > MAX_NAME:
        raise InvalidInput(f"A {what} has 1 to {MAX_NAME} octets.")
    _printable(text, what)
    return text


def check_path_name(text: str, what: str) -> str:
    """The name of what the admin API finds by a path: no client can say ``.`` or ``..`` there, and what nobody
    can name nobody can shut out."""
    if text in (".", ".."):
        raise InvalidInput(f"The {what} cannot be {text!r}: no URL can name it. Take another.")
    return check_name(text, what)


def check_text(text: str, what: str) -> str:
    """A label, a reason or an attribute's value: printable, may be empty."""
    _printable(text, what)
    return text


def check_domains(patterns: Iterable[str]) -> tuple[str, ...]:
    """Domain patterns: ASCII, ``*`` only at the end, not the reserved domain; at least one."""
    found = tuple(dict.fromkeys(patterns))
    if not found:
        raise InvalidInput("Name at least one domain; '*' is all of them.")
    for pattern in found:
        if len(pattern) > MAX_NAME or not pattern.isascii() or not pattern.isprintable():
            raise InvalidInput("A domain has at most 255 characters of printable ASCII.")
        if "*" in pattern[:-1]:
            raise InvalidInput(f"The domain {pattern!r} has a '*' that is not at its end.")
        if pattern == RESERVED:
            raise InvalidInput(f"The domain {RESERVED} is reserved: enrol an agent instead.")
    return tuple(sorted(found))


def check_groups(names: Iterable[str]) -> tuple[str, ...]:
    """Group names: as names, and without a comma, which separates them in ``X-Zapd-Groups``."""
    found = tuple(sorted(dict.fromkeys(names)))
    for name in found:
        check_name(name, "group")
        if "," in name:
            raise InvalidInput(f"The group {name!r} holds a comma.")
    return found


def check_attributes(attributes: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """Attributes, which become ``X-<name>`` of the reply: legal as ZMTP names, not ours, each name once."""
    seen: set[str] = set()
    for name, value in attributes.items():
        if not _PROPERTY.fullmatch(name):
            raise InvalidInput(f"The attribute name {name!r} is not 1 to 253 of A-Z a-z 0-9 . _ + -.")
        folded = name.lower()  # RFC 23: property names are case-insensitive
        if folded.startswith("zapd-"):
            raise InvalidInput(f"The attribute name {name!r} is reserved: 'Zapd-' is ours.")
        if folded in seen:
            raise InvalidInput(f"The attribute {name!r} is there twice, apart from case.")
        seen.add(folded)
        check_text(value, f"value of the attribute {name!r}")
    return tuple(sorted(attributes.items()))


def check_metadata(groups: Iterable[str], attributes: Iterable[tuple[str, str]]) -> None:
    """Groups, attributes and fingerprint must fit into a reply together."""
    size = _FINGERPRINT_PROPERTY + 1 + len("X-Zapd-Groups") + 4 + len(",".join(groups).encode())
    size += sum(1 + 2 + len(name) + 4 + len(value.encode()) for name, value in attributes)
    if size > MAX_METADATA:
        raise InvalidInput(f"Groups and attributes take {size} octets of a reply; {MAX_METADATA} are allowed.")


def check_mechanisms(names: Iterable[str]) -> tuple[str, ...]:
    """ZAP mechanisms, at least one."""
    found = tuple(sorted(dict.fromkeys(names)))
    if not found or any(name not in MECHANISMS for name in found):
        raise InvalidInput("Mechanisms are some of NULL, PLAIN, CURVE and GSSAPI.")
    return found


def check_networks(texts: Iterable[str]) -> tuple[str, ...]:
    """Networks in CIDR form, as they will be compared: IPv4 or IPv6, no host bits."""
    found: list[str] = []
    for text in dict.fromkeys(texts):
        try:
            found.append(str(ipaddress.ip_network(text)))
        except ValueError:
            raise InvalidInput(f"{text!r} is not a network such as 10.0.0.0/8 or 2001:db8::/32.") from None
    return tuple(found)


def _printable(text: str, what: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise InvalidInput(f"The {what} is not UTF-8.") from None
    # False for control characters, line and bidi separators, and every space but U+0020.
    if not text.isprintable():
        raise InvalidInput(f"The {what} holds a control or otherwise unprintable character.")
