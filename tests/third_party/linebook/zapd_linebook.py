"""Asks a line server about names and passwords; the protocol is in this package's README.

A connection for each question: one that died with the server can then spoil no other. Everything that is not an
answer of the protocol is an outage, never a verdict.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ssl
from collections.abc import Mapping
from typing import ClassVar, Final, Self

from zapd.auth.backend import UNKNOWN, BackendContext, Outcome, Principal, Question, Verdict
from zapd.errors import ConfigurationError, Unavailable

MAX_LINE: Final = 4096

_WORDS: Final = {
    b"NO": Verdict(Outcome.REJECT, reason="wrong_password"),
    b"BARRED": Verdict(Outcome.LOCKED, reason="barred"),
    b"UNKNOWN": UNKNOWN,
    b"LATER": Verdict(Outcome.UNAVAILABLE, reason="book_says_later"),
}


class LinebookBackend:
    """Settings: ``address`` (HOST:PORT), ``ca`` (a PEM file; then it is TLS), ``secret``."""

    mechanisms: ClassVar[frozenset[str]] = frozenset({"PLAIN"})

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, secret: str) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._secret = secret

    @classmethod
    def from_settings(cls, name: str, settings: Mapping[str, object], context: BackendContext) -> Self:
        unknown = sorted(settings.keys() - {"address", "ca", "secret"})
        if unknown:
            raise ConfigurationError(f"backend.{name}: unknown setting {unknown[0]!r}")
        host, colon, port = str(settings.get("address", "")).rpartition(":")
        if not colon or not host or not port.isdigit():
            raise ConfigurationError(f'backend.{name}: write address = "HOST:PORT"')
        tls = None
        if "ca" in settings:
            try:
                tls = ssl.create_default_context(cafile=str(context.base_dir / str(settings["ca"])))
            except OSError as error:
                raise ConfigurationError(f"backend.{name}: ca cannot be read ({type(error).__name__})") from None
        return cls(host, int(port), tls, str(settings.get("secret", "")))

    async def start(self) -> None:
        """Say hello once, so that a wrong address shows at the start."""
        async with self._connection():
            pass

    async def check(self, question: Question) -> Verdict:
        await asyncio.sleep(0)  # what follows may want a task
        parts = (question.domain.encode(), question.username.encode(), question.password)
        async with self._connection() as (reader, writer):
            writer.write(b"ASK " + b" ".join(map(_coded, parts)) + b"\n")
            word, *rest = await _answer(reader)
        if word == b"YES" and len(rest) == 2:
            try:
                name, groups = (base64.b64decode(part, validate=True).decode() for part in rest)
            except ValueError:
                raise Unavailable("the book's answer cannot be read") from None
            return Verdict(Outcome.ACCEPT, Principal(name, tuple(filter(None, groups.split(",")))))
        if rest or word not in _WORDS:
            raise Unavailable("the book answers something else than it should")
        return _WORDS[word]

    async def aclose(self) -> None:
        """Nothing is kept open."""

    @contextlib.asynccontextmanager
    async def _connection(self):  # type: ignore[no-untyped-def]
        writer = None
        try:
            reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=MAX_LINE)
            if self._secret:
                writer.write(b"HELLO " + self._secret.encode() + b"\n")
                if await _answer(reader) != [b"WELCOME"]:
                    raise Unavailable("the book does not welcome us: is the secret right?")
            yield reader, writer
        except OSError as error:
            raise Unavailable(f"{self._host}:{self._port} cannot be asked ({type(error).__name__})") from None
        finally:
            if writer is not None:
                writer.transport.abort()  # every answer is whole by then, and a hung server must not hold us up


def _coded(part: bytes) -> bytes:
    return base64.b64encode(part) or b"-"


async def _answer(reader: asyncio.StreamReader) -> list[bytes]:
    try:
        line = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError:
        raise Unavailable("the book hung up in the middle of its answer") from None
    except asyncio.LimitOverrunError:
        raise Unavailable("the book's answer has no end") from None
    return line.split() or [b""]
