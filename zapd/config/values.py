"""Values as people write them in the configuration: times and sizes with their unit.

Each kind reads the text, and writes a number back as text for messages and documentation. What cannot be read is
a `Fault`, which says problem and mend apart; no value is ever guessed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Final

from pydantic import BeforeValidator, StrictBool, StrictInt, ValidationInfo
from pydantic_core import PydanticCustomError

_NUMBER: Final = re.compile(r"(\d{1,15}(?:\.\d{1,9})?)\s?([A-Za-zµ]+)", re.ASCII)

_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_OCTETS: Final = {
    "B": 1,
    "kB": 10**3,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
LONGEST: Final = 100 * 365 * 86400.0
"""Seconds: more than this is a mistake of unit, and would overflow a date."""


def fault(problem: str, mend: str) -> PydanticCustomError:
    """What a validator raises: problem and mend stay apart until they are shown."""
    # Braces would be taken for places to fill in; the texts travel in the context instead.
    return PydanticCustomError("zapd", "{problem}", {"problem": problem, "mend": mend})


def parse_duration(value: object) -> float:
    """Seconds of ``"100ms"``, ``"5s"``, ``"5m"``, ``"12h"`` or ``"90d"``."""
    found = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[2] not in _SECONDS:
        raise fault("not a time", 'write a number and its unit, ms, s, m, h or d: "5s"')
    # Rounded, since 800 * 0.001 is not 0.8 and shows.
    seconds = round(float(found[1]) * _SECONDS[found[2]], 9)
    if seconds > LONGEST:
        raise fault("longer than a century", "write a shorter time")
    return seconds


def format_duration(seconds: float) -> str:
    """The shortest way to write it: ``0.8`` is ``800ms``, ``86400`` is ``1d``."""
    for unit in ("d", "h", "m", "s"):
        if seconds and seconds % _SECONDS[unit] == 0:
            return f"{int(seconds / _SECONDS[unit])}{unit}"
    return "0s" if not seconds else f"{seconds * 1000:g}ms"


def parse_size(value: object) -> int:
    """Octets of ``"20GB"`` (powers of ten) or ``"16MiB"`` (powers of two)."""
    found = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if found is None or found[2] not in _OCTETS:
        raise fault("not a size", 'write a number and its unit, kB, MB, GB, KiB, MiB or GiB: "20GB"')
    return int(float(found[1]) * _OCTETS[found[2]])


def format_size(octets: int) -> str:
    """The shortest way to write it."""
    for unit in ("TiB", "TB", "GiB", "GB", "MiB", "MB", "KiB", "kB"):
        if octets and octets % _OCTETS[unit] == 0:
            return f"{octets // _OCTETS[unit]}{unit}"
    return f"{octets}B"


def base_of(info: ValidationInfo) -> Path:
    """The folder where relative paths start; where nobody said, they stay relative."""
    context = info.context
    base = context.get("base") if isinstance(context, dict) else None
    return base if isinstance(base, Path) else Path()


def _location(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise fault("not a path", "name a file or folder, in quotes")
    return base_of(info) / value


Duration = Annotated[float, BeforeValidator(parse_duration)]
"""Seconds."""
Size = Annotated[int, BeforeValidator(parse_size)]
"""Octets."""
Location = Annotated[Path, BeforeValidator(_location)]
"""A path; a relative one starts at the folder that the validation context calls ``base``."""
Whole = StrictInt
Flag = StrictBool
