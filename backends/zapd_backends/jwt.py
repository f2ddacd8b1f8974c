"""The ``jwt`` backend: a signed token of an issuer stands in the place of a PLAIN password.

A token is looked at on the loop, and its signature checked in a thread. What no key of the issuer's signed admits
nobody; whose keys cannot be had is "cannot tell". PLAIN has room for 255 octets (RFC 24), so tokens are short
here: ``docs/backends/jwt.md`` says which fit, and what to do with others.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Annotated, Any, ClassVar, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from zapd.auth.backend import UNKNOWN, BackendContext, Outcome, Principal, Question, Verdict
from zapd.auth.jwt.keys import ALGORITHMS, fitting
from zapd.auth.jwt.source import KeySource, is_url
from zapd.auth.jwt.token import BadToken, EarlyToken, ExpiredToken, Wanted, claim, glance, prove
from zapd.auth.threaded import Threads
from zapd.errors import ConfigurationError, InvalidInput
from zapd.store.rules import check_attributes, check_groups, check_metadata, check_name

THREADS: Final = 2
WITHIN: Final = 0.9
"""The part of the backend's deadline that is spent on waiting for keys, or for a thread."""
SHORT: Final = frozenset(each for each in ALGORITHMS if each == "EdDSA" or each.startswith("ES"))
"""Algorithms whose signatures PLAIN has room for. RSA's take 342 characters and more."""

_KEYS_OLD: Final = Verdict(Outcome.UNAVAILABLE, reason="jwt_keys_unavailable")
_KEY_NOT_YET: Final = Verdict(Outcome.NOT_YET, reason="token_key_unknown")


def _seconds(value: object) -> object:
    found = re.fullmatch(r"(\d{1,9})(ms|s|m|h|d)", value) if isinstance(value, str) else None
    if found is None:
        raise ValueError('a time is written "500ms", "10s", "5m", "1h" or "1d"')
    return int(found[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}[found[2]]


def _list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, str) else value


Text = Annotated[str, Field(min_length=1, max_length=1024)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_list)]
Seconds = Annotated[float, BeforeValidator(_seconds)]


class JwtSettings(BaseModel):
    """The table ``[backend.NAME]`` of ``docs/backends/jwt.md``, where each setting is explained."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    issuer: Text
    audience: Annotated[Texts, Field(min_length=1)]
    keys: Text
    tls_ca: str = ""
    algorithms: Annotated[Texts, Field(min_length=1)] = ("EdDSA", "ES256")
    token_in: Literal["password", "username+password"] = "password"  # noqa: S105 - no secret
    placeholder: str = ""
    user: Text = "sub"
    groups: str = ""
    attributes: dict[str, Text] = {}
    require: Texts = ()
    leeway: Annotated[Seconds, Field(ge=0.0, le=60.0)] = 10.0
    refresh: Annotated[Seconds, Field(ge=1.0, le=86400.0)] = 300.0
    max_age: Annotated[Seconds, Field(ge=1.0, le=7 * 86400.0)] = 3600.0

    @field_validator("keys")
    @classmethod
    def _is_a_place(cls, text: str) -> str:
        is_url(text)
        return text

    @field_validator("algorithms")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        wrong = sorted(set(names) - SHORT)
        if set(wrong) & ALGORITHMS:
            raise ValueError(
                f"{wrong[0]} signatures do not fit into PLAIN: write some of {', '.join(sorted(SHORT))}"
            )
        if wrong:
            raise ValueError(f"write some of {', '.join(sorted(SHORT))}")
        return names

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.placeholder and self.token_in != "password":  # noqa: S105
            raise ValueError("placeholder is for tokens that stand in the password alone")
        if self.max_age < 2 * self.refresh:
            raise ValueError("max_age must be at least twice refresh")
        if self.tls_ca and not self.keys.startswith("https://"):
            raise ValueError("tls_ca is for keys from an https:// URL")
        try:
            check_attributes(dict.fromkeys(self.attributes, ""))
        except InvalidInput as mistake:
            raise ValueError(f"attributes: {mistake}") from None
        return self


class JwtBackend:
    """See the module's text; settings and outcomes are in ``docs/backends/jwt.md``."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"PLAIN"})

    def __init__(self, name: str, settings: JwtSettings, context: BackendContext) -> None:
        self.name = name
        self.settings = settings
        self._clock: Callable[[], float] = context.wall_clock or time.time
        self._seconds = context.deadline * WITHIN
        self._wanted = Wanted(settings.issuer, settings.audience, settings.require, settings.leeway)
        self._threads = Threads(name, THREADS)
        self._source = KeySource(
            settings.keys if is_url(settings.keys) else context.base_dir / settings.keys,
            refresh=settings.refresh,
            max_age=settings.max_age,
            tls_ca=context.base_dir / settings.tls_ca if settings.tls_ca else None,
            on_change=context.forget,
        )

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Asks nobody for keys. Raises `ConfigurationError`."""
        try:
            read = JwtSettings.model_validate(dict(settings))
        except ValidationError as error:
            raise ConfigurationError(f"backend.{name}: {_told(error)}") from None
        return cls(name, read, context)

    @property
    def problem(self) -> str:
        """Why the issuer's keys cannot be read; empty when they can."""
        return self._source.problem

    async def start(self) -> None:
        """Read the issuer's keys. Raises `Unavailable`."""
        await self._source.start()

    async def check(self, question: Question) -> Verdict:
        """What the token proves. UNKNOWN for what is no token of this issuer's. Raises `BackendBusy`."""
        token = self._token(question)
        seen = glance(token)
        if seen is None or seen.issuer != self.settings.issuer:
            return UNKNOWN
        if seen.algorithm not in self.settings.algorithms:
            return Verdict(Outcome.REJECT, reason="token_algorithm")
        source = self._source
        if not source.is_current:
            return _KEYS_OLD
        keys = fitting(source.keys, seen.algorithm, seen.key_name)
        if not keys:
            if seen.key_name is not None and any(key.name == seen.key_name for key in source.keys):
                return Verdict(Outcome.REJECT, reason="token_algorithm")
            if not await source.look_again(self._seconds):
                return _KEY_NOT_YET
            keys = fitting(source.keys, seen.algorithm, seen.key_name)
            if not keys:
                return Verdict(Outcome.REJECT, reason="token_key_unknown")
        now = self._clock()
        work = partial(prove, token, seen.algorithm, keys, self._wanted, now)
        try:
            claims = await self._threads.run(work, self._seconds)
            return self._verdict(claims, question)
        except ExpiredToken as bad:
            return Verdict(Outcome.LOCKED, reason=bad.reason)
        except EarlyToken as bad:
            return Verdict(Outcome.NOT_YET, reason=bad.reason)
        except BadToken as bad:
            return Verdict(Outcome.REJECT, reason=bad.reason)

    async def aclose(self) -> None:
        """Ask for no more keys."""
        await self._source.aclose()
        await self._threads.aclose()

    def _token(self, question: Question) -> bytes:
        if self.settings.token_in == "password":  # noqa: S105
            return question.password
        return question.username.encode("utf-8") + b"." + question.password

    def _verdict(self, claims: Mapping[str, Any], question: Question) -> Verdict:
        """Whom a proved token lets in. Raises `BadToken`."""
        settings = self.settings
        name = claim(claims, settings.user)
        try:
            name = check_name(name) if isinstance(name, str) else ""
        except InvalidInput:
            name = ""
        if not name:
            raise BadToken("token_user")
        if settings.token_in == "password" and question.username != (settings.placeholder or name):  # noqa: S105
            raise BadToken("token_other_user")
        try:
            groups = check_groups(_texts(claim(claims, settings.groups)) if settings.groups else ())
            found = {attribute: _text(claim(claims, source)) for attribute, source in settings.attributes.items()}
            attributes = check_attributes(
                {attribute: text for attribute, text in found.items() if text is not None}
            )
            check_metadata(groups, attributes)
        except (InvalidInput, ValueError):
            # A doubt about this one alone: the issuer can mend what it says.
            return Verdict(Outcome.UNAVAILABLE, Principal(name), "token_claims")
        return Verdict(Outcome.ACCEPT, Principal(name, groups, attributes), "granted", float(claims["exp"]))


def _texts(value: object) -> tuple[str, ...]:
    """A list of names, or one text of names with blanks between, as ``scope`` is. Raises `ValueError`."""
    if value is None:
        return ()
    if isinstance(value, str):
        return tuple(value.split())
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return tuple(value)
    raise ValueError("no list of names")


def _text(value: object) -> str | None:
    """A text, a number or a truth value as an attribute carries it. Raises `ValueError`."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    raise ValueError("no text")


def _told(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'keys'}: "
        + {"extra_forbidden": "there is no such setting", "missing": "must be set"}.get(
            each["type"], each["msg"].removeprefix("Value error, ")
        )
        for each in error.errors(include_url=False, include_input=False)
    )
