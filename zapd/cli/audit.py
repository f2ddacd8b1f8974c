"""``zapd audit``: the record, searched through the server or verified beside it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from zapd.cli.audit_export import export
from zapd.cli.audit_filters import COLUMNS, filters, query_of, row_of
from zapd.cli.audit_replay import replay, unreadable
from zapd.cli.audit_tail import tail
from zapd.cli.options import Settings, common_options, local_options, pass_settings
from zapd.cli.output import print_json, print_rows, say
from zapd.errors import InvalidInput, NotFound


@click.group("audit")
def command() -> None:
    """The record of every decision and every change."""


command.add_command(tail)
command.add_command(export)
command.add_command(replay)


@command.command("list")
@filters
@click.option(
    "--limit", type=click.IntRange(1), default=100, show_default=True, metavar="N", help="At most so many."
)
@common_options
@pass_settings
def list_records(settings: Settings, /, limit: int, **wanted: Any) -> None:
    """Search the record, newest first. The search follows the journal by a moment."""
    from zapd.cli.client import Client

    with Client(settings) as client:
        records = list(client.pages("/v1/audit", limit=limit, **query_of(wanted)))
    if settings.json:
        print_json(records)
    else:
        print_rows([row_of(each) for each in records], COLUMNS, empty="There are no such records.")


@command.command("verify")
@click.argument("path", required=False, type=click.Path(exists=True, path_type=Path))
@click.option(
    "--key",
    metavar="PUBLIC",
    help="The journal's public key, kept elsewhere; the one beside the journal unless named.",
)
@click.option(
    "--head",
    "heads",
    multiple=True,
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="FILE",
    help="Where checkpoints went: a file, or what syslog kept; may be repeated.",
)
@local_options
@pass_settings
def verify(settings: Settings, path: Path | None, key: str | None, heads: tuple[Path, ...]) -> int:
    """Check the record for anything altered, missing, inserted, reordered or cut, and name it.

    PATH is a journal's folder or an exported file; the configuration's own journal unless named. Works beside a
    running server and without one. Ends with 1 when anything is wrong.
    """
    from zapd.audit.beside import head_file, public_key_of
    from zapd.audit.signing import parse_public_key
    from zapd.audit.verify import verify as verify_journal
    from zapd.audit.verify import verify_export
    from zapd.config import load

    try:
        public_key = None if key is None else parse_public_key(key)
    except InvalidInput as error:
        raise click.BadParameter(str(error), param_hint="'--key'") from None
    found = list(heads)
    if path is None:
        config = load(settings.config_path(), check_files=False)
        path = config.journal_dir
        public_key = public_key or public_key_of(config.journal_key_file)
        head = head_file(config.audit.head, config.base_dir)
        found += [head] if head is not None else []
        mend = "nothing has been recorded yet, or data_dir is wrong."
    else:
        mend = "name the folder `audit` of a data_dir, or an exported file."
    try:
        folder = path.is_dir() or not path.exists()
        report = (verify_journal if folder else verify_export)(path, public_key, found)
    except OSError as error:
        raise unreadable(path, error) from None
    if not report.instances and report.ok:  # of what is not there nobody shall hear that it is intact
        raise NotFound(f"There is no journal at {path}: {mend}")
    if settings.json:
        print_json({"good": report.ok, "records": report.records} | asdict(report))
    else:
        for line in report.lines():
            say(line)
        if key is None and public_key is not None:
            say("Checkpoints were checked with the key beside the journal; --key names one kept elsewhere.")
    return 0 if report.ok else 1
