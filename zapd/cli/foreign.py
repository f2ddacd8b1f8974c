"""Reads what other programs keep keys and users in: certificate folders of czmq and pyzmq, VOLTTRON's auth.json,
htpasswd. What comes out are rows as an import takes them; what cannot be read is told with its place.

Nothing here asks a server, and no secret half of a key is ever looked at.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from zapd.errors import InvalidInput
from zapd.store.certificate_file import MAX_FILE as MAX_CERTIFICATE
from zapd.store.certificate_file import is_passed_over, parse_certificate, user_of
from zapd.zmtp.keys import encode_key

MAX_FILE: Final = 16 << 20
_COMMENT: Final = re.compile(r'("(?:[^"\\]|\\.)*")|#[^\n]*')


@dataclass(slots=True)
class Found:
    """One row, or why there is none."""

    source: str
    row: dict[str, Any] = field(default_factory=dict)
    problem: str = ""


def certificates(folder: Path) -> Iterator[Found]:
    """Public certificates of a folder, as czmq's zcert and pyzmq's `zmq.auth` write them (ZPL, RFC 4).

    The same files count as for the backend ``certificates``. The user is the file's name without its suffix;
    metadata of the certificate become attributes.
    """
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is no folder of certificates.")
    for path in sorted(folder.iterdir()):
        if is_passed_over(path.name) or not path.is_file():
            continue
        found = Found(path.name)
        try:
            found.row = _certificate(path)
        except InvalidInput as error:
            found.problem = str(error)
        yield found


def _certificate(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            certificate = parse_certificate(file.read(MAX_CERTIFICATE + 1))
    except OSError as error:
        raise InvalidInput(f"cannot be read: {error.strerror}") from None
    row: dict[str, Any] = {"public_key": encode_key(certificate.key), "user": user_of(path.name)}
    return row | ({"attributes": dict(certificate.metadata)} if certificate.metadata else {})


def volttron(path: Path) -> Iterator[Found]:
    """CURVE entries of VOLTTRON's auth.json.

    ``groups`` and ``roles`` become groups; a disabled entry waits for approval; what is denied comes as revoked,
    and before what is allowed. What cannot be said of a key here (addresses, patterns, other mechanisms) is told.
    """
    try:
        document = json.loads(_COMMENT.sub(lambda match: match[1] or "", _text(path)))
    except (ValueError, RecursionError):
        raise InvalidInput(f"{path} is not JSON.") from None
    if not isinstance(document, dict) or not isinstance(document.get("allow"), list):
        raise InvalidInput(f"{path} has no list 'allow': is it VOLTTRON's auth.json?")
    for part in ("deny", "allow"):
        entries = document.get(part) or []
        for number, entry in enumerate(entries if isinstance(entries, list) else [entries]):
            found = Found(f"{part}[{number}]")
            try:
                found.row = _volttron_row(entry, denied=part == "deny")
            except InvalidInput as error:
                found.problem = str(error)
            yield found


def _volttron_row(entry: Any, *, denied: bool) -> dict[str, Any]:
    if not isinstance(entry, dict):
        raise InvalidInput("no object")
    credentials, mechanism = entry.get("credentials"), entry.get("mechanism", "CURVE")
    if isinstance(credentials, str) and credentials.startswith("CURVE:"):  # as its first version had it
        mechanism, credentials = "CURVE", credentials.removeprefix("CURVE:")
    if mechanism != "CURVE":
        raise InvalidInput("its mechanism is not CURVE: there is no key to import")
    if not isinstance(credentials, str):
        raise InvalidInput("its credentials are no single key")
    if entry.get("address") and not denied:
        raise InvalidInput("it is limited to addresses: add it by hand, in a domain that has them as 'allow'")
    domain = entry.get("domain")
    if domain and (not isinstance(domain, str) or domain.startswith("/")):
        raise InvalidInput("its domain is a pattern of another kind")
    row: dict[str, Any] = {"public_key": _volttron_key(credentials)}
    row["user"] = str(entry.get("user_id") or entry.get("identity") or "")
    if not row["user"]:
        if not denied:
            raise InvalidInput("it has no user_id")
        row["user"] = "denied"
    groups = [*_texts(entry, "groups"), *_texts(entry, "roles")]
    row |= {"groups": sorted(set(groups))} if groups else {}
    row |= {"domains": [domain]} if domain else {}
    row |= {"label": str(entry["comments"])} if entry.get("comments") else {}
    if denied:
        row |= {"state": "revoked", "reason": "denied in auth.json"}
    elif entry.get("enabled") is False:
        row["state"] = "pending"
    return row


def _volttron_key(text: str) -> str:
    """Z85 of its 43 characters of URL-safe base64."""
    if text.startswith("/"):
        raise InvalidInput("its credentials are a pattern, not a key")
    try:
        key = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidInput("its credentials are not base64") from None
    return encode_key(key)


def _texts(entry: dict[str, Any], name: str) -> list[str]:
    found = entry.get(name) or []
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise InvalidInput(f"its {name} are no list of texts")
    return found


def htpasswd(path: Path) -> Iterator[Found]:
    """Users of an htpasswd file: ``name:hash``, and whatever stands behind a further colon is left out."""
    for number, line in enumerate(_text(path).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, colon, rest = line.partition(":")
        found = Found(f"line {number}")
        if not colon or not name or not rest:
            found.problem = "no name:hash"
        else:
            stored = rest.partition(":")[0].strip()
            found.row = {"name": name, "hash": stored.lstrip("!*")}
            if stored[:1] in ("!", "*"):
                found.row["state"] = "disabled"
        yield found


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            octets = file.read(MAX_FILE + 1)
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from None
    if len(octets) > MAX_FILE:
        raise InvalidInput(f"{path} has more than {MAX_FILE} octets.")
    return octets.decode("utf-8-sig", "surrogateescape")
