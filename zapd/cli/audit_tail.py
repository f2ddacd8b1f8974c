"""``zapd audit tail``: records as they are made, through every break of the connection."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from zapd.cli.audit_filters import COLUMNS, filters_forward, query_of, row_of
from zapd.cli.options import Settings, common_options, pass_settings
from zapd.cli.output import complain, show
from zapd.errors import Unavailable

if TYPE_CHECKING:
    from zapd.cli.client import Client

SILENCE = 45.0
"""Seconds; the server says something at least each fifteen."""
PATIENCE = (0.5, 10.0)
"""Seconds before the server is asked again: at first, at most."""
_WIDTHS = {"time": 20, "event": 12, "status": 3, "who": 24, "domain": 16, "mechanism": 6, "address": 15}


@dataclass(slots=True)
class Event:
    """A server-sent event (the WHATWG's HTML, "Server-sent events")."""

    kind: str = ""
    data: str = ""
    id: str = ""
    """Of this event, or of the last one that had any."""


def events(lines: Iterable[str]) -> Iterator[Event]:
    """The events of a stream, those without data too: their ids count."""
    event = Event()
    for line in lines:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            yield event
            event = Event(id=event.id)
        elif name == "event":
            event.kind = value
        elif name == "data":
            event.data += value
        elif name == "id":
            event.id = value


@click.command("tail")
@filters_forward
@click.option("--count", type=click.IntRange(1), metavar="N", help="Stop after so many.")
@common_options
@pass_settings
def tail(settings: Settings, /, count: int | None, **wanted: Any) -> None:
    """Print records as they are made, or from --since on, until ^C.

    A connection that breaks is made again, and nothing is missed or told twice. With --json a record is a line.
    """
    from zapd.cli.client import Client

    query = query_of({**wanted, "until": None})
    with Client(settings) as client:
        for number, record in enumerate(_records(client, query), 1):
            if settings.json:
                print(json.dumps(record), flush=True)
            else:
                print(_line(record), flush=True)
            if number == count:
                return


def _records(client: Client, query: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    from zapd.cli.client import Refused

    last, wait = "", PATIENCE[0]
    while True:
        headers = {"Accept": "text/event-stream"} | ({"Last-Event-ID": last} if last else {})
        try:
            with client.stream("/v1/audit/stream", headers=headers, silence=SILENCE, **query) as answer:
                for event in events(answer.iter_lines()):
                    last, wait = event.id or last, PATIENCE[0]
                    match event.kind:
                        case "lost":
                            complain(_detail(event))
                        case "end":
                            raise Unavailable(_detail(event))
                        case _ if event.data:
                            yield json.loads(event.data)
            trouble = "the server ended it"
        except Unavailable as error:
            trouble = str(error)
        except Refused as error:
            if error.status != 503:
                raise
            trouble = str(error)
        complain(f"{trouble.removesuffix('.')}; trying again in {wait:g} s.")
        time.sleep(wait)
        wait = min(2 * wait, PATIENCE[1])


def _detail(event: Event) -> str:
    return str(json.loads(event.data).get("detail", ""))


def _line(record: Mapping[str, Any]) -> str:
    row = row_of(record)
    return " ".join(f"{show(row.get(name)):<{_WIDTHS.get(name, 0)}}" for name in COLUMNS).rstrip()
