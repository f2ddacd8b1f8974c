"""The app of the listener where keys are had: ``/v1/enroll`` and ``/v1/signin``, and nothing else.

The same bounds, headers, ids and problems as the admin API's; no token of that one is worth anything here, and no
page says what there is. Whose request it is goes by its address, so one that is not known is turned away.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

from fastapi import APIRouter, FastAPI, Request, Response
from pydantic import AwareDatetime, ConfigDict, Field, SecretStr

from zapd import __version__
from zapd.admin.api import errors
from zapd.admin.api.guards import Guards
from zapd.admin.api.numbering import PREFIX, Numbering
from zapd.admin.api.openapi import document
from zapd.admin.api.schemas import Name, PublicKey, Shape, Text
from zapd.admin.services.enrolling import Enrolled, EnrolService, Exchange
from zapd.admin.services.signing_in import SignIn, SignInService
from zapd.errors import Unavailable
from zapd.zmtp.keys import decode_public_key, encode_key, fingerprint

MAX_BODY: Final = 16 * 1024
"""Octets in a request."""

_STATUSES: Final = (400, 403, 405, 408, 409, 413, 422, 429, 500, 503)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class EnrollContext:
    """The services behind the routes."""

    enrol: EnrolService
    sign_in: SignInService
    proxies: Sequence[Network] = ()
    """Whose word about addresses is taken; nobody else is there."""


class EnrollIn(Shape):
    """``POST /v1/enroll``: a join token, and the public half of a key pair that was made where it will be used."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "token": "zapdj_xTbOaU3S5q0LeEnFlJtqJ4iGXyx0Z1nXlXkQm2yq4Ws",
                    "public_key": "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID",
                    "label": "robot 7",
                }
            ]
        }
    )

    token: Annotated[SecretStr, Field(min_length=1, max_length=256)]
    public_key: PublicKey
    label: Text | None = None
    """Left out: as the join token has it."""


class SignInIn(Shape):
    """``POST /v1/signin``: who somebody is, and the public half of a key pair that shall be theirs for a while."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user": "alice",
                    "password": "correct horse",
                    "public_key": "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID",
                }
            ]
        }
    )

    user: Name
    password: Annotated[SecretStr, Field(min_length=1, max_length=255)]
    public_key: PublicKey
    domain: Annotated[str | None, Field(max_length=255)] = None
    """Left out: the only one there is to sign in to."""
    label: Text | None = None


class EnrolledOut(Shape):
    """A registered key, as its holder needs to know it."""

    fingerprint: str
    public_key: str
    user: str
    """The user id that applications see."""
    domains: list[str]
    groups: list[str]
    attributes: dict[str, str]
    label: str
    expires: AwareDatetime | None
    """Until then it is good, unless an operator revokes it; null: no end."""
    hints: dict[str, str]
    """What whoever made the join token, or the configuration, says besides: an application's address, its key."""


def create_enroll_app(context: EnrollContext) -> FastAPI:
    """The app over these services."""
    app = FastAPI(
        title="zapd, where keys are had",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    errors.install(app)
    app.add_middleware(Guards, max_body=MAX_BODY)
    app.add_middleware(Numbering)
    responses: dict[int | str, dict[str, object]] = {status: errors.RESPONSES[status] for status in _STATUSES}
    app.include_router(_routes(context), prefix=PREFIX, responses=responses)
    app.openapi = lambda: document(app, secured=False)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _routes(context: EnrollContext) -> APIRouter:
    router = APIRouter()

    @router.post("/enroll", status_code=201, responses={200: {"description": "The same exchange as before"}})
    async def enroll(request: Request, body: EnrollIn, response: Response) -> EnrolledOut:
        """Exchange a join token for a registered key. The same again, with the same key, spends nothing (200)."""
        public_key = decode_public_key(body.public_key)
        done = await context.enrol.exchange(
            Exchange(body.token.get_secret_value(), public_key, body.label, _address(request, context.proxies))
        )
        return _out(done, response)

    @router.post("/signin", status_code=201, responses={200: {"description": "The key lives longer now"}})
    async def sign_in(request: Request, body: SignInIn, response: Response) -> EnrolledOut:
        """Sign in for a key with a name and a password. Again with the same key lengthens its life (200)."""
        public_key = decode_public_key(body.public_key)
        password = body.password.get_secret_value().encode("utf-8", "surrogatepass")
        address = _address(request, context.proxies)
        done = await context.sign_in.sign_in(
            SignIn(body.user, password, public_key, body.domain, body.label, address)
        )
        return _out(done, response)

    return router


def _out(done: Enrolled, response: Response) -> EnrolledOut:
    key = done.key
    if not done.new:
        response.status_code = 200
    return EnrolledOut(
        fingerprint=fingerprint(key.public_key),
        public_key=encode_key(key.public_key),
        user=key.user,
        domains=list(key.domains),
        groups=list(key.groups),
        attributes=dict(key.attributes),
        label=key.label,
        expires=key.expires,
        hints=dict(done.hints),
    )


def _address(request: Request, proxies: Sequence[Network]) -> str:
    """Where a request comes from, IPv4 within IPv6 as IPv4. Raises `Unavailable` where a proxy did not say: its
    own address is nobody's."""
    try:
        found = ipaddress.ip_address(request.client.host if request.client is not None else "")
    except ValueError:
        raise Unavailable("It is not known where this request comes from.") from None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    if any(found in network for network in proxies):
        raise Unavailable("The proxy in front does not say where this request comes from (X-Forwarded-For).")
    return str(found)
