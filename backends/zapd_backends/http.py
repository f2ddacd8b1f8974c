"""The ``http`` backend: a service of yours answers, over HTTPS, with a signed verdict.

The answer is signed (Ed25519) and names the very question: its nonce, its hash and this backend, with a time
after which it is void. So neither an old answer nor a stranger's admits anybody, whoever stands in between. What
does not fit in every respect is "cannot tell". The protocol is in ``docs/backends/http.md``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import ipaddress
import math
import secrets
import ssl
import time
from collections.abc import Callable, Mapping
from typing import Annotated, ClassVar, Final, Literal, Self
from urllib.parse import urlsplit

import httpx
import msgspec
from nacl.exceptions import BadSignatureError
from nacl.signing import VerifyKey
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from zapd.auth.backend import UNKNOWN, BackendBusy, BackendContext, Outcome, Principal, Question, Verdict
from zapd.errors import ConfigurationError, InvalidInput, Unavailable
from zapd.store.rules import check_attributes, check_groups, check_metadata, check_name
from zapd.zmtp.keys import encode_key
from zapd_backends.private_file import check_private

MAX_ANSWER: Final = 16384
"""Octets: twice what groups and attributes of a reply can need, and base64 around it."""
MAX_VALID: Final = 60.0
"""Seconds that an answer may be good for."""
WAITING: Final = 64
"""Questions that may wait for a connection."""
WITHIN: Final = 0.9
"""The part of the backend's deadline that all attempts have together: whoever waits hears why."""
ATTEMPTS: Final = 3
PAUSE: Final = 0.02
"""Seconds before the second attempt; twice that before the third."""
SIGNED: Final = b"zapd-http-answer-1\0"
"""Stands before what is signed, so that no signature made for another purpose fits."""


class Envelope(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of an answer."""

    payload: str
    """Base64 of the octets of an `Answer` in JSON."""
    signature: str
    """Base64 of 64 octets: Ed25519 over `SIGNED` and the payload's octets."""


class Answer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed."""

    backend: str
    nonce: str
    question: str
    """SHA-256 of the request's body, in hexadecimal."""
    expires: float
    """Seconds since 1970."""
    outcome: Literal["accept", "reject", "locked", "unknown", "not_yet"]
    user: str = ""
    groups: tuple[str, ...] = ()
    attributes: dict[str, str] = {}
    until: float | None = None
    """Seconds since 1970 at which the verdict ends; None is never."""


class HttpSettings(BaseModel):
    """The table ``[backend.NAME]`` of ``docs/backends/http.md``, where each setting is explained."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    url: str
    public_key: str
    tls_ca: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    plaintext: bool = False
    connections: Annotated[int, Field(ge=1, le=256)] = 16

    @field_validator("url")
    @classmethod
    def _is_a_url(cls, text: str) -> str:
        try:
            parts = urlsplit(text)
            fine = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            fine = False
        if not fine or not text.isascii() or not text.isprintable() or "@" in parts.netloc or parts.fragment:
            raise ValueError("write https://HOST[:PORT]/PATH, without a name or password in it")
        return text

    @field_validator("public_key")
    @classmethod
    def _is_a_key(cls, text: str) -> str:
        if len(_octets(text)) != 32:
            raise ValueError("write the 32 octets of the service's Ed25519 public key in base64")
        return text

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if not (self.tls or self.private or self.plaintext):
            raise ValueError(
                "url would be asked in the clear: write https:// (or, for keys alone, plaintext = true)"
            )
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("tls_cert and tls_key belong together")
        if (self.tls_ca or self.tls_cert) and not self.tls:
            raise ValueError("tls_ca, tls_cert and tls_key are for https:// URLs")
        return self

    @property
    def tls(self) -> bool:
        """Whether TLS is spoken."""
        return urlsplit(self.url).scheme == "https"

    @property
    def private(self) -> bool:
        """Whether what is said stays on this machine."""
        host = str(urlsplit(self.url).hostname)
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


class HttpBackend:
    """See the module's text; settings and outcomes are in ``docs/backends/http.md``."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"PLAIN", "CURVE", "GSSAPI"})

    def __init__(self, name: str, settings: HttpSettings, context: BackendContext) -> None:
        self.name = name
        self.settings = settings
        self.problem = ""
        """What kept the last question from being answered; empty when all is well."""
        self._base = context.base_dir
        self._clock: Callable[[], float] = context.wall_clock or time.time
        self._seconds = context.deadline * WITHIN
        self._service = VerifyKey(_octets(settings.public_key))
        self._client: httpx.AsyncClient | None = None
        self._asked = 0

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        """Connects to nobody. Raises `ConfigurationError`."""
        try:
            read = HttpSettings.model_validate(dict(settings))
        except ValidationError as error:
            raise ConfigurationError(f"backend.{name}: {_told(error)}") from None
        return cls(name, read, context)

    @property
    def warnings(self) -> list[tuple[str, str, str]]:
        """What is allowed and unwise."""
        if not self.settings.plaintext:
            return []
        return [
            ("plaintext", "who asks about which key crosses the network for everybody to read", "write https://")
        ]

    async def start(self) -> None:
        """Read the TLS files; nobody is asked yet. Raises `Unavailable`."""
        context = await asyncio.to_thread(self._tls) if self.settings.tls else True
        if self._client is None:
            most = self.settings.connections
            self._client = httpx.AsyncClient(
                verify=context,
                trust_env=False,  # no proxy, no .netrc: settings of the environment do not choose who is asked
                follow_redirects=False,
                timeout=self._seconds,
                limits=httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=30),
                headers={"Content-Type": "application/json", "Accept-Encoding": "identity", "User-Agent": "zapd"},
            )
        self.problem = ""

    async def check(self, question: Question) -> Verdict:
        """What the service says; UNAVAILABLE, with the reason, for everything that is no sound answer of its own.

        httpx needs the current task: nothing of it is touched before the first suspension. Raises `BackendBusy`.
        """
        if question.mechanism == "PLAIN":
            if not question.password or b"\0" in question.password:
                return Verdict(Outcome.REJECT, reason="wrong_password")
            if not (self.settings.tls or self.settings.private):
                return self._cannot_tell("http_needs_tls", "a password would cross the network in the clear")
        if self._asked >= self.settings.connections + WAITING:
            raise BackendBusy("all its connections are in use, and as many questions wait as may")
        nonce = secrets.token_hex(32)
        body = self._written(question, nonce)
        self._asked += 1
        try:
            await asyncio.sleep(0)  # from here on there is a task
            async with asyncio.timeout(self._seconds):
                raw = await self._ask(body)
        except TimeoutError:
            return self._cannot_tell("http_late", "the service does not answer in time")
        except _NoAnswer as trouble:
            return self._cannot_tell(trouble.reason, trouble.problem)
        finally:
            self._asked -= 1
        try:
            answer = self._opened(raw, nonce, hashlib.sha256(body).hexdigest())
            verdict = self._meaning(answer, question)
        except _NoAnswer as trouble:
            return self._cannot_tell(trouble.reason, trouble.problem)
        self.problem = ""
        return verdict

    async def aclose(self) -> None:
        """Close every connection."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def _tls(self) -> ssl.SSLContext:
        settings = self.settings
        try:
            context = ssl.create_default_context(
                cafile=str(self._base / settings.tls_ca) if settings.tls_ca else None
            )
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if settings.tls_cert:
                key = self._base / settings.tls_key
                check_private(key)
                # A key with a pass phrase would have it asked for on the terminal.
                context.load_cert_chain(self._base / settings.tls_cert, key, password=_no_phrase)
        except OSError as error:  # ssl.SSLError is one
            words = error.strerror or "not what it should be"
            raise Unavailable(f"tls_ca, tls_cert or tls_key cannot be used: {words}") from None
        return context

    def _written(self, question: Question, nonce: str) -> bytes:
        told: dict[str, object] = {
            "backend": self.name,
            "nonce": nonce,
            "time": self._clock(),
            "domain": question.domain,
            "mechanism": question.mechanism,
            "address": question.address,
        }
        if question.mechanism == "CURVE":
            told["key"] = encode_key(question.key)
        else:
            told["username"] = question.username
        if question.mechanism == "PLAIN":
            told["password"] = base64.b64encode(question.password).decode("ascii")  # it need not be UTF-8
        return msgspec.json.encode(told)

    async def _ask(self, body: bytes) -> bytes:
        """The body of the answer. Asked again only where no answer has begun; the nonce stays the same."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return await self._ask_once(body)
            except httpx.TimeoutException:
                raise TimeoutError from None
            except httpx.TransportError as error:
                if not _nothing_was_said(error):
                    raise _NoAnswer("http_garbage", "what answers does not speak HTTP") from None
                if attempt == ATTEMPTS:
                    raise _NoAnswer("http_away", _why(error)) from None
            except ssl.SSLError as error:
                # Past the handshake httpx lets it through: so TLS 1.3 tells a refused certificate.
                raise _NoAnswer("http_away", _why(error)) from None
            except httpx.HTTPError:
                raise _NoAnswer("http_garbage", "what answers does not speak HTTP") from None
            await asyncio.sleep(PAUSE * attempt)
        raise AssertionError("unreachable")

    async def _ask_once(self, body: bytes) -> bytes:
        if self._client is None:
            raise _NoAnswer("http_away", "it is closed")
        async with self._client.stream("POST", self.settings.url, content=body) as response:
            if response.status_code != 200:
                code = response.status_code
                raise _NoAnswer(f"http_status_{code}", f"the service answers {code}, and must answer 200")
            got = bytearray()
            try:
                async for chunk in response.aiter_raw():  # nothing is unpacked: no bomb
                    got += chunk
                    if len(got) > MAX_ANSWER:
                        raise _NoAnswer("http_too_long", f"an answer is longer than {MAX_ANSWER} octets")
            except httpx.TimeoutException:
                raise
            except (httpx.TransportError, ssl.SSLError):
                raise _NoAnswer("http_cut_off", "an answer was cut off") from None
            return bytes(got)

    def _opened(self, raw: bytes, nonce: str, question: str) -> Answer:
        """The answer, if it is the service's own, to this question, and of now."""
        try:
            envelope = msgspec.json.decode(raw, type=Envelope)
            payload, signature = _octets(envelope.payload), _octets(envelope.signature)
            self._service.verify(SIGNED + payload, signature)
        except BadSignatureError:
            raise _NoAnswer("http_signature", "an answer is not signed by public_key") from None
        except (ValueError, RecursionError, msgspec.MsgspecError):
            raise _NoAnswer("http_invalid", "an answer is no envelope of payload and signature") from None
        try:
            answer = msgspec.json.decode(payload, type=Answer)
        except (ValueError, RecursionError, msgspec.MsgspecError):
            raise _NoAnswer("http_invalid", "a signed answer does not fit the protocol") from None
        if (answer.backend, answer.nonce, answer.question) != (self.name, nonce, question):
            raise _NoAnswer("http_other_question", "an answer belongs to another question")
        if not 0 < answer.expires - self._clock() <= MAX_VALID:
            text = f"an answer expired, or is good for more than {MAX_VALID:g} s: compare the clocks"
            raise _NoAnswer("http_expired", text)
        return answer

    def _meaning(self, answer: Answer, question: Question) -> Verdict:
        if answer.outcome == "unknown":
            return UNKNOWN
        outcome = Outcome(answer.outcome)
        until = math.inf if answer.until is None else answer.until
        try:
            principal = _principal(answer) if answer.user else None
        except (InvalidInput, UnicodeError):
            raise _NoAnswer("http_invalid", "user, groups or attributes break a rule of zapd's") from None
        if outcome is Outcome.ACCEPT and (principal is None or until <= self._clock()):
            raise _NoAnswer("http_invalid", "an accept without a user, or whose until has passed")
        wrong = outcome is Outcome.REJECT and question.mechanism == "PLAIN"
        reason = "" if outcome is Outcome.ACCEPT else "wrong_password" if wrong else f"http_{answer.outcome}"
        return Verdict(outcome, principal, reason, until)

    def _cannot_tell(self, reason: str, problem: str) -> Verdict:
        self.problem = problem
        return Verdict(Outcome.UNAVAILABLE, reason=reason)


class _NoAnswer(Exception):
    """There is none that may be used. Both texts are ours: nothing that was received stands in them."""

    def __init__(self, reason: str, problem: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.problem = problem


def _principal(answer: Answer) -> Principal:
    groups, attributes = check_groups(answer.groups), check_attributes(answer.attributes)
    check_metadata(groups, attributes)
    return Principal(check_name(answer.user), groups, attributes)


def _nothing_was_said(error: httpx.TransportError) -> bool:
    if isinstance(error, httpx.RemoteProtocolError):
        # A kept connection that the server closed just then; httpx tells it by its words alone.
        return "without sending a response" in str(error)
    return isinstance(error, httpx.NetworkError)


def _why(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"the service's certificate is not to be trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "TLS with the service fails; does it know tls_cert?"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectError):
        return "the service cannot be connected to"
    return "the service hangs up without an answer"


def _no_phrase() -> str:
    raise OSError(0, "the key has a pass phrase; store it without one, mode 0600")


def _octets(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("write base64") from None


def _told(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'url'}: "
        + {"extra_forbidden": "there is no such setting", "missing": "must be set"}.get(
            each["type"], each["msg"].removeprefix("Value error, ")
        )
        for each in error.errors(include_url=False, include_input=False)
    )
