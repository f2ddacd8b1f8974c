"""``/v1/audit``"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import AwareDatetime

from zapd.admin.api.deps import Caller, Context, fingerprint_path
from zapd.admin.api.patch import no_nul
from zapd.admin.api.schemas import AuditOut, Page
from zapd.admin.services.audit import AuditFilter, AuditRecord

router = APIRouter(prefix="/audit", tags=["audit"])

Text = Annotated[str | None, Query(max_length=255)]


@router.get("")
async def search_audit(
    context: Context,
    caller: Caller,
    user: Text = None,
    key: Text = None,
    address: Text = None,
    domain: Text = None,
    event: Text = None,
    status: Annotated[int | None, Query(ge=0, le=999)] = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    cursor: Annotated[str | None, Query(max_length=512)] = None,
) -> Page[AuditOut]:
    """What was recorded, newest first: the searchable copy, a moment behind the journal."""
    wanted = AuditFilter(
        user=no_nul(user),
        key=None if key is None else _fingerprint(key),
        address=no_nul(address),
        domain=no_nul(domain),
        status=status,
        event=no_nul(event),
        since=since,
        until=until,
    )
    records, after = await context.audit.search(caller, wanted, cursor=no_nul(cursor), limit=limit)
    return Page(items=[_out(record) for record in records], next_cursor=after)


def _fingerprint(text: str) -> str:
    """As the journal writes it."""
    return "SHA256:" + fingerprint_path(text).replace("-", "+").replace("_", "/")


def _out(record: AuditRecord) -> AuditOut:
    values = {name: value for name, value in record.items() if name in AuditOut.model_fields}
    trail = values.get("trail")
    if isinstance(trail, (list, tuple)):
        values["trail"] = [dict(zip(("backend", "outcome", "milliseconds"), step, strict=True)) for step in trail]
    return AuditOut.model_validate(values)
