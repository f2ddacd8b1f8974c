"""The ``local`` backend: peers over ipc are this machine's users, with no secret at all.

libzmq asks the kernel who holds the other end of an ipc connection, and says so in the address. So the address is
the credential, and it is the word of the agent: ``docs/backends/local.md`` says what that means. Who an account is
the name services say, in threads, since they may be far away and hang.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Annotated, ClassVar, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from zapd.auth.address import read_again
from zapd.auth.backend import UNKNOWN, BackendContext, Outcome, Principal, Question, Verdict
from zapd.auth.threaded import Threads
from zapd.errors import ConfigurationError, InvalidInput
from zapd.store.rules import check_groups, check_metadata, check_name
from zapd_backends.accounts import name_of
from zapd_backends.unix_groups import groups_of

THREADS: Final = 4
WITHIN: Final = 0.9
"""The part of the backend's deadline that the name services have."""


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
        self._allow, self._deny = frozenset(settings.allow), frozenset(settings.deny)
        self._seconds = context.deadline * WITHIN
        self._threads = Threads(name, THREADS)

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Asks no name service. Raises `ConfigurationError`."""
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
        """Nothing is needed."""

    async def check(self, question: Question) -> Verdict:
        """Who the peer is, and whether he may. UNKNOWN for who comes over no ipc, and for a number without an
        account. Raises `BackendBusy`, and `Unavailable` when a name service fails or is slow."""
        peer = read_again(question.address)
        if peer is None or peer.version != 0:
            return UNKNOWN
        return await self._threads.run(partial(self._judge, peer.uid), self._seconds)

    async def aclose(self) -> None:
        """Ask nobody any more."""
        await self._threads.aclose()

    def _judge(self, number: int) -> Verdict:
        """In a thread."""
        name = name_of(number)
        groups = None if name is None else groups_of(name)
        if name is None or groups is None:
            return UNKNOWN
        try:
            principal = Principal(check_name(name), check_groups(groups))
            check_metadata(principal.groups, ())
        except InvalidInput:
            # A doubt about this one alone: such an account may be mended.
            return Verdict(Outcome.UNAVAILABLE, Principal(str(number)), "account_unusable")
        names = {name, *(f"@{group}" for group in groups)}
        if names & self._deny:
            return Verdict(Outcome.LOCKED, principal, "local_denied")
        if self._allow and not names & self._allow:
            return Verdict(Outcome.REJECT, principal, "local_not_allowed")
        return Verdict(Outcome.ACCEPT, principal, "granted")
