"""``[backend.NAME]``: a plugin, what zapd itself makes of it, and the plugin's own settings.

Those are not known here (`zapd.config.plugins` asks the plugin); but which of them are secrets is: a text
``file:…`` or ``env:…``, however deep, stays closed until somebody asks for what the plugin gets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationInfo, model_validator

from zapd.auth.gate import Keeping
from zapd.config.limits import Count, CountOrNone
from zapd.config.secret import Secret
from zapd.config.values import Duration, base_of

SECRET_NAME: Final = re.compile(r"(?:^|_)(?:password|secret|token)$")
"""Settings of a plugin that are secrets by their name."""


class BackendSection(BaseModel):
    """One source of credentials, by a name of yours. These settings every backend has; all others belong to the
    plugin and are described with it. A text `file:PATH` or `env:NAME` is a secret."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True, hide_input_in_errors=True)

    type: str
    """The plugin: `sql`, `passwd`, `certificates`, `ldap`, `pam`, `kerberos`, `jwt`, `local`, `http`, or what
    another package offers as a `zapd.backends` entry point."""
    deadline: Duration | None = None
    """How long it may take to answer, where that is less than the `backend_deadline` of the domain."""
    max_in_flight: Count = 256
    """Questions, of all mechanisms together, that it may be working on; one more that must wait is answered 300 at
    once."""
    circuit_failures: CountOrNone = 5
    """After so many questions in a row that it could not answer nobody is sent there any more, and the answer is
    300 at once; 0 is never. A refusal is an answer."""
    circuit_pause: Duration = 0.5
    """How long that lasts, until one question is let through to see."""
    cache_good: Duration = 10.0
    """How long its yes, if it had to wait for something, is repeated from memory."""
    cache_bad: Duration = 2.0
    """The same for its no."""
    stale_if_error: Duration = 0.0
    """How long, while it cannot answer, its last yes to the very same question stands in for it. Whoever was
    revoked there meanwhile is let in for so long."""

    @model_validator(mode="before")
    @classmethod
    def _close_secrets(cls, value: object, info: ValidationInfo) -> object:
        if not isinstance(value, dict):
            return value
        base = base_of(info)
        return {name: each if name in cls.model_fields else _closed(each, base) for name, each in value.items()}

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """What is written in the clear may be a secret all the same."""
        yield "type", self.type

    @property
    def keeping(self) -> Keeping:
        """What zapd itself makes of it."""
        return Keeping(
            deadline=math.inf if self.deadline is None else self.deadline,
            max_in_flight=self.max_in_flight,
            circuit_failures=self.circuit_failures,
            circuit_pause=self.circuit_pause,
            cache_good=self.cache_good,
            cache_bad=self.cache_bad,
            stale_if_error=self.stale_if_error,
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What the plugin gets, its secrets still closed (`Secret`)."""
        return dict(self.__pydantic_extra__ or {})

    def revealed_settings(self) -> dict[str, Any]:
        """What the plugin gets, its secrets read now. Raises `ConfigurationError` for one that cannot be."""
        return {name: _opened(value) for name, value in self.settings.items()}

    def revealed_secrets(self) -> tuple[str, ...]:
        """Every secret in the settings, read now, and what stands in the clear under the name of one. Raises
        `ConfigurationError`."""
        closed = [secret.reveal() for secrets in self.secrets().values() for secret in secrets]
        named = (value for name, value in self.settings.items() if SECRET_NAME.search(name))
        return (*closed, *(value for value in named if isinstance(value, str)))

    def secrets(self) -> dict[str, tuple[Secret, ...]]:
        """The secrets in each setting."""
        return {name: tuple(_secrets_in(value)) for name, value in self.settings.items()}


def _closed(value: Any, base: Path) -> Any:
    """``value`` with each text ``file:…`` and ``env:…`` in it made a `Secret`."""
    if isinstance(value, str) and value.startswith(("file:", "env:")):
        return Secret.parse(value, base)
    if isinstance(value, dict):
        return {name: _closed(each, base) for name, each in value.items()}
    if isinstance(value, list):
        return [_closed(each, base) for each in value]
    return value


def _opened(value: Any) -> Any:
    if isinstance(value, Secret):
        return value.reveal()
    if isinstance(value, dict):
        return {name: _opened(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_opened(each) for each in value]
    return value


def _secrets_in(value: Any) -> Iterator[Secret]:
    if isinstance(value, Secret):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _secrets_in(each)
