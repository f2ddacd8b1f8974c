"""The settings of a ``kerberos`` backend: read, checked against each other, and given out ready for use.

Whatever can be seen to be wrong is said before anybody is asked. What may be done and is unwise is a warning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from zapd.errors import ConfigurationError, InvalidInput
from zapd.store.rules import check_groups, check_name
from zapd_backends.kerberos_names import Naming, Pattern, Rules, parse_name

MAX_PROCESSES: Final = 64

Warning_ = tuple[str, str, str]
"""(setting, problem, mend)."""


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _realm(value: object) -> str:
    if not isinstance(value, str) or parse_name(f"x@{value}", value) is None:
        raise ValueError("name a realm, such as EXAMPLE.ORG")
    return value


Realm = Annotated[str, BeforeValidator(_realm)]
Realms = Annotated[tuple[Realm, ...], BeforeValidator(_several), Field(strict=False)]
Several = Annotated[tuple[str, ...], BeforeValidator(_several), Field(strict=False)]


class KerberosSettings(BaseModel):
    """The table ``[backend.NAME]`` of ``docs/backends/kerberos.md``, where each setting is explained."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    realm: Realm
    realms: Realms = ()
    strip_realms: Realms | None = None
    ignore_case: bool = False

    allow: Annotated[Several, Field(min_length=1)] | None = None
    deny: Several = ()
    users: dict[str, str] = {}
    groups: dict[str, Several] = {}
    unix_groups: bool | Several = False
    require_group: Several = ()
    deny_group: Several = ()

    keytab: str = ""
    service: str = ""
    config: str = ""
    processes: Annotated[int, Field(ge=1, le=MAX_PROCESSES)] = 4

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for realm in self.strip_realms or ():
            if realm not in self.known_realms:
                raise ValueError(f"strip_realms: {realm} is neither realm nor among realms")
        if self.service and not self.keytab:
            raise ValueError("service: it is checked with keytab, which is not set")
        if self.service and parse_name(self.service, self.realm) is None:
            raise ValueError("service: name a principal of the keytab, such as zmq/host.example.org")
        try:
            check_groups((*self.groups, *self.require_group, *self.deny_group, *self.told_unix_groups))
            for user in self.users.values():
                check_name(user, "user's name")
        except InvalidInput as mistake:
            raise ValueError(f"groups or users: {mistake}") from None
        strangers = {*self.require_group, *self.deny_group} - self.groups.keys() - {*self.told_unix_groups}
        if strangers and self.unix_groups is not True:
            named = ", ".join(sorted(strangers))
            raise ValueError(f"require_group or deny_group: no {named} among groups or unix_groups")
        self.rules()
        return self

    @property
    def known_realms(self) -> tuple[str, ...]:
        """The home realm, then the others."""
        return tuple(dict.fromkeys((self.realm, *self.realms)))

    @property
    def stripped(self) -> tuple[str, ...]:
        """Realms that principals lose."""
        return (self.realm,) if self.strip_realms is None else self.strip_realms

    @property
    def told_unix_groups(self) -> tuple[str, ...]:
        """The unix groups that count; empty for all or none."""
        return () if isinstance(self.unix_groups, bool) else self.unix_groups

    @property
    def service_name(self) -> str:
        """``service`` with its realm; empty where the keytab is to say."""
        return str(parse_name(self.service, self.realm)) if self.service else ""

    def naming(self) -> list[Naming]:
        """The table ``users``. Raises `ValueError`."""
        return [Naming(self._pattern("users", pattern), user) for pattern, user in self.users.items()]

    def rules(self) -> Rules:
        """Raises `ValueError` that names the setting."""
        allow = self.allow or [f"*@{realm}" for realm in self.known_realms]
        return Rules(
            self.realm,
            realms=self.known_realms,
            stripped=self.stripped,
            allow=[self._pattern("allow", each) for each in allow],
            deny=[self._pattern("deny", each) for each in self.deny],
            naming=self.naming(),
            groups={
                group: [self._pattern("groups", each) for each in members]
                for group, members in self.groups.items()
            },
            require_group=self.require_group,
            deny_group=self.deny_group,
            fold=self.ignore_case,
        )

    def warnings(self) -> list[Warning_]:
        """What is allowed and unwise."""
        found: list[Warning_] = []
        if len(set(self.stripped)) > 1:
            problem = "alice of one of these realms is called what alice of another is called"
            found.append(("strip_realms", problem, "strip one realm, or give the others' people names by users"))
        for each in self.naming():
            if each.is_bare:
                problem = f"{each.template!r} gives somebody a name that may be somebody else's"
                found.append(("users", problem, 'set it apart: "host/*" = "host-{1}"'))
        return found

    def _pattern(self, setting: str, text: str) -> Pattern:
        try:
            pattern = Pattern(text, self.realm, fold=self.ignore_case)
        except ValueError as mistake:
            raise ValueError(f"{setting}: {mistake}") from None
        if pattern.realm not in self.known_realms:
            raise ValueError(f"{setting}: {text!r} is of a realm that is neither realm nor among realms")
        return pattern


def read_settings(name: str, settings: Mapping[str, object]) -> KerberosSettings:
    """Raises `ConfigurationError` that names each mistake."""
    try:
        return KerberosSettings.model_validate(dict(settings))
    except ValidationError as error:
        mistakes = "; ".join(_told(each) for each in error.errors(include_url=False, include_input=False))
        raise ConfigurationError(f"backend.{name}: {mistakes}") from None


def _told(error: Mapping[str, Any]) -> str:
    where = ".".join(
        str(part) for part in error["loc"] if not str(part).startswith(("function-", "tuple[", "bool"))
    )
    text = {"extra_forbidden": "there is no such setting", "missing": "must be set"}.get(
        error["type"], str(error["msg"]).removeprefix("Value error, ")
    )
    return f"{where}: {text}" if where else text
