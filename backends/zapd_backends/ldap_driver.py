"""ldap3 behind one door: nothing else imports it, so that another driver can take its place.

What ldap3 leaves open is closed here and in `ldap_line`, whose connections it gets instead of its own. Referrals
are not followed, aliases not dereferenced, schemas not read. Only here is a name or key written into a filter or a
DN, every octet of it escaped that is no letter or digit. What a user or a key means is not known here.
"""

from __future__ import annotations

import ssl
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from math import ceil
from time import monotonic
from typing import Any, Final

from zapd.errors import Unavailable
from zapd_backends.ldap_line import Doubt, Line, Place, Trouble, connect, shown, words
from zapd_backends.ldap_policy import PASSWORD_POLICY, policy_error

with warnings.catch_warnings():
    # ldap3 uses names that pyasn1 has renamed; both are pinned below where the old ones end.
    warnings.simplefilter("ignore", DeprecationWarning)
    import ldap3
    from ldap3.core.exceptions import LDAPExceptionError, LDAPInvalidFilterError
    from ldap3.operation.search import parse_filter
    from ldap3.protocol import rfc4511
    from ldap3.protocol.convert import build_controls_list
    from ldap3.utils.dn import parse_dn

SUCCESS: Final = 0
SIZE_LIMIT_EXCEEDED: Final = 4
CONSTRAINT_VIOLATION: Final = 19
NO_SUCH_OBJECT: Final = 32
INAPPROPRIATE_AUTHENTICATION: Final = 48
INVALID_CREDENTIALS: Final = 49
INSUFFICIENT_ACCESS_RIGHTS: Final = 50
UNWILLING_TO_PERFORM: Final = 53
"""Result codes (RFC 4511, appendix A.1)."""
OUTAGES: Final = frozenset({1, 2, 3, 7, 8, 10, 11, 12, 13, 51, 52, 54, 80})
"""Those that speak of the server or the way to it, whoever it is about: operationsError, protocolError,
timeLimitExceeded, authMethodNotSupported, strongerAuthRequired, referral, adminLimitExceeded,
unavailableCriticalExtension, confidentialityRequired, busy, unavailable, loopDetect, other."""

_START_TLS: Final = "1.3.6.1.4.1.1466.20037"
"""RFC 4511, section 4.14."""


@dataclass(frozen=True, slots=True)
class Result:
    """How a server answered a request."""

    code: int
    text: str
    """The server's own words, printable and cut; for people only."""
    matched: str = ""
    """How much of a DN that does not exist does."""
    policy_error: int | None = None
    """What its password policy says against a bind (`Policy`)."""

    @property
    def told(self) -> str:
        return f"result {self.code}{f' ({self.text})' if self.text else ''}"


@dataclass(frozen=True, slots=True)
class Entry:
    """What was asked for of an entry."""

    dn: str
    attributes: Mapping[str, tuple[bytes, ...]] = field(repr=False)
    """By names in lower case."""

    def octets(self, name: str) -> tuple[bytes, ...]:
        return self.attributes.get(name.lower(), ())

    def texts(self, name: str) -> tuple[str, ...]:
        """The values in UTF-8, sorted, since a directory keeps no order. Raises `Doubt` for anything else."""
        try:
            return tuple(sorted(value.decode("utf-8") for value in self.octets(name)))
        except UnicodeDecodeError:
            raise Doubt("bad_attribute", f"a value of {name} is not UTF-8", self.dn) from None


class Link:
    """One connection to one server. For one thread at a time; after a `Trouble` fit for `close` alone."""

    def __init__(self, place: Place, line: Line, connection: Any) -> None:
        self.place = place
        self._line = line
        self._ldap = connection
        self.used = False
        """Whether it has been asked before."""
        self.bound_as = ""
        """Whose bind it said yes to last."""

    @classmethod
    def open(cls, place: Place, tls: ssl.SSLContext | None, until: float) -> Link:
        """Connect until then (monotonic seconds). ``tls`` is needed where the place says so. Raises `Trouble`."""
        line = Line(connect(place, until), until)
        try:
            if place.tls and tls is not None:
                line.secure(place, tls)
            server = ldap3.Server(place.host, place.port, get_info=ldap3.NONE)
            connection = ldap3.Connection(
                server,
                auto_bind=ldap3.AUTO_BIND_NONE,
                auto_referrals=False,
                auto_range=False,
                check_names=False,
                read_only=True,
                return_empty_attributes=False,
            )
            # What ldap3's own opening does, but with our line: its timeouts are whole seconds for each read.
            connection.socket = line
            connection.closed = False
            connection.strategy._outstanding = {}
            connection.strategy._start_listen()
            connection.send = partial(_send, connection)
            link = cls(place, line, connection)
            if place.start_tls:
                link._start_tls(tls, until)
                link.used = False
        except BaseException:
            line.close()
            raise
        return link

    def bind(self, dn: str, password: bytes, until: float) -> Result:
        """A simple bind. Raises `Trouble`, and `ValueError` for an empty name or password, which no server sees:
        many take it for an anonymous bind and say yes."""
        if not dn or not password:
            raise ValueError("a bind needs a name and a password")
        controls = [(PASSWORD_POLICY, False, None)]
        self._ldap.user, self._ldap.password = dn, password
        self._ldap.authentication = ldap3.SIMPLE
        self.bound_as = ""
        try:
            self._call(partial(self._ldap.bind, read_server_info=False, controls=controls), "bindResponse", until)
            result = _result(self._ldap.result)
            self.bound_as = dn if result.code == SUCCESS else ""
            return result
        finally:
            self._ldap.user = self._ldap.password = None

    def search(
        self, base: str, scope: str, wanted: str, attributes: tuple[str, ...], limit: int, until: float
    ) -> tuple[Result, list[Entry]]:
        """At most ``limit`` entries that fit the filter ``wanted`` (see `fill_filter`). Raises `Trouble`."""
        call = partial(
            self._ldap.search,
            base,
            wanted,
            search_scope=scope,
            dereference_aliases=ldap3.DEREF_NEVER,
            attributes=list(attributes) or [ldap3.NO_ATTRIBUTES],
            size_limit=limit,
            time_limit=max(1, ceil(until - monotonic())),
            auto_escape=False,
        )
        self._call(call, "searchResDone", until)
        found = [each for each in self._ldap.response if each["type"] == "searchResEntry"]
        self._ldap.response = None
        if len(found) > limit:
            raise Trouble("directory_error", f"{self.place} sends more entries than it was asked for")
        return _result(self._ldap.result), [_entry(each) for each in found]

    def alive(self) -> bool:
        """Whether it still looks usable: a server that has nothing to answer and speaks has said good-bye."""
        return self._line.quiet()

    def close(self) -> None:
        self._line.close()

    def _start_tls(self, tls: ssl.SSLContext | None, until: float) -> None:
        self._call(partial(self._ldap.extended, _START_TLS), "extendedResp", until)
        result = _result(self._ldap.result)
        if result.code != SUCCESS or tls is None:
            raise Trouble("tls_failed", f"{self.place} does not do StartTLS: {result.told}")
        self._line.secure(self.place, tls)

    def _call(self, work: Callable[[], object], kind: str, until: float) -> None:
        """Let ldap3 ask and wait. Whatever it makes of what a server sent is `Trouble`."""
        self._line.start(until)
        try:
            work()
            if self._ldap.result["type"] != kind:
                raise Trouble("directory_error", f"{self.place} answers something that was not asked")
        except Unavailable:
            raise
        except Exception as error:  # noqa: BLE001 - its decoder raises anything for garbage
            if monotonic() >= until:
                raise Trouble("directory_late", f"{self.place} does not answer in time") from None
            kind_of_error = "closes the connection" if self._line.ended else f"fails: {words(error)}"
            text = f"{self.place} {kind_of_error}"
            reason = "directory_down" if self._line.ended else "directory_error"
            raise Trouble(reason, text, stale=self.used and self._line.ended) from None
        finally:
            self.used = True


def _send(connection: Any, kind: str, request: Any, controls: Any = None) -> int:
    """ldap3's own sending, but for a readable copy of each request, which would keep passwords and fails for those
    that are not UTF-8."""
    message_id = int(connection.server.next_message_id())
    message = rfc4511.LDAPMessage()
    message["messageID"] = rfc4511.MessageID(message_id)
    message["protocolOp"] = rfc4511.ProtocolOp().setComponentByName(kind, request)
    built = build_controls_list(controls)
    if built is not None:
        message["controls"] = built
    connection.strategy._outstanding[message_id] = {"type": kind}
    connection.strategy.sending(message)
    return message_id


def fill_filter(template: str, values: Mapping[str, str]) -> str:
    """``template`` with each ``{name}`` replaced by its value, which nothing of the filter's language survives."""
    return _fill(template, values)


def fill_dn(template: str, values: Mapping[str, str]) -> str:
    """The same for a DN: RFC 4514 reads the same escapes."""
    return _fill(template, values)


def check_filter(template: str) -> None:
    """Raise `ValueError` for what is no filter."""
    try:
        parse_filter(template, None, False, False, None, False)
    except (LDAPInvalidFilterError, LDAPExceptionError, AttributeError, IndexError) as error:
        raise ValueError(f"no LDAP filter: {words(error)}") from None


def normal_dn(dn: str) -> str:
    """The form in which two writings of a DN are compared: names and values without case, escapes undone, no white
    space around them. Raises `ValueError` for what is no DN."""
    try:
        parts = parse_dn(dn, escape=False, strip=True)
    except (LDAPExceptionError, IndexError, ValueError) as error:
        raise ValueError(f"no DN: {words(error)}") from None
    return "".join(f"{kind.lower()}={_plain(value)!r}{end}" for kind, value, end in parts)


def first_value(dn: str) -> str:
    """The value of a DN's first part: ``ops`` of ``cn=ops,ou=groups``. Raises `ValueError`."""
    try:
        return _unescaped(str(parse_dn(dn, escape=False, strip=True)[0][1]))
    except (LDAPExceptionError, IndexError) as error:
        raise ValueError(f"no DN: {words(error)}") from None


def _plain(value: str) -> str:
    return " ".join(_unescaped(value).casefold().split())


def _unescaped(value: str) -> str:
    """RFC 4514, section 2.4, read back."""
    octets = bytearray()
    at = 0
    while at < len(value):
        character = value[at]
        pair = value[at + 1 : at + 3]
        if character == "\\" and len(pair) == 2 and all(each in "0123456789abcdefABCDEF" for each in pair):
            octets.append(int(pair, 16))
            at += 3
        elif character == "\\" and pair:
            octets += pair[0].encode("utf-8")
            at += 2
        else:
            octets += character.encode("utf-8")
            at += 1
    return octets.decode("utf-8", "backslashreplace")


def _fill(template: str, values: Mapping[str, str]) -> str:
    for name, value in values.items():
        template = template.replace("{" + name + "}", _escaped(value))
    return template


def _escaped(value: str) -> str:
    """Each octet that is no ASCII letter or digit as ``\\xx`` (RFC 4515, section 3; RFC 4514, section 2.4)."""
    return "".join(
        chr(octet) if octet < 128 and chr(octet).isalnum() else f"\\{octet:02x}" for octet in value.encode("utf-8")
    )


def _entry(found: Mapping[str, Any]) -> Entry:
    try:
        dn = bytes(found["raw_dn"]).decode("utf-8")
    except UnicodeDecodeError:
        raise Doubt("bad_attribute", "the name of an entry is not UTF-8", repr(bytes(found["raw_dn"]))) from None
    return Entry(dn, {str(name).lower(): tuple(values or ()) for name, values in found["raw_attributes"].items()})


def _result(found: Mapping[str, Any]) -> Result:
    control = (found.get("controls") or {}).get(PASSWORD_POLICY)
    return Result(
        int(found["result"]),
        shown(str(found["message"] or "")),
        str(found["dn"] or ""),
        None if control is None else policy_error(control["value"]),
    )
