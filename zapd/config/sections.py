"""What may stand in ``zapd.toml``: every table, every setting, its default and what it means.

Plain typed data and nothing else; the string beneath a setting is its documentation, here and in
docs/configuration.md. The tables ``[backend.NAME]`` and ``[limits]`` are in `zapd.config.backends` and
`zapd.config.limits`; what one setting demands of another is in `zapd.config.checks`. Times are seconds and sizes
octets once they are read; paths are absolute once `zapd.config.load` has returned.
"""

from __future__ import annotations

import grp
import pwd
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from zapd.config.backends import BackendSection
from zapd.config.limits import Count, LimitsSection
from zapd.config.secret import Secret
from zapd.config.values import Duration, Flag, Location, Size, Whole, base_of, fault

Mechanism = Literal["NULL", "PLAIN", "CURVE", "GSSAPI"]
Strings = tuple[str, ...]


class Section(BaseModel):
    """A table: unknown settings are mistakes, values never change."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )


class ServerSection(Section):
    """The process itself."""

    data_dir: Location = Field(default=Path("data"), validate_default=True)
    """Where zapd keeps what it writes: the journal, SQLite's files, ipc sockets. Relative paths, those in URLs
    too, start at the folder of this file."""
    workers: Annotated[Whole, Field(ge=1, le=64)] = 1
    """Processes that answer questions; with more than one a parent accepts, administers and keeps them running.
    Each holds the registry in memory. More than there are cores gain nothing."""
    drain: Duration = 5.0
    """How long SIGTERM lets open questions finish, newcomers hearing 300, before zapd stops."""
    curve_key: Location | None = None
    """File with the server's CURVE key pair, as `zapd keygen` writes it; `server.key` in `data_dir` unless
    named. Needed by CURVE endpoints."""


def _secret(value: object, info: ValidationInfo) -> Secret:
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str) or not value:
        raise fault("not a text", "write it in quotes, or file:PATH, or env:NAME")
    return Secret.parse(value, base_of(info))


SecretText = Annotated[Secret, BeforeValidator(_secret)]


class DatabaseSection(Section):
    """Where keys, users, agents and tokens are kept."""

    url: SecretText = Secret(inline="sqlite:///data/zapd.db")
    """`sqlite:///PATH` or `postgresql+psycopg://USER@HOST/NAME`; `file:PATH` reads it from a file that nobody
    else can read, `env:NAME` from the environment."""
    max_staleness: Duration = 300.0
    """A replica that cannot read changes answers from memory for so long, then 300. A lone process on SQLite
    has no such limit."""


class ZapSection(Section):
    """An endpoint that takes ZAP questions. Any number of them; without one there is CURVE on
    `tcp://127.0.0.1:9027`."""

    listen: str
    """`tcp://HOST:PORT` (an IPv6 host in brackets, `*` for every interface) or `ipc://PATH`."""
    mechanism: Literal["NULL", "PLAIN", "CURVE"] = "CURVE"
    """How those who ask prove who they are. CURVE takes enrolled agents; NULL and PLAIN are possible on loopback
    and ipc only."""
    domains: Strings = ()
    """The domains that a NULL or PLAIN endpoint may be asked about. Of an agent's domains the registry knows, so
    that CURVE has none here."""
    mechanisms: tuple[Mechanism, ...] = ()
    """The mechanisms that a NULL or PLAIN endpoint may be asked about; all but GSSAPI, whose principal is the
    word of whoever asks, unless named. Of an agent's mechanisms the registry knows, so that CURVE has none
    here."""
    mode: str | None = None
    """Who may open an ipc socket, in octal; `0600` unless named."""
    group: str | Whole | None = None
    """The group, by name or number, that an ipc socket belongs to."""
    users: tuple[str | Whole, ...] | None = None
    """The users, by name or number, that may connect to an ipc socket, as the kernel names them; everybody whom
    `mode` lets through unless named."""

    @property
    def permissions(self) -> int:
        """``mode`` as a number."""
        return int(self.mode, 8) if self.mode else 0o600

    def uids(self) -> frozenset[int] | None:
        """``users`` as numbers; None for everybody. Raises `KeyError` for a name that the system does not know."""
        if self.users is None:
            return None
        return frozenset(user if isinstance(user, int) else pwd.getpwnam(user).pw_uid for user in self.users)

    def gid(self) -> int | None:
        """``group`` as a number. Raises `KeyError` for a name that the system does not know."""
        return grp.getgrnam(self.group).gr_gid if isinstance(self.group, str) else self.group


def _issuer(value: object) -> object:
    here = ("http://127.0.0.1", "http://[::1]", "http://localhost")
    if isinstance(value, str) and (not value.startswith(("https://", *here)) or "?" in value or "#" in value):
        raise fault("not an issuer", "write its URL as its tokens have it: https://id.example.org")
    return value


class OidcSection(Section):
    """People sign in with OpenID Connect: a token of this issuer's is taken in the place of an admin token. Needs
    `zapd[oidc]`."""

    issuer: Annotated[str, BeforeValidator(_issuer), Field(min_length=1, max_length=255)]
    """The issuer's URL, octet for octet as its tokens have it (`iss`). Its keys are found by the discovery
    document there."""
    audience: Annotated[Strings, Field(min_length=1)]
    """Whom tokens must be meant for (`aud`): one of these."""
    roles: Annotated[dict[str, Literal["viewer", "operator", "admin"]], Field(min_length=1)]
    """What a value of the role claim may do here, such as `{ zapd-admins = "admin" }`. Of several the strongest
    counts; a token with none of them is refused."""
    role_claim: str = "groups"
    """The claim that roles are read from: a list, or words with blanks between. Dots lead into it:
    `realm_access.roles`."""
    domains_claim: str = ""
    """The claim that says which domains somebody sees and changes; everybody all of them unless named."""
    name_claim: str = "preferred_username"
    """The claim that the record shows besides issuer and subject, for people to read."""
    algorithms: Annotated[
        tuple[
            Literal["EdDSA", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"], ...
        ],
        Field(min_length=1),
    ] = ("RS256", "ES256", "EdDSA")
    """How tokens may be signed."""
    tls_ca: Location | None = None
    """File with the authorities that sign the issuer's certificate, PEM; the system's unless named."""
    leeway: Annotated[Duration, Field(le=60.0)] = 10.0
    """How much clocks may differ."""
    refresh: Annotated[Duration, Field(ge=1.0)] = 300.0
    """How often the keys are read."""
    max_age: Annotated[Duration, Field(ge=1.0)] = 3600.0
    """How long they are believed while they cannot be read; then its tokens get 503."""


class AdminSection(Section):
    """The REST API."""

    listen: str = "127.0.0.1:8027"
    """`HOST:PORT`. Beyond loopback it must have TLS or `behind_proxy`."""
    tls_cert: Location | None = None
    """File with the certificate and its chain, PEM."""
    tls_key: Location | None = None
    """File with the certificate's key, PEM, that nobody else can read."""
    behind_proxy: Flag = False
    """A reverse proxy in front does TLS, and nobody else can reach this port."""
    trusted_proxies: Strings = ()
    """Networks of the proxies whose `X-Forwarded-For` is believed."""
    oidc: OidcSection | None = None
    """Sign-in of people by an issuer of tokens; nobody's unless there is a table `[admin.oidc]`."""


class EnrollSection(Section):
    """Where scripts exchange join tokens and people sign in for a key: a listener of its own, so that the admin
    API need not be reachable for them."""

    listen: str = ""
    """`HOST:PORT`; empty is nowhere. Beyond loopback it must have TLS or `behind_proxy`."""
    tls_cert: Location | None = None
    """File with the certificate and its chain, PEM."""
    tls_key: Location | None = None
    """File with the certificate's key, PEM, that nobody else can read."""
    behind_proxy: Flag = False
    """A reverse proxy in front does TLS, and nobody else can reach this port."""
    trusted_proxies: Strings = ()
    """Networks of the proxies whose `X-Forwarded-For` is believed. Needed behind a proxy: join tokens, domains and
    penalties go by addresses."""


class SignInSection(Section):
    """A domain in which people may sign in for a key: their name and password are put to its backends as a PLAIN
    question, and a public key is theirs for a while."""

    domains: Strings = ()
    """Where the key is granted; the domain itself unless named."""
    lifetime: Duration = 12 * 3600.0
    """How long a key lives after each sign-in."""
    hints: dict[str, str] = {}
    """What each sign-in is told besides, such as an application's address and server key."""


class AuditSection(Section):
    """The record of every decision."""

    durability: Literal["strict", "relaxed", "off"] = "strict"
    """`strict`: on disk before the reply leaves. `relaxed`: on disk within `flush_interval`. `off`: nothing is
    recorded."""
    flush_interval: Duration = 0.1
    """How long `relaxed` lets a record wait."""
    head: str = "syslog"
    """Where signed checkpoints go: `syslog`, `file:PATH` or `https://…`; empty is nowhere. What a checkpoint
    covers cannot be cut off unnoticed."""
    signing_key: Location | None = None
    """File with the Ed25519 key that signs checkpoints; `journal.key` in `data_dir` unless named."""
    max_size: Size = 20 * 10**9
    """How much disk the journal may take. At 80 % zapd warns; then the oldest checkpointed segments go, leaving a
    signed stub."""
    retention: Duration = 400 * 86400.0
    """How long checkpointed segments are kept."""
    search_retention: Duration = 30 * 86400.0
    """How much of the journal SQL keeps for searching."""


class LinkSection(Section):
    """A backend in a domain's chain. A plain name is enough where the defaults fit."""

    backend: str
    """Its name, as in `[backend.NAME]`."""
    on_unknown: Literal["stop", "next"] = "next"
    """Whether the next one is asked after "I do not know him"."""
    on_reject: Literal["stop", "next"] = "stop"
    """Whether the next one is asked after "I know him, and the proof is wrong". One who is barred, expired or
    pending never goes further, and there is no setting for it."""
    on_unavailable: Literal["stop", "next"] = "stop"
    """Whether the next one is asked after "I cannot tell now". With `next` a refusal by the others stays in
    doubt: 300."""

    @model_validator(mode="before")
    @classmethod
    def _from_name(cls, value: object) -> object:
        return {"backend": value} if isinstance(value, str) else value


class DomainSection(Section):
    """A ZAP domain, as the socket sets it. A trailing `*` matches; the longest pattern wins; `*` does not match
    the empty domain. A domain that matches nothing is refused."""

    mechanisms: tuple[Mechanism, ...] = Field(min_length=1)
    """Which mechanisms may be granted."""
    backends: tuple[LinkSection, ...] = ()
    """Who is asked, in this order: names, or tables such as
    `{ backend = "staff", on_unavailable = "next" }`."""
    allow: Strings = ()
    """Addresses that may come: networks in CIDR form, `ipc`, `ipc:uid=N`, `ipc:gid=N`. Empty is everywhere, but
    for NULL, which needs an explicit list: it alone grants, unless a backend of the domain answers NULL and says
    who comes from there."""
    deny: Strings = ()
    """Addresses that may not come, whatever `allow` says."""
    unknown_keys: Literal["refuse", "pending"] = "refuse"
    """What a CURVE key that no backend knows hears: `refuse` is 400, `pending` is 300 until it is approved."""
    grace: Duration = 0.0
    """How long an agent cut off from every zapd may repeat the last 200; at most a day."""
    null_user: str = ""
    """The user id of those whom NULL lets in, where no backend says who they are."""
    deadline: Duration | None = None
    """For all backends together; `limits.plan_deadline` unless named."""
    backend_deadline: Duration | None = None
    """For each backend; `limits.backend_deadline` unless named."""
    refusal_tick: Duration = 0.1
    """PLAIN refusals leave on multiples of this, so that time tells nothing."""
    cache_good: Duration | None = None
    """How long a 200 that was dear to get is repeated from memory, where that is less than `cache_good` of its
    backends. Changes in zapd's registry are in force at once all the same."""
    cache_bad: Duration | None = None
    """The same for refusals and `cache_bad`."""


class PenaltiesSection(Section):
    """What wrong tries cost (docs/penalties.md). Under a penalty the answer is 300, and nobody is asked."""

    trusted: Strings = ()
    """Networks in CIDR form, `ipc`, `ipc:uid=N`, `ipc:gid=N` from where nothing is counted and nobody waits:
    monitoring, a proxy that hides its clients."""
    tries: Count = 5
    """Wrong tries of one name from one address that cost nothing."""
    address_tries: Count = 20
    """The same for an IPv4 address, an IPv6 /48 or a local user, whatever the names and keys."""
    account_tries: Annotated[Whole, Field(ge=5, le=2**31)] = 100
    """Wrong tries of one name that are asked about in any hour, from all addresses together where that name was
    not let in before."""
    key_tries: Count = 20
    """Addresses at which one key, or one Kerberos principal, may be refused at no cost."""
    shortest: Duration = 1.0
    """The first wait; each further wrong try doubles it …"""
    longest: Duration = 300.0
    """… up to this."""
    forgive: Duration = 300.0
    """After so long one wrong try is forgiven."""
    standing: Duration = 30 * 86400.0
    """How long a name or key that was let in from an address is in good standing there: whatever others try from
    that address, or with it from elsewhere, it is asked about."""


def _collector(value: object) -> object:
    if isinstance(value, str) and value and not value.startswith(("https://", "http://")):
        raise fault("not a collector", "write its URL: http://127.0.0.1:4318")
    return value


class TelemetrySection(Section):
    """Traces for OpenTelemetry, of admin requests and of questions that backends are asked about. Needs
    `zapd[otel]`."""

    endpoint: Annotated[str, BeforeValidator(_collector)] = ""
    """The collector's URL, which takes OTLP over HTTP: `http://127.0.0.1:4318`; empty traces nothing."""
    service: Annotated[str, Field(min_length=1, max_length=255)] = "zapd"
    """The name of this service in the traces."""
    sample: Annotated[float, Field(ge=0.0, le=1.0)] = 1.0
    """Which part of those traces is sent that no caller has begun: 0 to 1."""
    tls_ca: Location | None = None
    """File with the authorities that sign the collector's certificate, PEM; the system's unless named."""


class Sections(Section):
    """The whole file."""

    server: ServerSection = ServerSection()
    database: DatabaseSection = DatabaseSection()
    zap: tuple[ZapSection, ...] = (ZapSection(listen="tcp://127.0.0.1:9027"),)
    admin: AdminSection = AdminSection()
    audit: AuditSection = AuditSection()
    enroll: EnrollSection = EnrollSection()
    signin: dict[str, SignInSection] = {}
    backend: dict[str, BackendSection] = {}
    domain: dict[str, DomainSection] = {}
    penalties: PenaltiesSection = PenaltiesSection()
    telemetry: TelemetrySection = TelemetrySection()
    limits: LimitsSection = LimitsSection()
