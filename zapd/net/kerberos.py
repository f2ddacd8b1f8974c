"""Kerberos for the GSSAPI mechanism: security contexts of the library gssapi (the extra ``zapd[kerberos]``).

    server = GssapiServer(KerberosAcceptor("/etc/zapd/zmq.keytab"))
    await router.listen(address, server, Admission(handler, "orders"), limits=GSSAPI_LIMITS)
    dealer = Dealer(address, KerberosInitiator("zmq@host.example.org"), on_messages)

Accepting asks nobody: a ticket is opened with a key of the keytab, and whether it came before stands in the replay
cache, a file that the Kerberos library keeps (KRB5RCACHENAME). Initiating asks the KDC for a ticket whenever the
cache has none, and a KDC may be slow or away; so a thread does that, before the connection is opened.

Only Kerberos is spoken. The other mechanisms of the system's library could be negotiated by a peer, and one of
them (IAKERB) would have us call a KDC for a stranger. Who may come in is not known here: that is the handler's.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

from zapd.errors import InvalidInput, LocalProtocolError, Unavailable
from zapd.zmtp.handshake import PeerError
from zapd.zmtp.mechanisms.gssapi import GssapiClient

try:
    import gssapi
    from gssapi.exceptions import GSSError
except ImportError as missing:
    raise ImportError("zapd.net.kerberos needs the library gssapi: pip install 'zapd[kerberos]'") from missing

_Flag: Final = gssapi.RequirementFlag
_KERBEROS: Final = gssapi.MechType.kerberos
_WANTED: Final = int(
    _Flag.mutual_authentication | _Flag.replay_detection | _Flag.confidentiality | _Flag.integrity
)
"""What both sides of a context must have; libzmq's clients ask for no less."""
_LONGEST_REASON: Final = 200
_MEANINGLESS: Final = ("Success", "Unknown error")
"""What the library says where only the major status tells something."""


class KerberosAcceptor:
    """Makes the contexts of `zapd.zmtp.mechanisms.gssapi.GssapiServer`, one for each connection."""

    def __init__(self, keytab: str | os.PathLike[str], service: str = "") -> None:
        """``keytab`` holds the service's keys; it may be replaced by one with newer keys at any time. ``service``,
        ``zmq@host`` or ``zmq/host@REALM``, takes tickets for that principal alone; without it those for any key.

        Raises `Unavailable` when the keytab has no such key or others can read it, `InvalidInput` when ``service``
        is no name.
        """
        name = _service_name(service) if service else None
        self._keys = _private(keytab)
        try:
            self._credentials = gssapi.Credentials(
                name=name, usage="accept", mechs=[_KERBEROS], store={"keytab": self._keys}
            )
        except GSSError as error:
            raise Unavailable(f"{self._keys}: no key to accept tickets with: {_reason(error)}") from None

    def __repr__(self) -> str:
        return f"<KerberosAcceptor {self._keys}>"

    def __call__(self) -> KerberosContext:
        """The context of a new connection."""
        return KerberosContext(gssapi.SecurityContext(creds=self._credentials, usage="accept"))


class KerberosInitiator:
    """Makes the client's side of GSSAPI for each connection of a `zapd.net.dealer.Dealer`.

    One thread at a time, a daemon, speaks with the KDC. One that hangs there is waited for by every later
    connection, as long as each has patience: hung threads never grow in number.
    """

    def __init__(
        self,
        service: str,
        *,
        principal: str = "",
        keytab: str | os.PathLike[str] | None = None,
        plaintext: bool = False,
    ) -> None:
        """``service`` is the server's ``zmq@host`` or ``zmq/host@REALM``, and is made to prove it. Who we are
        stands in ``keytab``, our own key, with which tickets are fetched and kept in memory; without one in the
        credential cache that kinit fills (KRB5CCNAME). ``principal`` picks one of several.

        Raises `InvalidInput` for what is no name, `Unavailable` for a keytab that is missing or others can read.
        """
        self._service = service
        self._plaintext = plaintext
        self._target = _service_name(service)
        self._own = _name(principal, gssapi.NameType.kerberos_principal) if principal else None
        self._store: dict[str, str] | None = None
        if keytab is not None:
            # A cache of our own, else the library would renew the tickets of whoever runs us.
            cache = f"MEMORY:zapd-{os.urandom(8).hex()}"
            self._store = {"client_keytab": _private(keytab), "ccache": cache}
        self._work: Future[KerberosContext] | None = None

    def __repr__(self) -> str:
        return f"<KerberosInitiator {self._service}>"

    async def __call__(self) -> GssapiClient:
        """The mechanism for one connection, its first token ready. Raises `Unavailable`: no ticket, no KDC."""
        while True:
            work = self._work
            if work is None or work.done():
                work = self._work = self._start()
            context = await asyncio.wrap_future(work)
            if self._work is work:  # else another connection has taken it
                break
        self._work = None
        return GssapiClient(lambda: context, self._plaintext)

    def _start(self) -> Future[KerberosContext]:
        work: Future[KerberosContext] = Future()
        work.set_running_or_notify_cancel()  # whoever loses patience does not end what others may wait for

        def run() -> None:
            try:
                work.set_result(self._begin())
            except BaseException as error:  # noqa: BLE001  (whoever waits gets it)
                work.set_exception(error)

        threading.Thread(target=run, name="zapd-kerberos", daemon=True).start()
        return work

    def _begin(self) -> KerberosContext:
        """In the thread: a ticket, and the first token out of it."""
        try:
            credentials = gssapi.Credentials(
                name=self._own, usage="initiate", mechs=[_KERBEROS], store=self._store
            )
            context = KerberosContext(
                gssapi.SecurityContext(
                    name=self._target,
                    creds=credentials,
                    usage="initiate",
                    mech=_KERBEROS,
                    flags=_WANTED | _Flag.out_of_sequence_detection,
                )
            )
            context.begin()
        except GSSError as error:
            raise Unavailable(f"no ticket for {self._service}: {_reason(error)}") from None
        return context


class KerberosContext:
    """`zapd.zmtp.mechanisms.gssapi.SecurityContext` over one of the library's."""

    __slots__ = ("_context", "_first", "complete", "peer_name")

    def __init__(self, context: gssapi.SecurityContext) -> None:
        self._context = context
        self._first = b""
        self.complete = False
        """Both sides have proved themselves."""
        self.peer_name = b""
        """The peer's principal, once complete: ``alice@EXAMPLE.ORG``."""

    def begin(self) -> None:
        """Make the initiator's first token, which may take a KDC. Raises the library's errors."""
        self._first = self._context.step() or b""

    def step(self, token: bytes) -> bytes:
        """Take the peer's token; the answer, which may be empty."""
        if not token:
            return self._first
        try:
            answer: bytes = self._context.step(token) or b""
            # Raises what `step` put off, too: an error that comes with a token for the peer.
            done = self._context.complete
        except GSSError as error:
            raise PeerError(f"the token was refused: {_reason(error)}") from None
        if done:
            self._finish()
        return answer

    def wrap(self, content: bytes) -> bytes:
        """`LocalProtocolError` when the context is worn out."""
        try:
            result = self._context.wrap(content, True)
        except GSSError as error:
            raise LocalProtocolError(f"nothing can be wrapped any more: {_reason(error)}") from None
        if not result.encrypted:
            raise LocalProtocolError("the mechanism wraps without encryption")
        token: bytes = result.message
        return token

    def unwrap(self, token: bytes) -> bytes:
        """`PeerError` unless it is the peer's, whole, encrypted, and came never before."""
        try:
            result = self._context.unwrap(token)
        except GSSError as error:
            raise PeerError(f"a wrapped token was refused: {_reason(error)}") from None
        if not result.encrypted:  # a peer may sign only; libzmq's process would abort
            raise PeerError("a wrapped token is not encrypted")
        content: bytes = result.message
        return content

    def _finish(self) -> None:
        """What the peer chose is held against what libzmq asks for and against what we rely on."""
        context = self._context
        flags = int(context.actual_flags)
        if flags & _WANTED != _WANTED or flags & int(_Flag.anonymity):
            raise PeerError("the peer's context lacks mutual proof, replay detection, encryption or a name")
        self.peer_name = bytes(context.target_name if context.locally_initiated else context.initiator_name)
        self.complete = True


def _private(keytab: str | os.PathLike[str]) -> str:
    """A keytab as the library calls it. Whoever else can read it can pass for its principals."""
    path = Path(keytab).absolute()
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise Unavailable(f"{path}: {error.strerror}") from None
    if mode & 0o077:
        raise Unavailable(f"{path}: others can read or change these keys: chmod 600 it, and make new ones")
    return f"FILE:{path}"


def _service_name(service: str) -> Any:
    kind = gssapi.NameType.kerberos_principal if "/" in service else gssapi.NameType.hostbased_service
    return _name(service, kind)


def _name(text: str, kind: Any) -> Any:
    try:
        return gssapi.Name(text, kind)
    except GSSError as error:
        raise InvalidInput(f"{text!r} is no name that Kerberos knows: {_reason(error)}") from None


def _reason(error: GSSError) -> str:
    """What the library says, harmless to print: names in it may be a stranger's."""
    details = [text for text in error.get_all_statuses(error.min_code, False) if text not in _MEANINGLESS]
    text = "; ".join(details or error.get_all_statuses(error.maj_code, True))[:_LONGEST_REASON]
    return "".join(letter if letter.isprintable() else "?" for letter in text)
