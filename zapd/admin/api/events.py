"""What followers are told, as server-sent events (the WHATWG's HTML, "Server-sent events")."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any, Final

import msgspec
from fastapi.responses import Response

from zapd.admin.services.audit import Told
from zapd.audit.sinks.following import Place

RETRY: Final = b"retry: 1000\n\n"
"""Milliseconds after which a follower whose connection broke comes back."""

EVENTS: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Events without an end",
        "content": {
            "text/event-stream": {
                "schema": {"type": "string"},
                "example": (
                    "id: 7-5f0c9a77e1b2d384-7\n"
                    'data: {"time":"2026-01-31T12:00:00.000001Z","instance":"5f0c9a77e1b2d384","sequence":7,'
                    '"event":"auth.accept","domain":"orders","status":200}\n\n'
                ),
            }
        },
    }
}
"""For the OpenAPI document."""


class EventStream(Response):
    """Names the media type for the OpenAPI document."""

    media_type = "text/event-stream"


async def events(told: AsyncGenerator[Told, None]) -> AsyncGenerator[bytes, None]:
    """The octets of each. An id without data is no event: it only says how far the follower has come."""
    yield RETRY
    try:
        async for each in told:
            piece = b""
            if each.lost:
                piece += b"event: lost\ndata: " + msgspec.json.encode({"detail": each.lost}) + b"\n\n"
            if each.records:
                piece += await asyncio.to_thread(_records, each.records)
            if each.place is not None and not (each.records and each.records[-1][0] == each.place):
                piece += f": \nid: {each.place}\n\n".encode()
            if each.end is not None:
                end = {"code": each.end.code, "detail": str(each.end)}
                piece += b"event: end\ndata: " + msgspec.json.encode(end) + b"\n\n"
            yield piece
    finally:
        await told.aclose()


def _records(records: Sequence[tuple[Place, str]]) -> bytes:
    return b"".join(b"id: %b\ndata: %b\n\n" % (str(place).encode(), _shown(line)) for place, line in records)


def _shown(line: str) -> bytes:
    """A record as ``GET /v1/audit`` shows it, on one line."""
    record = msgspec.json.decode(line, type=dict[str, object])
    trail = record.get("trail")
    if isinstance(trail, list):
        record["trail"] = [dict(zip(("backend", "outcome", "milliseconds"), step, strict=True)) for step in trail]
    # ASCII, since some readers take U+2028 for a line's end.
    return json.dumps(record, separators=(",", ":")).encode("ascii")
