"""Where an issuer's keys come from, and how fresh they are: a URL over TLS, or a file.

They are read again every ``refresh`` seconds, and sooner when a token names a key that is not among them: at most
once in `AGAIN` seconds, however many such tokens come. While they cannot be read, what was read last is believed
for ``max_age``; behind that nothing is. One read is under way at a time, with a deadline and a bound on its size.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import ssl
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog

from zapd.auth.jwt.keys import MAX_SET, IssuerKey, read_keys
from zapd.auth.threaded import Threads
from zapd.errors import InvalidInput, Unavailable

log = structlog.get_logger(__name__)

PATIENCE: Final = 5.0
"""Seconds for one read."""
AGAIN: Final = 60.0
"""Seconds from one read to the next that an unknown key may cause."""
RETRY: Final = 5.0
"""Seconds from a read that failed to the next, where ``refresh`` is no less."""


class KeySource:
    """One issuer's keys. Its methods are for the event loop's thread."""

    def __init__(
        self,
        place: str | Path,
        *,
        refresh: float,
        max_age: float,
        tls_ca: Path | None = None,
        issuer: str = "",
        on_change: Callable[[], None] = lambda: None,
        again: float = AGAIN,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """``place``: a URL (`is_url`), or a file. With ``issuer`` it is the URL of its discovery document, which
        says where the keys are. ``on_change`` is called when a key is gone."""
        self.keys: tuple[IssuerKey, ...] = ()
        self.problem = ""
        """Why the last read failed; empty when it did not."""
        self._place = place
        self._issuer = issuer
        self._refresh = refresh
        self._max_age = max_age
        self._tls_ca = tls_ca
        self._on_change = on_change
        self._again = again
        self._clock = clock
        self._read_at = -float("inf")
        """When the keys were last read."""
        self._tried_at = -float("inf")
        self._reading: asyncio.Task[None] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._threads = Threads("issuer-keys", 1, 4)
        self._client: httpx.AsyncClient | None = None

    @property
    def is_current(self) -> bool:
        """Whether the keys were read lately enough to be believed."""
        return self._clock() - self._read_at <= self._max_age

    async def start(self) -> None:
        """Read the keys for the first time, and go on reading them. Raises `Unavailable`."""
        await self._read()
        if self._refreshing is None:
            self._refreshing = asyncio.get_running_loop().create_task(self._keep_fresh())

    async def look_again(self, patience: float) -> bool:
        """Whether the keys are now as new as this question: False where they were read too lately to be read
        again, or cannot be read within ``patience`` seconds."""
        if self._reading is None and self._clock() - self._tried_at < self._again:
            return False
        reading = self._begin()
        # Not asyncio.timeout: nothing before the first suspension may need a task (`Backend.check`).
        await asyncio.wait((reading,), timeout=patience)
        return reading.done() and not reading.cancelled() and reading.exception() is None

    async def aclose(self) -> None:
        """Read no more."""
        tasks = [task for task in (self._refreshing, self._reading) if task is not None]
        self._refreshing = self._reading = None
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, Unavailable):
                await task
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()
        await self._threads.aclose()

    async def _keep_fresh(self) -> None:
        while True:
            pause = min(self._refresh, RETRY) if self.problem else self._refresh
            await asyncio.sleep(pause)
            try:
                await self._read()
            except Unavailable:
                pass  # told by `problem`
            except Exception:  # the keys grow old, and are not believed any more
                self.problem = "reading them failed; see the log"
                log.exception("reading an issuer's keys failed")

    async def _read(self) -> None:
        await asyncio.shield(self._begin())

    def _begin(self) -> asyncio.Task[None]:
        """The read under way, else a new one."""
        if self._reading is None:
            self._tried_at = self._clock()
            self._reading = asyncio.get_running_loop().create_task(self._take_in())
            self._reading.add_done_callback(self._done)
        return self._reading

    def _done(self, task: asyncio.Task[None]) -> None:
        if self._reading is task:
            self._reading = None
        if not task.cancelled():
            task.exception()  # taken note of: whoever waits hears it, and perhaps nobody does

    async def _take_in(self) -> None:
        """Read, and put in force. Raises `Unavailable`."""
        begun = self._clock()
        try:
            async with asyncio.timeout(PATIENCE):
                keys = read_keys(await self._octets())
            if not keys:
                # It may be a slip and it may be a withdrawal: nobody is let in, and nobody refused for good.
                self._put((), -float("inf"))
                raise Unavailable("it holds no key that checks signatures")
        except TimeoutError:
            trouble = f"no answer within {PATIENCE:g} s"
        except (InvalidInput, Unavailable) as mistake:
            trouble = str(mistake)
        else:
            self._put(keys, begun)
            self.problem = ""
            return
        if trouble != self.problem:
            log.warning("an issuer's keys cannot be read", place=str(self._place), reason=trouble)
        self.problem = f"{self._place}: {trouble}"
        raise Unavailable(self.problem)

    def _put(self, keys: tuple[IssuerKey, ...], read_at: float) -> None:
        gone = {_identity(key) for key in self.keys} - {_identity(key) for key in keys}
        self.keys, self._read_at = keys, read_at
        if gone:
            self._on_change()

    async def _octets(self) -> bytes:
        if isinstance(self._place, Path):
            return await self._threads.run(partial(_from_file, self._place), PATIENCE)
        if self._client is None:
            verify = await self._threads.run(self._tls, PATIENCE) if self._place.startswith("https") else True
            self._client = httpx.AsyncClient(
                verify=verify,
                trust_env=False,  # no proxy, no .netrc: settings of the environment do not choose who is asked
                follow_redirects=False,
                timeout=PATIENCE,
                limits=httpx.Limits(max_connections=1, keepalive_expiry=5),
                headers={"Accept": "application/json", "Accept-Encoding": "identity", "User-Agent": "zapd"},
            )
        place = self._place
        if self._issuer:
            place = keys_place(await self._from_url(self._client, place), self._issuer)
        return await self._from_url(self._client, place)

    async def _from_url(self, client: httpx.AsyncClient, url: str) -> bytes:
        got = bytearray()
        try:
            async with client.stream("GET", url) as response:
                if response.status_code != 200:
                    raise Unavailable(f"answers {response.status_code}, and must answer 200")
                async for chunk in response.aiter_raw():  # nothing is unpacked: no bomb
                    got += chunk
                    if len(got) > MAX_SET:
                        raise Unavailable(f"has more than {MAX_SET >> 10} KiB")
        except httpx.TimeoutException:
            raise TimeoutError from None
        except (httpx.HTTPError, ssl.SSLError) as error:
            raise Unavailable(_why(error)) from None
        return bytes(got)

    def _tls(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=str(self._tls_ca) if self._tls_ca else None)
        except OSError as error:  # ssl.SSLError is one
            raise Unavailable(f"tls_ca cannot be used: {error.strerror or 'it is no PEM file'}") from None
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


def keys_place(document: bytes, issuer: str) -> str:
    """Where an issuer's discovery document (OpenID Connect Discovery 1.0, section 3) says that its keys are.

    Raises `InvalidInput` for another issuer's (section 4.3), and for a place that keys must not come from.
    """
    try:
        found = msgspec.json.decode(document, type=dict[str, object])
    except (msgspec.DecodeError, ValueError, RecursionError):
        raise InvalidInput("is no discovery document") from None
    if found.get("issuer") != issuer:
        raise InvalidInput("is the discovery document of another issuer: compare them octet for octet")
    place = found.get("jwks_uri")
    try:
        usable = isinstance(place, str) and len(place) <= 2048 and is_url(place)
    except ValueError:
        usable = False
    if not usable:
        raise InvalidInput("names no place over TLS for the issuer's keys (jwks_uri)")
    return str(place)


def is_url(text: str) -> bool:
    """Whether keys may be asked for there: ``https://``, or ``http://`` to this machine. False for a file's name.

    Raises `ValueError` for what looks like a URL and is none, or would take keys from whoever sits on the way.
    """
    if "://" not in text:
        return False
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if not host or port == 0 or not text.isascii() or not text.isprintable() or "@" in parts.netloc:
        raise ValueError("write https://HOST[:PORT]/PATH, without a name or password in it")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_here(host)):
        raise ValueError("keys that come in the clear are anybody's: write https://")
    return True


def _from_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_mode & stat.S_IWOTH:
                raise Unavailable("everybody can write to it, and so make tokens: chmod o-w it")
            return file.read(MAX_SET + 1)
    except OSError as error:
        raise Unavailable(f"cannot be read: {error.strerror}") from None


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _identity(key: IssuerKey) -> tuple[str | None, object]:
    return key.name, key.key.public_numbers() if hasattr(key.key, "public_numbers") else key.key.public_bytes_raw()


def _why(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not to be trusted: {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "TLS with it fails"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.ConnectError):
        return "it cannot be connected to"
    return "it hangs up, or does not speak HTTP"
