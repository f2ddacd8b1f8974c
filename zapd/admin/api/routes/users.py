"""``/v1/users``"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from zapd.admin.api.deps import Caller, Context, Paging, Version
from zapd.admin.api.once import OnceRoute
from zapd.admin.api.patch import named, no_nul
from zapd.admin.api.render import etag, user_out
from zapd.admin.api.schemas import Page, PasswordIn, UserIn, UserOut, UserPatch, UserState
from zapd.admin.services.users import NewUser, UserChange
from zapd.store import rules
from zapd.store import users as store

router = APIRouter(prefix="/users", tags=["users"], route_class=OnceRoute)

UserName = Annotated[str, Path(min_length=1, max_length=255)]
"""May hold slashes, so the routes take the rest of the path."""


@router.get("")
async def list_users(
    context: Context,
    caller: Caller,
    page: Paging,
    state: UserState | None = None,
    domain: Annotated[str | None, Query(max_length=255)] = None,
) -> Page[UserOut]:
    """PLAIN users, in the order of their names."""
    found = await context.users.list(
        caller,
        state=None if state is None else store.UserState(state),
        domain=no_nul(domain),
        after=page.after,
        limit=page.limit,
    )
    return Page(items=[user_out(record) for record in found.items], next_cursor=page.cursor(found.after))


@router.post("", status_code=201)
async def add_user(context: Context, caller: Caller, body: UserIn, response: Response) -> UserOut:
    """Register a user."""
    record = await context.users.add(
        caller,
        NewUser(
            name=body.name,
            password=body.password.get_secret_value().encode("utf-8", "surrogatepass"),
            domains=body.domains,
            groups=body.groups,
            attributes=body.attributes,
            expires=body.expires,
        ),
    )
    response.headers["ETag"] = etag(record.version)
    return user_out(record)


@router.put("/{name:path}/password")
async def set_password(
    context: Context, caller: Caller, name: UserName, body: PasswordIn, version: Version, response: Response
) -> UserOut:
    """Give a user a new password."""
    password = body.password.get_secret_value().encode("utf-8", "surrogatepass")
    record = await context.users.set_password(caller, rules.check_name(name), password, version=version)
    response.headers["ETag"] = etag(record.version)
    return user_out(record)


@router.get("/{name:path}")
async def show_user(context: Context, caller: Caller, name: UserName, response: Response) -> UserOut:
    """One user."""
    record = await context.users.show(caller, rules.check_name(name))
    response.headers["ETag"] = etag(record.version)
    return user_out(record)


@router.patch("/{name:path}")
async def change_user(
    context: Context, caller: Caller, name: UserName, body: UserPatch, version: Version, response: Response
) -> UserOut:
    """Change what is said of a user; ``state`` disables and enables."""
    values = named(body, {"expires"})
    if body.state is not None:
        values["state"] = store.UserState(body.state)
    change = UserChange(**values)  # type: ignore[typeddict-item]  # UserPatch's names and types
    record = await context.users.change(caller, rules.check_name(name), change, version=version)
    response.headers["ETag"] = etag(record.version)
    return user_out(record)


@router.delete("/{name:path}", status_code=204)
async def remove_user(context: Context, caller: Caller, name: UserName, version: Version) -> None:
    """Forget a user."""
    await context.users.remove(caller, rules.check_name(name), version=version)
