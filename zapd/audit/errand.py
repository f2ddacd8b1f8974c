"""Long work on the journal's files, in a process of its own: ``python -m zapd.audit.errand``.

Reading gigabytes of records would cost the deciding process its quickness. So exporting and verifying are errands:
the process reads its order as one line of JSON from standard input, writes what it finds to standard output, and
ends with 0 only when that is all of it. It ends, too, when standard input does: it cannot outlive whoever sent it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, Literal

import msgspec

from zapd.audit.export import export
from zapd.audit.selection import Sought, select
from zapd.audit.sheet import sheet
from zapd.audit.verify import verify

Form = Literal["jsonl", "csv"]


class Order(msgspec.Struct):
    """What is to be done, and with which folder."""

    directory: str
    verify: bool = False
    """Else it is an export."""
    public_key: str = ""
    """Hex; of the journal's signing key."""
    heads: tuple[str, ...] = ()
    form: Form = "jsonl"
    sought: Sought = msgspec.field(default_factory=Sought)


def carry_out(order: Order, out: BinaryIO) -> None:
    """Do it. Raises `OSError`."""
    directory = Path(order.directory)
    if order.verify:
        key = bytes.fromhex(order.public_key) or None
        report = verify(directory, key, [Path(head) for head in order.heads])
        out.write(msgspec.json.encode({"good": report.ok, "records": report.records} | asdict(report)))
        return
    for piece in exported(directory, order.sought, order.form):
        out.write(piece)


def exported(directory: Path, sought: Sought, form: Form) -> Iterator[bytes]:
    """The octets of an export. JSONL of a whole range verifies offline; a selection says that it is one."""
    if form == "csv":
        yield from sheet(None if found is None else found[0] for found in select(directory, sought))
    elif sought.whole:
        yield from export(directory, instance=sought.instance, since=sought.since, until=sought.until)
    else:
        yield msgspec.json.encode({"kind": "selection", "sought": sought}) + b"\n"
        for found in select(directory, sought):
            yield b"" if found is None else found[1]


def main() -> int:
    """Carry out the order on standard input."""
    for each in (signal.SIGINT, signal.SIGTERM):  # a terminal and systemd tell the whole group; the parent decides
        signal.signal(each, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.nice(19)
    order = msgspec.json.decode(sys.stdin.buffer.readline(), type=Order)

    def watch() -> None:
        while sys.stdin.buffer.read(4096):
            pass
        os._exit(2)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    with os.fdopen(os.dup(1), "wb", buffering=65_536) as out:
        carry_out(order, out)
    os._exit(0)  # the watcher still holds standard input


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError:  # the journal cannot be read, or nobody listens any more
        os._exit(2)
