"""The shapes of bans, tokens and join tokens, as `zapd.admin.api.schemas` has those of keys, users and agents."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, ConfigDict, Field

from zapd.admin.api.schemas import Addresses, Attributes, Domains, Groups, Name, Role, Shape, Text


class BanIn(Shape):
    """``POST /v1/bans``: one of ``address``, ``key`` and ``user``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"address": "192.0.2.0/24", "reason": "guesses", "expires": "2027-01-01T00:00:00Z"}]
        }
    )

    address: Annotated[str, Field(max_length=64)] | None = None
    """An address or a network in CIDR form, ``ipc``, ``ipc:uid=N``, ``ipc:gid=N``."""
    key: Annotated[str, Field(max_length=64)] | None = None
    """A key's fingerprint, registered or not."""
    user: Name | None = None
    """A user's name: by password and with every key; without regard to case."""
    domains: Domains | None = None
    """Where it holds; ``*`` is everywhere. Left out: wherever the caller has a say."""
    reason: Text = ""
    expires: AwareDatetime | None = None
    """Answers are 300 until then; without an end they are 400."""


class BanOut(Shape):
    """One ban. ``version`` is also the ``ETag``."""

    id: str
    state: Literal["in_force", "over"]
    address: str | None
    key: str | None
    user: str | None
    domains: list[str]
    """Those that the caller may see."""
    reason: str
    expires: AwareDatetime | None
    created: AwareDatetime
    created_by: str
    """The name of the token that made it."""
    version: int


# -- tokens --------------------------------------------------------------------------------------------------


class TokenIn(Shape):
    """``POST /v1/tokens``."""

    name: Name
    role: Role
    domains: Domains = ["*"]
    """``*`` alone is every domain; else all that the token sees and changes lies in these."""
    expires: AwareDatetime | None = None


class TokenOut(Shape):
    """One admin token; never the token itself."""

    id: str
    name: str
    role: Role
    domains: list[str]
    expires: AwareDatetime | None
    created: AwareDatetime
    revoked: AwareDatetime | None
    last_used: AwareDatetime | None
    """To the minute."""


class TokenCreated(TokenOut):
    """The only answer that ever holds a token."""

    token: str


# -- join tokens ---------------------------------------------------------------------------------------------


class JoinIn(Shape):
    """``POST /v1/joins``: a token that may be exchanged for a registered key at ``/v1/enroll``."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "user": "robot",
                    "domains": ["orders"],
                    "groups": ["fleet"],
                    "uses": 20,
                    "expires": "2027-01-01T00:00:00Z",
                    "addresses": ["10.0.0.0/8"],
                    "hints": {"server_key": "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"},
                }
            ]
        }
    )

    user: Name | None = None
    """Who holds the keys. Left out: ``join:`` and the token's id."""
    domains: Domains | None = None
    """Where they are granted. Left out: the configuration's only domain; with several that is an error."""
    groups: Groups = []
    attributes: Attributes = {}
    label: Text = ""
    """Of the keys, unless the exchange names one."""
    addresses: Addresses = []
    """Networks (CIDR) from which it may be exchanged; empty is anywhere."""
    uses: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    """How many keys it is good for."""
    expires: AwareDatetime | None = None
    """Of the token. Left out: a day from now; at most a year."""
    key_lifetime: Annotated[int | None, Field(ge=60, le=100 * 366 * 86400)] = None
    """Seconds from an exchange until its key expires. Left out: never."""
    hints: Attributes = {}
    """What each exchange is told besides, such as an application's address and server key."""


class JoinOut(Shape):
    """One join token; never the token itself."""

    id: str
    user: str
    domains: list[str]
    """Those that the caller may see."""
    groups: list[str]
    attributes: dict[str, str]
    label: str
    addresses: list[str]
    uses: int
    used: int
    expires: AwareDatetime
    key_lifetime: int | None
    hints: dict[str, str]
    created: AwareDatetime
    created_by: str
    """The admin token that made it."""
    revoked: AwareDatetime | None
    last_used: AwareDatetime | None


class JoinCreated(JoinOut):
    """The only answer that ever holds a join token."""

    token: str
