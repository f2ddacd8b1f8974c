"""What would be decided now, and why. The deciding is the authority's; here is only who may ask about what."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from zapd.admin.roles import Actor, Operation
from zapd.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class Supposed:
    """A question nobody asked."""

    domain: str
    mechanism: str
    address: str
    key: bytes = b""
    """CURVE: 32 octets."""
    username: str = ""
    """PLAIN and GSSAPI."""


@dataclass(frozen=True, slots=True)
class Step:
    """A rule or a backend, and what it says."""

    step: str
    """``domain``, ``mechanism``, ``address``, ``backend:<name>``."""
    verdict: str
    text: str = ""
    milliseconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Explanation:
    """What the answer would be."""

    status: int
    reason: str
    principal: str = ""
    groups: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()
    steps: tuple[Step, ...] = field(default=())


Explain = Callable[[Supposed], Awaitable[Explanation]]


class ExplainService:
    """Explaining, for those who may."""

    def __init__(self, explain: Explain) -> None:
        self._explain = explain

    async def explain(self, actor: Actor, question: Supposed) -> Explanation:
        """Ask. Raises `Forbidden` for a domain that is not the actor's."""
        actor.require(Operation.EXPLAIN)
        if not actor.everywhere:
            actor.require_all([question.domain])
        if question.mechanism == "CURVE" and not question.key:
            raise InvalidInput("A CURVE question needs the client's public key.")
        if question.mechanism in ("PLAIN", "GSSAPI") and not question.username:
            raise InvalidInput(f"A {question.mechanism} question needs a user name.")
        return await self._explain(question)
