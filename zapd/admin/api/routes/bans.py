"""``/v1/bans``"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from zapd.admin.api.deps import Caller, Context, Paging, Version
from zapd.admin.api.once import OnceRoute
from zapd.admin.api.patch import no_nul
from zapd.admin.api.permits import BanIn, BanOut
from zapd.admin.api.render import ban_out, etag
from zapd.admin.api.schemas import BanSubject, Page
from zapd.admin.services.bans import NewBan
from zapd.errors import InvalidInput
from zapd.store import bans as store
from zapd.store import rules

router = APIRouter(prefix="/bans", tags=["bans"], route_class=OnceRoute)

BanId = Annotated[str, Path(min_length=1, max_length=64)]


@router.get("")
async def list_bans(
    context: Context,
    caller: Caller,
    page: Paging,
    kind: BanSubject | None = None,
    domain: Annotated[str | None, Query(max_length=255)] = None,
) -> Page[BanOut]:
    """Bans, the oldest first. One that is over stays in the list for a week."""
    found = await context.bans.list(
        caller,
        kind=None if kind is None else store.BanKind(kind),
        domain=no_nul(domain),
        after=page.after,
        limit=page.limit,
    )
    moment = context.road.clock()
    return Page(items=[ban_out(record, moment) for record in found.items], next_cursor=page.cursor(found.after))


@router.post("", status_code=201)
async def add_ban(context: Context, caller: Caller, body: BanIn, response: Response) -> BanOut:
    """Ban an address, a key or a user. In force everywhere when this is answered."""
    record = await context.bans.add(caller, _asked(body))
    response.headers["ETag"] = etag(record.version)
    return ban_out(record, context.road.clock())


@router.get("/{ban_id}")
async def show_ban(context: Context, caller: Caller, ban_id: BanId, response: Response) -> BanOut:
    """One ban."""
    record = await context.bans.show(caller, rules.check_name(ban_id, "ban's id"))
    response.headers["ETag"] = etag(record.version)
    return ban_out(record, context.road.clock())


@router.delete("/{ban_id}", status_code=204)
async def remove_ban(context: Context, caller: Caller, ban_id: BanId, version: Version) -> None:
    """Take a ban back."""
    await context.bans.remove(caller, rules.check_name(ban_id, "ban's id"), version=version)


def _asked(body: BanIn) -> NewBan:
    given = [
        (kind, subject)
        for kind, subject in (
            (store.BanKind.ADDRESS, body.address),
            (store.BanKind.KEY, body.key),
            (store.BanKind.USER, body.user),
        )
        if subject is not None
    ]
    if len(given) != 1:
        raise InvalidInput("Say one of address, key and user.")
    ((kind, subject),) = given
    return NewBan(kind, subject, body.domains, body.reason, body.expires)
