"""Sign-in of people, as the configuration has it; its libraries are loaded only then."""

from __future__ import annotations

from typing import Protocol

from zapd.admin.api.context import Authenticating
from zapd.admin.roles import Role
from zapd.config.sections import OidcSection


class SignInOfPeople(Authenticating, Protocol):
    """See `zapd.admin.services.people.People`."""

    @property
    def problem(self) -> str: ...

    async def start(self) -> None: ...

    async def aclose(self) -> None: ...


def people_of(section: OidcSection) -> SignInOfPeople:
    """Raises `ModuleNotFoundError` where ``zapd[oidc]`` is not installed."""
    from zapd.admin.services.people import People, Terms

    return People(
        Terms(
            issuer=section.issuer,
            audience=section.audience,
            algorithms=section.algorithms,
            roles={value: Role(role) for value, role in section.roles.items()},
            role_claim=section.role_claim,
            domains_claim=section.domains_claim,
            name_claim=section.name_claim,
            leeway=section.leeway,
        ),
        refresh=section.refresh,
        max_age=section.max_age,
        tls_ca=section.tls_ca,
    )
