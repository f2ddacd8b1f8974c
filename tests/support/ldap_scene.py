"""An ldap backend before a real slapd, asked one question or several."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from support.slapd import SERVICE, SERVICE_PASSWORD, SUFFIX, Slapd
from zapd_backends.ldap import LdapBackend

from zapd.auth.backend import BackendContext, Question, Verdict

PEOPLE_BASE = f"ou=people,{SUFFIX}"
GROUPS_BASE = f"ou=groups,{SUFFIX}"
PATIENCE = 20.0
"""Seconds that a question may take where nothing is to time out."""


def ldap_settings(server: Slapd | None = None, **more: object) -> dict[str, object]:
    """Search as the service, bind as the user. A value of None takes a setting away."""
    settings: dict[str, object] = {
        "base": PEOPLE_BASE,
        "bind_dn": SERVICE,
        "bind_password": SERVICE_PASSWORD,
        "key_attribute": "zmqCurvePublicKey",
    }
    if server is not None:
        settings["url"] = server.url
    return {name: value for name, value in (settings | more).items() if value is not None}


def make_ldap(settings: dict[str, object], deadline: float = PATIENCE) -> LdapBackend:
    return LdapBackend.from_settings("staff", settings, BackendContext(Path("/"), None, deadline=deadline))


@asynccontextmanager
async def ldap_backend(settings: dict[str, object], deadline: float = PATIENCE) -> AsyncIterator[LdapBackend]:
    """A started backend."""
    backend = make_ldap(settings, deadline)
    try:
        await backend.start()
        yield backend
    finally:
        await backend.aclose()


async def say(server: Slapd, question: Question, **more: object) -> Verdict:
    """What a backend made for this question says."""
    async with ldap_backend(ldap_settings(server, **more)) as backend:
        return await backend.check(question)
