"""The ``ldap`` backend: PLAIN passwords and CURVE keys that live in a directory.

A password is proved by a bind of its own, never read or compared here. Who somebody is comes from the entry that
the directory holds, octet for octet: a directory takes ``ALICE`` and full-width letters for ``alice``, zapd does
not. Whatever is not a clear word about this very credential is "cannot tell": a wrong service password, a full
server and two entries of one name are an outage, and a valid user hears 300. How servers are spoken to is
`ldap_driver`'s, which server is spoken to `ldap_servers`'.
"""

from __future__ import annotations

import re
import secrets
import threading
from collections.abc import Mapping
from typing import ClassVar, Final, Self, cast

import structlog

from zapd.auth.backend import UNKNOWN, BackendContext, Outcome, Principal, Question, Verdict
from zapd.auth.pace import Pace
from zapd.auth.threaded import Threaded
from zapd.zmtp.keys import encode_key
from zapd_backends.ldap_driver import (
    CONSTRAINT_VIOLATION,
    INAPPROPRIATE_AUTHENTICATION,
    INSUFFICIENT_ACCESS_RIGHTS,
    INVALID_CREDENTIALS,
    NO_SUCH_OBJECT,
    OUTAGES,
    SIZE_LIMIT_EXCEEDED,
    SUCCESS,
    UNWILLING_TO_PERFORM,
    Entry,
    Link,
    Result,
    fill_dn,
    fill_filter,
)
from zapd_backends.ldap_groups import Groups
from zapd_backends.ldap_line import Doubt, Trouble
from zapd_backends.ldap_policy import Policy
from zapd_backends.ldap_servers import Authorities, Servers, Service, Session
from zapd_backends.ldap_settings import LdapSettings, Warning_, read_settings

log = structlog.get_logger(__name__)

WITHIN: Final = 0.9
"""The part of the backend's deadline that the servers have: whoever waits hears why, and no thread outlives it."""

_ANYTHING: Final = "(objectClass=*)"
_LOCKED_TIME: Final = "pwdAccountLockedTime"
_LOCKED_FOR_GOOD: Final = b"000001010000Z"
"""draft-behera-ldap-password-policy, section 5.3.3."""

_POLICY_REASONS: Final = {
    Policy.PASSWORD_EXPIRED: "password_expired",
    Policy.ACCOUNT_LOCKED: "account_locked",
    Policy.CHANGE_AFTER_RESET: "password_must_change",
}
_ACTIVE_DIRECTORY: Final = {
    "532": "password_expired",
    "533": "account_disabled",
    "701": "account_expired",
    "773": "password_must_change",
    "775": "account_locked",
}
"""What Active Directory says behind "AcceptSecurityContext error, data" in a refused bind."""
_DATA: Final = re.compile(r"AcceptSecurityContext error, data ([0-9a-f]{3,8})\b")

_INACTIVATED: Final = "Account inactivated."
"""What 389 Directory Server says of an account with nsAccountLock, whatever the password."""

_WRONG: Final = Verdict(Outcome.REJECT, reason="wrong_password")


class Directory:
    """Asks a directory; blocks. See the module's text; settings and outcomes are in ``docs/backends/ldap.md``."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"PLAIN"})

    def __init__(self, name: str, settings: LdapSettings, servers: Servers, deadline: float) -> None:
        self.name = name
        self.settings = settings
        self.threads = settings.connections
        self.deadline = deadline
        self.problem = ""
        """What the last question met, or an unwise setting; empty when all is well."""
        self._servers = servers
        self._groups = Groups(settings)
        self._has_service = bool(settings.bind_dn)
        self._unwise = "; ".join(problem for _, problem, _ in settings.warnings())
        self._lock = threading.Lock()
        self._pace = Pace()
        self._wanted = tuple(
            dict.fromkeys(
                each
                for each in (
                    *settings.user_attribute,
                    settings.naming,
                    settings.key_attribute,
                    settings.member_of,
                    *settings.attributes.values(),
                    _LOCKED_TIME,
                )
                if each
            )
        )

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Connects to nothing. Raises `zapd.errors.ConfigurationError`."""
        read, authorities = read_settings(name, settings, context.base_dir)
        service = Service(read.bind_dn, read.bind_password.get_secret_value().encode("utf-8"))
        servers = Servers(read.places(), Authorities(authorities), service, context.deadline * WITHIN)
        return cls(name, read, servers, context.deadline)

    def start(self) -> None:
        """See that a server answers, and that there is something to search. Raises `Trouble`."""
        self._servers.ask(self._look)
        self._content()

    def check(self, question: Question) -> Verdict:
        """ACCEPT, REJECT, LOCKED, UNKNOWN; UNAVAILABLE for every doubt."""
        road = self._key if question.mechanism == "CURVE" else self._password
        if question.mechanism != "CURVE" and (not question.password or b"\0" in question.password):
            return _WRONG  # an empty one is an anonymous bind, to which directories say yes
        try:
            verdict = self._servers.ask(lambda session: road(session, question))
        except Trouble as trouble:
            self._complain(str(trouble))
            return Verdict(Outcome.UNAVAILABLE, reason=trouble.reason)
        except Doubt as doubt:
            # With a name it is a doubt about that one alone, and no outage.
            verdict = Verdict(Outcome.UNAVAILABLE, Principal(question.username or doubt.dn[:255]), doubt.reason)
            if self._pace.allows():
                log.warning("an entry is in doubt", backend=self.name, entry=doubt.dn, reason=str(doubt))
        self._content()
        return verdict

    def close(self) -> None:
        self._servers.close()

    # -- two roads -------------------------------------------------------------------------------------------

    def _password(self, session: Session, question: Question) -> Verdict:
        if self.settings.user_dn:
            return self._template_password(session, question)
        entry = self._find_user(session.service(), question, session.until)
        # Whoever it is, one bind is made: a name that is there answers no sooner than one that is not.
        dn = self._nobody() if entry is None else entry.dn
        password = question.password if entry is not None else secrets.token_bytes(len(question.password))
        refusal = _refusal(session.proof().bind(dn, password, session.until), dn, entry)
        if entry is None:
            return UNKNOWN
        return refusal or self._admit(session.service(), entry, question, session.until)

    def _template_password(self, session: Session, question: Question) -> Verdict:
        dn = fill_dn(self.settings.user_dn, {"user": question.username})
        proof = session.proof()
        result = proof.bind(dn, question.password, session.until)
        refusal = _refusal(result, dn)
        if refusal is not None:
            # Some directories say that there is no such entry; where nothing of its name is there, the whole
            # tree may be missing.
            return UNKNOWN if result.code == NO_SUCH_OBJECT and result.matched else refusal
        searcher = session.service() if self._has_service else proof
        found, entries = searcher.search(dn, "BASE", _ANYTHING, self._wanted, 1, session.until)
        if found.code not in (NO_SUCH_OBJECT, INSUFFICIENT_ACCESS_RIGHTS):
            _demand(found, searcher)
        if not entries:
            raise Doubt("entry_unreadable", f"its own user cannot read it: {found.told}", dn)
        if not self._is_named(entries[0], question.username):
            return UNKNOWN
        return self._admit(searcher, entries[0], question, session.until)

    def _key(self, session: Session, question: Question) -> Verdict:
        key = encode_key(question.key)
        attribute = self.settings.key_attribute
        wanted = fill_filter(f"({attribute}={{key}})", {"key": key})
        found = self._search(session.service(), wanted, question, session.until)
        octets = key.encode("ascii")
        entry = _only([each for each in found if octets in each.octets(attribute)])
        return UNKNOWN if entry is None else self._admit(session.service(), entry, question, session.until)

    # -- what both need --------------------------------------------------------------------------------------

    def _find_user(self, searcher: Link, question: Question, until: float) -> Entry | None:
        parts = [f"({attribute}={{user}})" for attribute in self.settings.user_attribute]
        wanted = fill_filter(parts[0] if len(parts) == 1 else f"(|{''.join(parts)})", {"user": question.username})
        found = self._search(searcher, wanted, question, until)
        return _only([each for each in found if self._is_named(each, question.username)])

    def _search(self, searcher: Link, wanted: str, question: Question, until: float) -> list[Entry]:
        """The entries below the base that fit; more than two are a `Doubt`."""
        settings = self.settings
        if settings.user_filter:
            wanted = f"(&{fill_filter(settings.user_filter, {'domain': question.domain})}{wanted})"
        scope = "SUBTREE" if settings.scope == "subtree" else "LEVEL"
        result, entries = searcher.search(settings.base, scope, wanted, self._wanted, 2, until)
        if result.code == SIZE_LIMIT_EXCEEDED and len(entries) == 2:
            raise _ambiguous(entries)
        _demand(result, searcher)
        return entries

    def _is_named(self, entry: Entry, name: str) -> bool:
        """Whether the entry has this name as it was sent: directories compare without case, and take full-width
        letters and spaces around a name for nothing."""
        if not self.settings.ignore_case:
            octets = name.encode("utf-8")
            return any(octets in entry.octets(attribute) for attribute in self.settings.user_attribute)
        folded = name.casefold()
        return any(
            folded == value.casefold()
            for attribute in self.settings.user_attribute
            for value in entry.texts(attribute)
        )

    def _admit(self, searcher: Link, entry: Entry, question: Question, until: float) -> Verdict:
        """What becomes of somebody who has proved to be this entry."""
        names = entry.texts(self.settings.naming)
        if len(names) != 1:
            text = f"it has {len(names)} values of {self.settings.naming}, which is to name it"
            raise Doubt("ambiguous_name", text, entry.dn)
        principal = Principal(names[0])
        if self._is_locked(searcher, entry, question, until):
            return Verdict(Outcome.LOCKED, principal, "account_locked")
        groups = self._groups.find(searcher, entry, names[0], until) if self._groups.needed else ()
        refusal = self._groups.refusal(groups)
        if refusal:
            outcome = Outcome.LOCKED if refusal == "in_denied_group" else Outcome.REJECT
            return Verdict(outcome, principal, refusal)
        told = Principal(names[0], self._groups.told(groups), self._attributes(entry))
        return Verdict(Outcome.ACCEPT, told)

    def _is_locked(self, searcher: Link, entry: Entry, question: Question, until: float) -> bool:
        # A lock that ends by itself is the bind's to judge: it stays written in the entry after its end, and
        # somebody who guesses passwords must not lock out the owner's key.
        if _LOCKED_FOR_GOOD in entry.octets(_LOCKED_TIME):
            return True
        if not self.settings.locked_filter:
            return False
        wanted = fill_filter(self.settings.locked_filter, {"domain": question.domain})
        result, found = searcher.search(entry.dn, "BASE", wanted, (), 1, until)
        _demand(result, searcher)
        return bool(found)

    def _attributes(self, entry: Entry) -> tuple[tuple[str, str], ...]:
        told = []
        for name, attribute in self.settings.attributes.items():
            values = entry.texts(attribute)
            if len(values) > 1 and any("," in value for value in values):
                raise Doubt("bad_attribute", f"one of several values of {attribute} holds a comma", entry.dn)
            if values:
                told.append((name, ",".join(values)))
        return tuple(told)

    def _nobody(self) -> str:
        """The DN of an entry that is not there."""
        return f"{self.settings.user_attribute[0]}=zapd-{secrets.token_hex(16)},{self.settings.base}"

    def _look(self, session: Session) -> None:
        if not self.settings.base and not self._has_service:
            session.proof()
            return
        link = session.service()
        if self.settings.base:
            result, found = link.search(self.settings.base, "BASE", _ANYTHING, (), 1, session.until)
            _demand(result, link)
            if not found:
                raise Trouble("base_missing", f"{session.place}: base cannot be read")

    def _content(self) -> None:
        """A question was answered; a server that did not answer it is worth a word all the same."""
        trouble = self._servers.trouble
        self._complain(f"{trouble}; another server answers" if trouble else "")

    def _complain(self, text: str) -> None:
        text = text or self._unwise
        with self._lock:
            if text == self.problem:
                return
            self.problem = text
        if text:
            log.warning("ldap directory", backend=self.name, problem=text)
        else:
            log.info("ldap directory answers", backend=self.name)


class LdapBackend(Threaded):
    """`Directory` in threads: passwords."""

    blocking = Directory

    def __init__(self, name: str, inner: Directory) -> None:
        super().__init__(name, inner)
        self._directory = inner

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Connects to nothing. Raises `zapd.errors.ConfigurationError`."""
        inner = Directory.from_settings(name, settings, context)
        kind = LdapKeysBackend if inner.settings.key_attribute else LdapBackend
        return cast(Self, kind(name, inner))

    @property
    def warnings(self) -> list[Warning_]:
        """See `zapd.auth.backend.WarnsOfSettings`."""
        return self._directory.settings.warnings()


class LdapKeysBackend(LdapBackend):
    """The same where ``key_attribute`` is set: passwords and CURVE keys."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"CURVE", "PLAIN"})


def _refusal(result: Result, dn: str, entry: Entry | None = None) -> Verdict | None:
    """What a bind's answer says against somebody; None when it says nothing. Raises `Trouble`, and `Doubt` for
    what may be true of this one alone: else whoever makes a server say it would close the door for all."""
    known = _POLICY_REASONS.get(-1 if result.policy_error is None else result.policy_error)
    if result.code == SUCCESS:
        return Verdict(Outcome.LOCKED, reason=known) if known else None
    if result.code == CONSTRAINT_VIOLATION:  # 389 Directory Server, behind too many wrong passwords
        return Verdict(Outcome.LOCKED, reason="account_locked")
    if result.code == UNWILLING_TO_PERFORM and result.text.startswith(_INACTIVATED):
        return Verdict(Outcome.LOCKED, reason="account_disabled")
    if result.code in (INVALID_CREDENTIALS, INAPPROPRIATE_AUTHENTICATION):
        data = _DATA.search(result.text)
        known = known or (_ACTIVE_DIRECTORY.get(data[1]) if data is not None else None)
        if known is None and entry is not None and entry.octets(_LOCKED_TIME):
            known = "account_locked"
        return Verdict(Outcome.LOCKED, reason=known) if known else _WRONG
    if result.code == NO_SUCH_OBJECT and result.matched:
        return _WRONG
    if result.code in OUTAGES or result.code == NO_SUCH_OBJECT:
        raise Trouble("directory_error", f"a bind is answered with {result.told}")
    raise Doubt("bind_undecided", f"its bind is answered with {result.told}", dn)


def _only(found: list[Entry]) -> Entry | None:
    if len(found) > 1:
        raise _ambiguous(found)
    return found[0] if found else None


def _ambiguous(found: list[Entry]) -> Doubt:
    return Doubt("ambiguous_entry", f"so does {found[1].dn} answer to this name or key", found[0].dn)


def _demand(result: Result, link: Link) -> None:
    """Raise `Trouble` for a search that was not answered in full."""
    if result.code == SUCCESS:
        return
    reason = {SIZE_LIMIT_EXCEEDED: "size_limit", NO_SUCH_OBJECT: "base_missing"}.get(
        result.code, "directory_error"
    )
    raise Trouble(reason, f"{link.place}: a search fails: {result.told}")
