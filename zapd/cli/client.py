"""The CLI's side of the REST API: where the server is, which token to show, and what its problems mean.

The token goes to the server in a header and nowhere else: never over plain HTTP beyond this machine, never through
a proxy of the environment, and the one beside the configuration to no other server than the configuration's own.
"""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from zapd.cli.options import Settings
from zapd.config import Config, load, read_private
from zapd.errors import ConfigurationError, Unavailable, ZapdError
from zapd.net.address import TcpAddress, parse_address

PAGE = 500
WAIT = 15.0
"""Seconds; a password takes the server a moment to hash."""


class Refused(ZapdError):
    """The server's own words: what it refused, and why."""

    def __init__(self, message: str, code: str, status: int) -> None:
        super().__init__(message)
        self.problem = code
        self.status = status


class Client:
    """One conversation with the admin API. Use it in a ``with``."""

    def __init__(self, settings: Settings) -> None:
        self.url, token = _find(settings)
        self.host = httpx.URL(self.url).host
        self._http = httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {token}", "Accept": "application/json"},
            timeout=WAIT,
            trust_env=False,
            verify=ssl.create_default_context(),
            follow_redirects=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON at ``path``; None among the query is left out."""
        return self._ask("GET", path, query=query)

    def post(self, path: str, body: Mapping[str, Any] | None = None) -> Any:
        return self._ask("POST", path, body=body)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._ask("PATCH", path, body=body)

    def edit(self, path: str, body: Mapping[str, Any]) -> Any:
        """PATCH what is at ``path`` as it is now: somebody else's change in between is an error, not lost."""
        version = self.get(path)["version"]
        return self._send("PATCH", path, json=body, headers={"If-Match": f'"{version}"'})

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        return self._ask("PUT", path, body=body)

    def delete(self, path: str, **query: Any) -> Any:
        return self._ask("DELETE", path, query=query)

    def upload(
        self, path: str, pieces: Iterator[bytes], *, size: int, kind: str, wait: float, **query: Any
    ) -> Any:
        """POST a file of ``size`` octets piece by piece, and wait so many seconds for what comes of it."""
        given = {name: value for name, value in query.items() if value}
        headers = {"Content-Type": kind, "Content-Length": str(size)}
        return self._send("POST", path, params=given, content=pieces, headers=headers, timeout=wait)

    def pages(self, path: str, *, limit: int | None = None, **query: Any) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page; at most ``limit`` of them."""
        cursor: str | None = None
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = self.get(path, limit=size, cursor=cursor, **query)
            items = page["items"] if left is None else page["items"][:left]
            yield from items
            left = None if left is None else left - len(items)
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def everything(self, path: str) -> list[dict[str, Any]]:
        """A list that is short by nature, in one page or plain."""
        found = self.get(path)
        items: list[dict[str, Any]] = found["items"] if isinstance(found, dict) else found
        return items

    @contextmanager
    def stream(
        self, path: str, *, headers: Mapping[str, str] | None = None, silence: float = WAIT, **query: Any
    ) -> Iterator[httpx.Response]:
        """An answer as it comes; ``silence`` is how many seconds it may say nothing. What breaks off while it is
        read is `Unavailable`."""
        given = {name: value for name, value in query.items() if value is not None}
        timeout = httpx.Timeout(WAIT, read=silence)
        try:
            with self._http.stream("GET", path, params=given, headers=headers, timeout=timeout) as answer:
                if not answer.is_success:
                    answer.read()
                    raise _problem(answer, self.url)
                yield answer
        except httpx.TimeoutException:
            raise Unavailable(f"{self.url} said nothing for {silence:g} s.") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.url} cannot be reached, or broke off ({error}).") from None

    def _ask(
        self,
        verb: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        given = {name: value for name, value in (query or {}).items() if value is not None}
        return self._send(verb, path, params=given, json=body)

    def _send(self, verb: str, path: str, *, timeout: float = WAIT, **more: Any) -> Any:
        try:
            answer = self._http.request(verb, path, timeout=timeout, **more)
        except httpx.TimeoutException:
            raise Unavailable(f"{self.url} did not answer within {timeout:g} s.") from None
        except httpx.HTTPError as error:
            raise Unavailable(f"{self.url} cannot be reached ({error}): is `zapd serve` running?") from None
        if answer.is_success:
            return answer.json() if answer.content else None
        raise _problem(answer, self.url)


def segment(name: str) -> str:
    """A name as one segment of a path, whatever is in it."""
    if name in (".", ".."):  # quoted or not, a client or proxy would take these for steps
        raise ConfigurationError(
            f"{name!r} cannot be a name in a path: what is called so already `curl --path-as-is` can reach."
        )
    return quote(name, safe="")


def _problem(answer: httpx.Response, url: str) -> ZapdError:
    """A problem document (RFC 9457) as one sentence."""
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict) or "status" not in body:
        return Unavailable(f"{url} answered {answer.status_code} and no JSON: is it zapd's admin API?")
    words = str(body.get("detail") or body.get("title") or f"refused ({answer.status_code})")
    errors = body.get("errors")
    for each in errors if isinstance(errors, list) else []:
        if isinstance(each, dict):
            words += f"\n{each.get('where')}: {each.get('what')}"
    if answer.status_code == 401:
        words += " Name a valid one with --token-file or ZAPD_TOKEN; `zapd token create --offline` makes one."
    return Refused(words, str(body.get("code", "")), answer.status_code)


def _find(settings: Settings) -> tuple[str, str]:
    """The server's URL and the token to show it."""
    config: Config | None = None
    trouble: ConfigurationError | None = None
    try:
        config = load(settings.config_path(), check_files=False)
    except ConfigurationError as error:
        trouble = error
    own = None if config is None else own_url(config)
    url = (settings.url or own or "").rstrip("/")
    if not url:
        raise trouble or ConfigurationError("Name the server with --url or ZAPD_URL.")
    _check_url(url)
    token = _given_token(settings)
    if token is None:
        if config is None:
            raise trouble or ConfigurationError("Name a token with --token-file or ZAPD_TOKEN.")
        if url != own and not _is_loopback(url):
            raise ConfigurationError(
                f"The token beside {config.path} is for its own server and is not sent to {url}: "
                "name a token with --token-file or ZAPD_TOKEN."
            )
        token = _token_from(config.token_file)
    if not token.isascii() or not token.isprintable() or not token:
        raise ConfigurationError("The token holds characters that no token has.")
    return url, token


def own_url(config: Config) -> str:
    """Where the configuration's own admin API is, as this machine reaches it."""
    address = parse_address(f"tcp://{config.admin.listen}")
    if not isinstance(address, TcpAddress):  # parse_address gives what its scheme says
        raise ConfigurationError("admin.listen is no HOST:PORT.")
    host = address.host
    if host == "*" or (address.ip is not None and address.ip.is_unspecified):
        host = "::1" if ":" in host else "127.0.0.1"
    shown = f"[{host}]" if ":" in host else host
    scheme = "https" if config.admin.tls_cert is not None else "http"
    return f"{scheme}://{shown}:{address.port}"


def _given_token(settings: Settings) -> str | None:
    if settings.token_file is not None:
        if str(settings.token_file) == "-":
            return sys.stdin.readline().strip()
        return _token_from(settings.token_file)
    return os.environ.get("ZAPD_TOKEN") or None


def _token_from(path: Path) -> str:
    if not path.exists():
        raise ConfigurationError(
            f"There is no token at {path}: name one with --token-file or ZAPD_TOKEN; "
            "`zapd token create --offline` makes one."
        )
    return read_private(path).strip()


def _check_url(url: str) -> None:
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL:
        raise ConfigurationError(f"{url!r} is no URL: write https://HOST:PORT.") from None
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.userinfo:
        raise ConfigurationError(f"{url!r} is no URL of an admin API: write https://HOST:PORT.")
    if parsed.scheme == "http" and not _is_loopback(url):
        raise ConfigurationError(f"{url}: beyond this machine a token goes over https only.")


def _is_loopback(url: str) -> bool:
    host = httpx.URL(url).host
    with suppress(ZapdError):
        return not parse_address(f"tcp://[{host}]:1" if ":" in host else f"tcp://{host}:1").is_public
    return False
