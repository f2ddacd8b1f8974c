"""Fakes that behave: a backend, a handler, and a word to ask with."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Self

from zapd.auth.backend import UNKNOWN, Backend, BackendContext, Outcome, Principal, Question, Verdict
from zapd.auth.catalog import BackendHandle
from zapd.auth.gate import DEFAULT, Keeping
from zapd.auth.last_good import LastGood
from zapd.errors import ConfigurationError
from zapd.zap import REFUSED, ZapReply, ZapRequest
from zapd.zap.request import CREDENTIALS

_REJECTED: Final = Verdict(Outcome.REJECT, reason="wrong_password")


def ask(
    username: str = "", password: bytes = b"", *, key: bytes = b"", domain: str = "lab", address: str = "192.0.2.1"
) -> Question:
    """A question: PLAIN for a name, CURVE for a key."""
    mechanism = "CURVE" if key else "PLAIN"
    return Question(domain, mechanism, address, key=key, username=username, password=password)


@dataclass(slots=True)
class FakeBackend:
    """Knows the users and keys it is given; can be slow, broken, full, or of one opinion."""

    mechanisms: ClassVar[frozenset[str]] = frozenset(CREDENTIALS) - {"NULL"}

    users: dict[str, bytes] = field(default_factory=dict, repr=False)
    """Names and passwords; a GSSAPI principal needs to be among the names only."""
    keys: dict[bytes, Principal] = field(default_factory=dict)
    verdict: Verdict | None = None
    """Said to every question, whatever it is."""
    delay: float = 0.0
    """Seconds before each answer; 0 answers from memory, without suspending."""
    failure: BaseException | None = None
    """Raised at each question, after the delay."""
    start_failure: BaseException | None = None
    """Raised by `start` while it is set."""
    asked: list[Question] = field(default_factory=list)
    started: int = 0
    closed: int = 0
    problem: str = ""
    _accepts: dict[object, Verdict] = field(default_factory=dict)

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Settings: ``users``, a table of names and passwords."""
        if settings.keys() - {"users"}:
            raise ConfigurationError(f"backend.{name}: a fake has users only")
        users = settings.get("users", {})
        if not isinstance(users, Mapping):
            raise ConfigurationError(f"backend.{name}: users is a table of names and passwords")
        return cls(users={str(user): str(password).encode() for user, password in users.items()})

    async def start(self) -> None:
        self.started += 1
        if self.start_failure is not None:
            raise self.start_failure

    async def check(self, question: Question) -> Verdict:
        self.asked.append(question)
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.failure is not None:
            raise self.failure
        if self.verdict is not None:
            return self.verdict
        if question.mechanism == "CURVE":
            principal = self.keys.get(question.key)
            return UNKNOWN if principal is None else self._accept(question.key, principal)
        password = self.users.get(question.username)
        if password is None:
            return UNKNOWN
        if question.mechanism == "PLAIN" and password != question.password:
            return _REJECTED
        return self._accept(question.username, Principal(question.username))

    async def aclose(self) -> None:
        self.closed += 1

    def _accept(self, who: object, principal: Principal) -> Verdict:
        known = self._accepts.get(who)
        if known is None or known.principal != principal:
            known = self._accepts[who] = Verdict(Outcome.ACCEPT, principal)
        return known


@dataclass(slots=True)
class FakeHandler:
    """Answers questions as it is told, and remembers them."""

    reply: ZapReply = REFUSED
    replies: dict[str, ZapReply] = field(default_factory=dict)
    """By domain; `reply` is for the others."""
    delay: float = 0.0
    failure: BaseException | None = None
    asked: list[ZapRequest] = field(default_factory=list)

    async def answer(self, request: ZapRequest) -> ZapReply:
        self.asked.append(request)
        if self.delay:
            await asyncio.sleep(self.delay)
        if self.failure is not None:
            raise self.failure
        return self.replies.get(request.domain, self.reply)


async def started(backend: Backend, name: str = "fake", *, keeping: Keeping = DEFAULT) -> BackendHandle:
    """A handle for ``backend``, started."""
    last_good = LastGood(keeping.stale_if_error) if keeping.stale_if_error else None
    handle = BackendHandle(name, name, backend, keeping=keeping, last_good=last_good)
    await handle.start()
    return handle
