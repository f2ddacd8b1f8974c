"""Options that many commands share, and the kinds of values that people type.

The common options may stand before or behind a command's name; the last one counts.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from zapd.errors import ConfigurationError, InvalidInput

Function = TypeVar("Function", bound=Callable[..., Any])

_LAST_RESORT: Final = Path("/etc/zapd/zapd.toml")
_FINGERPRINT: Final = re.compile(r"SHA256:([A-Za-z0-9+/]{43})", re.ASCII)
_FINGERPRINT_ID: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)
_SPAN: Final = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_NO_OPTION: Final = "\0"
"""Before a word that is no option, although it begins with a hyphen; nothing that is typed can hold it."""
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(slots=True)
class Settings:
    """What the common options say."""

    config: Path | None = None
    json: bool = False
    url: str | None = None
    token_file: Path | None = None

    def config_path(self) -> Path:
        """Where it is: ``-c``, ZAPD_CONFIG, ./zapd.toml, /etc/zapd/zapd.toml. Raises `ConfigurationError`."""
        if self.config is not None:
            return self.config
        for path in (Path("zapd.toml"), _LAST_RESORT):
            if path.is_file():
                return path
        raise ConfigurationError(
            f"There is no zapd.toml here and no {_LAST_RESORT}: "
            "run `zapd init`, or name one with -c or ZAPD_CONFIG."
        )


pass_settings = click.make_pass_decorator(Settings, ensure=True)


def _keep(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def keep(context: click.Context, _parameter: click.Parameter, value: Any) -> None:
        if value not in (None, False):
            setattr(context.ensure_object(Settings), name, value)

    return keep


def _option(name: str, *words: str, **kind: Any) -> Callable[[Function], Function]:
    return click.option(*words, expose_value=False, callback=_keep(name), **kind)


config_option = _option(
    "config",
    "-c",
    "--config",
    envvar="ZAPD_CONFIG",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The configuration.",
)
json_option = _option("json", "--json", is_flag=True, help="Print JSON.")
_url_option = _option("url", "--url", envvar="ZAPD_URL", metavar="URL", help="The server's admin API.")
_token_option = _option(
    "token_file",
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    metavar="FILE",
    help="File with the admin token; - is standard input.",
)


def local_options(function: Function) -> Function:
    """For commands that need no server: ``-c`` and ``--json``."""
    return config_option(json_option(function))


def common_options(function: Function) -> Function:
    """For commands that ask the server."""
    return local_options(_url_option(_token_option(function)))


def domain_option(function: Function) -> Function:
    """Where something is granted."""
    return click.option(
        "--domain",
        "domains",
        multiple=True,
        metavar="D",
        help="Grant it in this domain or pattern; may be repeated. '*' is all. Default: the only one there is.",
    )(function)


def import_options(function: Function) -> Function:
    """What imports have in common."""
    function = click.option(
        "--domain",
        "domains",
        multiple=True,
        metavar="D",
        help="For rows that name no domain; may be repeated. Default: the only one there is.",
    )(function)
    function = click.option(
        "--partial", is_flag=True, help="Leave out what cannot go in, instead of importing nothing."
    )(function)
    return click.option(
        "--dry-run", is_flag=True, help="Only list what would be done, and each line that cannot be read."
    )(function)


def key_filters(function: Function) -> Function:
    """Which of the registered keys are meant."""
    function = click.option("--domain", metavar="D", help="Only those that are good in this domain.")(function)
    function = click.option(
        "--state", type=click.Choice(["pending", "active", "revoked"]), help="Only those in this state."
    )(function)
    return click.option("--user", metavar="NAME", help="Only this user's.")(function)


def grant_options(function: Function) -> Function:
    """What keys and users have in common."""
    function = click.option(
        "--attr",
        "attributes",
        multiple=True,
        type=Attribute(),
        metavar="K=V",
        help="Becomes X-K metadata; may be repeated.",
    )(function)
    function = click.option("--expires", type=Moment(), metavar="TIME", help="90d from now, or a date.")(function)
    function = click.option("--group", "groups", multiple=True, metavar="G", help="A group; may be repeated.")(
        function
    )
    return domain_option(function)


def change_options(function: Function) -> Function:
    """What can be changed of keys and users alike; `changed` reads it."""
    for name in ("attribute", "group"):
        function = click.option(
            f"--no-{name}s",
            is_flag=True,
            help=f"Take all {name}s away; without it, those that are named replace them.",
        )(function)
    function = click.option("--never-expires", is_flag=True, help="It has no end.")(function)
    return grant_options(function)


def changed(given: dict[str, Any]) -> dict[str, Any]:
    """The members of a PATCH that `change_options` name."""
    if given["expires"] is not None and given["never_expires"]:
        raise click.UsageError("Say either --expires or --never-expires.")
    body: dict[str, Any] = {}
    if given["domains"]:
        body["domains"] = list(given["domains"])
    if given["groups"] or given["no_groups"]:
        body["groups"] = list(given["groups"])
    if given["attributes"] or given["no_attributes"]:
        body["attributes"] = attributes_of(given["attributes"])
    if given["expires"] is not None or given["never_expires"]:
        body["expires"] = given["expires"] and given["expires"].isoformat()
    return body


class Moment(click.ParamType[datetime]):
    """``90d`` from now (or ago), or a date, or a date and time; UTC where no offset is given."""

    name = "time"

    def __init__(self, *, past: bool = False) -> None:
        self._sign = -1 if past else 1

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        if isinstance(value, datetime):
            return value
        span = _SPAN.fullmatch(value)
        if span is not None:
            return datetime.now(UTC) + self._sign * timedelta(seconds=int(span[1]) * _UNITS[span[2]])
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time: write 90d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z", param, ctx)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


class Span(click.ParamType[int]):
    """``7d``, ``12h``, ``0``: a time as it passes, in seconds."""

    name = "span"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        span = _SPAN.fullmatch("0s" if value == "0" else value)
        if span is not None:
            return int(span[1]) * _UNITS[span[2]]
        return self.fail(f"{value!r} is no span of time: write 7d, 12h, 30m or 0", param, ctx)


class Attribute(click.ParamType[tuple[str, str]]):
    """``name=value``."""

    name = "attribute"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        if isinstance(value, tuple):
            return value
        name, equals, text = value.partition("=")
        if not equals or not name:
            self.fail(f"{value!r} is no attribute: write NAME=VALUE", param, ctx)
        return name, text


class Endpoint(click.ParamType[str]):
    """Where a zapd is reached: ``tcp://HOST:PORT`` or ``ipc://PATH``, as it is written everywhere."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from zapd.net.address import parse_address

        try:
            return str(parse_address(value))
        except InvalidInput as error:
            self.fail(str(error), param, ctx)


class PublicKey(click.ParamType[str]):
    """A CURVE public key: 40 characters of Z85, taken exactly or not at all."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        from zapd.zmtp.keys import decode_public_key

        value = value.removeprefix(_NO_OPTION)
        try:
            decode_public_key(value)
        except InvalidInput as error:
            self.fail(str(error), param, ctx)
        return str(value)


class KeyName(click.ParamType[str]):
    """A registered key by its public key, its fingerprint, or the 43 characters of URLs, which it gives."""

    name = "key"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        value = value.removeprefix(_NO_OPTION)
        fingerprint = _FINGERPRINT.fullmatch(value)
        if fingerprint is not None:
            from zapd.zmtp.keys import identifier_of

            return identifier_of(fingerprint[1])
        if _FINGERPRINT_ID.fullmatch(value):
            return str(value)
        if value.startswith("SHA256:"):
            self.fail("a fingerprint is SHA256: and 43 characters of base64", param, ctx)
        from zapd.zmtp.keys import decode_public_key, fingerprint_id

        try:
            return fingerprint_id(decode_public_key(value))
        except InvalidInput as error:
            self.fail(f"{error}; write the public key or its fingerprint SHA256:…", param, ctx)


class WholeKeyName(click.ParamType[tuple[str, str | None]]):
    """As `KeyName`, and the public key itself where that is what was typed."""

    name = "key"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, str | None]:
        if isinstance(value, tuple):
            return value
        name = KeyName().convert(value, param, ctx)
        whole = value.removeprefix(_NO_OPTION)
        return name, whole if len(whole) == 40 else None


class KeyCommand(click.Command):
    """A command whose arguments are keys, which may begin with ``-`` like an option: one in 85 does."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        options = [each for each in self.params if isinstance(each, click.Option)]
        valued = {name for each in options if not each.is_flag for name in each.opts}
        names = {name for each in options for name in (*each.opts, *each.secondary_opts)}
        return super().parse_args(ctx, _keys_shown(args, names, valued))


def _keys_shown(args: list[str], names: set[str], valued: set[str]) -> list[str]:
    """``args`` with `_NO_OPTION` before each key that looks like an option; each stays where it stands, since with
    two of them it matters which is which.

    Keys have 40 characters; some more and less are taken too, to be told what is wrong with them.
    """
    shown: list[str] = []
    for number, word in enumerate(args):
        if word == "--":
            return shown + args[number:]
        key = word.startswith("-") and 39 <= len(word) <= 44 and word.partition("=")[0] not in names
        value = number > 0 and args[number - 1] in valued
        shown.append(_NO_OPTION + word if key and not value else word)
    return shown


def attributes_of(pairs: tuple[tuple[str, str], ...], option: str = "--attr") -> dict[str, str]:
    """A map of what ``--attr``, or another such option, gave; a name given twice is a mistake."""
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise click.UsageError(f"{option} {name} is there twice; keep one.")
        found[name] = value
    return found


def confirm(question: str, yes: bool) -> None:
    """Ask, where there is a person to ask; ``--yes`` and scripts need none."""
    if not yes and sys.stdin.isatty():
        click.confirm(question, abort=True, err=True)
