"""The shapes of ``/v1``: what goes in, what comes out.

Plain pydantic models and nothing else: no route, no service, no SQL. Unknown fields are errors. Times are
RFC 3339 with an offset and leave as UTC. Public keys are Z85 (RFC 32), fingerprints as OpenSSH writes them
(``SHA256:…``); ``id`` is the 43 characters that URL paths take. Names, domains and attributes get their
exact rules from `zapd.store.rules`; here are only kinds and sizes.
"""

from __future__ import annotations

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr

Item = TypeVar("Item")

Name = Annotated[str, Field(min_length=1, max_length=255)]
Text = Annotated[str, Field(max_length=1024)]
Domains = Annotated[list[Annotated[str, Field(max_length=255)]], Field(max_length=256)]
Groups = Annotated[list[Name], Field(max_length=256)]
Attributes = Annotated[dict[Annotated[str, Field(max_length=253)], Text], Field(max_length=64)]
PublicKey = Annotated[str, Field(max_length=128)]
"""Exactly 40 characters of Z85; longer text is let through to be told *what* is wrong with it."""
Addresses = Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=256)]

KeyState = Literal["pending", "active", "revoked"]
UserState = Literal["enabled", "disabled"]
AgentState = Literal["active", "revoked"]
BanSubject = Literal["address", "key", "user"]
Role = Literal["viewer", "operator", "admin"]
Mechanism = Literal["NULL", "PLAIN", "CURVE", "GSSAPI"]


class Shape(BaseModel):
    """What every body has in common: a field nobody knows is a mistake, not a comment."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Page(Shape, Generic[Item]):
    """Some of a list. A page may hold fewer than ``limit`` although there are more: follow ``next_cursor``."""

    items: list[Item]
    next_cursor: str | None = None
    """Give it back as ``?cursor=`` for what follows; null at the end."""


class FieldProblem(Shape):
    """One thing that is wrong with a request."""

    where: str
    """``body.expires``, ``query.limit``, …"""
    what: str


class Problem(Shape):
    """A problem document (RFC 9457), the one shape of every error."""

    type: str
    title: str
    status: int
    code: str
    """Stable; see the table of `zapd.admin.api.errors`."""
    detail: str = ""
    errors: list[FieldProblem] = []
    request: str = ""
    """The request's id, as ``X-Request-Id``, zapd's log and the record have it."""


# -- keys ----------------------------------------------------------------------------------------------------


class KeyIn(Shape):
    """``POST /v1/keys``: a CURVE public key and who holds it."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "public_key": "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID",
                    "user": "alice",
                    "domains": ["orders", "metrics.*"],
                    "groups": ["trading"],
                    "attributes": {"Desk": "7"},
                    "expires": "2027-01-01T00:00:00Z",
                }
            ]
        }
    )

    public_key: PublicKey
    user: Name
    domains: Domains | None = None
    """Where the key is granted. Left out: the configuration's only domain; with several that is an error."""
    groups: Groups = []
    attributes: Attributes = {}
    label: Text = ""
    not_before: AwareDatetime | None = None
    expires: AwareDatetime | None = None
    state: Literal["pending", "active"] = "active"


class KeyPatch(Shape):
    """``PATCH /v1/keys/{fingerprint}``: only what is named changes; null clears a time."""

    user: Name | None = None
    domains: Domains | None = None
    groups: Groups | None = None
    attributes: Attributes | None = None
    label: Text | None = None
    not_before: AwareDatetime | None = None
    expires: AwareDatetime | None = None


class ReasonIn(Shape):
    """``POST …/revoke`` and ``…/reject``: why, for the record."""

    reason: Text = ""


class RejectIn(ReasonIn):
    """``POST …/reject``: why, for the record."""

    public_key: PublicKey | None = None
    """The whole key: for a stranger that is not listed any more."""


class ApproveIn(Shape):
    """``POST …/approve``: what the key is given. What is left out of a registered key stays."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"user": "robot-7", "domains": ["orders"], "expires": "2027-01-01T00:00:00Z"}]
        }
    )

    user: Name | None = None
    """Who holds it; a stranger's key needs one."""
    domains: Domains | None = None
    """Left out: those that a stranger knocked at."""
    groups: Groups | None = None
    attributes: Attributes | None = None
    label: Text | None = None
    not_before: AwareDatetime | None = None
    expires: AwareDatetime | None = None
    public_key: PublicKey | None = None
    """The whole key: for a stranger that is not listed any more."""


class RotateIn(Shape):
    """``POST /v1/keys/{fingerprint}/rotate``: the key that takes this one's place."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"public_key": "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "overlap": 604800}]
        }
    )

    public_key: PublicKey
    overlap: Annotated[int, Field(ge=0, le=366 * 86400)] = 86400
    """Seconds for which both keys work. 0: the old one is revoked at once."""
    label: Text | None = None
    """Left out: the old key's."""
    expires: AwareDatetime | None = None
    """Of the new key. Left out: when the old one would have expired; null: never."""


class UsageOut(Shape):
    """The newest admission in the searchable copy of the journal, which is about a second behind."""

    last_used: AwareDatetime | None
    """null: not within the copy's reach (``[audit] search_retention``)."""
    domain: str = ""
    address: str = ""
    agent: str = ""


class SightingOut(Shape):
    """A stranger's key at the door of a domain that holds unknown keys for approval."""

    domain: str
    address: str
    """The last one it came from."""
    agent: str
    """The last that asked about it."""
    first_seen: AwareDatetime
    last_seen: AwareDatetime
    tries: int


class KeyOut(Shape):
    """One registered key, or a stranger's that waits: then ``user`` is empty and ``version`` 0. ``version`` is
    also the ``ETag``."""

    id: str
    fingerprint: str
    public_key: str
    user: str
    state: KeyState
    domains: list[str]
    """Those that the caller may see."""
    groups: list[str]
    attributes: dict[str, str]
    label: str
    not_before: AwareDatetime | None
    expires: AwareDatetime | None
    reason: str
    """Why it was revoked or rejected."""
    created: AwareDatetime
    updated: AwareDatetime
    version: int
    replaces: str | None = None
    """The ``id`` of the key that this one was rotated in for."""
    replaced_by: str | None = None
    """The ``id`` of the key that was rotated in for this one."""
    origin: str = ""
    """``join:ID`` of the join token it was had for, or ``signin:DOMAIN``; empty: an operator registered it."""
    usage: UsageOut | None = None
    """null: not asked for, or it cannot be told now."""
    sightings: list[SightingOut] = []
    """Of a stranger's key that waits: where it was seen."""


class RotatedOut(Shape):
    """Both keys of a rotation."""

    old: KeyOut
    new: KeyOut


class ImportItem(Shape):
    """What is said of one row of an import."""

    line: int
    """In a JSON array the number of the item."""
    action: Literal["add", "unchanged", "refuse"]
    name: str = ""
    """A key's fingerprint (43 characters), or a user's name."""
    user: str = ""
    source: str = ""
    what: str = ""
    """Why it is refused."""


class ImportOut(Shape):
    """How an import went, or would go."""

    dry_run: bool
    rows: int
    added: int
    unchanged: int
    refused: int
    items: list[ImportItem]
    """Of a dry run all rows; else those that were refused and left out."""


# -- users ---------------------------------------------------------------------------------------------------


class UserIn(Shape):
    """``POST /v1/users``: a PLAIN user of the SQL registry."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"name": "bob", "password": "correct horse", "domains": ["metrics.*"]}]}
    )

    name: Name
    password: SecretStr
    """1 to 255 octets of UTF-8 (RFC 27), no NUL."""
    domains: Domains | None = None
    """Left out: the configuration's only domain; with several that is an error."""
    groups: Groups = []
    attributes: Attributes = {}
    expires: AwareDatetime | None = None


class UserPatch(Shape):
    """``PATCH /v1/users/{name}``: only what is named changes; ``state`` disables and enables."""

    state: UserState | None = None
    domains: Domains | None = None
    groups: Groups | None = None
    attributes: Attributes | None = None
    expires: AwareDatetime | None = None


class PasswordIn(Shape):
    """``PUT /v1/users/{name}/password``."""

    password: SecretStr


class UserOut(Shape):
    """One user; never its password or hash."""

    name: str
    state: UserState
    domains: list[str]
    groups: list[str]
    attributes: dict[str, str]
    expires: AwareDatetime | None
    created: AwareDatetime
    updated: AwareDatetime
    version: int


# -- agents --------------------------------------------------------------------------------------------------


class AgentIn(Shape):
    """``POST /v1/agents``: enrols a bridge by the public half of a key pair that its owner made."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "edge-1",
                    "public_key": "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID",
                    "domains": ["orders"],
                }
            ]
        }
    )

    name: Name
    public_key: PublicKey
    domains: Domains | None = None
    """What it may ask about. Left out: the configuration's only domain; with several that is an error."""
    mechanisms: list[Mechanism] = ["NULL", "PLAIN", "CURVE"]
    """GSSAPI must be named: there the principal is the agent's own word."""
    addresses: Addresses = []
    """Networks (CIDR) it may connect from; empty is anywhere."""


class AgentRotateIn(Shape):
    """``POST /v1/agents/{name}/rotate``: the public half of the agent's new pair."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"public_key": "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "overlap": 3600}]
        }
    )

    public_key: PublicKey
    overlap: Annotated[int, Field(ge=0, le=30 * 86400)] = 3600
    """Seconds for which both keys work; then whoever came with the old one is cut off."""


class AgentOut(Shape):
    """One enrolled agent. ``version`` is also the ``ETag``."""

    name: str
    id: str
    fingerprint: str
    public_key: str
    state: AgentState
    domains: list[str]
    mechanisms: list[Mechanism]
    addresses: list[str]
    reason: str
    created: AwareDatetime
    updated: AwareDatetime
    version: int
    previous_fingerprint: str | None = None
    """Of the key that the agent had before its last rotation."""
    previous_until: AwareDatetime | None = None
    """Until when that one works as well."""


class EndpointOut(Shape):
    """A ZAP endpoint of this zapd, as an agent needs it."""

    address: str
    """``tcp://host:port`` or ``ipc://path``."""
    mechanism: Mechanism
    server_keys: list[str]
    """Z85; the accepted server public keys. Empty where the endpoint is not CURVE."""


class AgentEnrolled(AgentOut):
    """The answer to an enrolment: the agent, and where it may connect."""

    endpoints: list[EndpointOut]
