"""The settings of an ``ldap`` backend: read, checked against each other, and given out ready for use.

Whatever can be seen to be wrong is said before anything is connected. What may be done and is unwise is a warning.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, model_validator

from zapd.errors import ConfigurationError, InvalidInput
from zapd.store.rules import check_attributes, check_groups
from zapd_backends.ldap_driver import check_filter, first_value, normal_dn
from zapd_backends.ldap_line import Place

MAX_DEPTH: Final = 10
MAX_CONNECTIONS: Final = 64

_ATTRIBUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9-]*|\d+(?:\.\d+)+", re.ASCII)
"""RFC 4512, section 1.4: a name or a numeric identifier, without options."""
_BLANK: Final = re.compile(r"\{(\w*)\}")

Warning_ = tuple[str, str, str]
"""(setting, problem, mend)."""


def _attribute(value: object) -> str:
    if not isinstance(value, str) or _ATTRIBUTE.fullmatch(value) is None:
        raise ValueError("name an attribute of the directory, without options")
    return value


def _several(value: object) -> object:
    return (value,) if isinstance(value, str) else value


def _dn(value: object) -> str:
    try:
        if isinstance(value, str) and value:
            normal_dn(value)
            return value
    except ValueError:
        pass
    raise ValueError('write a distinguished name: "ou=people,dc=example,dc=org"')


def _check_blanks(value: object, allowed: str) -> str:
    if not isinstance(value, str):
        raise ValueError("write a text")
    for blank in _BLANK.findall(value):
        if blank not in allowed.split():
            raise ValueError(f"there is no {{{blank}}} here; there is {allowed}")
    return value


def _filter(value: object, allowed: str) -> str:
    text = _check_blanks(value, allowed)
    if text:
        check_filter(_BLANK.sub("x", text))
    return text


Attribute = Annotated[str, BeforeValidator(_attribute)]
Name = Annotated[str, BeforeValidator(_dn)]
EntryFilter = Annotated[str, BeforeValidator(partial(_filter, allowed="domain"))]
GroupFilter = Annotated[str, BeforeValidator(partial(_filter, allowed="dn user"))]
UserTemplate = Annotated[str, BeforeValidator(partial(_check_blanks, allowed="user"))]


class LdapSettings(BaseModel):
    """The table ``[backend.NAME]`` of ``docs/backends/ldap.md``, where each setting is explained."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    url: Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1, strict=False)]
    starttls: bool = False
    plaintext: bool = False
    tls_ca: str = ""
    bind_dn: str = ""
    bind_password: SecretStr = SecretStr("")
    connections: Annotated[int, Field(ge=1, le=MAX_CONNECTIONS)] = 8

    base: Name | Literal[""] = ""
    scope: Literal["subtree", "onelevel"] = "subtree"
    user_attribute: Annotated[
        tuple[Attribute, ...], BeforeValidator(_several), Field(min_length=1, max_length=8, strict=False)
    ] = ("uid",)
    user_filter: EntryFilter = ""
    user_dn: UserTemplate = ""
    ignore_case: bool = False
    name_attribute: Attribute | Literal[""] = ""
    key_attribute: Attribute | Literal[""] = ""
    locked_filter: EntryFilter = ""
    attributes: dict[str, Attribute] = {}

    member_of: Attribute | Literal[""] = ""
    group_base: Name | Literal[""] = ""
    group_filter: GroupFilter = "(|(member={dn})(uniqueMember={dn})(memberUid={user}))"
    group_name: Attribute = "cn"
    group_depth: Annotated[int, Field(ge=0, le=MAX_DEPTH)] = 0
    group_limit: Annotated[int, Field(ge=1, le=1000)] = 200
    group_map: dict[str, str] = {}
    require_group: Annotated[tuple[str, ...], BeforeValidator(_several), Field(strict=False)] = ()
    deny_group: Annotated[tuple[str, ...], BeforeValidator(_several), Field(strict=False)] = ()

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for problem in self._disagreements():
            raise ValueError(problem)
        return self

    def _disagreements(self) -> Iterator[str]:
        for place in self.places():
            if place.tls and self.starttls:
                yield "starttls is for ldap:// URLs: ldaps:// speaks TLS from the start"
            if not (place.tls or place.start_tls or self.plaintext or is_loopback(place.host)):
                yield (
                    f"url: {place} would carry passwords for everybody to read: write ldaps://, "
                    "or starttls = true (or, where the network is trusted, plaintext = true)"
                )
        if self.plaintext and self.starttls:
            yield "plaintext and starttls exclude each other"
        if bool(self.bind_dn) != bool(self.bind_password.get_secret_value()):
            yield "bind_dn and bind_password belong together"
        if not self.base and (self.key_attribute or not self.user_dn):
            yield 'base is needed to search in: base = "ou=people,dc=example,dc=org" (or user_dn, for passwords)'
        if self.user_dn and ("{user}" not in self.user_dn or not _is_dn(self.user_dn.replace("{user}", "x"))):
            yield 'user_dn is a DN with {user} in it: "uid={user},ou=people,dc=example,dc=org"'
        if (self.require_group or self.deny_group or self.group_map) and not (self.member_of or self.group_base):
            yield "require_group, deny_group and group_map need member_of or group_base, to find groups by"
        if self.group_depth and not self.group_base:
            yield "group_depth needs group_base, to search for groups of groups"
        try:
            check_attributes(dict.fromkeys(self.attributes, ""))
            check_groups(self.group_map.values())
        except InvalidInput as mistake:
            yield f"attributes or group_map: {mistake}"
        for group in (*self.require_group, *self.deny_group, *self.group_map):
            if "=" in group and not _is_dn(group):
                yield f"require_group, deny_group or group_map: {group!r} is neither a DN nor a name without '='"

    def places(self) -> tuple[Place, ...]:
        """The servers, in their order."""
        return tuple(_place(url, self.starttls) for url in self.url)

    @property
    def naming(self) -> str:
        """The attribute that gives the principal its name."""
        return self.name_attribute or self.user_attribute[0]

    def warnings(self) -> list[Warning_]:
        """What is allowed and unwise."""
        found: list[Warning_] = []
        for place in self.places():
            if self.plaintext and not place.tls and not is_loopback(place.host):
                problem = f"passwords cross the network to {place} for everybody to read"
                found.append(("plaintext", problem, "write ldaps://, or starttls = true"))
        if not self.bind_dn and self.base and not self.user_dn:
            found.append(("base", "the directory is searched by nobody in particular", "set bind_dn"))
        return found


def read_settings(name: str, settings: Mapping[str, object], base_dir: Path) -> tuple[LdapSettings, Path | None]:
    """The settings, and where ``tls_ca`` is. Raises `ConfigurationError` that names each mistake, no secret."""
    try:
        read = LdapSettings.model_validate(dict(settings))
    except ValidationError as error:
        mistakes = "; ".join(_told(each) for each in error.errors(include_url=False, include_input=False))
        raise ConfigurationError(f"backend.{name}: {mistakes}") from None
    return read, base_dir / read.tls_ca if read.tls_ca else None


def is_loopback(host: str) -> bool:
    """Whether what is sent there stays on this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _place(url: str, starttls: bool) -> Place:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    fine = parts.scheme in ("ldap", "ldaps") and parts.hostname and port != 0
    if not fine or parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc:
        raise ValueError("url is ldaps://HOST or ldap://HOST, with :PORT where it is not the usual one")
    tls = parts.scheme == "ldaps"
    return Place(str(parts.hostname), port or (636 if tls else 389), tls, starttls)


def _is_dn(text: str) -> bool:
    try:
        normal_dn(text)
        first_value(text)
    except ValueError:
        return False
    return True


def _told(error: Mapping[str, Any]) -> str:
    where = ".".join(str(part) for part in error["loc"] if not str(part).startswith(("function-", "literal[")))
    text = {"extra_forbidden": "there is no such setting", "missing": "must be set"}.get(
        error["type"], str(error["msg"]).removeprefix("Value error, ")
    )
    return f"{where}: {text}" if where else text
