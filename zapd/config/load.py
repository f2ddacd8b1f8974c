"""Reading ``zapd.toml``: `load` gives a `Config`, or an error that holds every mistake at once.

A value of the wrong shape hides nothing else: it is reported, taken out, and the rest is judged without it.
Reading opens no database and no port; of the files that hold secrets it only makes sure that they can be used.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from zapd.auth.policy import Rule
from zapd.auth.terms import Terms
from zapd.config import checks
from zapd.config.backends import BackendSection
from zapd.config.findings import Findings, InvalidConfiguration, Mistake, Setting
from zapd.config.limits import LimitsSection
from zapd.config.sections import (
    AdminSection,
    AuditSection,
    DatabaseSection,
    DomainSection,
    EnrollSection,
    LinkSection,
    PenaltiesSection,
    Sections,
    ServerSection,
    SignInSection,
    TelemetrySection,
    ZapSection,
)
from zapd.config.suggest import closest
from zapd.net.address import Address, parse_address
from zapd.store.sightings import Bounds

MAX_FILE: Final = 4 * 1024 * 1024
_ROUNDS: Final = 8
_TOML_PLACE: Final = re.compile(r"\s*\(at (?:line (\d+), column (\d+)|end of document)\)$")

_STAND_INS: Final[Mapping[str, object]] = {
    "listen": "tcp://127.0.0.1:0",
    "type": "sql",
    "mechanisms": ["CURVE"],
    "backend": "",
}
"""What takes the place of a required setting that is missing or unusable, so that the rest can be judged."""

_TABLES: Final[Mapping[str, type[BaseModel]]] = {
    "server": ServerSection,
    "database": DatabaseSection,
    "admin": AdminSection,
    "audit": AuditSection,
    "penalties": PenaltiesSection,
    "telemetry": TelemetrySection,
    "enroll": EnrollSection,
    "signin": SignInSection,
    "limits": LimitsSection,
    "zap": ZapSection,
    "backend": BackendSection,
    "domain": DomainSection,
}


@dataclass(frozen=True, slots=True)
class Config:
    """A configuration that passed every check."""

    path: Path
    """The file, absolute."""
    sections: Sections
    warnings: tuple[Mistake, ...] = ()
    """What is allowed and unwise."""
    text: str = field(default="", repr=False)
    """What stood in the file. It may hold secrets: never show it."""

    @property
    def base_dir(self) -> Path:
        """Where relative paths start."""
        return self.path.parent

    @property
    def server(self) -> ServerSection:
        return self.sections.server

    @property
    def database(self) -> DatabaseSection:
        return self.sections.database

    @property
    def zap(self) -> tuple[ZapSection, ...]:
        return self.sections.zap

    @property
    def admin(self) -> AdminSection:
        return self.sections.admin

    @property
    def audit(self) -> AuditSection:
        return self.sections.audit

    @property
    def enroll(self) -> EnrollSection:
        return self.sections.enroll

    @property
    def signin(self) -> Mapping[str, SignInSection]:
        return self.sections.signin

    @property
    def backend(self) -> Mapping[str, BackendSection]:
        return self.sections.backend

    @property
    def domain(self) -> Mapping[str, DomainSection]:
        return self.sections.domain

    @property
    def telemetry(self) -> TelemetrySection:
        return self.sections.telemetry

    @property
    def penalties(self) -> PenaltiesSection:
        return self.sections.penalties

    @property
    def limits(self) -> LimitsSection:
        return self.sections.limits

    @property
    def curve_key_file(self) -> Path:
        """The server's CURVE key pair."""
        return self.server.curve_key or self.server.data_dir / "server.key"

    @property
    def journal_key_file(self) -> Path:
        """The Ed25519 key that signs checkpoints."""
        return self.audit.signing_key or self.server.data_dir / "journal.key"

    @property
    def journal_dir(self) -> Path:
        """Where the journal's instances are."""
        return self.server.data_dir / "audit"

    @property
    def token_file(self) -> Path:
        """The first admin token, beside the configuration."""
        return self.base_dir / "admin.token"

    def database_url(self) -> str:
        """The URL, read now; a relative SQLite path made absolute. May hold a password: never show it."""
        return checks.absolute_database_url(self.database.url.reveal().strip(), self.base_dir)

    def addresses(self) -> tuple[Address, ...]:
        """Where each ``[[zap]]`` listens, in their order."""
        return tuple(parse_address(endpoint.listen, self.base_dir) for endpoint in self.zap)

    def rules(self) -> tuple[Rule, ...]:
        """The domains as deciding takes them."""
        return tuple(checks.rule_of(pattern, domain, self.sections) for pattern, domain in self.domain.items())

    def pending_bounds(self) -> Bounds:
        """How many keys may wait for approval."""
        limits = self.limits
        return Bounds(limits.pending_per_domain, limits.pending_per_source, limits.pending_per_agent)

    def terms(self) -> Terms:
        """What wrong tries cost, as deciding takes it."""
        return checks.terms_of(self.sections)


def load(path: str | Path, *, check_files: bool = True, text: str | None = None) -> Config:
    """Read and check a configuration.

    Raises `InvalidConfiguration` (a `zapd.errors.ConfigurationError`) with every mistake, its line and its mend.
    ``check_files`` False leaves the files that hold secrets alone: for whoever needs none of them. ``text`` is
    what stood in the file when somebody else read it; then the file itself is not looked at.
    """
    path = Path(path).absolute()
    if text is None:
        text = _read(path)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidConfiguration(path, [_syntax(error, text)]) from None
    except (RecursionError, ValueError):  # brackets in brackets without end, a number of thousands of digits
        fault = Mistake(0, "", "not a configuration that can be read", "look for absurd nesting or numbers")
        raise InvalidConfiguration(path, [fault]) from None
    findings = Findings(text)
    sections = _sections(raw, path.parent, findings)
    if sections is not None:
        checks.check(sections, path.parent, findings, files=check_files)
    if findings.mistakes or sections is None:
        raise InvalidConfiguration(path, findings.mistakes, findings.warnings)
    return Config(path, sections, tuple(findings.warnings), text)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        fault = Mistake(0, "", "there is no such file", "`zapd init` writes one; or name it with -c")
    except OSError as error:
        fault = Mistake(0, "", f"cannot be read ({error.strerror})", "let the user that runs zapd read it")
    else:
        if len(content) > MAX_FILE:
            fault = Mistake(0, "", f"is longer than {MAX_FILE} octets", "name the configuration file")
        else:
            try:
                return content.decode("utf-8")
            except UnicodeDecodeError as error:
                line = content[: error.start].count(b"\n") + 1
                fault = Mistake(line, "", "not UTF-8 text", "save the file as UTF-8")
    raise InvalidConfiguration(path, [fault])


def _syntax(error: tomllib.TOMLDecodeError, text: str) -> Mistake:
    message = str(error)
    place = _TOML_PLACE.search(message)
    line = int(place[1]) if place and place[1] else text.rstrip("\n").count("\n") + 1
    problem = _TOML_PLACE.sub("", message)
    column = f" at column {place[2]}" if place and place[2] else " at the end of the file"
    return Mistake(line, "", f"not TOML: {problem}{column}", "finish or mend this line")


def _sections(raw: dict[str, Any], base: Path, findings: Findings) -> Sections | None:
    """The typed file; what cannot be typed is reported and taken out. None when nothing usable was left."""
    for name in _TABLES:
        if name not in ("zap", "signin", "backend", "domain"):
            raw.setdefault(name, {})
    for _ in range(_ROUNDS):
        try:
            return Sections.model_validate(raw, context={"base": base})
        except ValidationError as error:
            for each in error.errors(include_url=False, include_input=False):
                _report(each, findings)
                findings.unusable(_take_out(each, raw))
    return None


def _report(error: ErrorDetails, findings: Findings) -> None:
    setting: Setting = error["loc"]
    kind = error["type"]
    if kind == "extra_forbidden":
        if len(setting) > 3 and setting[-1] in ("on_locked", "on_not_yet"):
            mend = "remove it: who is barred, expired or pending at one backend is let in by no other"
            findings.mistake(setting, "nothing may follow that answer", mend)
            return
        known = _known(setting[:-1])
        meant = closest(str(setting[-1]), known)
        mend = f"did you mean {meant!r}?" if meant else f"known here are {', '.join(sorted(known))}"
        findings.mistake(setting, "unknown setting", mend)
        if meant:
            findings.unusable((*setting[:-1], meant))
        return
    problem, mend = _explain(error)
    findings.mistake(setting, problem, mend)


_MENDS: Final[Mapping[str, tuple[str, str]]] = {
    "missing": ("is missing", "add it"),
    "string_type": ("not a text", "write it in quotes"),
    "int_type": ("not a whole number", "write it without quotes"),
    "bool_type": ("neither true nor false", "write true or false, without quotes"),
    "tuple_type": ("not a list", 'write it in brackets: ["…"]'),
    "dict_type": ("not a table", "write it as a [table]"),
    "model_type": ("not a table", "write it as a [table]"),
    "model_attributes_type": ("not a table", "write it as a [table]"),
    "too_short": ("is empty", "name at least one"),
}


def _explain(error: ErrorDetails) -> tuple[str, str]:
    """(problem, mend) of an error of shape."""
    context = error.get("ctx", {})
    kind = error["type"]
    if kind == "zapd":
        return str(context["problem"]), str(context["mend"])
    if error["loc"] == ("zap",) or (len(error["loc"]) == 2 and error["loc"][0] == "zap"):
        return "not an array of tables", "write [[zap]], with two brackets"
    if kind in _MENDS:
        return _MENDS[kind]
    if kind == "literal_error":
        return "not one of the choices", f"write {context['expected']}"
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = context.get("ge", context.get("le"))
        return "out of range", f"write at {'least' if 'ge' in context else 'most'} {bound}"
    return error["msg"], "see docs/configuration.md"


def _known(table: Setting) -> list[str]:
    """The settings that a table may have."""
    if not table:
        return list(_TABLES)
    if len(table) > 3:
        return list(LinkSection.model_fields)
    model = _TABLES.get(str(table[0]))
    return list(model.model_fields) if model is not None else []


def _take_out(error: ErrorDetails, raw: dict[str, Any]) -> Setting:
    """Remove the setting that an error is about, or put a stand-in where one is required; say which."""
    place: Any = raw
    table: dict[str, Any] = raw
    key, depth = str(error["loc"][0]), 0
    for number, part in enumerate(error["loc"], 1):
        if isinstance(place, dict):
            table, key, depth = place, str(part), number
            place = place.get(key)
        elif isinstance(place, list) and isinstance(part, int) and part < len(place):
            place = place[part]
        else:
            break
    if key in _STAND_INS and table is not raw and error["type"] != "extra_forbidden":
        table[key] = _STAND_INS[key]
    else:
        table.pop(key, None)
    return error["loc"][:depth]
