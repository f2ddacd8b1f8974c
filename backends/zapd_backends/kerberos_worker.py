"""A process that asks a KDC one question at a time: libkrb5 may wait for half a minute, and cannot be told not to.

Started by `processes` as ``python -m zapd_backends.kerberos_worker KEYTAB SERVICE``. Signing in proves nothing
by itself, since whoever answers for the KDC may say yes to anything: with what it gave a ticket for our own
service is asked for, and opened with our own key, which only the true KDC knows. Credentials live in a cache in
memory that belongs to one question and dies with it. What an answer means is not known here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import gssapi
import msgspec
from gssapi.exceptions import GSSError
from gssapi.raw import acquire_cred_with_password

from zapd_backends.kerberos_kdc import Ask, Told
from zapd_backends.private_file import is_private
from zapd_backends.worker import serve

KERBEROS: Final = gssapi.MechType.kerberos


def prove(keytab: Path, service: str, question: Ask) -> Told:
    """Sign in, and verify the KDC. An empty ``service`` is the keytab's first principal."""
    step = "keytab"
    try:
        if not is_private(keytab):
            return Told("private")
        ours = gssapi.Credentials(usage="accept", mechs=[KERBEROS])
        target = _name(service) if service else ours.name
        step = "password"
        who = _name(question.principal)
        given = acquire_cred_with_password(who, question.password, usage="initiate", mechs=[KERBEROS]).creds
        step = "ticket"
        creds = gssapi.Credentials(given)
        asking = gssapi.SecurityContext(name=target, creds=creds, mech=KERBEROS, flags=0, usage="initiate")
        token = asking.step()
        step = "verify"
        answering = gssapi.SecurityContext(creds=ours, usage="accept")
        answering.step(token)
        return Told("done", principal=str(answering.initiator_name)) if answering.complete else Told(step)
    except GSSError as error:
        return Told(step, _signed(error.min_code))
    except OSError as error:
        return Told(step, error.errno or 0)


def _name(text: str) -> gssapi.Name:
    return gssapi.Name(text.encode("utf-8"), gssapi.NameType.kerberos_principal)


def _signed(code: int) -> int:
    """As the header files of libkrb5 write it."""
    return code - (1 << 32) if code >= 1 << 31 else code


def main(words: Sequence[str]) -> None:
    """Answer until the input ends."""
    keytab, service = words

    def answer(body: bytes) -> bytes:
        return msgspec.msgpack.encode(prove(Path(keytab), service, msgspec.msgpack.decode(body, type=Ask)))

    serve(answer)


if __name__ == "__main__":
    main(sys.argv[1:])
