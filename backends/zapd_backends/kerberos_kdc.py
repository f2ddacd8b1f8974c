"""What a process is asked about a password, what it tells, and what that means. Pure.

libkrb5 says everything in one number: what the KDC answered (RFC 4120, section 7.5.9) and what went wrong on the
way there. Only what is clearly about this very account is a no. What a KDC says against one account alone is a
doubt about that one; everything else is an outage.
"""

from __future__ import annotations

from typing import Final

import msgspec

from zapd.auth.backend import UNKNOWN, Outcome, Principal, Verdict

_BASE: Final = -1765328384
"""krb5.h: where libkrb5's codes begin, those of the protocol first."""
_PROTOCOL: Final = 128

_BARRED: Final = {1: "account_expired", 12: "not_permitted", 18: "account_locked", 23: "password_expired"}
"""KDC_ERR_NAME_EXP, KDC_ERR_POLICY, KDC_ERR_CLIENT_REVOKED, KDC_ERR_KEY_EXPIRED."""
_NOBODY, _NO_SERVICE, _NOT_YET, _AWAY, _GENERIC = 6, 7, 21, 29, 60
"""KDC_ERR_C_PRINCIPAL_UNKNOWN, KDC_ERR_S_PRINCIPAL_UNKNOWN, KDC_ERR_CLIENT_NOTYET, KDC_ERR_SVC_UNAVAILABLE,
KRB_ERR_GENERIC."""
_WRONG_PASSWORD: Final = frozenset({24, 31})
"""KDC_ERR_PREAUTH_FAILED; KRB_AP_ERR_BAD_INTEGRITY for accounts that need no preauthentication."""
_NO_PASSWORD: Final = 210
"""KRB5_PREAUTH_FAILED: this account proves itself by other means."""
_SKEW: Final = frozenset({37, 148})
"""KRB_AP_ERR_SKEW, KRB5_KDCREP_SKEW."""
_NOT_NOW: Final = frozenset({32, 33})
"""KRB_AP_ERR_TKT_EXPIRED, KRB_AP_ERR_TKT_NYV: of a ticket just made only the clocks can say so."""
_NO_KDC: Final = frozenset({_AWAY, 154, 156, 220})
"""KRB5_REALM_UNKNOWN, KRB5_KDC_UNREACH, KRB5_REALM_CANT_RESOLVE."""


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """Is this the password of that principal? Never printed."""

    principal: str
    password: bytes

    def __repr__(self) -> str:
        return f"Ask({self.principal!r})"


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What came of it."""

    step: str
    """``done``, or the one that failed: ``private`` (others can read the keytab), ``keytab``, ``password``,
    ``ticket``, ``verify``."""
    code: int = 0
    """libkrb5's number, or errno."""
    principal: str = ""
    """Whom the ticket names."""


class Trouble(Exception):
    """Nobody can be let in or refused now; the text says what is wrong and the mend."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


def refusal(told: Told, user: str) -> Verdict | None:
    """What speaks against somebody; None when nothing does. Raises `Trouble` for what is not about this one."""
    code = told.code - _BASE
    match told.step:
        case "done":
            return None
        case "private":
            raise Trouble(
                "keytab_not_private", "others can read or change keytab: chmod 600 it, and make new keys"
            )
        case "keytab":
            raise Trouble(
                "keytab_unusable", f"keytab cannot be used (error {told.code}): is it there, and zapd's to read?"
            )
        case _ if code in _SKEW or (told.step in ("ticket", "verify") and code in _NOT_NOW):
            raise Trouble(
                "clock_skew", "the clocks of this machine and of the KDC are too far apart: set them by NTP"
            )
        case "verify":
            text = f"a ticket for zapd's service does not open with keytab (error {told.code})"
            raise Trouble(
                "kdc_unverified", f"{text}: keytab is not of the KDC's newest keys, or that is no true KDC"
            )
    if code in _NO_KDC:
        raise Trouble("kdc_down", "no KDC of the realm can be reached; see config and its [realms]")
    if code in _BARRED:
        return Verdict(Outcome.LOCKED, reason=_BARRED[code])
    if code == _NOT_YET:
        return Verdict(Outcome.NOT_YET, reason="not_yet")
    if told.step == "ticket" and code == _NO_SERVICE:
        raise Trouble("service_unknown", "the KDC does not know zapd's service: see service and keytab")
    if told.step == "password":
        if code == _NOBODY:
            return UNKNOWN
        if code in _WRONG_PASSWORD:
            return Verdict(Outcome.REJECT, reason="wrong_password")
        if code == _NO_PASSWORD:
            return Verdict(Outcome.UNAVAILABLE, Principal(user), "no_password")
        if 0 < code < _PROTOCOL and code != _GENERIC:
            return Verdict(Outcome.UNAVAILABLE, Principal(user), f"kdc_error_{code}")
    shown = f"kdc_error_{code}" if 0 < code < 256 else "kdc_error"
    raise Trouble(shown, f"libkrb5 gives up with error {told.code} at the step {told.step!r}")
