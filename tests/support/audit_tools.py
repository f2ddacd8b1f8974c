"""Helpers for tests of the journal: events to record, journals to damage, and ways to look at them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zapd.audit.event import AuditEvent, Tag
from zapd.audit.instance import Limits, list_instances
from zapd.audit.journal import Journal
from zapd.audit.segment import list_segments

SEED = bytes(range(32))


def decision(number: int = 0, **members: Any) -> AuditEvent:
    """A grant such as the server records for each question."""
    return AuditEvent(
        event=Tag.AUTH_ACCEPT,
        domain="orders",
        mechanism="CURVE",
        address="10.0.0.17",
        agent="edge",
        principal=f"device-{number}",
        key="SHA256:" + "k" * 43,
        status=200,
        question_id=f"{number:032x}",
        trail=(("keys", "accept", 0.01),),
        **members,
    )


def segments_of(directory: Path, instance: str = "") -> list[Path]:
    """Every segment there, in order."""
    folders = [folder for folder in list_instances(directory) if not instance or folder.name == instance]
    return [path for folder in folders for _, path in list_segments(folder)]


def records(directory: Path, instance: str = "") -> list[dict[str, Any]]:
    """Every whole record there, in order; lines that are none are left out, and so are segments that retention
    removes between their listing and their reading."""
    lines: list[bytes] = []
    for path in segments_of(directory, instance):
        with contextlib.suppress(FileNotFoundError):
            lines += path.read_bytes().splitlines(keepends=True)
    found = []
    for line in lines:
        with contextlib.suppress(json.JSONDecodeError, UnicodeDecodeError):
            if line.endswith(b"\n"):
                found.append(json.loads(line))
    return found


async def write(directory: Path, count: int = 30, *, segment: int = 3000, **settings: Any) -> str:
    """A closed journal of ``count`` decisions in several small segments; its instance."""
    settings.setdefault("signing_key", SEED)
    journal = await Journal.open(directory, limits=Limits(size=segment), **settings)
    assert journal.writable, journal.why
    for number in range(count):
        journal.append(decision(number))
        if number % 5 == 4:
            await journal.durable()
    await journal.close()
    return journal.instance


def edit(path: Path, change: Callable[[list[bytes]], list[bytes]]) -> None:
    """Rewrite a file's lines, newlines included."""
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))
