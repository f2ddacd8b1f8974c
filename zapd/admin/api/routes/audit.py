"""``/v1/audit``"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import Response
from pydantic import AwareDatetime

from zapd.admin.api.deps import Caller, Context, StillThere, fingerprint_path
from zapd.admin.api.events import EVENTS, EventStream, events
from zapd.admin.api.patch import no_nul
from zapd.admin.api.schemas import AuditOut, Page
from zapd.admin.api.streaming import Streamed
from zapd.admin.services.audit import AuditFilter, AuditRecord

router = APIRouter(prefix="/audit", tags=["audit"])

Text = Annotated[str | None, Query(max_length=255)]


def _wanted(
    user: Text = None,
    key: Text = None,
    address: Text = None,
    domain: Text = None,
    event: Text = None,
    status: Annotated[int | None, Query(ge=0, le=999)] = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
) -> AuditFilter:
    return AuditFilter(
        user=no_nul(user),
        key=None if key is None else _fingerprint(key),
        address=no_nul(address),
        domain=no_nul(domain),
        status=status,
        event=no_nul(event),
        since=since,
        until=until,
    )


Wanted = Annotated[AuditFilter, Depends(_wanted)]


@router.get("")
async def search_audit(
    context: Context,
    caller: Caller,
    wanted: Wanted,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Page[AuditOut]:
    """What was recorded, newest first: the searchable copy, a moment behind the journal."""
    records, after = await context.audit.search(caller, wanted, cursor=no_nul(cursor), limit=limit)
    return Page(items=[_out(record) for record in records], next_cursor=after)


@router.get("/stream", response_class=EventStream, responses=EVENTS)
async def follow_audit(
    context: Context,
    caller: Caller,
    still: StillThere,
    wanted: Wanted,
    last_event_id: Annotated[str | None, Header(max_length=64)] = None,
) -> Response:
    """What is recorded from now on (or from ``since``, or from behind ``Last-Event-ID``), as server-sent events.

    Each record is one event; its data is what ``GET /v1/audit`` shows of it, without empty members. ``lost`` says
    why records may be missing or come twice; ``end``, with a problem's code, that nothing more comes.
    """
    follower = await context.audit.follow(caller, wanted, still, last=no_nul(last_event_id))
    return Streamed(
        events(follower.told()),
        media_type="text/event-stream",
        headers={"X-Accel-Buffering": "no"},
        close=follower.close,
        stopping=context.stopping,
    )


def _fingerprint(text: str) -> str:
    """As the journal writes it."""
    return "SHA256:" + fingerprint_path(text).replace("-", "+").replace("_", "/")


def _out(record: AuditRecord) -> AuditOut:
    values = {name: value for name, value in record.items() if name in AuditOut.model_fields}
    trail = values.get("trail")
    if isinstance(trail, (list, tuple)):
        values["trail"] = [dict(zip(("backend", "outcome", "milliseconds"), step, strict=True)) for step in trail]
    return AuditOut.model_validate(values)
