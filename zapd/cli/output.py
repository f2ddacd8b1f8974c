"""What commands print: a table for people, JSON for programs, one sentence for what went wrong.

Whatever comes from elsewhere is made harmless first: no octet of a name, label or reason reaches a terminal as a
control character (limits.md of the design, T13). Colours are for terminals alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from zapd.errors import ConfigurationError

_COLOURS = {
    "active": "green",
    "in_force": "red",
    "enabled": "green",
    "ready": "green",
    "current": "green",
    "pending": "yellow",
    "starting": "yellow",
    "disabled": "red",
    "revoked": "red",
    "200": "green",
    "300": "yellow",
    "400": "red",
    "500": "red",
}


def clean(text: object) -> str:
    """``text`` with everything that a terminal might obey written out: ``\\x1b``, ``\\u202e``."""
    found = str(text)
    if found.isprintable():
        return found
    return "".join(each if each.isprintable() else _escaped(each) for each in found)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


def print_json(value: object) -> None:
    """One JSON value; unprintable characters as ``\\u`` escapes, which JSON readers undo."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=_plain)
    lines = text.split("\n")
    print("\n".join(line if line.isprintable() else _json_escaped(line) for line in lines))


def _json_escaped(line: str) -> str:
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in line)


def _plain(value: object) -> object:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    return str(value)


def print_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str) -> None:
    """A table with ``columns`` (member to heading); one sentence when there is no row."""
    if not rows:
        say(empty)
        return
    from rich.table import Table
    from rich.text import Text

    console = _console()
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for heading in columns.values():
        table.add_column(heading, overflow="fold")
    for row in rows:
        cells = [show(row.get(name)) for name in columns]
        table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in cells))
    console.print(table)


def print_fields(fields: Mapping[str, Any]) -> None:
    """One thing, a line for each of its members that says something."""
    from rich.text import Text

    console = _console()
    width = max(map(len, fields), default=0)
    for name, value in fields.items():
        shown = show(value)
        if shown:
            line = Text(f"{name.replace('_', ' '):<{width}}  ", style="bold")
            line.append(shown, style=_COLOURS.get(shown, "not bold"))
            console.print(line, soft_wrap=True)


def say(sentence: str) -> None:
    """One line for people."""
    print(clean(sentence))


def complain(sentence: str) -> None:
    """What went wrong, with its mend, to standard error."""
    for line in sentence.splitlines() or [""]:
        print(f"zapd: {clean(line)}", file=sys.stderr)


def complain_of_configuration(error: ConfigurationError) -> None:
    """Each mistake on a line of its own."""
    complain(str(error))


def show(value: object) -> str:
    """A value as people read it: lists with commas, maps as ``a=b``, times to the second; the empty domain of a
    list as ``""``."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        case str():
            return clean(_shorter_time(value))
        case Mapping():
            return ", ".join(f"{clean(name)}={clean(each)}" for name, each in value.items())
        case Iterable():
            return ", ".join(show(each) or '""' for each in value)
        case float():
            return f"{value:.4g}"
        case _:
            return clean(value)


def _shorter_time(text: str) -> str:
    """RFC 3339 as the API writes it, without fractions and T; other text unchanged."""
    if len(text) < 20 or text[4:5] != "-" or text[10:11] != "T" or not text[:4].isdigit():
        return text
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return text
    return show(moment) if moment.tzinfo is not None else text


def _console() -> Console:
    from rich.console import Console

    # Elsewhere than on a terminal nothing is folded or cut: a line of the table is a line of the file.
    return Console(highlight=False, emoji=False, markup=False, width=None if sys.stdout.isatty() else 10_000)
