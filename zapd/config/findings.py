"""What is wrong with a configuration: mistakes and warnings as values, and the error that carries them.

`Findings` collects them and knows two things: the line of each setting, and which settings were already found
unusable, since what merely follows from those would only confuse.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from zapd.config.locate import Locator
from zapd.errors import ConfigurationError

Setting = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong, or, among the warnings, one thing unwise."""

    line: int
    """From 1; 0 where the whole file is meant."""
    setting: str
    """``domain.orders.allow``, ``zap[2].listen`` (the second ``[[zap]]``); empty for the file itself."""
    problem: str
    mend: str

    def __str__(self) -> str:
        where = f"line {self.line}: " if self.line else ""
        what = f"{self.setting}: " if self.setting else ""
        return f"{where}{what}{self.problem}: {self.mend}" if self.mend else f"{where}{what}{self.problem}"


class InvalidConfiguration(ConfigurationError):
    """A configuration that cannot be used, with every mistake that was found and what is unwise besides."""

    def __init__(self, path: Path, mistakes: Sequence[Mistake], warnings: Sequence[Mistake] = ()) -> None:
        super().__init__("\n".join(f"{path}: {mistake}" for mistake in mistakes))
        self.path = path
        self.mistakes = tuple(mistakes)
        self.warnings = tuple(warnings)


class Findings:
    """Collects what is found in one text."""

    def __init__(self, text: str) -> None:
        self._locator = Locator(text)
        self._mistakes: list[Mistake] = []
        self._warnings: list[Mistake] = []
        self._unusable: set[Setting] = set()

    @property
    def mistakes(self) -> list[Mistake]:
        """In the order of the file."""
        return sorted(self._mistakes, key=lambda each: each.line)

    @property
    def warnings(self) -> list[Mistake]:
        """In the order of the file."""
        return sorted(self._warnings, key=lambda each: each.line)

    def unusable(self, *settings: Setting) -> None:
        """From now on nothing is reported that depends on these."""
        self._unusable.update(settings)

    def spoiled(self, table: Setting) -> bool:
        """Whether something in this table is unusable, so that its whole cannot be judged."""
        return any(setting[: len(table)] == table for setting in self._unusable)

    def touched(self, table: Setting) -> bool:
        """Whether a mistake was found in this table."""
        name = setting_name(table)
        return any(each.setting == name or each.setting.startswith(f"{name}.") for each in self._mistakes)

    def mistake(self, setting: Setting, problem: str, mend: str, *, needs: Iterable[Setting] = ()) -> None:
        """Something that zapd refuses. ``needs`` are other settings that led to this finding."""
        if self._stands(setting, needs):
            self._mistakes.append(self._finding(setting, problem, mend))

    def warn(self, setting: Setting, problem: str, mend: str, *, needs: Iterable[Setting] = ()) -> None:
        """Something allowed and unwise."""
        if self._stands(setting, needs):
            self._warnings.append(self._finding(setting, problem, mend))

    def _stands(self, setting: Setting, needs: Iterable[Setting]) -> bool:
        return setting not in self._unusable and self._unusable.isdisjoint(needs)

    def _finding(self, setting: Setting, problem: str, mend: str) -> Mistake:
        return Mistake(self._locator.line(setting), setting_name(setting), problem, mend)


def setting_name(setting: Sequence[str | int]) -> str:
    """A setting as people would say it, quoted where TOML quotes."""
    name = ""
    for part in setting:
        if isinstance(part, int):
            name += f"[{part + 1}]"
        else:
            quoted = part if _BARE.fullmatch(part) else '"' + part.replace("\\", "\\\\").replace('"', '\\"') + '"'
            name += f".{quoted}" if name else quoted
    return name
