"""What ``zapd key import`` and ``zapd user import`` share: sending rows, how far it is, telling the outcome."""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal

from zapd.cli.options import Settings
from zapd.cli.output import clean, complain, print_json, say
from zapd.errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Callable

    from zapd.cli.foreign import Found

Form = Literal["csv", "json", "jsonl"]
KINDS: Final[dict[Form, str]] = {"csv": "text/csv", "json": "application/json", "jsonl": "application/x-ndjson"}
_SUFFIXES: Final[dict[str, Form]] = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
_PIECE: Final = 256 * 1024
_MEMORY: Final = 4 << 20
_WAIT: Final = 600.0
"""Seconds for the server to do it: a hundred thousand rows take it some tens of them."""


def form_of(path: Path, named: str | None) -> Form:
    """The form of a file by its name, unless it is named."""
    form = _SUFFIXES.get("." + named if named is not None else path.suffix.lower())
    if form is None:
        raise InvalidInput(f"Say with --format what {path} is.")
    return form


def send_file(settings: Settings, path: str, file: Path, form: Form, query: dict[str, Any]) -> None:
    """Import a file that the server itself can read."""
    try:
        with file.open("rb") as opened:
            _send(settings, path, opened, form, query, [])
    except OSError as error:
        raise InvalidInput(f"{file} cannot be read: {error.strerror}.") from None


def send_found(settings: Settings, path: str, found: Iterable[Found], query: dict[str, Any]) -> None:
    """Import rows that were found elsewhere. What could not be read counts like rows that the server refuses."""
    with tempfile.SpooledTemporaryFile(_MEMORY) as rows:
        unread = []
        for each in found:
            if each.problem:
                unread.append({"line": 0, "source": each.source, "action": "refuse", "what": each.problem})
            else:
                line = json.dumps(each.row | {"source": clean(each.source)[:255]})
                rows.write(line.encode() + b"\n")
        rows.seek(0)
        if unread and not query["dry_run"] and not query["partial"]:
            for item in unread:
                complain(_words(item))
            raise InvalidInput(
                f"{len(unread)} cannot be read, so nothing was imported. --partial leaves them out, and takes the"
                " rest."
            )
        _send(settings, path, rows, "jsonl", query, unread)


def _send(
    settings: Settings,
    path: str,
    file: IO[bytes],
    form: Form,
    query: dict[str, Any],
    unread: list[dict[str, Any]],
) -> None:
    from zapd.cli.client import Client

    size = file.seek(0, 2)
    file.seek(0)
    with Client(settings) as client, progress("Sending", size) as moved:

        def pieces() -> Iterator[bytes]:
            while piece := file.read(_PIECE):
                yield piece
                moved(len(piece))
            moved(0, "The server imports")

        done = client.upload(path, pieces(), size=size, kind=KINDS[form], wait=_WAIT, **query)
    _tell(settings, done, unread)


def _tell(settings: Settings, done: dict[str, Any], unread: list[dict[str, Any]]) -> None:
    done["items"] = [*unread, *done["items"]]
    done["refused"] += len(unread)
    done["rows"] += len(unread)
    if settings.json:
        print_json(done)
        return
    for item in done["items"]:
        if item["action"] == "refuse":
            complain(_words(item))
        else:
            say(f"{item['action']:<9}  {item['name']}  {item['user']}")
    added, unchanged, refused = done["added"], done["unchanged"], done["refused"]
    said = "Would add" if done["dry_run"] else "Added"
    say(f"{said} {added} of {done['rows']}; {unchanged} are there already, {refused} are refused.")


def _words(item: dict[str, Any]) -> str:
    place = item.get("source") or f"line {item['line']}"
    return f"{place}: {item['what']}"


@contextmanager
def progress(doing: str, total: int | None) -> Iterator[Callable[..., None]]:
    """A bar on standard error where that is a terminal; call it with how much more is done."""
    if not sys.stderr.isatty():
        yield lambda _more, _doing="": None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(show_speed=True))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(doing, total=total)

        def moved(more: int, now: str = "") -> None:
            bar.advance(task, more)
            if now:
                bar.update(task, description=now, total=None)

        yield moved
