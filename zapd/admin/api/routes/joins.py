"""``/v1/joins``"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from zapd.admin.api.deps import Caller, Context, Paging
from zapd.admin.api.once import SecretOnceRoute
from zapd.admin.api.permits import JoinCreated, JoinIn, JoinOut
from zapd.admin.api.render import join_out
from zapd.admin.api.schemas import Page
from zapd.admin.services.joins import NewJoin
from zapd.store import rules

router = APIRouter(prefix="/joins", tags=["joins"], route_class=SecretOnceRoute)


@router.get("")
async def list_joins(context: Context, caller: Caller, page: Paging) -> Page[JoinOut]:
    """Join tokens, without the tokens; those that are spent, revoked or expired too."""
    found = await context.joins.list(caller, after=page.after, limit=page.limit)
    return Page(items=[join_out(record) for record in found.items], next_cursor=page.cursor(found.after))


@router.post("", status_code=201)
async def create_join(context: Context, caller: Caller, body: JoinIn) -> JoinCreated:
    """Make a join token; this answer is the only one that ever shows it."""
    record, token = await context.joins.create(
        caller,
        NewJoin(
            user=body.user,
            domains=body.domains,
            groups=body.groups,
            attributes=body.attributes,
            label=body.label,
            addresses=body.addresses,
            uses=body.uses,
            expires=body.expires,
            key_lifetime=body.key_lifetime,
            hints=body.hints,
        ),
    )
    return JoinCreated.model_validate(join_out(record).model_dump() | {"token": token})


@router.delete("/{join_id}", status_code=204)
async def revoke_join(context: Context, caller: Caller, join_id: Annotated[str, Path(max_length=64)]) -> None:
    """Make a join token worthless at once; keys that were had for it stay. It stays in the list, revoked."""
    await context.joins.revoke(caller, rules.check_name(join_id, "join token's id"))
