"""The ``local`` backend: peers over ipc are this machine's users, with no secret at all.

libzmq asks the kernel who holds the other end of an ipc connection, and says so in the address. So the address is
the credential, and it is the word of the agent: ``docs/backends/local.md`` says what that means. Who an account is
the name services say, asked in processes (`unix_groups`), since they may be far away and hang.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, ClassVar, Final, Self

import structlog
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from zapd.auth.address import read_again
from zapd.auth.backend import UNKNOWN, BackendContext, Outcome, Principal, Question, Verdict
from zapd.auth.pace import Pace
from zapd.errors import ConfigurationError, InvalidInput, Unavailable
from zapd.store.rules import check_groups, check_metadata, check_name
from zapd_backends.processes import Processes
from zapd_backends.unix_groups import Ask, Told

PROCESSES: Final = 4
WITHIN: Final = 0.9
"""The part of the backend's deadline that the name services have: whoever waits hears why."""

log = structlog.get_logger(__name__)


def _list(value: object) -> object:
    return tuple(value) if isinstance(value, list) else (value,) if isinstance(value, str) else value


Names = Annotated[
    tuple[Annotated[str, Field(pattern=r"^@?[^@\s,:][^\s,:]{0,254}$")], ...],
    BeforeValidator(_list),
]
"""Users, and groups with ``@`` before them."""


class LocalSettings(BaseModel):
    """The table ``[backend.NAME]`` of ``docs/backends/local.md``, where each setting is explained."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    allow: Names = ()
    deny: Names = ()


class LocalBackend:
    """See the module's text; settings and outcomes are in ``docs/backends/local.md``."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"NULL"})

    def __init__(self, name: str, settings: LocalSettings, context: BackendContext) -> None:
        self.name = name
        self.problem = ""
        """Why groups may be missing, or the last account could not be used; empty when all is well."""
        self._allow, self._deny = frozenset(settings.allow), frozenset(settings.deny)
        self._seconds = context.deadline * WITHIN
        self._pace = Pace()
        self._processes = Processes("accounts", "msgspec", "zapd_backends.unix_groups", (), Told, PROCESSES)

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Asks no name service and starts no process. Raises `ConfigurationError`."""
        try:
            read = LocalSettings.model_validate(dict(settings))
        except ValidationError as error:
            told = {
                "extra_forbidden": "there is no such setting",
                "string_pattern_mismatch": 'write "USER", or "@GROUP"',
            }
            mistakes = "; ".join(
                f"{'.'.join(map(str, each['loc']))}: {told.get(each['type'], each['msg'])}"
                for each in error.errors()
            )
            raise ConfigurationError(f"backend.{name}: {mistakes}") from None
        return cls(name, read, context)

    async def start(self) -> None:
        """See that a process can be started. Raises `Unavailable`."""
        await self._processes.start()

    async def check(self, question: Question) -> Verdict:
        """Who the peer is, and whether he may. UNKNOWN for who comes over no ipc, and for a number without an
        account. Raises `BackendBusy`, and `Unavailable` when a name service fails or is slow."""
        peer = read_again(question.address)
        if peer is None or peer.version != 0:
            return UNKNOWN
        await asyncio.sleep(0)  # from here on there is a task, which a deadline needs
        try:
            async with asyncio.timeout(self._seconds):
                told = await self._processes.ask(Ask(peer.uid))
        except TimeoutError:
            raise Unavailable(
                "a name service does not answer in time; the process that waited was killed"
            ) from None
        return self._judge(peer.uid, told)

    async def aclose(self) -> None:
        """Kill the processes."""
        await self._processes.aclose()

    def _judge(self, number: int, told: Told) -> Verdict:
        """Raises `Unavailable` where a group that nobody could tell of may decide."""
        name, self.problem = told.name, told.doubt
        if name is None:
            if told.doubt:
                raise Unavailable(told.doubt)
            return UNKNOWN
        try:
            if told.fault:
                raise InvalidInput(told.fault)
            principal = Principal(check_name(name), check_groups(told.groups))
            check_metadata(principal.groups, ())
        except InvalidInput as fault:
            # A doubt about this one alone: such an account may be mended.
            self.problem = f"account {number} cannot be used: {fault}"
            if self._pace.allows():
                log.warning("an account is in doubt", backend=self.name, account=number, reason=str(fault))
            return Verdict(Outcome.UNAVAILABLE, Principal(str(number)), "account_unusable")
        names = {name, *(f"@{group}" for group in told.groups)}
        if names & self._deny:
            return Verdict(Outcome.LOCKED, principal, "local_denied")
        allowed = not self._allow or bool(names & self._allow)
        if told.doubt and any(each.startswith("@") for each in (self._deny if allowed else self._allow)):
            raise Unavailable(told.doubt)
        if not allowed:
            return Verdict(Outcome.REJECT, principal, "local_not_allowed")
        return Verdict(Outcome.ACCEPT, principal, "granted")
