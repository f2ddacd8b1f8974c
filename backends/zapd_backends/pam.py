"""The ``pam`` backend: PLAIN passwords that this machine's PAM stack judges.

Both of PAM's questions are asked: is the password right, and may the account be used now. They are asked in worker
processes (`processes`), since a module may hang. What each of PAM's codes means is here; a code that is not
clearly about this user is "cannot tell". The daemon needs no rights that the modules do not need.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import secrets
from collections import deque
from collections.abc import Mapping
from time import monotonic
from typing import Annotated, ClassVar, Final, Literal, Self

import pam
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from zapd.auth.backend import UNKNOWN, BackendContext, Outcome, Principal, Question, Verdict
from zapd.errors import ConfigurationError, Unavailable
from zapd_backends.pam_service import PHASES, SERVICE_DIRS, read_service
from zapd_backends.pam_worker import Ask, Told
from zapd_backends.processes import Processes

WITHIN: Final = 0.9
"""The part of the backend's deadline that a process has: whoever waits hears why."""
REMEMBERED: Final = 32
"""How many answers' times are known."""

_WRONG: Final = Verdict(Outcome.REJECT, reason="wrong_password")

_NO: Final = {
    pam.PAM_PERM_DENIED: "not_permitted",
    pam.PAM_MAXTRIES: "account_locked",
    pam.PAM_NEW_AUTHTOK_REQD: "password_must_change",
    pam.PAM_AUTHTOK_EXPIRED: "password_expired",
    pam.PAM_ACCT_EXPIRED: "account_expired",
}
"""What bars an account, in both phases."""
_NO_ACCOUNT: Final = {pam.PAM_USER_UNKNOWN: "no_account", pam.PAM_AUTH_ERR: "not_permitted"}
"""The same in the account phase alone."""
_TROUBLE: Final = {
    pam.PAM_AUTHINFO_UNAVAIL: "what it asks is away, or zapd may not read it (pam_unix: is zapd in group shadow?)",
    pam.PAM_CONV_ERR: "a module asks for more than a password",
    pam.PAM_OPEN_ERR: "the service's file is not there, not whole, without auth or account lines, or just changed",
    pam.PAM_MODULE_UNKNOWN: "a module of the service is missing",
}


class PamSettings(BaseModel):
    """The table ``[backend.NAME]`` of ``docs/backends/pam.md``, where each setting is explained."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    service: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")] = "zapd"
    confdir: str = ""
    processes: Annotated[int, Field(ge=1, le=64)] = 4
    user: Annotated[str, Field(pattern=r"^[^{}]*\{user\}[^{}]*$")] = "{user}"
    user_map: dict[str, str] = {}
    deny_users: Annotated[tuple[str, ...], Field(strict=False)] = ("root",)
    denied: Literal["refuse", "later"] = "refuse"


class PamBackend:
    """See the module's text; settings and outcomes are in ``docs/backends/pam.md``."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"PLAIN"})

    def __init__(self, name: str, settings: PamSettings, confdir: str, deadline: float) -> None:
        self.name = name
        self.settings = settings
        self.problem = ""
        """What PAM said last that is no answer; empty when all is well."""
        self._places = (confdir,) if confdir else SERVICE_DIRS
        self._seconds = deadline * WITHIN
        words = (settings.service, confdir)
        self._processes = Processes("PAM", "libpam", "zapd_backends.pam_worker", words, Told, settings.processes)
        self._took: deque[float] = deque(maxlen=REMEMBERED)

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Starts no process. Raises `ConfigurationError`."""
        try:
            read = PamSettings.model_validate(dict(settings))
        except ValidationError as error:
            mistakes = "; ".join(
                f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors(include_input=False)
            )
            raise ConfigurationError(f"backend.{name}: {mistakes}") from None
        confdir = str(context.base_dir / read.confdir) if read.confdir else ""
        return cls(name, read, confdir, context.deadline)

    async def start(self) -> None:
        """See that the service speaks for itself and a process can be started. Raises `Unavailable`."""
        found = await asyncio.to_thread(read_service, self._places, self.settings.service)
        if not found.complete:
            missing = " and ".join(sorted(PHASES - found.phases))
            text = f"{self._places[0]}/{self.settings.service} has no lines for {missing}, or is not there"
            raise Unavailable(f"{text}; see docs/backends/pam.md")
        await self._processes.start()
        self.problem = ""

    async def check(self, question: Question) -> Verdict:
        """ACCEPT, REJECT, LOCKED, UNKNOWN; NOT_YET where the settings say so; UNAVAILABLE for every doubt."""
        user = self._account(question.username)
        if user is None:
            await asyncio.sleep(0)
            await self._level(0.0, unknown=True)
            return UNKNOWN
        if not question.password or b"\0" in question.password:
            return _WRONG
        await asyncio.sleep(0)  # from here on there is a task, which a deadline needs
        started = monotonic()
        try:
            async with asyncio.timeout(self._seconds):
                told = await self._processes.ask(Ask(user, question.password, _host(question.address)))
        except TimeoutError:
            self.problem = "a module does not answer in time; its process was killed"
            return Verdict(Outcome.UNAVAILABLE, reason="pam_late")
        verdict = self._meaning(told, user)
        await self._level(monotonic() - started, unknown=verdict.outcome is Outcome.UNKNOWN)
        return verdict

    async def aclose(self) -> None:
        """Kill the processes."""
        await self._processes.aclose()

    def _account(self, name: str) -> str | None:
        """The account that a name stands for; None for names that none can have. Modules make paths and lines of
        names."""
        user = self.settings.user_map.get(name) or self.settings.user.replace("{user}", name)
        fits = user.isprintable() and len(user.encode("utf-8")) <= 255 and not re.search(r"^-|[/:,\s]", user)
        return user if fits and name and user not in (".", "..") and user not in self.settings.deny_users else None

    def _meaning(self, told: Told, user: str) -> Verdict:
        code, account = told.code, told.phase == "account"
        if told.phase != "start":
            if code == pam.PAM_SUCCESS:
                self.problem = ""
                if not told.user or told.user in self.settings.deny_users:
                    return Verdict(Outcome.LOCKED, Principal(user), "not_permitted")
                return Verdict(Outcome.ACCEPT, Principal(told.user))
            if code == pam.PAM_AUTH_ERR and not account:
                return _WRONG
            if code == pam.PAM_USER_UNKNOWN and not account:
                return UNKNOWN
            reason = _NO.get(code) or (_NO_ACCOUNT.get(code) if account else None)
            if reason is not None:
                later = reason == "not_permitted" and self.settings.denied == "later"
                outcome = Outcome.NOT_YET if later else Outcome.LOCKED
                return Verdict(outcome, Principal(user) if account else None, reason)
        mend = _TROUBLE.get(code, "see the system's log")
        self.problem = f"PAM answers {code} in phase {told.phase}: {mend}"
        return Verdict(Outcome.UNAVAILABLE, reason=f"pam_error_{code}" if 0 <= code < 100 else "pam_error")

    async def _level(self, seconds: float, *, unknown: bool) -> None:
        """Let "unknown" take as long as one of the last answers about known users: modules hash nothing for
        strangers."""
        if not unknown:
            self._took.append(seconds)
        elif self._took:
            await asyncio.sleep(max(0.0, min(secrets.choice(self._took), self._seconds / 2) - seconds))


def _host(address: str) -> str:
    """The peer as PAM_RHOST."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return "localhost"
