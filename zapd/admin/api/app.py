"""The FastAPI skin over the services: routes, errors, guards, and the process's own pages.

No CORS: no page of another origin has business here. No interactive documentation either, since it would load
code from elsewhere; ``/openapi.json`` is there for tools.
"""

from __future__ import annotations

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, Response

from zapd import __version__
from zapd.admin.api import errors
from zapd.admin.api.context import AdminContext
from zapd.admin.api.guards import Guards
from zapd.admin.api.methods import note_methods
from zapd.admin.api.numbering import PREFIX, Numbering
from zapd.admin.api.openapi import document
from zapd.admin.api.routes import (
    agents,
    audit,
    bans,
    explain,
    imports,
    joins,
    keys,
    tokens,
    topology,
    users,
)

_ROUTERS = (
    imports.router,
    keys.router,
    users.router,
    agents.router,
    topology.router,
    tokens.router,
    joins.router,
    bans.router,
    audit.router,
    explain.router,
)


def create_app(context: AdminContext) -> FastAPI:
    """The admin API over these services."""
    app = FastAPI(
        title="zapd",
        version=__version__,
        summary="Who may speak in a ZeroMQ fleet: keys, users, agents, and the record.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.context = context
    errors.install(app)
    app.add_middleware(Guards)
    app.add_middleware(Numbering, trace=context.trace)
    for router in _ROUTERS:
        app.include_router(router, prefix=PREFIX, responses=errors.RESPONSES)
    note_methods(app, PREFIX, _ROUTERS)
    app.include_router(_process_pages(context))
    app.openapi = lambda: document(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _process_pages(context: AdminContext) -> APIRouter:
    """What supervisors and Prometheus ask; open to whoever reaches the port, and without names or keys."""
    router = APIRouter(include_in_schema=False)

    @router.get("/healthz")
    async def healthz() -> Response:
        """The process runs and its loop turns."""
        return JSONResponse({"status": "ok"})

    @router.get("/readyz")
    async def readyz() -> Response:
        """Whether decisions are made; 503 names what is missing."""
        found = context.ready()
        return JSONResponse(
            {"status": "ready" if found.ready else "not ready", "parts": dict(found.parts)},
            200 if found.ready else 503,
        )

    @router.get("/metrics")
    async def metrics(_request: Request) -> Response:
        """Prometheus text."""
        body, content_type = context.metrics()
        return Response(body, headers={"Content-Type": content_type})

    return router
