"""Writes the generated parts of docs/configuration.md and docs/cli.md from the code itself.

Run as a program it brings both up to date; the tests compare.
"""

from __future__ import annotations

import json
import re
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from zapd.cli.root import root
from zapd.config import sections
from zapd.config.backends import BackendSection
from zapd.config.limits import LimitsSection
from zapd.config.secret import Secret
from zapd.config.values import format_duration, format_size, parse_duration, parse_size

DOCS = Path(__file__).parents[2] / "docs"
BEGIN, END = "<!-- generated from the code: begin -->", "<!-- generated from the code: end -->"

TABLES: list[tuple[str, type[BaseModel]]] = [
    ("[server]", sections.ServerSection),
    ("[database]", sections.DatabaseSection),
    ("[[zap]]", sections.ZapSection),
    ("[admin]", sections.AdminSection),
    ("[admin.oidc]", sections.OidcSection),
    ("[audit]", sections.AuditSection),
    ("[enroll]", sections.EnrollSection),
    ("[signin.DOMAIN]", sections.SignInSection),
    ("[backend.NAME]", BackendSection),
    ("[domain.PATTERN]", sections.DomainSection),
    ("a table in `backends`", sections.LinkSection),
    ("[penalties]", sections.PenaltiesSection),
    ("[telemetry]", sections.TelemetrySection),
    ("[limits]", LimitsSection),
]


def configuration() -> str:
    """Every table and setting with its kind, its default and what it means."""
    lines: list[str] = []
    for header, model in TABLES:
        title = f"`{header}`" if header.startswith("[") else header[0].upper() + header[1:]
        lines += [f"### {title}", "", _flat(model.__doc__), "", "| setting | default | meaning |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            meaning = _flat(field.description).replace("|", "\\|")
            lines.append(f"| `{name}` ({_kind(field)}) | {_default(field)} | {meaning} |")
        lines.append("")
    return "\n".join(lines)


def _flat(text: str | None) -> str:
    return re.sub(r"\s+", " ", (text or "").replace("``", "`")).strip()


def _default(field: FieldInfo) -> str:
    value: Any = field.default
    if field.is_required():
        return "required"
    if isinstance(value, Secret):
        value = value.reveal()
    if parse_duration in _validators(field):
        value = format_duration(value) if value is not None else None
    elif parse_size in _validators(field):
        value = format_size(value)
    match value:
        case None | () | "":
            return "none"
        case {} if not value:
            return "none"
        case bool():
            return f"`{str(value).lower()}`"
        case int() | float():
            return f"`{value}`"
        case tuple():
            return f"`{json.dumps(value)}`"
        case _:
            return f'`"{value}"`'


def _validators(field: FieldInfo) -> set[object]:
    return {getattr(each, "func", None) for each in _annotations(field.annotation, field.metadata)}


def _annotations(kind: object, metadata: list[Any]) -> Iterator[object]:
    yield from metadata
    for each in typing.get_args(kind):
        yield from _annotations(each, list(getattr(each, "__metadata__", ())))


def _kind(field: FieldInfo) -> str:
    validators = _validators(field)
    if parse_duration in validators:
        return "time"
    if parse_size in validators:
        return "size"
    return _kind_of(field.annotation)


def _kind_of(kind: Any) -> str:
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return _kind_of(typing.get_args(kind)[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(
            dict.fromkeys(_kind_of(each) for each in typing.get_args(kind) if each is not type(None))
        )
    if origin is tuple:
        return "list"
    if origin is typing.Literal:
        return ", ".join(map(str, typing.get_args(kind)))
    names: dict[object, str] = {
        bool: "true or false",
        int: "number",
        float: "number",
        Path: "path",
        str: "text",
        Secret: "text or secret",
    }
    return names.get(kind, "table")


def commands() -> str:
    """Every command's own help, in the order of the help."""
    return "\n".join(
        _commands(root, click.Context(root, info_name="zapd", terminal_width=100, **root.context_settings))
    )


def _commands(command: click.Command, context: click.Context) -> Iterator[str]:
    yield from (f"### `{context.command_path}`", "", "```text", command.get_help(context).rstrip(), "```", "")
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            if inner is not None and not inner.hidden:
                yield from _commands(inner, click.Context(inner, parent=context, info_name=name))


def with_generated(text: str, generated: str) -> str:
    """``text`` with what stands between the marks replaced."""
    head, _, rest = text.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{generated.strip()}\n\n{END}{tail}"


def main() -> None:
    """Bring the pages up to date."""
    for name, generate in PAGES.items():
        page = DOCS / name
        page.write_text(with_generated(page.read_text(), generate()))
        print(f"wrote {page}", file=sys.stderr)


PAGES = {"configuration.md": configuration, "cli.md": commands}

if __name__ == "__main__":
    main()
