"""Which methods a path takes (RFC 9110, section 10.2.1): all of them, though each has a route of its own."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.routing import compile_path


def note_methods(app: FastAPI, prefix: str, routers: Iterable[APIRouter]) -> None:
    """Keep for `methods_of` what these routers take."""
    routes = [route for router in routers for route in router.routes if isinstance(route, APIRoute)]
    app.state.methods = [(compile_path(prefix + route.path)[0], route.methods) for route in routes]


def methods_of(app: FastAPI, path: str) -> list[str]:
    """The methods of a path, sorted; none where that is not known."""
    known = getattr(app.state, "methods", ())
    return sorted({method for form, methods in known if form.match(path) for method in methods})
