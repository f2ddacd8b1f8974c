"""The shapes of what is only looked at: what the configuration made, what was recorded, what would be decided."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AwareDatetime, Field

from zapd.admin.api.schemas import Mechanism, Name, PublicKey, Shape


class DomainOut(Shape):
    """One ``[domain.…]`` of the configuration."""

    pattern: str
    mechanisms: list[str]
    backends: list[str]
    allow: list[str] = []
    deny: list[str] = []
    unknown_keys: Literal["refuse", "pending"] = "refuse"
    grace_seconds: float = 0.0
    null_user: str | None = None


class BackendOut(Shape):
    """One ``[backend.…]`` and how it is."""

    name: str
    type: str
    mechanisms: list[str]
    state: Literal["starting", "ready", "disabled"]
    reason: str = ""
    """Why it is disabled, or what it complains of."""
    circuit: Literal["closed", "open", "half_open"] = "closed"
    """Open: it could not answer of late, nobody is sent there, and its questions hear 300 at once."""
    in_flight: int = 0
    """Questions that it is working on."""
    last_error: str = ""
    """Why it last could not answer."""
    last_error_at: AwareDatetime | None = None


class AuditTrailOut(Shape):
    """One backend's part in a decision."""

    backend: str
    outcome: str
    milliseconds: float


class AuditOut(Shape):
    """One record of the journal, as the searchable copy holds it."""

    time: AwareDatetime
    instance: str
    sequence: int
    event: str
    hash: str = ""
    domain: str | None = None
    mechanism: str = ""
    address: str = ""
    agent: str = ""
    principal: str = ""
    key: str = ""
    username: str = ""
    status: int = 0
    reason: str = ""
    question_id: str = ""
    trail: list[AuditTrailOut] = []
    actor: str = ""
    subject: str = ""
    before: dict[str, object] | None = None
    after: dict[str, object] | None = None
    change: int = 0
    count: int = 0
    detail: dict[str, object] | None = None


class ExplainIn(Shape):
    """``POST /v1/explain``: a question nobody asked yet. For CURVE ``key``, for PLAIN and GSSAPI ``username``."""

    domain: Annotated[str, Field(max_length=255)]
    mechanism: Mechanism
    address: Annotated[str, Field(max_length=255)]
    key: PublicKey | None = None
    username: Name | None = None


class ExplainStep(Shape):
    """A rule or a backend, what it says, and how long it took."""

    step: str
    """``policy``, ``asker``, ``domain``, ``mechanism``, ``address``, ``ban``, ``penalty``, ``credentials``,
    ``backend <name>``, ``reply``."""
    verdict: str
    text: str = ""
    milliseconds: float = 0.0


class ExplainOut(Shape):
    """What would be decided now, and why. PLAIN is explained up to the backends, since no password is given: then
    ``reason`` is ``password_not_given``."""

    status: int
    reason: str
    principal: str = ""
    groups: list[str] = []
    attributes: dict[str, str] = {}
    steps: list[ExplainStep] = []
