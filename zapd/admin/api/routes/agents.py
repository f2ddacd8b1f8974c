"""``/v1/agents``"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from zapd.admin.api.deps import Caller, Context, Paging, Version
from zapd.admin.api.once import OnceRoute
from zapd.admin.api.render import agent_out, etag
from zapd.admin.api.schemas import AgentEnrolled, AgentIn, AgentOut, AgentRotateIn, Page
from zapd.admin.services.agents import NewAgent
from zapd.store import rules
from zapd.store.agents import AgentRecord
from zapd.zmtp.keys import decode_public_key, encode_key

router = APIRouter(prefix="/agents", tags=["agents"], route_class=OnceRoute)

AgentName = Annotated[str, Path(min_length=1, max_length=255)]


@router.get("")
async def list_agents(context: Context, caller: Caller, page: Paging) -> Page[AgentOut]:
    """Enrolled agents, in the order of their names."""
    found = await context.agents.list(caller, after=page.after, limit=page.limit)
    return Page(items=[agent_out(record) for record in found.items], next_cursor=page.cursor(found.after))


@router.post("", status_code=201)
async def enroll_agent(context: Context, caller: Caller, body: AgentIn, response: Response) -> AgentEnrolled:
    """Enrol a bridge; the answer says where it may connect and which server keys to accept there."""
    record = await context.agents.enroll(
        caller,
        NewAgent(
            name=body.name,
            public_key=decode_public_key(body.public_key),
            domains=body.domains,
            mechanisms=body.mechanisms,
            addresses=body.addresses,
        ),
    )
    response.headers["ETag"] = etag(record.version)
    return _with_endpoints(context, record)


@router.get("/{name:path}")
async def show_agent(context: Context, caller: Caller, name: AgentName, response: Response) -> AgentOut:
    """One agent."""
    record = await context.agents.show(caller, rules.check_name(name))
    response.headers["ETag"] = etag(record.version)
    return agent_out(record)


@router.post("/{name:path}/rotate")
async def rotate_agent(
    context: Context, caller: Caller, name: AgentName, body: AgentRotateIn, version: Version, response: Response
) -> AgentEnrolled:
    """Give an agent a new key; the old one works as well until the overlap is over."""
    record = await context.agents.rotate(
        caller,
        rules.check_name(name),
        decode_public_key(body.public_key),
        timedelta(seconds=body.overlap),
        version=version,
    )
    response.headers["ETag"] = etag(record.version)
    return _with_endpoints(context, record)


@router.delete("/{name:path}", status_code=204)
async def revoke_agent(
    context: Context,
    caller: Caller,
    name: AgentName,
    version: Version,
    reason: Annotated[str, Query(max_length=1024, description="Why, for the record.")] = "",
) -> None:
    """Shut an agent out. It stays in the list, revoked."""
    await context.agents.revoke(caller, rules.check_name(name), reason, version=version)


def _with_endpoints(context: Context, record: AgentRecord) -> AgentEnrolled:
    endpoints = [
        {
            "address": endpoint.address,
            "mechanism": endpoint.mechanism,
            "server_keys": [encode_key(key) for key in endpoint.server_keys],
        }
        for endpoint in context.endpoints()
    ]
    return AgentEnrolled.model_validate(agent_out(record).model_dump() | {"endpoints": endpoints})
