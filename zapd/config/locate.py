"""Where each setting of a TOML text stands: a map from its path to its line.

`tomllib` tells no lines. This walks over a text that `tomllib` has accepted, notes keys and table headers, and
skips values: it must know where a value ends and nothing else about it.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from typing import Final

Path = tuple[str | int, ...]
"""``("zap", 1, "listen")``: names, and the place in an array of tables."""

_STRINGS: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\\n]|\\.)*"' r"|'[^'\n]*'",
    re.DOTALL,
)
_COMMENT: Final = re.compile(r"#[^\n]*")


class Locator:
    """The lines of one text. For a text that is no TOML the answers are worthless, but nothing raises."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Path, int] = {}
        self._counts: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._line = 1
        self._table: Path = ()
        while self._statement():
            pass

    def line(self, path: Sequence[str | int]) -> int:
        """The line of the setting; of the nearest table above it where it is not written; else 1."""
        path = tuple(path)
        for length in range(len(path), 0, -1):
            found = self._lines.get(path[:length])
            if found is not None:
                return found
        return 1

    def _statement(self) -> bool:
        """One header or one key with its value; False at the end."""
        self._skip_blank()
        if self._at >= len(self._text):
            return False
        line = self._line
        if self._text.startswith("[[", self._at):
            self._header(line, self._upto("]", 2), array=True)
        elif self._text.startswith("[", self._at):
            self._header(line, self._upto("]", 1), array=False)
        else:
            names = _names(self._upto("=", 0))
            for length in range(1, len(names) + 1):
                self._lines.setdefault(self._table + names[:length], line)
            self._skip_value()
        return True

    def _header(self, line: int, key: str, *, array: bool) -> None:
        names = _names(key)
        path: Path = ()
        for place, name in enumerate(names, 1):
            path += (name,)
            if array and place == len(names):
                number = self._counts.get(path, 0)
                self._counts[path] = number + 1
                self._lines.setdefault(path, line)
                path += (number,)
            elif path in self._counts:
                path += (self._counts[path] - 1,)  # the latest element (TOML 1.0, "Array of Tables")
            self._lines.setdefault(path, line)
        self._table = path
        self._skip_value()

    def _skip_blank(self) -> None:
        text = self._text
        while self._at < len(text):
            if text[self._at] == "#":
                self._pass(_COMMENT)
            elif text[self._at] in " \t\r\n\ufeff":
                self._step()
            else:
                return

    def _upto(self, end: str, skip: int) -> str:
        """What stands before ``end``, quoted parts passed over; the place moves behind it."""
        self._at += skip
        start = self._at
        while self._at < len(self._text) and self._text[self._at] not in (end, "\n"):
            if self._text[self._at] not in "\"'" or not self._pass(_STRINGS):
                self._step()
        key = self._text[start : self._at]
        if self._text.startswith(end, self._at):
            self._at += 1
        return key

    def _skip_value(self) -> None:
        """To the end of the line on which no bracket is open."""
        depth = 0
        text = self._text
        while self._at < len(text):
            character = text[self._at]
            if character == "\n" and depth <= 0:
                return
            if character in "\"'" and self._pass(_STRINGS):
                continue
            if character == "#":
                self._pass(_COMMENT)
                continue
            depth += (character in "[{") - (character in "]}")
            self._step()

    def _step(self) -> None:
        self._line += self._text[self._at] == "\n"
        self._at += 1

    def _pass(self, pattern: re.Pattern[str]) -> bool:
        found = pattern.match(self._text, self._at)
        if found is None:
            return False
        self._line += found[0].count("\n")
        self._at = found.end()
        return True


def _names(key: str) -> tuple[str, ...]:
    """The parts of a dotted key, quotes and escapes resolved by the TOML parser itself."""
    try:
        table: object = tomllib.loads(f"{key.strip()} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    names: list[str] = []
    while isinstance(table, dict) and table:
        name, table = next(iter(table.items()))
        names.append(name)
    return tuple(names)
