"""The ``kerberos`` backend: GSSAPI principals that libzmq has proved, and PLAIN passwords that a KDC judges.

A principal is judged by its name (`kerberos_names`), from memory. A password is tried at the KDC, in a process
that can be killed (`kerberos_worker`); a yes counts only when a ticket for our own service opens with our own
key, since anybody may answer in the KDC's place. Who may come in is the same for both.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, Final, Self, TypeVar, cast

import msgspec
import structlog

from zapd.auth.backend import UNKNOWN, BackendContext, Outcome, Principal, Question, Verdict
from zapd.auth.pace import Pace
from zapd.errors import Unavailable
from zapd_backends.kerberos_kdc import Ask, Told, Trouble, refusal
from zapd_backends.kerberos_names import Member, parse_name
from zapd_backends.kerberos_settings import KerberosSettings, Warning_, read_settings
from zapd_backends.private_file import check_private, is_private
from zapd_backends.processes import Processes
from zapd_backends.unix_groups import Ask as AskGroups
from zapd_backends.unix_groups import Told as GroupsTold

WITHIN: Final = 0.9
"""The part of the backend's deadline that processes have: whoever waits hears why."""
REMEMBERED: Final = 4096
"""Principals whose verdict is kept; an agent may invent any number."""

_WRONG: Final = Verdict(Outcome.REJECT, reason="wrong_password")
_KDC_LATE: Final = ("kdc_late", "the KDC does not answer in time; the process that waited for it was killed")
_GROUPS_LATE: Final = ("groups_late", "the machine's name services do not say in time who is in which group")

log = structlog.get_logger(__name__)

T = TypeVar("T", bound=msgspec.Struct)


class KerberosBackend:
    """Principals. See the module's text; settings and outcomes are in ``docs/backends/kerberos.md``."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"GSSAPI"})

    def __init__(self, name: str, settings: KerberosSettings, base_dir: Path, deadline: float) -> None:
        self.name = name
        self.settings = settings
        self.problem = ""
        """What kept the last question from being answered, or groups from being told; empty when all is well."""
        self._pace = Pace()
        self._seconds = deadline * WITHIN
        self._rules = settings.rules()
        self._judge = lru_cache(REMEMBERED)(self._judge_anew)
        self._keytab = base_dir / settings.keytab if settings.keytab else None
        self._config = base_dir / settings.config if settings.config else None
        self._kdc: Processes[Told] | None = None
        self._accounts: Processes[GroupsTold] | None = None
        if settings.unix_groups:
            module = "zapd_backends.unix_groups"
            self._accounts = Processes("groups", "msgspec", module, (), GroupsTold, settings.processes)
        if self._keytab is not None:
            self._kdc = Processes(
                "Kerberos",
                "the library gssapi (zapd[kerberos])",
                "zapd_backends.kerberos_worker",
                (str(self._keytab), settings.service_name),
                Told,
                settings.processes,
                _environment(self._keytab, self._config),
            )

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Asks nobody and starts no process. Raises `zapd.errors.ConfigurationError`."""
        read = read_settings(name, settings)
        kind = KerberosPasswordsBackend if read.keytab else KerberosBackend
        return cast(Self, kind(name, read, context.base_dir, context.deadline))

    @property
    def warnings(self) -> list[Warning_]:
        """See `zapd.auth.backend.WarnsOfSettings`."""
        found = self.settings.warnings()
        if self._keytab is not None:
            if importlib.util.find_spec("gssapi") is None:
                problem = "the library gssapi is not there, so that passwords hear 300"
                found.append(("keytab", problem, "install zapd[kerberos]"))
            with contextlib.suppress(OSError):  # whoever asks may not be who will run it
                if not is_private(self._keytab):
                    found.append(("keytab", "others can read it, so that it is refused", "chmod 600 it"))
        return found

    async def start(self) -> None:
        """See that the files are there, the keytab private, and that processes can be started. Raises
        `Unavailable`."""
        await asyncio.to_thread(self._look)
        for processes in (self._kdc, self._accounts):
            if processes is not None:
                await processes.start()
        self.problem = ""

    async def check(self, question: Question) -> Verdict:
        """ACCEPT, REJECT, LOCKED, UNKNOWN, NOT_YET; UNAVAILABLE for every doubt."""
        principal = self._principal(question)
        judged = self._judge(principal) if principal else UNKNOWN
        proved = question.mechanism == "GSSAPI"
        if isinstance(judged, Verdict) and (proved or judged.outcome is not Outcome.ACCEPT):
            return judged
        if not proved and (not question.password or b"\0" in question.password):
            return _WRONG
        await asyncio.sleep(0)  # from here on there is a task, which a deadline needs
        until = asyncio.get_running_loop().time() + self._seconds
        try:
            if not proved:
                judged = await self._prove(Ask(principal, question.password), until)
            self.problem = ""
            return await self._with_groups(judged, until) if isinstance(judged, Member) else judged
        except Trouble as trouble:
            self.problem = str(trouble)
            return Verdict(Outcome.UNAVAILABLE, reason=trouble.reason)

    async def aclose(self) -> None:
        """Kill the processes."""
        for processes in (self._kdc, self._accounts):
            if processes is not None:
                await processes.aclose()

    def _look(self) -> None:
        if self._keytab is None:
            return
        try:
            check_private(self._keytab)
            for path in (self._keytab, self._config):
                if path is not None:
                    path.open("rb").close()
        except OSError as error:
            raise Unavailable(f"{error.filename} cannot be used: {error.strerror}") from None

    def _principal(self, question: Question) -> str:
        """Whom it is about, with the realm; empty for what is no principal."""
        if question.mechanism == "GSSAPI":
            return question.username if "@" in question.username else ""
        name = parse_name(question.username, self.settings.realm)
        return "" if name is None else str(name)

    def _judge_anew(self, principal: str) -> Verdict | Member:
        """What becomes of whoever proves to be this principal; a `Member` where groups are to be looked up."""
        member = self._rules.find(principal)
        return self._rules.admit(member) if isinstance(member, Member) and self._accounts is None else member

    async def _prove(self, question: Ask, until: float) -> Verdict | Member:
        if self._kdc is None:
            raise Unavailable("keytab is not set")
        told = await _in_time(self._kdc, question, until, _KDC_LATE)
        # The ticket says who it is, which a KDC may write otherwise than it was asked.
        return refusal(told, question.principal) or self._judge(told.principal)

    async def _with_groups(self, member: Member, until: float) -> Verdict:
        if self._accounts is None:
            return self._rules.admit(member)
        told = await _in_time(self._accounts, AskGroups(member.user), until, _GROUPS_LATE)
        if told.fault:  # a doubt about this one alone: such an account may be mended
            self.problem = f"account {member.user!r} cannot be used: {told.fault}"
            if self._pace.allows():
                log.warning("an account is in doubt", backend=self.name, account=member.user, reason=told.fault)
            return Verdict(Outcome.UNAVAILABLE, Principal(member.user), "account_unusable")
        wanted = self.settings.told_unix_groups
        groups = set(wanted).intersection(told.groups) if wanted else set(told.groups)
        if told.doubt:
            verdict = self._rules.admit(member, groups)
            if self._rules.may_change(verdict):
                raise Trouble("groups_away", told.doubt)
            self.problem = told.doubt
            return verdict
        return self._rules.admit(member, None if told.name is None else groups)


class KerberosPasswordsBackend(KerberosBackend):
    """The same where ``keytab`` is set: principals and passwords."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"GSSAPI", "PLAIN"})


async def _in_time(processes: Processes[T], question: msgspec.Struct, until: float, late: tuple[str, str]) -> T:
    try:
        async with asyncio.timeout_at(until):
            return await processes.ask(question)
    except TimeoutError:
        raise Trouble(*late) from None


def _environment(keytab: Path, config: Path | None) -> dict[str, str]:
    """What libkrb5 is told beside its configuration. Tickets are never on disk, and of our own making, so that a
    memory of those seen before has nothing to say."""
    found = {
        "KRB5_KTNAME": f"FILE:{keytab}",
        "KRB5_CLIENT_KTNAME": "FILE:/dev/null",
        "KRB5CCNAME": "MEMORY:",
        "KRB5RCACHENAME": "none:",
    }
    if config is not None:
        found["KRB5_CONFIG"] = str(config)
    directory = os.environ.get("CREDENTIALS_DIRECTORY")
    return found if directory is None else {**found, "CREDENTIALS_DIRECTORY": directory}
