"""``/v1/tokens``"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from zapd.admin.api.deps import Caller, Context, Paging
from zapd.admin.api.once import SecretOnceRoute
from zapd.admin.api.permits import TokenCreated, TokenIn, TokenOut
from zapd.admin.api.render import token_out
from zapd.admin.api.schemas import Page
from zapd.admin.roles import Role
from zapd.store import rules

router = APIRouter(prefix="/tokens", tags=["tokens"], route_class=SecretOnceRoute)


@router.get("")
async def list_tokens(context: Context, caller: Caller, page: Paging) -> Page[TokenOut]:
    """Admin tokens, without the tokens."""
    found = await context.tokens.list(caller, after=page.after, limit=page.limit)
    return Page(items=[token_out(record) for record in found.items], next_cursor=page.cursor(found.after))


@router.post("", status_code=201)
async def create_token(context: Context, caller: Caller, body: TokenIn) -> TokenCreated:
    """Make a token; this answer is the only one that ever shows it."""
    record, token = await context.tokens.create(
        caller, body.name, Role(body.role), domains=body.domains, expires=body.expires
    )
    return TokenCreated.model_validate(token_out(record).model_dump() | {"token": token})


@router.delete("/{token_id}", status_code=204)
async def revoke_token(context: Context, caller: Caller, token_id: Annotated[str, Path(max_length=64)]) -> None:
    """Make a token worthless at once. It stays in the list, revoked."""
    await context.tokens.revoke(caller, rules.check_name(token_id, "token's id"))
