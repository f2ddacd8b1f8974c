"""``zapd audit export``: records into a file, whole or not at all."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zapd.cli.audit_filters import filters, query_of
from zapd.cli.files import NewFile
from zapd.cli.options import Settings, common_options, pass_settings
from zapd.cli.output import print_json, say

if TYPE_CHECKING:
    from zapd.cli.client import Client

SILENCE = 120.0
"""Seconds: a selection of little may read gigabytes before it finds anything."""


@click.command("export")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path, allow_dash=True),
    required=True,
    metavar="FILE",
    help="Where to, mode 0600; never overwrites. - is standard output.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["jsonl", "csv"]),
    default="jsonl",
    show_default=True,
    help="JSON lines as the journal has them, or a table for a spreadsheet.",
)
@filters
@click.option("--instance", metavar="ID", help="One instance of the journal only.")
@common_options
@pass_settings
def export(settings: Settings, /, output: Path, form: str, instance: str | None, **wanted: Any) -> None:
    """Write the journal's records to a file: those of the server that answers, up to now.

    Without filters other than times and --instance it is a whole range, which `zapd audit verify FILE` checks
    anywhere. With filters it is a selection: good to read, not to verify.
    """
    from zapd.cli.client import Client

    query = query_of(wanted) | {"format": form, "instance": instance}
    if str(output) == "-":
        with Client(settings) as client:
            for piece in _pieces(client, query, hidden=True):
                sys.stdout.buffer.write(piece)
        sys.stdout.buffer.flush()
        return
    with NewFile(output) as file, Client(settings) as client:
        file.publish_pieces(_pieces(client, query, hidden=not sys.stderr.isatty()))
    octets = output.stat().st_size
    if settings.json:
        print_json({"file": str(output), "octets": octets})
    else:
        say(f"{output}: {octets} octets.")


def _pieces(client: Client, query: Mapping[str, Any], *, hidden: bool) -> Iterator[bytes]:
    with (
        client.stream("/v1/audit/export", headers={"Accept": "*/*"}, silence=SILENCE, **query) as answer,
        _bar(int(answer.headers.get("x-zapd-journal-octets", 0)), hidden=hidden) as advance,
    ):
        for piece in answer.iter_bytes():
            yield piece
            advance(len(piece))


@contextmanager
def _bar(total: int, *, hidden: bool) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error. What is given is to be told how many octets came."""
    if hidden:
        yield lambda _octets: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("exporting", total=total or None)
        yield lambda octets: progress.advance(task, octets)
