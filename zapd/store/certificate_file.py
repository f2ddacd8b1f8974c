"""Public certificates as czmq's zcert and pyzmq's ``zmq.auth`` write them (ZPL, RFC 4).

    metadata
        name = "Ada"
    curve
        public-key = "…40 characters of Z85…"

Whoever takes keys from such a folder goes by the same rules: which files count, what is in them, whose they are.
Pure. No message repeats what stands in a file: it may be a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from zapd.errors import InvalidInput
from zapd.store.rules import check_attributes
from zapd.zmtp.keys import decode_public_key

MAX_FILE: Final = 64 << 10
"""Octets of one file."""

_LINE: Final = re.compile(
    r"""^(?P<indent>[ \t]*)(?P<name>[A-Za-z0-9$_@.&+/-]+)[ \t]*
    (?:=[ \t]*(?:"(?P<plain>[^"]*)"[ \t]*(?:\#.*)?
               |'(?P<single>[^']*)'[ \t]*(?:\#.*)?
               |"(?P<greedy>.*)"[ \t]*
               |(?P<bare>[^"'#\s][^#]*)(?:\#.*)?)?
    |(?:\#.*)?)$""",
    re.VERBOSE,
)
"""czmq escapes nothing, so that a quote within quotes is told from the closing one by what stands behind it;
pyzmq writes metadata without quotes."""


class HoldsSecret(InvalidInput):
    """A file with a secret key: whoever can read the folder has it."""

    code = "holds_secret"


@dataclass(frozen=True, slots=True)
class Certificate:
    """What one file says."""

    key: bytes
    metadata: Mapping[str, str]


def is_passed_over(name: str) -> bool:
    """Files that are none of ours: secret halves, which nobody opens; what is hidden, and what editors leave."""
    return name.startswith(".") or name.endswith(("_secret", "~"))


def user_of(name: str) -> str:
    """Whose the certificate in a file of this name is, where its metadata are not asked: the name without its
    last suffix."""
    return name.rpartition(".")[0] or name


def parse_certificate(data: bytes) -> Certificate:
    """Read one file. Raises `HoldsSecret` for one with a secret, `InvalidInput` for what is no certificate."""
    if len(data) > MAX_FILE:
        raise InvalidInput(f"is longer than {MAX_FILE >> 10} KiB")
    if b"secret-key" in data:
        raise HoldsSecret(
            "holds a secret key, which belongs to its owner alone; its key is not let in: take the file away and"
            " make a new pair"
        )
    try:
        lines = data.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise InvalidInput("is not UTF-8") from None
    section = ""
    keys: list[str] = []
    metadata: dict[str, str] = {}
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip()
        if not line or line.lstrip()[0] == "#":
            continue
        found = _LINE.match(line)
        if found is None:
            raise InvalidInput(f"line {number} is not ZPL: half-written?")
        name = found["name"]
        if not found["indent"]:
            section = name
            continue
        value = next((found[kind] for kind in _VALUES if found[kind] is not None), "").rstrip(" \t")
        if section == "curve" and name == "public-key":
            keys.append(value)
        elif section == "metadata":
            if name in metadata:
                raise InvalidInput(f"line {number}: {name} is there already")
            metadata[name] = value
    if len(keys) != 1:
        raise InvalidInput("holds no public-key in a section curve" if not keys else "holds several public keys")
    try:
        return Certificate(decode_public_key(keys[0]), metadata)
    except InvalidInput as mistake:
        raise InvalidInput(f"public-key: {mistake}") from None


_VALUES: Final = ("plain", "single", "greedy", "bare")


def attributes_of(metadata: Mapping[str, str]) -> tuple[dict[str, str], set[str]]:
    """(metadata that a reply may carry, names of what it may not: zapd's own, not ZMTP's, there twice but for
    case, or with an unprintable value)."""
    fit: dict[str, str] = {}
    unfit: set[str] = set()
    folded: set[str] = set()
    for name, value in metadata.items():
        try:
            check_attributes({name: value})
        except InvalidInput:
            unfit.add(name)
            continue
        if name.lower() in folded:
            unfit.add(name)
            continue
        folded.add(name.lower())
        fit[name] = value
    return fit, unfit
