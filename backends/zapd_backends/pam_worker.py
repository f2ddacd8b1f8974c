"""A process that asks PAM one question at a time: a module that hangs, crashes or leaks takes nothing with it.

Started by `processes` as ``python -m zapd_backends.pam_worker SERVICE CONFDIR``. What an answer means is not known
here. python-pam finds libpam and its functions; what it leaves open is closed here: null passwords are disallowed,
the peer is named, failures are not delayed, every hidden prompt gets the password and no visible one anything, and
the name is read back.
"""

from __future__ import annotations

import ctypes
import importlib
import sys
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from pam import (
    PAM_CONV_ERR,
    PAM_OPEN_ERR,
    PAM_PROMPT_ECHO_OFF,
    PAM_RHOST,
    PAM_SILENT,
    PAM_SUCCESS,
    PAM_USER,
    PamAuthenticator,
)
from pam import PAM_DISALLOW_NULL_AUTHTOK as NO_NULL

from zapd_backends.pam_service import SERVICE_DIRS, read_service
from zapd_backends.worker import serve

_pam: Any = importlib.import_module("pam.__internals")  # its structures have no public name

_FAIL_DELAY: Final = 10
"""PAM_FAIL_DELAY of <security/_pam_types.h>."""
_ERROR_MSG, _TEXT_INFO = 3, 4

_Delay = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p)


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """A question. Never printed."""

    user: str
    password: bytes
    rhost: str

    def __repr__(self) -> str:
        return f"Ask({self.user!r})"


class Told(msgspec.Struct, frozen=True, array_like=True):
    """What PAM said."""

    phase: str
    """``auth`` or ``account``: the one that ended it."""
    code: int
    user: str = ""
    """Whom PAM took it for, when it said yes."""


class Conversation(PamAuthenticator):  # type: ignore[misc]
    """python-pam's handle on libpam, with both phases asked as a service must."""

    def ask(self, service: str, confdir: str, question: Ask) -> Told:
        """Authenticate, then ask whether the account may be used."""
        places = (confdir,) if confdir else SERVICE_DIRS
        policy = read_service(places, service)
        if not policy.complete:
            return Told("start", PAM_OPEN_ERR)
        # The callbacks must outlive the handle.
        talk = _pam.conv_func(lambda *words: self._answer(question.password, *words))
        calm = _Delay(lambda *_: None)
        conversation = _pam.PamConv(talk, None)
        handle = _pam.PamHandle()
        code = self._start(service, confdir, question.user, conversation, handle)
        if code != PAM_SUCCESS:
            return Told("start", code)
        phase, user = "start", ""
        try:
            code = self.pam_set_item(handle, PAM_RHOST, question.rhost.encode("ascii"))
            if code == PAM_SUCCESS:
                code = self.pam_set_item(handle, _FAIL_DELAY, ctypes.cast(calm, ctypes.c_void_p))
            if code == PAM_SUCCESS:
                phase, code = "auth", self.pam_authenticate(handle, PAM_SILENT | NO_NULL)
            if code == PAM_SUCCESS:
                phase, code = "account", self.pam_acct_mgmt(handle, PAM_SILENT | NO_NULL)
            if code == PAM_SUCCESS:
                user = self._user(handle)
        finally:
            self.pam_end(handle, code)
        if read_service(places, service) != policy:
            return Told("start", PAM_OPEN_ERR)  # another policy may have answered
        return Told(phase, code, user)

    def _start(self, service: str, confdir: str, user: str, conversation: Any, handle: Any) -> int:
        names = [service.encode("ascii"), user.encode("utf-8")]
        ends = [ctypes.byref(conversation), *([confdir.encode("utf-8")] if confdir else []), ctypes.byref(handle)]
        if not confdir:
            return int(self.pam_start(*names, *ends))
        libpam = ctypes.CDLL("libpam.so.0")
        return int(libpam.pam_start_confdir(*names, *ends))  # Linux-PAM 1.4

    def _user(self, handle: Any) -> str:
        libpam = ctypes.CDLL("libpam.so.0")
        libpam.pam_get_item.argtypes = [_pam.PamHandle, ctypes.c_int, ctypes.POINTER(ctypes.c_char_p)]
        item = ctypes.c_char_p()
        if libpam.pam_get_item(handle, PAM_USER, ctypes.byref(item)) != PAM_SUCCESS or not item.value:
            return ""
        return item.value.decode("utf-8", "replace")

    def _answer(self, password: bytes, count: int, messages: Any, responses: Any, _data: Any) -> int:
        """The password to each hidden prompt; a visible one, or anything else, ends the conversation."""
        styles = [messages[number].contents.msg_style for number in range(count)]
        if any(style not in (PAM_PROMPT_ECHO_OFF, _ERROR_MSG, _TEXT_INFO) for style in styles):
            return int(PAM_CONV_ERR)
        # libpam frees what it is given.
        room = self.calloc(count, ctypes.sizeof(_pam.PamResponse))
        answers = ctypes.cast(room, ctypes.POINTER(_pam.PamResponse))
        for number, style in enumerate(styles):
            if style == PAM_PROMPT_ECHO_OFF:
                text = self.calloc(len(password) + 1, 1)
                ctypes.memmove(text, password, len(password))
                answers[number].resp = ctypes.cast(text, ctypes.c_char_p)
        responses[0] = answers
        return int(PAM_SUCCESS)


def main(words: Sequence[str]) -> None:
    """Answer until the input ends."""
    service, confdir = words

    def answer(body: bytes) -> bytes:
        told = Conversation().ask(service, confdir, msgspec.msgpack.decode(body, type=Ask))
        return msgspec.msgpack.encode(told)

    serve(answer)


if __name__ == "__main__":
    main(sys.argv[1:])
