"""``/v1/domains`` and ``/v1/backends``"""

from __future__ import annotations

from dataclasses import asdict

from fastapi import APIRouter

from zapd.admin.api.deps import Caller, Context
from zapd.admin.api.schemas import Page
from zapd.admin.api.views import BackendOut, DomainOut

router = APIRouter(tags=["configuration"])


@router.get("/domains")
async def list_domains(context: Context, caller: Caller) -> Page[DomainOut]:
    """The domains of the configuration."""
    found = await context.domains.list(caller)
    return Page(items=[DomainOut.model_validate(asdict(domain)) for domain in found])


@router.get("/backends")
async def list_backends(context: Context, caller: Caller) -> Page[BackendOut]:
    """The backends of the configuration, with their health and why one is disabled."""
    found = await context.backends.list(caller)
    return Page(items=[BackendOut.model_validate(asdict(backend)) for backend in found])
