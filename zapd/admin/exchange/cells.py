"""What stands in a CSV cell: lists and maps as people type them, and text that no spreadsheet takes for a formula.

Writing and reading are each other's opposite: whatever is written reads back equal.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final

from zapd.errors import InvalidInput

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
"""What a cell begins with that spreadsheets carry out (limits.md R26)."""


def guard(text: str) -> str:
    """Text for a cell: an apostrophe in front of what would be a formula."""
    return "'" + text if text.lstrip("'").startswith(_FORMULA) else text


def unguard(cell: str) -> str:
    """What `guard` was given."""
    return cell[1:] if cell.startswith("'") and cell.lstrip("'").startswith(_FORMULA) else cell


def write_list(items: Sequence[str]) -> str:
    """``a,b``; as a JSON array where that would not read back equal."""
    if not items or (
        all(item and "," not in item and item == item.strip() for item in items) and not items[0].startswith("[")
    ):
        return ",".join(items)
    return json.dumps(items, ensure_ascii=False)


def read_list(cell: str) -> list[str]:
    """What `write_list` was given. Raises `InvalidInput`."""
    if cell.startswith("["):
        found = _json(cell)
        if not isinstance(found, list) or not all(isinstance(item, str) for item in found):
            raise InvalidInput("a list is a,b or a JSON array of texts")
        return found
    return [item.strip() for item in cell.split(",")] if cell else []


def write_map(pairs: Mapping[str, str]) -> str:
    """``a=1,b=2``; as a JSON object where that would not read back equal."""
    plain = all("," not in value and value == value.strip() for value in pairs.values())
    if plain and all(name.isprintable() and name and not set(name) & set(',={" ') for name in pairs):
        return ",".join(f"{name}={value}" for name, value in pairs.items())
    return json.dumps(pairs, ensure_ascii=False)


def read_map(cell: str) -> dict[str, str]:
    """What `write_map` was given. Raises `InvalidInput`."""
    if cell.startswith("{"):
        found = _json(cell)
        if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
            raise InvalidInput("attributes are a=1,b=2 or a JSON object of texts")
        return found
    made: dict[str, str] = {}
    for item in cell.split(",") if cell else ():
        name, equals, value = item.partition("=")
        if not equals or name.strip() in made:
            raise InvalidInput("attributes are a=1,b=2, each name once")
        made[name.strip()] = value.strip()
    return made


def _json(cell: str) -> object:
    try:
        found: object = json.loads(cell)
    except (ValueError, RecursionError):
        raise InvalidInput("a cell that begins with [ or { holds JSON, and this one does not") from None
    return found
