"""``/v1/keys``"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Query, Response

from zapd.admin.api.deps import Caller, Context, Paging, Version, fingerprint_path
from zapd.admin.api.once import OnceRoute
from zapd.admin.api.patch import named, no_nul
from zapd.admin.api.render import etag, key_out
from zapd.admin.api.schemas import (
    ApproveIn,
    KeyIn,
    KeyOut,
    KeyPatch,
    KeyState,
    Page,
    ReasonIn,
    RejectIn,
    RotatedOut,
    RotateIn,
)
from zapd.admin.services.approval import Approval
from zapd.admin.services.keys import KeyChange, NewKey
from zapd.admin.services.rotation import Rotation
from zapd.admin.services.usage import UsageService
from zapd.errors import InvalidInput, NotFound
from zapd.store import keys as store
from zapd.zmtp.keys import decode_public_key
from zapd.zmtp.keys import fingerprint as mark_of

router = APIRouter(prefix="/keys", tags=["keys"], route_class=OnceRoute)

_MAY_BE_NULL = frozenset({"not_before", "expires"})


@router.get("")
async def list_keys(
    context: Context,
    caller: Caller,
    page: Paging,
    user: Annotated[str | None, Query(max_length=255)] = None,
    state: KeyState | None = None,
    domain: Annotated[str | None, Query(max_length=255)] = None,
    usage: Annotated[bool, Query(description="Also say when each was last let in.")] = False,
    address: Annotated[
        str | None,
        Query(max_length=64, description="With `state=pending`: seen from there; a CIDR network, `ipc`."),
    ] = None,
    agent: Annotated[
        str | None, Query(max_length=255, description="With `state=pending`: seen by this agent.")
    ] = None,
) -> Page[KeyOut]:
    """Registered keys, in the order of their fingerprints; with `state=pending` also those of strangers that wait
    for approval."""
    if state == "pending":
        waiting = await context.approvals.list(
            caller,
            user=no_nul(user),
            domain=no_nul(domain),
            address=no_nul(address),
            agent=no_nul(agent),
            after=page.after,
            limit=page.limit,
        )
        rows = [key_out(each.record, sightings=each.sightings) for each in waiting.items]
        return Page(items=rows, next_cursor=page.cursor(waiting.after))
    if address is not None or agent is not None:
        raise InvalidInput("Only keys that wait were seen by somebody somewhere: add state=pending.")
    found = await context.keys.list(
        caller,
        user=no_nul(user),
        state=None if state is None else store.KeyState(state),
        domain=no_nul(domain),
        after=page.after,
        limit=page.limit,
    )
    items = await _with_usage(context, caller, found.items) if usage else [key_out(each) for each in found.items]
    return Page(items=items, next_cursor=page.cursor(found.after))


@router.post("", status_code=201)
async def add_key(context: Context, caller: Caller, body: KeyIn, response: Response) -> KeyOut:
    """Register a public key."""
    record = await context.keys.add(
        caller,
        NewKey(
            public_key=decode_public_key(body.public_key),
            user=body.user,
            domains=body.domains,
            groups=body.groups,
            attributes=body.attributes,
            label=body.label,
            not_before=body.not_before,
            expires=body.expires,
            pending=body.state == "pending",
        ),
    )
    response.headers["Location"] = f"/v1/keys/{record.fingerprint}"
    response.headers["ETag"] = etag(record.version)
    return key_out(record)


@router.get("/{fingerprint}")
async def show_key(context: Context, caller: Caller, fingerprint: str, response: Response) -> KeyOut:
    """One key, and when it was last let in; of a stranger's that waits, where it was seen."""
    try:
        record = await context.keys.show(caller, fingerprint_path(fingerprint))
    except NotFound:
        waiting = await context.approvals.show(caller, fingerprint_path(fingerprint))
        response.headers["ETag"] = etag(waiting.record.version)
        return key_out(waiting.record, sightings=waiting.sightings)
    response.headers["ETag"] = etag(record.version)
    (shown,) = await _with_usage(context, caller, [record])
    return shown


@router.patch("/{fingerprint}")
async def change_key(
    context: Context, caller: Caller, fingerprint: str, body: KeyPatch, version: Version, response: Response
) -> KeyOut:
    """Change what is said of a key."""
    change = KeyChange(**named(body, _MAY_BE_NULL))  # type: ignore[typeddict-item]  # KeyPatch's names and types
    record = await context.keys.change(caller, fingerprint_path(fingerprint), change, version=version)
    response.headers["ETag"] = etag(record.version)
    return key_out(record)


@router.post("/{fingerprint}/approve")
async def approve_key(
    context: Context,
    caller: Caller,
    fingerprint: str,
    version: Version,
    response: Response,
    body: ApproveIn | None = None,
) -> KeyOut:
    """Let a key that waits in, from its next try on."""
    given = named(body or ApproveIn(), _MAY_BE_NULL)
    key = given.pop("public_key", None)
    approval = Approval(
        KeyChange(**given),  # type: ignore[typeddict-item]  # ApproveIn's names and types
        None if key is None else decode_public_key(str(key)),
    )
    record = await context.approvals.approve(caller, fingerprint_path(fingerprint), approval, version=version)
    response.headers["ETag"] = etag(record.version)
    return key_out(record)


@router.post("/{fingerprint}/reject")
async def reject_key(
    context: Context,
    caller: Caller,
    fingerprint: str,
    version: Version,
    response: Response,
    body: RejectIn | None = None,
) -> KeyOut:
    """Turn a key that waits away for good."""
    body = body or RejectIn()
    record = await context.approvals.reject(
        caller,
        fingerprint_path(fingerprint),
        body.reason,
        public_key=None if body.public_key is None else decode_public_key(body.public_key),
        version=version,
    )
    response.headers["ETag"] = etag(record.version)
    return key_out(record)


@router.post("/{fingerprint}/revoke")
async def revoke_key(
    context: Context,
    caller: Caller,
    fingerprint: str,
    version: Version,
    response: Response,
    body: ReasonIn | None = None,
) -> KeyOut:
    """Shut a key out for good."""
    reason = "" if body is None else body.reason
    record = await context.keys.revoke(caller, fingerprint_path(fingerprint), reason, version=version)
    response.headers["ETag"] = etag(record.version)
    return key_out(record)


@router.post("/{fingerprint}/rotate", status_code=201)
async def rotate_key(
    context: Context, caller: Caller, fingerprint: str, body: RotateIn, version: Version, response: Response
) -> RotatedOut:
    """Register the key that takes this one's place; both work until the overlap is over."""
    rotation = Rotation(
        public_key=decode_public_key(body.public_key),
        overlap=timedelta(seconds=body.overlap),
        label=body.label,
        keep_expiry="expires" not in body.model_fields_set,
        expires=body.expires,
    )
    done = await context.keys.rotate(caller, fingerprint_path(fingerprint), rotation, version=version)
    response.headers["Location"] = f"/v1/keys/{done.new.fingerprint}"
    response.headers["ETag"] = etag(done.new.version)
    old, new = await _with_usage(context, caller, [done.old, done.new])
    return RotatedOut(old=old, new=new)


async def _with_usage(context: Context, caller: Caller, records: Sequence[store.KeyRecord]) -> list[KeyOut]:
    marks = [mark_of(record.public_key) for record in records]
    uses = await UsageService(context.audit).last_uses(caller, marks)
    return [key_out(record, uses.get(mark)) for record, mark in zip(records, marks, strict=True)]
