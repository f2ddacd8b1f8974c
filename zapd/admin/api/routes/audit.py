"""``/v1/audit``"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Header, Query
from fastapi.responses import Response
from pydantic import AwareDatetime

from zapd.admin.api.deps import Caller, Context, Paging, StillThere, fingerprint_path
from zapd.admin.api.events import EVENTS, EventStream, events
from zapd.admin.api.exports import EXPORTED, Records, VerifyOut
from zapd.admin.api.patch import no_nul
from zapd.admin.api.schemas import Page
from zapd.admin.api.streaming import Streamed
from zapd.admin.api.views import AuditOut
from zapd.admin.services.audit import AuditFilter, AuditRecord
from zapd.zmtp.keys import fingerprint_of

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
    page: Paging,
) -> Page[AuditOut]:
    """What was recorded, newest first: the searchable copy, a moment behind the journal."""
    records, after = await context.audit.search(caller, wanted, cursor=page.after or None, limit=page.limit)
    return Page(items=[_out(record) for record in records], next_cursor=page.cursor(after))


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


@router.get("/export", response_class=Records, responses=EXPORTED)
async def export_audit(
    context: Context,
    caller: Caller,
    still: StillThere,
    wanted: Wanted,
    format: Literal["jsonl", "csv"] = "jsonl",
    instance: Annotated[str, Query(pattern="^([0-9a-f]{16})?$")] = "",
) -> Response:
    """The records of this zapd's own journals up to now, as they are read from its disk.

    JSONL without filters (but ``since``, ``until``, ``instance``) is a whole range that `zapd audit verify` checks
    offline. With filters, or for a token that is limited to domains, it is a selection and says so in its first
    line. CSV is for spreadsheets: no cell is a formula. An answer that is cut off was not all.
    """
    found = await context.audit.export(caller, wanted, still, form=format, instance=instance)
    return Streamed(
        found.pieces(),
        media_type="text/csv; charset=utf-8" if format == "csv" else "application/jsonl",
        headers={
            "Content-Disposition": f'attachment; filename="zapd-audit.{format}"',
            "X-Zapd-Journal-Octets": str(found.octets),
        },
        close=found.close,
    )


@router.post("/verify")
async def verify_audit(context: Context, caller: Caller) -> VerifyOut:
    """Check this zapd's own journals, as ``zapd audit verify`` does: about six seconds for a million records.

    Says 200 whatever it finds; look at ``good``. 409 while another verification is under way.
    """
    return VerifyOut.model_validate(await context.audit.verify(caller))


def _fingerprint(text: str) -> str:
    """As the journal writes it."""
    return fingerprint_of(fingerprint_path(text))


def _out(record: AuditRecord) -> AuditOut:
    values = {name: value for name, value in record.items() if name in AuditOut.model_fields}
    trail = values.get("trail")
    if isinstance(trail, (list, tuple)):
        values["trail"] = [dict(zip(("backend", "outcome", "milliseconds"), step, strict=True)) for step in trail]
    return AuditOut.model_validate(values)
